//! `drumline delete`.

use super::args::{Remote, Retry};
use super::json::Argument;
use super::output::Output;
use super::{Exit, session};
use crate::model::{Namespace, Write};

/// Delete the first document that a filter finds, or all of them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// database.collection
    #[arg(value_name = "NS", value_parser = Namespace::parse)]
    namespace: Namespace,
    /// Which documents, or `-` for stdin
    #[arg(value_name = "FILTER")]
    filter: String,
    /// Delete all documents that the filter finds
    #[arg(long)]
    many: bool,
    #[command(flatten)]
    retry: Retry,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let write = Write::Delete {
        filter: Argument::filter(&args.filter).to_document()?,
        many: args.many,
    };
    session::run(&args.remote, async |session| {
        let written = session
            .write(&args.namespace, write, &args.retry.id())
            .await?;
        Output::new(session.format).written(written, false)?;
        Ok(Exit::Ok)
    })
}
