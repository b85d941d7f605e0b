//! `drumline check`.

use std::collections::BTreeMap;
use std::io::{BufRead, stdin};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Exit;
use super::args::Format;
use super::exit::{ExitError, say};
use super::info::Form;
use super::output::Output;
use crate::check::{self, CheckError, Export, Findings, Others, Rule};
use crate::text::one_line;

/// What is shown of a line that bears witness, in characters.
const LINE_SHOWN_MAX: usize = 400;

/// Check a recorded history: that nothing was lost, doubled or reordered.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The history, one operation a line; - is stdin
    #[arg(value_name = "HISTORY")]
    history: PathBuf,
    /// What `drumline log -o jsonl` printed after it
    #[arg(long, value_name = "LOG")]
    log: Option<PathBuf>,
    /// The history has no stamps, as that of `bench --direct`: find what no order explains
    #[arg(long, conflicts_with = "log")]
    unstamped: bool,
    /// Write the history in the form that another checker takes: porcupine or elle
    #[arg(long, num_args = 2, value_names = ["FORM", "FILE"])]
    export: Option<Vec<String>>,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Form,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let from_stdin = args.history == Path::new("-");
    if let Some(export) = &args.export {
        write_export(&args, export)?;
    }
    let checked = if from_stdin {
        check(stdin().lock(), &args)
    } else {
        check::open(&args.history).and_then(|file| check(file, &args))
    };
    let findings = checked?;
    let lines = if flows(&args.history) {
        BTreeMap::new()
    } else {
        witnesses(&args.history, &findings)?
    };
    match args.output {
        Form::Table => print_table(&findings, &lines)?,
        Form::Json => print_json(&findings, &lines)?,
    }
    Ok(if findings.violations() > 0 {
        Exit::Violation
    } else if findings.undecided > 0 {
        say("some keys were not decided: give the log (--log)");
        Exit::Failed
    } else {
        Exit::Ok
    })
}

/// Whether it can be read once only: stdin, a pipe, what the shell puts for `<(...)`.
fn flows(history: &Path) -> bool {
    history == Path::new("-") || history.metadata().is_ok_and(|found| !found.is_file())
}

fn check(history: impl BufRead, args: &Args) -> Result<Findings, CheckError> {
    if args.unstamped {
        return check::check_unstamped(history);
    }
    let log = args.log.as_deref().map(check::open).transpose()?;
    check::check(history, log)
}

fn write_export(args: &Args, export: &[String]) -> anyhow::Result<()> {
    let history = &args.history;
    let [form, file] = export else {
        return Err(ExitError::usage("--export: a form and a file").into());
    };
    let form = match form.as_str() {
        "porcupine" => Export::Porcupine,
        "elle" => Export::Elle,
        other => {
            let message = format!("--export {other}: the forms are porcupine and elle");
            return Err(ExitError::usage(message).into());
        }
    };
    if flows(history) {
        return Err(ExitError::usage("--export reads the history twice: give a file").into());
    }
    let file = Path::new(file);
    if let Some(log) = &args.log {
        check::refuse_itself(log, file)?;
    }
    Ok(check::export(history, form, file)?)
}

/// The text of the lines that bear witness.
fn witnesses(history: &Path, findings: &Findings) -> Result<BTreeMap<u64, String>, CheckError> {
    let named = Rule::ALL
        .into_iter()
        .flat_map(|rule| &findings.of(rule).witnesses)
        .flat_map(|witness| &witness.lines);
    let mut lines: BTreeMap<u64, String> = named.map(|line| (*line, String::new())).collect();
    let Some(last) = lines.keys().next_back().copied() else {
        return Ok(lines);
    };
    for (number, line) in (1..=last).zip(check::open(history)?.split(b'\n')) {
        let line = line?;
        if let Some(text) = lines.get_mut(&number) {
            // The check does not look into what it has no use for: that may be no UTF-8.
            *text = shortened(String::from_utf8_lossy(&line).trim_end());
        }
    }
    Ok(lines)
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(LINE_SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

fn print_table(findings: &Findings, lines: &BTreeMap<u64, String>) -> anyhow::Result<()> {
    let mut output = Output::new(Format::Table);
    let counts = &findings.counts;
    output.line(&format!(
        "{} operations: {} acknowledged ({} reads), {} failed, {} unknown",
        counts.operations, counts.acknowledged, counts.reads, counts.failed, counts.unknown
    ))?;
    if counts.entries > 0 {
        output.line(&format!("{} requests in the log", counts.entries))?;
    }
    for rule in Rule::ALL {
        let finding = findings.of(rule);
        let verdict = match (finding.checked, finding.violations) {
            (false, 0) => "-",
            (_, 0) => "holds",
            (_, _) => "VIOLATED",
        };
        output.line(&format!("{verdict:<9} {}", rule.name()))?;
        for witness in &finding.witnesses {
            output.line(&format!("          {}", one_line(&witness.text)))?;
            for number in &witness.lines {
                if let Some(line) = lines.get(number) {
                    output.line(&format!("            {number}: {}", one_line(line)))?;
                }
            }
        }
        let told = finding.witnesses.len() as u64;
        if finding.violations > told {
            output.line(&format!("         {}", Others(finding.violations - told)))?;
        }
    }
    for what in &findings.not_checked {
        output.line(&format!("not checked: {}", one_line(what)))?;
    }
    if findings.undecided > 0 {
        output.line(&format!(
            "not decided: {} keys with too many unknown writes",
            findings.undecided
        ))?;
    }
    output.line(&format!(
        "{} lost, {} doubled, {} reordered",
        counts.lost, counts.doubled, counts.reordered
    ))?;
    output.flush()
}

fn print_json(findings: &Findings, lines: &BTreeMap<u64, String>) -> anyhow::Result<()> {
    let rules: Vec<Value> = Rule::ALL
        .into_iter()
        .map(|rule| {
            let finding = findings.of(rule);
            let witnesses: Vec<Value> = finding
                .witnesses
                .iter()
                .map(|witness| {
                    let texts: Vec<_> = witness.lines.iter().filter_map(|l| lines.get(l)).collect();
                    json!({"text": witness.text, "lines": witness.lines, "operations": texts})
                })
                .collect();
            json!({
                "name": rule.name(),
                "checked": finding.checked,
                "holds": finding.violations == 0,
                "violations": finding.violations,
                "witnesses": witnesses,
            })
        })
        .collect();
    let report = json!({
        "holds": findings.hold(),
        "counts": findings.counts,
        "rules": rules,
        "undecided_keys": findings.undecided,
        "not_checked": findings.not_checked,
    });
    let mut output = Output::new(Format::Json);
    output.line(&format!("{report:#}"))?;
    output.flush()
}
