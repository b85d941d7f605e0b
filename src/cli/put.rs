//! `drumline put`.

use bson::{Bson, Document, doc};

use super::args::{Remote, Retry};
use super::exit::ExitError;
use super::json::{self, Argument};
use super::output::Output;
use super::{Exit, session};
use crate::model::{Namespace, Write};

/// Store a document under its _id, in place of the one that is there.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// database.collection
    #[arg(value_name = "NS", value_parser = Namespace::parse)]
    namespace: Namespace,
    /// The _id: JSON if it is JSON, a string otherwise
    #[arg(value_name = "ID", allow_negative_numbers = true)]
    id: String,
    /// The document, or `-` for stdin
    #[arg(value_name = "DOC")]
    document: String,
    #[command(flatten)]
    retry: Retry,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let id = json::id(&args.id)?;
    let replacement = Argument::document("DOC", &args.document).to_replacement()?;
    check_same_id(&id, &replacement)?;
    let write = Write::Replace {
        filter: doc! { "_id": id },
        replacement,
        upsert: true,
    };
    session::run(&args.remote, async |session| {
        let written = session
            .write(&args.namespace, write, &args.retry.id())
            .await?;
        Output::new(session.format).written(written, false)?;
        Ok(Exit::Ok)
    })
}

fn check_same_id(id: &Bson, document: &Document) -> Result<(), ExitError> {
    match document.get("_id") {
        Some(other) if other != id => Err(ExitError::usage(format!(
            "DOC: its _id is {other}, but ID is {id}; leave _id out of DOC"
        ))),
        _ => Ok(()),
    }
}
