//! `GET /log?from=<position>&limit=<count>`: the log's documents, for `drumline log` and auditors.
//! Whoever accepts `text/event-stream` gets them as they come (`log_stream`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::Problem;
use super::headers::RequestHeaders;
use super::router::App;
use super::{encode, events, log_stream};
use crate::budget::Budget;
use crate::ejson;
use crate::model::limits::{
    LOG_LOOKS_MAX, LOG_LOOKS_WAITING_MAX, LOG_REPLY_BYTES_MAX, LOG_WAIT_MAX,
};
use crate::model::{Failure, Position};

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
    if events::are_wanted(request.headers()) {
        if limit.is_some() {
            let why = "a stream of the log takes no 'limit'";
            return Err(Failure::Invalid(why.into()).into());
        }
        return log_stream::reply(app, request.headers(), from, asked.reply).await;
    }
    let (from, limit) = (from.unwrap_or(Position(1)), limit.unwrap_or(LIMIT_DEFAULT));
    // Held until the documents are no more.
    let _turn = app.logs.turn().await?;
    let documents = app.gateway.log(from, limit).await?;
    Ok(encode::log(
        &documents,
        asked.reply,
        app.logs.replies.open(),
    )?)
}

/// Those who look at the log wait for one another, and take nothing that others need: one look may
/// take 32 MiB, 4 MiB of BSON and one document more.
#[derive(Debug, Clone)]
pub struct LogDesk {
    turns: Arc<Semaphore>,
    /// How many wait for their turn or have it.
    here: Arc<AtomicUsize>,
    replies: Budget,
}

impl Default for LogDesk {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(LOG_LOOKS_MAX)),
            here: Arc::default(),
            replies: Budget::new(LOG_REPLY_BYTES_MAX),
        }
    }
}

impl LogDesk {
    async fn turn(&self) -> Result<Turn, Failure> {
        let here = Here::enter(&self.here);
        if here.before >= LOG_LOOKS_MAX + LOG_LOOKS_WAITING_MAX {
            return Err(Failure::Busy);
        }
        let turn = Arc::clone(&self.turns).acquire_owned();
        match timeout(LOG_WAIT_MAX, turn).await {
            Ok(Ok(turn)) => Ok(Turn {
                _turn: turn,
                _here: here,
            }),
            _ => Err(Failure::Busy),
        }
    }
}

#[derive(Debug)]
struct Turn {
    _turn: OwnedSemaphorePermit,
    _here: Here,
}

/// One of those at the desk, until it is dropped.
#[derive(Debug)]
struct Here {
    all: Arc<AtomicUsize>,
    before: usize,
}

impl Here {
    fn enter(all: &Arc<AtomicUsize>) -> Self {
        Self {
            before: all.fetch_add(1, Ordering::Relaxed),
            all: Arc::clone(all),
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

fn range(query: &str) -> Result<(Option<Position>, Option<i64>), Failure> {
    let (mut from, mut limit) = (None, None);
    let mut named = BTreeSet::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !named.insert(name) {
            return Err(Failure::Invalid(format!("'{name}' is there twice")));
        }
        let number = ejson::count_text(value).ok().filter(|number| *number >= 1);
        let wrong = || Failure::Invalid(format!("'{name}' must be a whole number from 1 on"));
        match name {
            "from" => from = Some(Position(number.ok_or_else(wrong)?)),
            "limit" => limit = Some(number.ok_or_else(wrong)?),
            _ => return Err(Failure::Invalid("the log takes 'from' and 'limit'".into())),
        }
    }
    Ok((from, limit))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn those_who_look_wait_for_one_another_and_too_many_are_refused() {
        let clock = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let _clock = clock.enter();
        let desk = LogDesk::default();
        let look = || desk.turn().now_or_never().map(Result::unwrap);
        let mut looking: Vec<_> = (0..LOG_LOOKS_MAX).map(|_| look().unwrap()).collect();
        let mut waiting: Vec<_> = (0..LOG_LOOKS_WAITING_MAX)
            .map(|_| Box::pin(desk.turn()))
            .collect();
        for wait in &mut waiting {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        let refused = desk.turn().now_or_never().unwrap();
        assert_eq!(refused.unwrap_err(), Failure::Busy);
        looking.pop();
        let next = waiting[0].as_mut().now_or_never();
        assert!(next.unwrap().is_ok());
    }

    #[test]
    fn ranges_are_read_and_nonsense_is_refused() {
        assert_eq!(range(""), Ok((None, None)));
        assert_eq!(range("from=7&limit=3"), Ok((Some(Position(7)), Some(3))));
        for bad in [
            "from=0",
            "from=x",
            "from",
            "limit=-1",
            "to=3",
            "from=+5",
            "from=05",
            "from=1&from=2",
            "from=99999999999999999999",
        ] {
            assert!(range(bad).is_err(), "{bad} was taken");
        }
    }
}
