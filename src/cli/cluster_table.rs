//! The cluster view as one table that a person reads at a glance.

use bson::{Document, doc};

use super::table::render as columns;
use crate::model::{Liveness, Role};
use crate::text::{Tone, cut, left, one_line as text, width as columns_of, wrapped};
use crate::view::{ClusterView, MemberView, NodeView};

/// What stands for a value that is not known.
const UNKNOWN: &str = "-";
/// A name that is longer does not push the numbers behind it further to the right.
const NAME_WIDTH_MAX: usize = 24;

/// The view as lines that are at most `width` characters wide.
pub fn render(view: &ClusterView, width: usize, colour: bool) -> Vec<String> {
    let mut lines = summary(view);
    lines.push((String::new(), Tone::Plain));
    lines.extend(table(&view.nodes, width, node_row, node_tone));
    lines.push((String::new(), Tone::Plain));
    lines.extend(table(&view.members, width, member_row, member_tone));
    let troubles = view.troubles();
    if !troubles.is_empty() {
        lines.push((String::new(), Tone::Plain));
    }
    for why in &troubles {
        // Read to its end: it says what to do.
        let told = wrapped(&text(&format!("degraded: {why}")), width);
        lines.extend(told.into_iter().map(|line| (line, Tone::Bad)));
    }
    let painted = lines.iter().map(|(line, tone)| {
        let line = cut(line, width);
        if colour { tone.paint(&line) } else { line }
    });
    painted.collect()
}

/// An error in place of the table.
pub fn render_error(message: &str, width: usize, colour: bool) -> Vec<String> {
    let lines = wrapped(&text(message), width).into_iter();
    let paint = |line: String| if colour { Tone::Bad.paint(&line) } else { line };
    lines.map(paint).collect()
}

fn summary(view: &ClusterView) -> Vec<(String, Tone)> {
    let name = |name: &Option<String>| name.as_deref().map_or("none".into(), text);
    let (coordinator, primary) = (name(&view.coordinator), name(&view.primary));
    let widest = columns_of(&coordinator).max(columns_of(&primary));
    let pad = widest.min(NAME_WIDTH_MAX);
    let stamp = view.stamp.as_ref();
    let stamp = stamp.map(|stamp| text(&format!("{}.{}", stamp.t, stamp.n)));
    let order = format!(
        "coordinator  {}  epoch {}, position {}, stamp {}",
        left(&coordinator, pad),
        or_unknown(view.epoch),
        or_unknown(view.position),
        or_unknown(stamp),
    );
    let set = format!(
        "primary      {}  term {}",
        left(&primary, pad),
        or_unknown(view.term)
    );
    let tone = |known: bool| if known { Tone::Plain } else { Tone::Bad };
    vec![
        (order, tone(view.coordinator.is_some())),
        (set, tone(view.primary.is_some())),
    ]
}

/// A heading, and a line for each of the items.
fn table<T>(
    items: &[T],
    width: usize,
    row: fn(&T) -> Document,
    tone: fn(&T) -> Tone,
) -> Vec<(String, Tone)> {
    let rows: Vec<_> = items.iter().map(row).collect();
    let tones = std::iter::once(Tone::Heading)
        .chain(items.iter().map(tone))
        .chain(std::iter::repeat(Tone::Plain));
    let drawn = columns(&rows, width);
    drawn.lines().map(str::to_owned).zip(tones).collect()
}

fn node_row(node: &NodeView) -> Document {
    doc! {
        "NODE": &node.name,
        "RANK": or_unknown(node.rank.map(|rank| format!("{rank:016x}"))),
        "ROLE": or_unknown(node.role),
        "STATE": node.state.as_str(),
        "URL": &node.url,
    }
}

fn node_tone(node: &NodeView) -> Tone {
    match (node.state, node.role) {
        (Liveness::Down, _) => Tone::Bad,
        (Liveness::Suspect, _) | (_, Some(Role::Electing)) => Tone::Warning,
        (Liveness::Alive, Some(Role::Coordinator)) => Tone::Leading,
        (Liveness::Alive, _) => Tone::Plain,
    }
}

fn member_row(member: &MemberView) -> Document {
    let source = member.sync_source.as_deref();
    doc! {
        "MEMBER": &member.host,
        "STATE": member_state(member),
        "LAG": or_unknown(member.lag_ms.map(|lag| format!("{lag} ms"))),
        "ROUND TRIP": or_unknown(member.rtt_ms.map(|time| format!("{time:.1} ms"))),
        "SYNC SOURCE": or_unknown(source),
    }
}

fn member_state(member: &MemberView) -> String {
    let mut words = vec![member.state.clone()];
    words.extend(member.hidden.then(|| "hidden".to_owned()));
    words.extend(member.delay_s.map(|delay| format!("{delay} s late")));
    words.join(", ")
}

fn member_tone(member: &MemberView) -> Tone {
    match member.state.as_str() {
        "primary" => Tone::Leading,
        "down" => Tone::Bad,
        _ if member.is_well() => Tone::Plain,
        _ => Tone::Warning,
    }
}

fn or_unknown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::StampView;

    fn member(host: &str, state: &str) -> MemberView {
        MemberView {
            host: host.into(),
            state: state.into(),
            lag_ms: Some(12),
            rtt_ms: Some(0.36),
            sync_source: Some("127.0.0.1:7411".into()),
            hidden: false,
            delay_s: None,
        }
    }

    fn view() -> ClusterView {
        let node = |name: &str, role, state| NodeView {
            name: name.into(),
            url: "http://127.0.0.1:7401".into(),
            rank: Some(0xabc),
            role: Some(role),
            state,
        };
        ClusterView {
            faults: Vec::new(),
            coordinator: Some("n1".into()),
            epoch: Some(3),
            position: Some(4_711),
            stamp: Some(StampView {
                t: 4_712,
                n: "n1".into(),
            }),
            primary: Some("127.0.0.1:7411".into()),
            term: Some(5),
            nodes: vec![
                node("n1", Role::Coordinator, Liveness::Alive),
                node("n2", Role::Follower, Liveness::Suspect),
            ],
            members: vec![
                MemberView {
                    lag_ms: Some(0),
                    sync_source: None,
                    ..member("127.0.0.1:7411", "primary")
                },
                member("127.0.0.1:7412", "secondary"),
                MemberView {
                    lag_ms: None,
                    rtt_ms: None,
                    sync_source: None,
                    ..member("127.0.0.1:7413", "down")
                },
            ],
        }
    }

    #[test]
    fn one_table_says_it_all() {
        let expected = "\
coordinator  n1              epoch 3, position 4711, stamp 4712.n1
primary      127.0.0.1:7411  term 5

NODE  RANK              ROLE         STATE    URL
n1    0000000000000abc  coordinator  alive    http://127.0.0.1:7401
n2    0000000000000abc  follower     suspect  http://127.0.0.1:7401

MEMBER          STATE      LAG    ROUND TRIP  SYNC SOURCE
127.0.0.1:7411  primary    0 ms   0.4 ms      -
127.0.0.1:7412  secondary  12 ms  0.4 ms      127.0.0.1:7411
127.0.0.1:7413  down       -      -           -

degraded: n2 is suspect
degraded: 127.0.0.1:7413 is down";
        assert_eq!(render(&view(), 80, false).join("\n"), expected);
    }

    #[test]
    fn what_is_not_known_is_marked_and_a_healthy_cluster_has_no_complaint() {
        let mut view = view();
        view.nodes[1].state = Liveness::Alive;
        view.members.pop();
        assert!(!render(&view, 80, false).join("\n").contains("degraded"));

        (view.coordinator, view.primary, view.stamp) = (None, None, None);
        (view.epoch, view.term) = (None, None);
        view.nodes.iter_mut().for_each(|node| node.rank = None);
        let text = render(&view, 80, false).join("\n");
        assert!(
            text.contains("coordinator  none  epoch -, position 4711, stamp -"),
            "{text}"
        );
        assert!(text.contains("primary      none  term -"), "{text}");
        assert!(
            text.contains("degraded: no node is coordinator\ndegraded: the replica set has"),
            "{text}"
        );
    }

    #[test]
    fn long_names_fit_and_steer_nothing() {
        let mut view = view();
        let long = "cluster0-shard-00-00.abcdefg.mongodb.example.net:27017";
        view.primary = Some(long.into());
        for member in &mut view.members {
            member.host = long.into();
            member.sync_source = Some(long.into());
        }
        view.nodes[0].url = format!("http://{}:7401", "x".repeat(200));
        view.nodes[1].name = "\u{1b}[2J".into();
        for width in [20, 40, 80] {
            let lines = render(&view, width, false);
            let fits =
                |line: &String| columns_of(line) <= width && !line.contains(char::is_control);
            assert!(lines.iter().all(fits), "{lines:#?}");
            let error = render_error(&"y".repeat(200), width, false);
            assert!(error.iter().all(fits) && error.concat().len() == 200);
        }
        let text = render(&view, 80, false).join("\n");
        assert!(text.contains("position 4711, stamp 4712.n1"), "{text}");
    }

    #[test]
    fn colours_mark_who_leads_and_what_is_wrong() {
        let lines = render(&view(), 80, true);
        let line = |part: &str| lines.iter().find(|line| line.contains(part)).unwrap();
        assert!(line("coordinator  alive").starts_with("\u{1b}[1m"));
        assert!(line("follower").starts_with("\u{1b}[33m"));
        assert!(line("127.0.0.1:7413  down").starts_with("\u{1b}[31m"));
        assert!(line("degraded: n2").ends_with("\u{1b}[0m"));
    }
}
