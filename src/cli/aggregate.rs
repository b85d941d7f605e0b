//! `drumline aggregate`.

use super::args::{Freshness, Remote};
use super::json::Argument;
use super::output::Output;
use super::{Exit, session};
use crate::model::{Namespace, Read};

/// Run an aggregation pipeline that reads.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// database.collection
    #[arg(value_name = "NS", value_parser = Namespace::parse)]
    namespace: Namespace,
    /// An array of stages, or `-` for stdin
    #[arg(value_name = "PIPELINE")]
    pipeline: String,
    #[command(flatten)]
    freshness: Freshness,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let read = Read::Aggregate {
        pipeline: Argument::pipeline(&args.pipeline).to_pipeline()?,
    };
    session::run(&args.remote, async |session| {
        let found = session
            .read(&args.namespace, read, args.freshness.consistency())
            .await?;
        Output::new(session.format).documents(found.documents)?;
        Ok(Exit::Ok)
    })
}
