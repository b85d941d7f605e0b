//! What a person sees at the end of a drill.

use super::outcome::{self, Outcome, headline};
use super::report::{Distribution, Percentiles, Report, Run, Verdict};
use super::stats::{
    self, FIGURES, FIRST_ACK, KINDS, OUTAGE, PARTS, PHASES, Phase, STALL, count, number, of_runs,
};
use crate::text::{Tone, columns, cut, left, one_line, width as width_of, wrapped};

type Line = (String, Tone);

/// Below this there is no layout, only cut lines.
const WIDTH_MIN: usize = 40;
const INDENT: &str = "  ";
/// More lines of why one does not hold are in the report.
const DETAIL_LINES_MAX: usize = 4;
/// A second's looks at three members are many lines; the first say most.
const EVIDENCE_LINES_MAX: usize = 8;

/// The report in lines of at most `width` characters, but for the command, which is broken only
/// where a shell can put it together again.
pub fn text(report: &Report, width: usize, colour: bool) -> String {
    let room = width.max(WIDTH_MIN);
    let mut blocks = vec![verdict_line(report, room), fault(report, room)];
    blocks.push(verdicts(&report.verdict, room));
    if let Some(run) = outcome::worst(&report.runs) {
        blocks.push(outage(run, report.runs.len(), room));
    }
    blocks.push(distributions(report));
    blocks.push(operations(&report.runs, room));
    blocks.push(latency(&report.runs));
    let mut text = String::new();
    for block in blocks.iter().filter(|block| !block.is_empty()) {
        for (line, tone) in block {
            let line = cut(line, width);
            text.push_str(&if colour { tone.paint(&line) } else { line });
            text.push('\n');
        }
        text.push('\n');
    }
    text.push_str("Again:\n");
    for line in command_lines(&one_line(&report.command), room) {
        text.push_str(&format!("{INDENT}{line}\n"));
    }
    // Last too: that is what a terminal shows of a long text.
    text.push('\n');
    for (line, tone) in verdict_line(report, room) {
        let line = cut(&line, width);
        text.push_str(&if colour { tone.paint(&line) } else { line });
        text.push('\n');
    }
    text
}

fn verdict_line(report: &Report, width: usize) -> Vec<Line> {
    let outcome = Outcome::of(report);
    let tone = match outcome {
        Outcome::Holds => Tone::Good,
        Outcome::Unproven => Tone::Warning,
        Outcome::Fails => Tone::Bad,
    };
    let told = format!("{} {}: {}", outcome.word(), report.fault, headline(report));
    lines(&told, width, tone)
}

fn fault(report: &Report, width: usize) -> Vec<Line> {
    let mut block = Vec::new();
    let mut told = |name: &str, text: &str| {
        let texts = lines(text, width - 10, Tone::Plain);
        for (index, (line, tone)) in texts.into_iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            block.push((format!("{name:<10}{line}"), tone));
        }
    };
    let driver = if report.direct {
        ", by the plain driver"
    } else {
        ""
    };
    told("target", &format!("{}{driver}", report.target));
    let Some(run) = outcome::worst(&report.runs) else {
        told("fault", "no run was made");
        return block;
    };
    let which = match report.runs.len() {
        1 => String::new(),
        _ => format!(" (run {})", run.number),
    };
    told(
        "fault",
        &format!("{} of {}{which}", report.fault, run.victims.join(", ")),
    );
    told("", outcome::word(run.confirmation.verdict));
    let evidence = &run.confirmation.evidence;
    for fact in evidence.iter().take(EVIDENCE_LINES_MAX) {
        told("", fact);
    }
    if evidence.len() > EVIDENCE_LINES_MAX {
        told(
            "",
            &format!("({} more)", evidence.len() - EVIDENCE_LINES_MAX),
        );
    }
    block
}

/// A line for each that holds, without what the line above says already; one that does not says in full why.
fn verdicts(verdicts: &[Verdict], width: usize) -> Vec<Line> {
    /// A longer name pushes its own detail to the right.
    const NAME_MAX: usize = 36;
    const MARGIN: &str = "      ";
    let names = verdicts
        .iter()
        .map(|verdict| width_of(&one_line(&verdict.name)));
    let name_width = names.max().unwrap_or(0).min(NAME_MAX);
    let mut block = Vec::new();
    let mut said = "";
    for verdict in verdicts {
        let (word, tone) = match verdict.holds {
            true => ("ok", Tone::Plain),
            false => ("NO", Tone::Bad),
        };
        let repeated = verdict.holds && verdict.detail == said;
        said = &verdict.detail;
        let (name, detail) = (one_line(&verdict.name), one_line(&verdict.detail));
        let detail = if repeated { "" } else { &*detail };
        let line = format!("{INDENT}{word:<4}{}  {detail}", left(&name, name_width));
        if verdict.holds || width_of(&line) <= width {
            block.push((cut(line.trim_end(), width), tone));
            continue;
        }
        let name = wrapped(&name, width - MARGIN.len());
        let detail = wrapped(detail, width - MARGIN.len());
        for (index, line) in name
            .iter()
            .chain(detail.iter().take(DETAIL_LINES_MAX))
            .enumerate()
        {
            let word = if index == 0 { word } else { "" };
            block.push((format!("{INDENT}{word:<4}{line}"), tone));
        }
    }
    titled("verdict", block)
}

/// The parts below each other, each beginning where the one before it ends.
fn outage(run: &Run, runs: usize, width: usize) -> Vec<Line> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for figure in PARTS.iter().chain([&FIRST_ACK, &OUTAGE, &STALL]) {
        let value = figure.of(run).map_or_else(|| "-".into(), number);
        rows.push(vec![format!("{INDENT}{}", figure.name), value]);
    }
    let drawn = columns(&rows);
    let used = drawn.iter().map(|line| width_of(line)).max().unwrap_or(0);
    let parts = PARTS.map(|figure| figure.of(run));
    let bars = steps(&parts, width.saturating_sub(used + 2));
    let bars = bars
        .iter()
        .map(|(from, cells)| " ".repeat(*from) + &"█".repeat(*cells));
    let said = [
        match run.outage.from_its_end {
            true => "from the fault's end",
            false => "from the fault",
        },
        "longest without an acknowledged write, until the return",
        match run.outage.stall_ms {
            Some(_) => "the same, from the return on",
            None => "writes did not go on",
        },
    ];
    let notes = bars.chain(said.map(str::to_owned));
    let body = drawn.iter().zip(notes).map(|(line, note)| {
        let line = format!("{line}  {note}");
        (line.trim_end().to_owned(), Tone::Plain)
    });
    let title = match runs {
        1 => "outage, ms".to_owned(),
        _ => format!("outage of run {}, the worst, ms", run.number),
    };
    titled(&title, body.collect())
}

/// Where each part's bar begins, and its length: together `width` at most. A part that took any time
/// has a cell.
fn steps(parts: &[Option<f64>], width: usize) -> Vec<(usize, usize)> {
    let length = |part: &Option<f64>| part.unwrap_or(0.0).max(0.0);
    let total: f64 = parts.iter().map(length).sum();
    let cell = |at: f64| stats::whole(at / total * width as f64);
    let mut at = 0.0;
    let step = |part: &Option<f64>| {
        if total <= 0.0 || width == 0 || length(part) <= 0.0 {
            return (0, 0);
        }
        let from = cell(at).min(width - 1);
        at += length(part);
        (from, cell(at).max(from + 1).min(width) - from)
    };
    parts.iter().map(step).collect()
}

fn distributions(report: &Report) -> Vec<Line> {
    if report.runs.len() < 2 {
        return Vec::new();
    }
    let mut rows = vec![vec![format!("over {}, ms", of_runs(report.runs.len()))]];
    rows[0].extend(["have it", "p50", "p95", "max"].map(str::to_owned));
    for figure in FIGURES {
        let mut row = vec![format!("{INDENT}{}", figure.name)];
        row.extend(match report.distributions.get(figure.key) {
            Some(Distribution {
                runs,
                p50,
                p95,
                max,
            }) => [runs.to_string(), number(*p50), number(*p95), number(*max)],
            None => ["0", "-", "-", "-"].map(str::to_owned),
        });
        rows.push(row);
    }
    headed(columns(&rows))
}

fn operations(runs: &[Run], width: usize) -> Vec<Line> {
    let [acknowledged, failed, unknown, retried, unsent] =
        KINDS.map(|kind| count(kind.total(runs)));
    let told = format!(
        "{acknowledged} acknowledged ({retried} after more than one try), {failed} failed, \
         {unknown} unknown, {unsent} unsent"
    );
    let body = lines(&told, width - INDENT.len(), Tone::Plain);
    let body = body
        .into_iter()
        .map(|(line, tone)| (format!("{INDENT}{line}"), tone));
    titled("operations", body.collect())
}

/// Of several runs the largest, for percentiles of different runs have no sum.
fn latency(runs: &[Run]) -> Vec<Line> {
    let title = match runs.len() {
        0 => return Vec::new(),
        1 => "latency, ms",
        _ => "latency, ms, largest of the runs",
    };
    let mut rows = vec![vec![title.to_owned()]];
    rows[0].extend(["count", "p50", "p90", "p99", "max"].map(str::to_owned));
    for Phase { name, of } in PHASES {
        let with: Vec<&Percentiles> = runs
            .iter()
            .map(of)
            .filter(|found| found.count > 0)
            .collect();
        let largest = |value: fn(&Percentiles) -> f64| {
            let values = with.iter().map(|found| value(found));
            values
                .max_by(f64::total_cmp)
                .map_or_else(|| "-".into(), number)
        };
        rows.push(vec![
            format!("{INDENT}{name}"),
            count(with.iter().map(|found| found.count).sum()),
            largest(|found| found.p50_ms),
            largest(|found| found.p90_ms),
            largest(|found| found.p99_ms),
            largest(|found| found.max_ms),
        ]);
    }
    headed(columns(&rows))
}

/// Broken at spaces outside of quotes; all but the last line end with the shell's sign for it.
fn command_lines(command: &str, width: usize) -> Vec<String> {
    let room = width.saturating_sub(2 * INDENT.len() + 2);
    let mut lines: Vec<String> = Vec::new();
    for word in shell_words(command) {
        match lines.last_mut() {
            Some(line) if width_of(line) + 1 + width_of(word) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            Some(line) => {
                line.push_str(" \\");
                lines.push(format!("{INDENT}{word}"));
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The words with their quotes.
fn shell_words(command: &str) -> Vec<&str> {
    let mut quote = None;
    let parts = command.split(|c: char| {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, ' ') => return true,
            _ => (),
        }
        false
    });
    parts.filter(|word| !word.is_empty()).collect()
}

fn lines(text: &str, width: usize, tone: Tone) -> Vec<Line> {
    let lines = wrapped(&one_line(text), width);
    lines.into_iter().map(|line| (line, tone)).collect()
}

fn titled(title: &str, mut body: Vec<Line>) -> Vec<Line> {
    if !body.is_empty() {
        body.insert(0, (title.to_owned(), Tone::Heading));
    }
    body
}

fn headed(lines: Vec<String>) -> Vec<Line> {
    let tones = std::iter::once(Tone::Heading).chain(std::iter::repeat(Tone::Plain));
    lines.into_iter().zip(tones).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::example;
    use crate::drill::report::Confirmed;

    #[test]
    fn the_verdict_stands_first_and_the_parts_follow_each_other() {
        let mut report = example::runs(1);
        let outage = &mut report.runs[0].outage;
        (outage.detect_ms, outage.elect_ms) = (Some(10.0), Some(50.0));
        (outage.recover_ms, outage.answer_ms) = (Some(20.0), None);
        (outage.first_ack_ms, outage.outage_ms) = (Some(80.0), 81.5);
        let text = text(&report, 80, false);
        let expected = "\
HOLDS kill: writes go on 80.0 ms after the fault; all 6 checks hold

target    a throw-away cluster of 3 members and 3 nodes on this machine
fault     kill of 127.0.0.1:7411
          confirmed
          before: 127.0.0.1:7411 is primary, term 3, pid 4711 runs
          during: pid 4711 is gone, connections are refused
          after: 127.0.0.1:7412 is primary, term 4

verdict
  ok  no acknowledged write lost       4,760 operations
";
        assert!(text.starts_with(expected), "{text}");
        let split = "
outage, ms
  detect     10.0  ████████
  elect      50.0          ██████████████████████████████████████
  recover    20.0                                                ███████████████
  answer        -
  first ack  80.0  from the fault
  outage     81.5  longest without an acknowledged write, until the return
  stall      41.0  the same, from the return on
";
        assert!(text.contains(split), "{text}");
        assert!(!text.contains("over 1 run"), "{text}");
        let verdict = text.lines().next().unwrap();
        assert_eq!(text.lines().last(), Some(verdict), "it stands last too");
    }

    #[test]
    fn what_a_verdict_rests_on_is_said_once() {
        let holds = |name: &str, detail: &str| Verdict {
            name: name.into(),
            holds: true,
            detail: detail.into(),
        };
        let mut given = [
            holds("none lost", "0 of 90"),
            holds("none doubled", "0 of 90"),
            holds("order", "90 entries"),
            holds("replies", "90 entries"),
        ];
        let shown = |given: &[Verdict]| -> Vec<String> {
            let block = verdicts(given, 80).into_iter();
            block.skip(1).map(|(line, _)| line).collect()
        };
        let each = [
            "  ok  none lost     0 of 90",
            "  ok  none doubled",
            "  ok  order         90 entries",
            "  ok  replies",
        ];
        assert_eq!(shown(&given), each);
        given[3].holds = false;
        assert_eq!(shown(&given)[3], "  NO  replies       90 entries");
    }

    #[test]
    fn many_runs_show_what_their_figures_are_and_which_lack_one() {
        let mut report = example::runs(30);
        report.runs[3].outage.first_ack_ms = None;
        report.distributions = stats::distributions(&report.runs);
        let text = text(&report, 80, false);
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
        let words = |name: &str| row(name).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            words("over 30 runs"),
            "over 30 runs, ms have it p50 p95 max"
        );
        assert!(text.contains("\n  first ack            29  "), "{text}");
        assert!(text.contains("the worst, ms"), "{text}");
        assert!(text.contains("largest of the runs"), "{text}");
    }

    #[test]
    fn what_is_wrong_is_said_at_once() {
        let mut report = example::runs(2);
        report.verdict[0].holds = false;
        report.verdict[0].detail = "key 7: 41 was acknowledged, later reads show 40".into();
        let told = text(&report, 80, true);
        let first = told.lines().next().unwrap();
        assert!(
            first.starts_with("\u{1b}[31mFAILS kill: no acknowledged write lost: key 7"),
            "{first:?}"
        );

        let why = "  NO  no acknowledged write lost\n      key 7: 41 was acknowledged, later";
        report.verdict[0].detail += " in line 9120, and no write between them explains it";
        let told = text(&report, 80, false);
        assert!(told.contains(why), "{told}");

        let mut report = example::runs(2);
        report.runs[1].confirmation.verdict = Confirmed::Mismatch;
        let told = text(&report, 80, false);
        assert!(
            told.starts_with("UNPROVEN kill: the fault of run 2 is not confirmed"),
            "{told}"
        );
        assert!(told.contains("\n          mismatch\n"), "{told}");
    }

    #[test]
    fn every_line_fits_and_steers_nothing() {
        let mut none = example::runs(1);
        none.runs.clear();
        for report in [
            example::runs(1),
            example::runs(30),
            example::hostile(),
            none,
        ] {
            for width in [20, 40, 80, 200] {
                let text = text(&report, width, false);
                let (body, rest) = text.split_once("Again:").unwrap();
                let (_command, verdict) = rest.rsplit_once("\n\n").unwrap();
                for line in body.lines().chain(verdict.lines()) {
                    let fits = width_of(line) <= width.max(WIDTH_MIN);
                    assert!(
                        fits && !line.contains(char::is_control),
                        "{width}: {line:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_part_that_took_any_time_has_a_cell_and_none_goes_over() {
        let cells = steps(&[Some(0.1), Some(900.0), None, Some(0.1)], 20);
        assert_eq!(cells, [(0, 1), (0, 20), (0, 0), (19, 1)]);
        assert_eq!(steps(&[None, Some(0.0), Some(-1.0)], 20), [(0, 0); 3]);
        assert_eq!(steps(&[Some(1.0)], 0), [(0, 0)]);
    }

    #[test]
    fn the_command_stays_one_command() {
        let command = "drumline drill kill --target 'a b' --seed 42";
        assert_eq!(
            command_lines(command, 30),
            [
                "drumline drill kill \\",
                "  --target 'a b' --seed \\",
                "  42"
            ]
        );
        assert_eq!(command_lines(command, 80), [command]);
        assert_eq!(command_lines("", 80), [""; 0]);
    }
}
