//! A report as JUnit XML, for those who gate a build with a drill.

use super::escape::escape;
use super::outcome;
use super::report::{Confirmed, Report, Run, Verdict};

struct Case<'a> {
    class: String,
    name: &'a str,
    /// In seconds; of a verdict over all runs there is none of its own.
    time: f64,
    /// The word of the failure, if it is one.
    failure: Option<&'static str>,
    detail: String,
}

/// One suite: a case for each verdict, for each run's fault and for each of its checks.
pub fn xml(report: &Report) -> String {
    let suite = format!("drumline drill {}", report.fault);
    let cases = cases(report);
    let failures = cases.iter().filter(|case| case.failure.is_some()).count();
    let seconds: f64 = report.runs.iter().map(|run| run.length_ms / 1_000.0).sum();
    let counts = format!(
        "tests=\"{}\" failures=\"{failures}\" errors=\"0\"",
        cases.len()
    );
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites {counts}>\n\
         <testsuite name=\"{}\" {counts} skipped=\"0\" time=\"{seconds:.3}\" timestamp=\"{}\">\n",
        escape(&suite),
        escape(&report.started_at),
    );
    text.push_str(&properties(report));
    cases.iter().for_each(|case| push(&mut text, case));
    text.push_str("</testsuite>\n</testsuites>\n");
    text
}

fn properties(report: &Report) -> String {
    let seed = report.seed.to_string();
    let known = [
        ("target", report.target.as_str()),
        ("seed", &seed),
        ("command", &report.command),
    ];
    let versions = report
        .versions
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let all = known.into_iter().chain(versions);
    let lines = all.map(|(name, value)| {
        format!(
            "<property name=\"{}\" value=\"{}\"/>\n",
            escape(name),
            escape(value)
        )
    });
    format!("<properties>\n{}</properties>\n", lines.collect::<String>())
}

fn cases(report: &Report) -> Vec<Case<'_>> {
    let class = format!("drumline.drill.{}", report.fault);
    let verdicts = report
        .verdict
        .iter()
        .map(|verdict| case(class.clone(), verdict));
    let runs = report.runs.iter().flat_map(|run| of_run(&class, run));
    verdicts.chain(runs).collect()
}

fn of_run<'a>(class: &str, run: &'a Run) -> Vec<Case<'a>> {
    let class = format!("{class}.run{}", run.number);
    let verdict = run.confirmation.verdict;
    let confirmed = Case {
        class: class.clone(),
        name: "the fault had its effect",
        time: run.length_ms / 1_000.0,
        failure: (verdict != Confirmed::Confirmed).then_some(outcome::word(verdict)),
        detail: run.confirmation.evidence.join("\n"),
    };
    let checks = run.checks.iter().map(|check| case(class.clone(), check));
    std::iter::once(confirmed).chain(checks).collect()
}

fn case(class: String, verdict: &Verdict) -> Case<'_> {
    Case {
        class,
        name: &verdict.name,
        time: 0.0,
        failure: outcome::broken(verdict).then_some("does not hold"),
        detail: verdict.detail.clone(),
    }
}

fn push(text: &mut String, case: &Case<'_>) {
    let detail = escape(&case.detail);
    text.push_str(&format!(
        "<testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">",
        escape(&case.class),
        escape(case.name),
        case.time,
    ));
    match case.failure {
        Some(word) => text.push_str(&format!(
            "<failure type=\"{word}\" message=\"{}\">{detail}</failure>",
            escape(&format!("{}: {word}", case.name)),
        )),
        None => text.push_str(&format!("<system-out>{detail}</system-out>")),
    }
    text.push_str("</testcase>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::escape::assert_well_formed;
    use crate::drill::example;

    #[test]
    fn every_verdict_every_fault_and_every_check_is_a_case() {
        let mut report = example::runs(2);
        let (verdicts, checks) = (report.verdict.len(), report.runs[0].checks.len());
        report.verdict[0].holds = false;
        report.verdict[0].detail = "key 7 & <41>".into();
        report.runs[1].confirmation.verdict = Confirmed::Mismatch;
        report.runs[1].checks[1].holds = false;
        let text = xml(&report);
        assert_well_formed(&text);
        let tests = verdicts + 2 * (checks + 1);
        assert_eq!(text.matches("<testcase ").count(), tests);
        assert_eq!(text.matches("<testsuite ").count(), 1);
        assert_eq!(text.matches("<failure ").count(), 3);
        let counts = format!("tests=\"{tests}\" failures=\"3\"");
        assert_eq!(text.matches(&counts).count(), 2, "{text}");
        assert!(text.contains(">key 7 &amp; &lt;41&gt;</failure>"), "{text}");
        assert!(text.contains("<failure type=\"mismatch\""), "{text}");
        assert!(
            text.contains("classname=\"drumline.drill.kill.run2\""),
            "{text}"
        );
    }

    #[test]
    fn hostile_text_stays_text() {
        let text = xml(&example::hostile());
        assert_well_formed(&text);
        assert!(
            !text.contains("<script") && !text.contains('\u{1b}'),
            "{text}"
        );
        let mut none = example::runs(1);
        none.runs.clear();
        none.verdict.clear();
        assert_well_formed(&xml(&none));
        assert!(xml(&none).contains("tests=\"0\" failures=\"0\""));
    }
}
