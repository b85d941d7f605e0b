//! `GET /log?from=<position>&limit=<count>`: the log's documents, for `drumline log` and auditors.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use super::encode;
use super::error::Problem;
use super::headers::RequestHeaders;
use super::router::App;
use crate::model::{Failure, Position};

/// What the documents of one look take in memory at most: 4 MiB of BSON and one document more.
const MEMORY_BYTES: usize = 32 << 20;
/// How many documents are returned when the client does not say.
const LIMIT_DEFAULT: i64 = 100;

pub async fn handle(State(app): State<App>, request: Request) -> Response {
    answer(&app, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn answer(app: &App, request: Request) -> Result<Response, Problem> {
    app.keys.check(request.headers())?;
    let asked = RequestHeaders::read(request.headers())?;
    let (from, limit) = range(request.uri().query().unwrap_or_default())?;
    let mut held = app.budget.open();
    held.grow_to(MEMORY_BYTES)?;
    let documents = app.gateway.log(from, limit).await?;
    Ok(encode::log(&documents, asked.reply, app.budget.open())?)
}

fn range(query: &str) -> Result<(Position, i64), Failure> {
    let (mut from, mut limit) = (1, LIMIT_DEFAULT);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number = value.parse::<i64>().ok().filter(|number| *number >= 1);
        let wrong = || Failure::Invalid(format!("'{name}' must be a whole number from 1 on"));
        match name {
            "from" => from = number.ok_or_else(wrong)?,
            "limit" => limit = number.ok_or_else(wrong)?,
            _ => return Err(Failure::Invalid("the log takes 'from' and 'limit'".into())),
        }
    }
    Ok((Position(from), limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_defaults_and_refuse_nonsense() {
        assert_eq!(range(""), Ok((Position(1), LIMIT_DEFAULT)));
        assert_eq!(range("from=7&limit=3"), Ok((Position(7), 3)));
        for bad in [
            "from=0",
            "from=x",
            "from",
            "limit=-1",
            "to=3",
            "from=99999999999999999999",
        ] {
            assert!(range(bad).is_err(), "{bad} was taken");
        }
    }
}
