//! A lane a member and a lane a node: who led, who followed, who was away.

use super::axis::{LEFT, RIGHT, Window, finite, outage_from};
use super::svg::{Anchor, CHAR_WIDTH, Drawing};
use crate::drill::report::{Lane, Run, Span};
use crate::drill::stats::{Figure, OUTAGE, PARTS, STALL, ms};

const ROW: f64 = 22.0;
const BAR: f64 = 17.0;
/// Between the members and the nodes.
const GAP: f64 = 6.0;
/// A lane that is not drawn is told.
const LANES_MAX: usize = 9;
/// Spans that are shorter on the drawing share one mark with their neighbours.
const MARK_MIN: f64 = 3.0;
/// How much of its time in words a long run gives of one lane.
const WORDS_SPANS_MAX: usize = 8;

/// A row of the lanes' part.
#[derive(Debug)]
pub enum Row<'a> {
    /// Detect, elect, recover, answer.
    FirstAck(&'a Run),
    /// The outage, and the stall at the return.
    Silence(&'a Run),
    Lane(&'a Lane),
    More(usize),
    Gap,
}

pub fn rows(run: &Run) -> Vec<Row<'_>> {
    let mut rows = vec![Row::FirstAck(run), Row::Silence(run), Row::Gap];
    for (index, lanes) in [&run.members, &run.nodes].into_iter().enumerate() {
        if index > 0 && !lanes.is_empty() {
            rows.push(Row::Gap);
        }
        rows.extend(lanes.iter().take(LANES_MAX).map(Row::Lane));
        if lanes.len() > LANES_MAX {
            rows.push(Row::More(lanes.len() - LANES_MAX));
        }
    }
    rows
}

pub fn height(rows: &[Row<'_>]) -> f64 {
    rows.iter().map(row_height).sum()
}

const fn row_height(row: &Row<'_>) -> f64 {
    match row {
        Row::Gap => GAP,
        _ => ROW,
    }
}

pub fn draw(drawing: &mut Drawing, rows: &[Row<'_>], window: &Window, top: f64) {
    let mut y = top;
    for row in rows {
        let name = |drawing: &mut Drawing, text: &str| {
            drawing.text("name", LEFT - 8.0, y + 13.0, Anchor::End, text, LEFT - 8.0);
        };
        match row {
            Row::FirstAck(run) => {
                name(drawing, "first ack");
                first_ack(drawing, run, window, y);
            }
            Row::Silence(run) => {
                name(drawing, "no write");
                silence(drawing, run, window, y);
            }
            Row::Lane(lane) => {
                name(drawing, &lane.name);
                for mark in marks(lane, window) {
                    mark.draw(drawing, y);
                }
            }
            Row::More(more) => name(drawing, &format!("({more} more)")),
            Row::Gap => (),
        }
        y += row_height(row);
    }
}

/// The outage, and the stall at the return, each with its name: one on its left, the other on its
/// right, where they do not meet.
fn silence(drawing: &mut Drawing, run: &Run, window: &Window, y: f64) {
    for (index, gap) in gaps(run).into_iter().enumerate() {
        let Some((figure, [from, to])) = gap else {
            continue;
        };
        if to < window.from || from > window.to {
            continue;
        }
        let (x0, x1) = (window.x(from), window.x(to));
        let x0 = x0.min(RIGHT - MARK_MIN);
        let x1 = x1.max(x0 + MARK_MIN);
        let label = format!("{} {}", figure.name, ms(to - from));
        let title = format!("{label} without an acknowledged write");
        drawing.rect("silent", [x0, x1], [y, y + BAR], &title);
        let (anchor, x, room) = match index {
            0 => (Anchor::End, x0 - 4.0, x0 - 4.0 - LEFT),
            _ => (Anchor::Start, x1 + 4.0, RIGHT - x1 - 4.0),
        };
        if label.chars().count() as f64 * CHAR_WIDTH <= room {
            drawing.text("word", x, y + 12.5, anchor, &label, room);
        }
    }
}

/// From when to when no write was acknowledged, in the outage and in the stall.
pub fn gaps(run: &Run) -> [Option<(Figure, [f64; 2])>; 2] {
    let gap = |figure: Figure, at: Option<f64>| {
        let from = at.and_then(finite).filter(|at| *at >= 0.0)?;
        let took = figure.of(run).filter(|took| *took >= 0.0)?;
        Some((figure, [from, from + took]))
    };
    [
        gap(OUTAGE, run.outage.outage_at_ms),
        gap(STALL, run.outage.stall_at_ms),
    ]
}

/// The parts of the way to the first acknowledgement, one after the other. The time of a part that
/// was not seen is in the next one's.
fn first_ack(drawing: &mut Drawing, run: &Run, window: &Window, y: f64) {
    let Some(mut at) = outage_from(run) else {
        return;
    };
    for (index, part) in PARTS.iter().enumerate() {
        let Some(took) = part.of(run).filter(|took| *took >= 0.0) else {
            continue;
        };
        let (x0, x1) = (window.x(at), window.x(at + took));
        let title = format!("{}: {}", part.name, ms(took));
        drawing.rect(&format!("part{index}"), [x0, x1], [y, y + BAR], &title);
        at += took;
    }
}

/// One or more spans as they are drawn.
#[derive(Debug, Clone, PartialEq)]
struct Mark {
    x: [f64; 2],
    class: &'static str,
    label: String,
    title: String,
}

impl Mark {
    fn draw(&self, drawing: &mut Drawing, y: f64) {
        let [x0, x1] = self.x;
        drawing.rect(self.class, self.x, [y, y + BAR], &self.title);
        let room = x1 - x0 - 8.0;
        // Half a word is no help: then the title says it.
        if self.label.chars().count() as f64 * CHAR_WIDTH <= room {
            let class = format!("on-{}", self.class);
            drawing.text(&class, x0 + 4.0, y + 12.5, Anchor::Start, &self.label, room);
        }
    }
}

fn marks(lane: &Lane, window: &Window) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    for span in &lane.spans {
        let (from, to) = (span.from_ms as f64, span.to_ms as f64);
        if from > to || to < window.from || from > window.to {
            continue;
        }
        let (x0, x1) = (window.x(from), window.x(to));
        let shared = marks.last_mut().filter(|last| {
            x1 - x0 < MARK_MIN && last.x[1] - last.x[0] <= MARK_MIN && x1 - last.x[0] <= MARK_MIN
        });
        if let Some(last) = shared {
            (last.class, last.label) = ("between", String::new());
            last.title = format!("several states at {}", window.told(from));
            continue;
        }
        let x0 = x0.min(RIGHT - MARK_MIN);
        marks.push(Mark {
            x: [x0, x1.max(x0 + MARK_MIN)],
            class: class(&span.state),
            label: label(span),
            title: format!(
                "{}: {} from {} to {}",
                lane.name,
                label(span),
                window.told(from),
                window.told(to)
            ),
        });
    }
    marks
}

fn label(span: &Span) -> String {
    match span.term {
        Some(term) => format!("{}, term {term}", span.state),
        None => span.state.clone(),
    }
}

/// One look for members and nodes: who leads, who follows, who is away, and what is in between.
fn class(state: &str) -> &'static str {
    match state {
        "primary" | "coordinator" => "leads",
        "secondary" | "follower" => "follows",
        "down" => "down",
        _ => "between",
    }
}

/// A sentence a lane.
pub fn in_words(run: &Run, window: &Window) -> Vec<String> {
    let lanes = run
        .members
        .iter()
        .take(LANES_MAX)
        .chain(run.nodes.iter().take(LANES_MAX));
    let sentence = |lane: &Lane| {
        let seen =
            |span: &&Span| span.from_ms as f64 <= window.to && span.to_ms as f64 >= window.from;
        let spans = lane.spans.iter().filter(seen).take(WORDS_SPANS_MAX);
        let told = spans.map(|span| {
            let from = (span.from_ms as f64).max(window.from);
            format!("{} from {}", label(span), window.told(from))
        });
        format!("{}: {}.", lane.name, told.collect::<Vec<_>>().join(", "))
    };
    lanes.map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::example;

    const WINDOW: Window = Window {
        from: 0.0,
        to: 12_000.0,
        zero: 4_000.0,
    };

    fn span(from_ms: u64, to_ms: u64, state: &str) -> Span {
        Span {
            from_ms,
            to_ms,
            state: state.into(),
            term: None,
        }
    }

    fn lane(spans: Vec<Span>) -> Lane {
        Lane {
            name: "m".into(),
            spans,
        }
    }

    #[test]
    fn spans_stand_where_their_times_are() {
        let found = marks(
            &lane(vec![span(0, 4_000, "primary"), span(4_000, 7_000, "down")]),
            &WINDOW,
        );
        assert_eq!(found[0].x, [LEFT, WINDOW.x(4_000.0)]);
        assert_eq!(found[1].x, [WINDOW.x(4_000.0), WINDOW.x(7_000.0)]);
        assert_eq!((found[0].class, found[1].class), ("leads", "down"));
        assert_eq!(found[1].title, "m: down from 0 s to +3 s");
        let zoom = Window {
            from: 5_000.0,
            to: 6_000.0,
            zero: 4_000.0,
        };
        let found = marks(
            &lane(vec![span(0, 4_000, "primary"), span(4_000, 7_000, "down")]),
            &zoom,
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].x, [LEFT, RIGHT]);
    }

    #[test]
    fn a_moment_is_seen_and_ten_thousand_are_bounded() {
        let found = marks(&lane(vec![span(5_000, 5_001, "rollback")]), &WINDOW);
        assert_eq!(found[0].x[1] - found[0].x[0], MARK_MIN);
        assert_eq!(found[0].class, "between");
        let at_the_end = marks(&lane(vec![span(12_000, 12_000, "down")]), &WINDOW);
        assert_eq!(at_the_end[0].x, [RIGHT - MARK_MIN, RIGHT]);

        let flapping = (0..12_000).map(|n| span(n, n + 1, "startup")).collect();
        let found = marks(&lane(flapping), &WINDOW);
        assert!(found.len() < 600, "{}", found.len());
        assert!(found[0].title.starts_with("several states"));
        assert!(marks(&lane(vec![span(9, 3, "down")]), &WINDOW).is_empty());
    }

    #[test]
    fn the_time_of_a_part_that_was_not_seen_is_in_the_next() {
        let mut run = example::runs(1).runs.remove(0);
        run.fault_from_ms = 4_000.0;
        let outage = &mut run.outage;
        (outage.detect_ms, outage.elect_ms) = (Some(1_000.0), Some(2_000.0));
        (outage.recover_ms, outage.answer_ms) = (None, Some(500.0));
        let mut drawing = Drawing::default();
        super::first_ack(&mut drawing, &run, &WINDOW, 0.0);
        let svg = drawing.finish("a", [1_000.0, 20.0], "", "");
        let found = crate::drill::html::svg::places::of(&svg);
        let ends: Vec<f64> = found.iter().map(|(_, x, _)| x.round()).collect();
        let x = |at| WINDOW.x(at).round();
        let (from, detected, elected) = (x(4_000.0), x(5_000.0), x(7_000.0));
        let expected = [from, detected, detected, elected, elected, x(7_500.0)];
        assert_eq!(ends, expected);
        assert!(svg.contains("part3") && !svg.contains("part2"), "{svg}");
    }

    #[test]
    fn outage_and_stall_stand_where_they_were_each_with_its_name() {
        let mut run = example::runs(1).runs.remove(0);
        let outage = &mut run.outage;
        (outage.outage_at_ms, outage.outage_ms) = (Some(4_000.0), 500.0);
        (outage.stall_at_ms, outage.stall_ms) = (Some(8_000.0), Some(600.0));
        let drawn = |run: &Run, window: &Window| {
            let mut drawing = Drawing::default();
            silence(&mut drawing, run, window, 0.0);
            drawing.finish("a", [1_000.0, 20.0], "", "")
        };
        let svg = drawn(&run, &WINDOW);
        let found = crate::drill::html::svg::places::of(&svg);
        let ends = found.iter().filter(|(class, _, _)| class == "silent");
        let ends: Vec<f64> = ends.map(|(_, x, _)| x.round()).collect();
        let expected = [4_000.0, 4_500.0, 8_000.0, 8_600.0].map(|at| WINDOW.x(at).round());
        assert_eq!(ends, expected);
        for word in [">outage 500.0 ms<", ">stall 600.0 ms<"] {
            assert!(svg.contains(word), "{word}: {svg}");
        }
        run.outage.stall_ms = None;
        let svg = drawn(&run, &WINDOW);
        assert!(svg.contains("outage") && !svg.contains("stall"), "{svg}");
        let later = Window {
            from: 6_000.0,
            ..WINDOW
        };
        assert!(!drawn(&run, &later).contains("outage"));
    }

    #[test]
    fn lanes_that_are_not_drawn_are_told() {
        let mut run = example::runs(1).runs.remove(0);
        run.members = vec![lane(Vec::new()); 20];
        let rows = rows(&run);
        assert!(
            rows.iter().any(|row| matches!(row, Row::More(11))),
            "{rows:?}"
        );
        assert_eq!(in_words(&run, &WINDOW).len(), LANES_MAX + run.nodes.len());
    }
}
