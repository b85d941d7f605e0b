//! `drumline drill list`.

use clap::ValueEnum as _;
use serde_json::{Value, json};

use super::Exit;
use super::args::Format;
use super::output::Output;
use super::table::terminal_width;
use crate::drill::Fault;
use crate::text::{left, width, wrapped};

/// What is done takes this much of a line at least, however narrow the terminal.
const WIDTH_MIN: usize = 20;

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
            let room = terminal_width().saturating_sub(widest + 2).max(WIDTH_MIN);
            for (fault, what) in [heading].iter().chain(&faults) {
                for (index, line) in wrapped(what, room).iter().enumerate() {
                    let fault = if index == 0 { fault } else { "" };
                    output.line(&format!("{}  {line}", left(fault, widest)))?;
                }
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
