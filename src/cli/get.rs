//! `drumline get`.

use bson::doc;

use super::args::{Freshness, Remote};
use super::exit::say;
use super::output::Output;
use super::{Exit, json, session};
use crate::model::{Namespace, Read};

/// Print the document with an _id.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// database.collection
    #[arg(value_name = "NS", value_parser = Namespace::parse)]
    namespace: Namespace,
    /// The _id: JSON if it is JSON, a string otherwise
    #[arg(value_name = "ID", allow_negative_numbers = true)]
    id: String,
    #[command(flatten)]
    freshness: Freshness,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let id = json::id(&args.id)?;
    let read = Read::FindOne {
        filter: doc! { "_id": id.clone() },
        projection: None,
        sort: None,
    };
    session::run(&args.remote, async |session| {
        let found = session
            .read(&args.namespace, read, args.freshness.consistency())
            .await?;
        let Some(document) = found.documents.into_iter().next() else {
            say(&format!("{} has no document with _id {id}", args.namespace));
            return Ok(Exit::Failed);
        };
        Output::new(session.format).document(document)?;
        Ok(Exit::Ok)
    })
}
