//! `drumline find`.

use super::args::{Freshness, Remote};
use super::exit::{ExitError, say};
use super::json::{self, Argument};
use super::output::Output;
use super::{Exit, session};
use crate::ejson;
use crate::model::limits::{FIND_DOCUMENTS_DEFAULT, FIND_DOCUMENTS_MAX, find_limit};
use crate::model::{Namespace, Read};

/// Find documents.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// database.collection
    #[arg(value_name = "NS", value_parser = Namespace::parse)]
    namespace: Namespace,
    /// Which documents, or `-` for stdin
    #[arg(value_name = "FILTER", default_value = "{}")]
    filter: String,
    /// In which order, like '{"qty": -1}'
    #[arg(long, value_name = "SORT")]
    sort: Option<String>,
    /// Which fields, like '{"qty": 1}'
    #[arg(long, value_name = "PROJECTION")]
    projection: Option<String>,
    /// At most this many documents [default: 1000]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = limit)]
    limit: Option<i64>,
    /// Leave out the first ones
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = ejson::count_text)]
    skip: i64,
    #[command(flatten)]
    freshness: Freshness,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let read = read(&args)?;
    session::run(&args.remote, async |session| {
        let found = session
            .read(&args.namespace, read, args.freshness.consistency())
            .await?;
        let cut = args.limit.is_none_or(|limit| limit == 0)
            && found.documents.len() as i64 >= FIND_DOCUMENTS_DEFAULT;
        Output::new(session.format).documents(found.documents)?;
        if cut {
            say(&format!(
                "these are the first {FIND_DOCUMENTS_DEFAULT}, there may be more: --limit N shows up to {FIND_DOCUMENTS_MAX}"
            ));
        }
        Ok(Exit::Ok)
    })
}

/// As the field `limit` of a request.
fn limit(text: &str) -> Result<i64, String> {
    let limit = ejson::count_text(text).map_err(|why| why.to_string())?;
    find_limit(Some(limit)).map(|_| limit)
}

fn read(args: &Args) -> anyhow::Result<Read> {
    let texts = [
        Some(&args.filter),
        args.sort.as_ref(),
        args.projection.as_ref(),
    ];
    json::check_stdin(
        &texts
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    )?;
    let option = |name: &'static str, text: &Option<String>| {
        let argument = |text| Argument {
            name,
            text,
            example: r#"'{"qty": 1}'"#,
        };
        text.as_deref()
            .map(|text| argument(text).to_document())
            .transpose()
    };
    Ok(Read::Find {
        filter: Argument::filter(&args.filter).to_document()?,
        projection: option("--projection", &args.projection)?,
        sort: option("--sort", &args.sort)?,
        limit: find_limit(args.limit).map_err(ExitError::usage)?,
        skip: args.skip,
    })
}
