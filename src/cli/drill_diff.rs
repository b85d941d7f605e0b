//! `drumline drill diff A B`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;

use super::Exit;
use super::args::Format;
use super::output::Output;
use super::table::terminal_width;
use crate::drill::diff;
use crate::drill::report::Report;

/// A folder that `drill --report` wrote holds its report under this name.
const REPORT: &str = "report.json";
/// A thousand long runs have less; a larger file is no report.
const REPORT_BYTES_MAX: u64 = 1 << 30;

/// Compares two reports, each a file or a folder that holds one.
pub fn run(a: &Path, b: &Path, format: Format) -> anyhow::Result<Exit> {
    let (a, b) = (read(a)?, read(b)?);
    let mut output = Output::new(format);
    match format {
        Format::Table => output.write(&diff::text(&a, &b, terminal_width()))?,
        Format::Json => output.line(&serde_json::to_string_pretty(&diff::compare(&a, &b))?)?,
        Format::Jsonl => output.line(&serde_json::to_string(&diff::compare(&a, &b))?)?,
    }
    output.flush()?;
    Ok(Exit::Ok)
}

fn read(path: &Path) -> anyhow::Result<Report> {
    let path = if path.is_dir() {
        &path.join(REPORT)
    } else {
        path
    };
    let shown = path.display();
    let file = File::open(path).with_context(|| {
        format!("{shown}: give the {REPORT} of a drill, or the folder that holds it")
    })?;
    let mut text = String::new();
    file.take(REPORT_BYTES_MAX)
        .read_to_string(&mut text)
        .with_context(|| format!("{shown}"))?;
    diff::parse(&text).map_err(|why| anyhow::anyhow!("{shown}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::example;

    #[test]
    fn a_folder_stands_for_the_report_in_it() {
        let folder = std::env::temp_dir().join(format!("drumline-diff-{}", std::process::id()));
        let report = example::runs(2);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(REPORT), serde_json::to_string(&report).unwrap()).unwrap();
        let found = [read(&folder), read(&folder.join(REPORT))];
        std::fs::remove_dir_all(&folder).unwrap();
        for found in found {
            assert_eq!(found.unwrap(), report);
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let told = |path: &str| format!("{:#}", read(Path::new(path)).unwrap_err());
        let here = env!("CARGO_MANIFEST_DIR");
        assert!(told("/no/such/place").starts_with("/no/such/place: give the report.json of"));
        let folder = told(here);
        assert!(
            folder.contains("/report.json: give the report.json of a drill"),
            "{folder}"
        );
        let other = told(&format!("{here}/Cargo.toml"));
        assert!(other.contains("Cargo.toml: it is not JSON"), "{other}");
    }
}
