//! `drumline update`.

use super::args::{Remote, Retry};
use super::json::{self, Argument};
use super::output::Output;
use super::{Exit, session};
use crate::model::{Namespace, Write};

/// Change the first document that a filter finds, or all of them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// database.collection
    #[arg(value_name = "NS", value_parser = Namespace::parse)]
    namespace: Namespace,
    /// Which documents, or `-` for stdin
    #[arg(value_name = "FILTER")]
    filter: String,
    /// Operators like '{"$set": {"qty": 5}}', or a pipeline, or `-` for stdin
    #[arg(value_name = "UPDATE")]
    update: String,
    /// Change all documents that the filter finds
    #[arg(long)]
    many: bool,
    /// Insert one if the filter finds none
    #[arg(long)]
    upsert: bool,
    #[command(flatten)]
    retry: Retry,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    json::check_stdin(&[&args.filter, &args.update])?;
    let write = Write::Update {
        filter: Argument::filter(&args.filter).to_document()?,
        update: Argument::update(&args.update).to_update()?,
        many: args.many,
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
