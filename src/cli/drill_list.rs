//! `drumline drill list`.

use clap::ValueEnum as _;
use serde_json::{Value, json};

use super::Exit;
use super::args::Format;
use super::output::Output;
use super::table::terminal_width;
use crate::drill::Fault;
use crate::text::{cut, left, width};

pub fn run(format: Format) -> anyhow::Result<Exit> {
    let mut output = Output::new(format);
    let faults = faults();
    let value = |(fault, what): &(String, String)| json!({"fault": fault, "what": what});
    match format {
        Format::Json => {
            let array: Value = faults.iter().map(value).collect();
            output.line(&format!("{array:#}"))?;
        }
        Format::Jsonl => {
            for fault in &faults {
                output.line(&value(fault).to_string())?;
            }
        }
        Format::Table => {
            let heading = ("FAULT".to_owned(), "WHAT IS DONE".to_owned());
            let widest = faults
                .iter()
                .map(|(name, _)| width(name))
                .max()
                .unwrap_or(0);
            for (fault, what) in [heading].iter().chain(&faults) {
                let line = format!("{}  {what}", left(fault, widest));
                output.line(&cut(&line, terminal_width()))?;
            }
        }
    }
    output.flush()?;
    Ok(Exit::Ok)
}

/// Each fault by its name, and the line that `--help` has on it.
fn faults() -> Vec<(String, String)> {
    let told = |fault: &Fault| {
        let value = fault.to_possible_value()?;
        let help = value.get_help().map(ToString::to_string);
        Some((value.get_name().to_owned(), help.unwrap_or_default()))
    };
    Fault::value_variants().iter().filter_map(told).collect()
}
