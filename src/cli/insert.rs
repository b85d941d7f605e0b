//! `drumline insert`.

use super::args::{Remote, Retry};
use super::json::Argument;
use super::output::Output;
use super::{Exit, session};
use crate::model::{Namespace, Write};

/// Insert documents: all of them, or none.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// database.collection
    #[arg(value_name = "NS", value_parser = Namespace::parse)]
    namespace: Namespace,
    /// A document, an array of documents, or `-`: either of these or one document a line on stdin
    #[arg(value_name = "DOC")]
    document: String,
    #[command(flatten)]
    retry: Retry,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let given = Argument::document("DOC", &args.document).to_documents()?;
    let write = Write::Insert {
        documents: given.documents,
    };
    session::run(&args.remote, async |session| {
        let written = session
            .write(&args.namespace, write, &args.retry.id())
            .await?;
        Output::new(session.format).written(written, given.many)?;
        Ok(Exit::Ok)
    })
}
