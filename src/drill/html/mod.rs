//! A report as one page that needs nothing else: no network, and no script to be read.

mod axis;
mod chart;
mod columns;
mod dots;
mod lanes;
mod svg;
mod tables;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::outcome::{self, Outcome, headline, is_confirmed};
use super::report::{Report, Run};
use super::stats::{OUTAGE, STALL, ms, of_runs};
use axis::Window;
use tables::text;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Runs are drawn until the drawings have this size together, the worst first; the others are in
/// the tables. A run of any length takes about 90 KB.
const RUNS_BYTES_MAX: usize = 6 << 20;
/// The whole page, whatever the report: the drawings, a run that goes over, a thousand rows.
pub const PAGE_BYTES_MAX: usize = 16 << 20;
/// Hatches, so that not only a colour tells. Every drawing uses them.
const PATTERNS: &str = "<svg class=\"patterns\" aria-hidden=\"true\"><defs>\
    <pattern id=\"hatch\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" \
    patternTransform=\"rotate(45)\"><rect class=\"hatch-ground\" width=\"5\" height=\"5\"/>\
    <rect class=\"hatch-line\" width=\"2\" height=\"5\"/></pattern>\
    <pattern id=\"away\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
    patternTransform=\"rotate(-45)\"><rect class=\"away-ground\" width=\"6\" height=\"6\"/>\
    <rect class=\"away-line\" width=\"1.5\" height=\"6\"/></pattern></defs></svg>\n";
/// Further facts are in report.json.
const EVIDENCE_MAX: usize = 50;

/// The page.
pub fn page(report: &Report) -> String {
    let title = format!("drumline drill {}", report.fault);
    let mut page = head(&title);
    page.push_str(&format!("<body>\n{PATTERNS}<main>\n"));
    page.push_str(&verdict(report));
    page.push_str(&runs(report));
    if report.runs.len() > 1 {
        page.push_str("<section>\n<h2>All runs</h2>\n");
        page.push_str(&format!(
            "<div class=\"tables\">\n{}{}</div>\n",
            tables::distributions(report),
            tables::counts(&report.runs),
        ));
        page.push_str(&format!("<figure>{}", dots::over_runs(report, "dots")));
        page.push_str(
            "<figcaption>A dot a run; the solid line is p50, the dashed one p95. Dots that would \
             hide each other stand on each other.</figcaption></figure>\n",
        );
        page.push_str(&tables::runs(&report.runs));
        page.push_str("</section>\n");
    }
    page.push_str(&again(report));
    page.push_str(&format!(
        "</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    ));
    page
}

/// Only the page's own style and script are let in, and nothing is fetched.
fn head(title: &str) -> String {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
    let (style, script) = (hash(STYLE), hash(SCRIPT));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src {style}; script-src {script}\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n",
        text(title)
    )
}

fn verdict(report: &Report) -> String {
    let outcome = Outcome::of(report);
    let (class, sign) = match outcome {
        Outcome::Holds => ("good", "✓"),
        Outcome::Unproven => ("unproven", "?"),
        Outcome::Fails => ("bad", "✗"),
    };
    let driver = if report.direct {
        " by the plain driver, without Drumline"
    } else {
        ""
    };
    let confirmed = report.runs.iter().filter(|run| is_confirmed(run)).count();
    format!(
        "<header>\n<h1>drumline drill {}</h1>\n\
         <p class=\"verdict {class}\"><strong>{sign} {}</strong> {}</p>\n\
         <p>On {}{driver}; {}; seed {}.\n\
         The fault was confirmed in {confirmed} of {}.</p>\n</header>\n<section>\n{}</section>\n",
        text(&report.fault),
        outcome.word(),
        text(&headline(report)),
        text(&report.target),
        text(&report.started_at),
        report.seed,
        of_runs(report.runs.len()),
        tables::verdicts("Verdict", &report.verdict),
    )
}

/// The runs that are drawn, in their order, the worst one open.
fn runs(report: &Report) -> String {
    let worst = outcome::worst(&report.runs).map(|run| run.number);
    let mut order: Vec<usize> = (0..report.runs.len()).collect();
    order.sort_by(|a, b| outcome::worse(&report.runs[*b], &report.runs[*a]));
    let mut drawn = Vec::new();
    let mut bytes = 0;
    for index in order {
        if bytes >= RUNS_BYTES_MAX {
            break;
        }
        let run = &report.runs[index];
        let section = run_section(run, &report.fault, index, worst == Some(run.number));
        bytes += section.len();
        drawn.push((index, section));
    }
    drawn.sort_by_key(|(index, _)| *index);
    let mut text = "<section id=\"runs\">\n".to_owned();
    if drawn.len() < report.runs.len() {
        text.push_str(&format!(
            "<p>The {} worst of {} are drawn.</p>\n",
            drawn.len(),
            of_runs(report.runs.len())
        ));
    }
    text.extend(drawn.into_iter().map(|(_, section)| section));
    text.push_str("</section>\n");
    text
}

fn run_section(run: &Run, fault: &str, index: usize, open: bool) -> String {
    let open = if open { " open=\"open\"" } else { "" };
    let [outage, stall] =
        [OUTAGE, STALL].map(|figure| figure.of(run).map_or_else(|| "not known".into(), ms));
    let mut section = format!(
        "<details class=\"run\"{open}>\n\
         <summary>Run {}: outage {outage}, stall {stall}, fault {}{}</summary>\n",
        run.number,
        outcome::word(run.confirmation.verdict),
        if run.checks.iter().any(outcome::broken) {
            ", ✗ a check does not hold"
        } else {
            ""
        },
    );
    section.push_str(&views(run, fault, index));
    section.push_str(&format!(
        "<figure>{}",
        dots::parts(run, &format!("parts{index}"))
    ));
    section.push_str(
        "<figcaption>From the fault to the first acknowledgement of a write that was sent after \
         it.</figcaption></figure>\n",
    );
    section.push_str(&format!(
        "<div class=\"tables\">\n{}{}{}</div>\n",
        tables::latency(run),
        tables::counts(std::slice::from_ref(run)),
        tables::verdicts("Checks of this run", &run.checks),
    ));
    section.push_str(&evidence(run, fault));
    section.push_str("</details>\n");
    section
}

/// The fault and the whole run; which of them shows is a matter of style, without a script.
fn views(run: &Run, fault: &str, index: usize) -> String {
    let draw = |window: &Window, id: &str| {
        format!(
            "<figure>{}</figure>\n",
            chart::svg(run, fault, window, &format!("{id}{index}"))
        )
    };
    let whole = draw(&Window::whole(run), "all");
    let legend = legend();
    let Some(zoom) = Window::zoom(run) else {
        return format!("{legend}<div class=\"scroll\">{whole}</div>\n");
    };
    format!(
        "{legend}<div class=\"views\">\n\
         <input type=\"radio\" name=\"view{index}\" id=\"zoom{index}\" checked=\"checked\"/>\
         <label for=\"zoom{index}\">the fault</label>\n\
         <input type=\"radio\" name=\"view{index}\" id=\"whole{index}\" class=\"to-whole\"/>\
         <label for=\"whole{index}\">the whole run</label>\n\
         <div class=\"scroll zoom\">{}</div>\n<div class=\"scroll whole\">{whole}</div>\n</div>\n",
        draw(&zoom, "near"),
    )
}

fn legend() -> String {
    let entry = |(class, word): (&str, &str)| {
        format!(
            "<li><svg viewBox=\"0 0 14 14\" aria-hidden=\"true\">\
             <rect class=\"{class}\" x=\"0\" y=\"0\" width=\"14\" height=\"14\"/></svg>{word}</li>"
        )
    };
    let entries = [
        ("acknowledged", "acknowledged"),
        (
            "acknowledged some",
            "acknowledged in some of a column's 10 ms",
        ),
        ("failed", "failed"),
        ("unknown", "unknown"),
        ("fault", "the fault"),
        (
            "silent",
            "no write acknowledged: outage, and stall at the return",
        ),
    ];
    let entries: String = entries.into_iter().map(entry).collect();
    format!("<ul class=\"legend\">{entries}</ul>\n")
}

fn evidence(run: &Run, fault: &str) -> String {
    let facts = run.confirmation.evidence.iter().take(EVIDENCE_MAX);
    let facts: String = facts
        .map(|fact| format!("<li>{}</li>\n", text(fact)))
        .collect();
    format!(
        "<h3>Fault: {} of {}, {}</h3>\n<ul>\n{facts}</ul>\n<p>Seed of this run: {}.</p>\n",
        text(fault),
        text(&run.victims.join(", ")),
        outcome::word(run.confirmation.verdict),
        run.seed,
    )
}

fn again(report: &Report) -> String {
    format!(
        "<section>\n<h2>To run it again</h2>\n\
         <pre id=\"command\"><code>{}</code></pre>\n\
         <div class=\"tables\">\n{}{}</div>\n</section>\n",
        text(&report.command),
        tables::pairs("Settings", &report.settings),
        tables::pairs("Versions", &report.versions),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::escape::assert_well_formed;
    use crate::drill::example;
    use crate::drill::report::Bucket;

    #[test]
    fn the_page_needs_nothing_else() {
        let page = page(&example::runs(3));
        assert_well_formed(&page);
        for outside in [
            "http://", "https://", "src=", "href=", "@import", "url(h", "fetch(",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
        let hash = STANDARD.encode(Sha256::digest(SCRIPT));
        assert!(page.contains(&format!("script-src 'sha256-{hash}'")));
        assert!(page.contains(&format!("<script>{SCRIPT}</script>")));
        assert_eq!(page.matches("style=").count(), 0, "the policy refuses it");
        for part in [
            "<strong>✓ HOLDS</strong>",
            "drumline drill kill --runs 3 --seed 42",
            "electionTimeoutMillis",
            "role=\"img\"",
            "<caption>Verdict</caption>",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn without_a_script_the_fault_shows_and_the_whole_run_is_a_choice() {
        let mut report = example::runs(3);
        report.runs[1].outage.outage_ms = 5_000.0;
        let page = page(&report);
        assert_eq!(page.matches("<details class=\"run\">").count(), 2);
        let open = page
            .split("<details class=\"run\" open=\"open\">")
            .nth(1)
            .unwrap();
        assert!(
            open.trim_start()
                .starts_with("<summary>Run 2: outage 5,000 ms"),
            "{open:.80}"
        );
        assert_eq!(page.matches("checked=\"checked\"").count(), 3);
        let mut ids: Vec<&str> = page
            .split(" id=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "an id is given twice");
    }

    #[test]
    fn hostile_text_stays_text() {
        let page = page(&example::hostile());
        assert_well_formed(&page);
        assert_eq!(page.matches("<script>").count(), 1);
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(!page.contains("<img") && !page.contains('\u{1b}') && !page.contains('\u{202e}'));
        assert!(
            !page.contains("NaN") && !page.contains("\"inf"),
            "a number that is none"
        );

        let mut none = example::runs(1);
        none.runs.clear();
        assert_well_formed(&super::page(&none));
    }

    #[test]
    fn the_size_is_bounded() {
        let mut report = example::runs(1);
        let run = &mut report.runs[0];
        run.buckets = vec![
            Bucket {
                acknowledged: 4,
                failed: 1,
                unknown: 1
            };
            360_000
        ];
        run.slowest = (0..360_000)
            .map(|n| crate::drill::report::SlowOperation {
                at_ms: f64::from(n) * 10.0,
                latency_ms: f64::from(n % 900),
            })
            .collect();
        let long = page(&report);
        assert!(long.len() < 200_000, "{} bytes for an hour", long.len());

        report.runs = vec![example::runs(1).runs.remove(0); 1_500];
        report.command = "x".repeat(1 << 20);
        let large = page(&report);
        assert!(large.len() < PAGE_BYTES_MAX, "{} bytes", large.len());
        assert!(large.contains("of 1,500 runs are drawn") && large.contains("The first 1000 of"));
    }

    #[test]
    #[ignore = "writes pages to look at into the temporary folder"]
    fn pages_to_look_at() {
        for (name, report) in [
            ("1", example::runs(1)),
            ("30", example::runs(30)),
            ("plain", example::plain()),
            ("hostile", example::hostile()),
        ] {
            let path = std::env::temp_dir().join(format!("drumline-drill-{name}.html"));
            std::fs::write(&path, page(&report)).unwrap();
            eprintln!("{}", path.display());
        }
    }
}
