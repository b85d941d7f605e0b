//! `drumline man`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Command;
use clap_mangen::Man;

use super::manual::{self, Term};
use super::{Exit, offered};

/// Write the manual pages into a folder.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder; it is made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let shown = args.folder.display();
    fs::create_dir_all(&args.folder).with_context(|| format!("cannot make {shown}"))?;
    let mut command = offered().disable_help_subcommand(true);
    command.build();
    write_pages(&command, &args.folder).with_context(|| format!("cannot write to {shown}"))?;
    Ok(Exit::Ok)
}

/// A page for the command, and one for each below it.
fn write_pages(command: &Command, folder: &Path) -> io::Result<()> {
    for inner in command.get_subcommands() {
        write_pages(inner, folder)?;
    }
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    render(&man, command, &mut page)?;
    fs::write(folder.join(man.get_filename()), page)
}

fn render(man: &Man, command: &Command, page: &mut dyn Write) -> io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name());
    let examples: Vec<Term> = manual::examples(name).collect();
    let told = manual::Reader::of(name, command);
    let variables: Vec<Term> = manual::variables(told).collect();
    let files: Vec<Term> = manual::files(told).collect();
    for (title, terms) in [
        ("EXAMPLES", &*examples),
        ("EXIT STATUS", &manual::EXIT_STATUS),
        ("ENVIRONMENT", &variables),
        ("FILES", &files),
    ] {
        section(title, terms, page)?;
    }
    man.render_version_section(page)
}

/// A section of words and what they mean; nothing if there is none.
fn section(title: &str, terms: &[Term], page: &mut dyn Write) -> io::Result<()> {
    if terms.is_empty() {
        return Ok(());
    }
    writeln!(page, ".SH {title:?}")?;
    for (term, meaning) in terms {
        writeln!(page, ".TP\n\\fB{}\\fR\n{}", roff(term), roff(meaning))?;
    }
    Ok(())
}

/// Text as roff takes it for text: nothing is a request or an escape, and a hyphen can be copied.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    // A quote or a dot that begins a line begins a request.
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_steers_no_page() {
        assert_eq!(roff(".so x"), "\\&.so x");
        assert_eq!(roff("'--a\\b'"), "\\&'\\-\\-a\\eb'");
    }
}
