//! `drumline replace`.

use super::args::{Remote, Retry};
use super::json::{self, Argument};
use super::output::Output;
use super::{Exit, session};
use crate::model::{Namespace, Write};

/// Replace the first document that a filter finds.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// database.collection
    #[arg(value_name = "NS", value_parser = Namespace::parse)]
    namespace: Namespace,
    /// Which document, or `-` for stdin
    #[arg(value_name = "FILTER")]
    filter: String,
    /// The new document, or `-` for stdin
    #[arg(value_name = "DOC")]
    document: String,
    /// Insert it if the filter finds none
    #[arg(long)]
    upsert: bool,
    #[command(flatten)]
    retry: Retry,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    json::check_stdin(&[&args.filter, &args.document])?;
    let write = Write::Replace {
        filter: Argument::filter(&args.filter).to_document()?,
        replacement: Argument::document("DOC", &args.document).to_replacement()?,
        upsert: args.upsert,
    };
    session::run(&args.remote, async |session| {
        let written = session
            .write(&args.namespace, write, &args.retry.id())
            .await?;
        Output::new(session.format).written(written, false)?;
        Ok(Exit::Ok)
    })
}
