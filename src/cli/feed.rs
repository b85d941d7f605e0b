//! What comes without end: the log as it grows, or the changes of a collection, from the servers or
//! straight from the replica set. Each comes once, in order.

use std::collections::VecDeque;
use std::time::Duration;

use bson::{Bson, Document};
use tokio::time::sleep;

use super::Exit;
use super::exit::{ExitError, say};
use crate::client::{ClientError, Event, Following, Told};
use crate::ejson;
use crate::model::{Failure, Position, failure::Retry};
use crate::store::{Changes, Guest, LogWake};

/// How many log documents a command without a server reads at once.
const PAGE: i64 = 100;
/// The pause where MongoDB did not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// Documents that keep coming.
#[derive(Debug)]
pub enum Feed<'s> {
    Served {
        following: Following<'s>,
        /// The position that comes next, if these are log documents and one has come.
        order: Order,
    },
    Log(LogFeed),
    Changes {
        changes: Box<Changes>,
        is_silent: bool,
    },
}

/// What is known of the order of what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Log documents, whose positions are contiguous; `None`: wherever the log begins.
    Positions(Option<i64>),
    /// Resume tokens say nothing to a client.
    Unknown,
}

impl Feed<'_> {
    /// The next documents that came together. Says on stderr when it waits for somebody. To be
    /// dropped only with the feed.
    pub async fn next(&mut self) -> Result<Vec<Document>, ExitError> {
        match self {
            Self::Served { following, order } => loop {
                match following.next().await? {
                    Told::Events(events) => {
                        let documents = order.of(events)?;
                        if !documents.is_empty() {
                            return Ok(documents);
                        }
                    }
                    Told::Waiting(why) => say(&format!("waiting for a server: {why}")),
                }
            },
            Self::Log(feed) => feed.next().await,
            Self::Changes { changes, is_silent } => loop {
                match changes.next().await.and_then(|heard| {
                    let changes = heard.changes()?;
                    Ok(changes.map(|(_, event)| event).collect::<Vec<_>>())
                }) {
                    Ok(events) => {
                        *is_silent = false;
                        if !events.is_empty() {
                            return Ok(events);
                        }
                    }
                    Err(failure) => wait_for_mongodb(failure, is_silent).await?,
                }
            },
        }
    }
}

impl Order {
    /// The documents of events. What has been seen is left out, and a gap is an error: the servers
    /// promise neither, and nobody would notice.
    fn of(&mut self, events: VecDeque<Event>) -> Result<Vec<Document>, ExitError> {
        let mut documents = Vec::new();
        for event in events {
            let document = ejson::reply(event.data.unwrap_or_default().as_bytes());
            let document = document.map_err(|why| {
                failed(format!("a server sent an event that cannot be read: {why}"))
            })?;
            if self.admits(&document)? {
                documents.push(document);
            }
        }
        Ok(documents)
    }

    fn admits(&mut self, document: &Document) -> Result<bool, ExitError> {
        let Self::Positions(next) = self else {
            return Ok(true);
        };
        let position = position_of(document)?;
        match *next {
            Some(wanted) if position < wanted => return Ok(false),
            Some(wanted) if position > wanted => {
                return Err(failed(format!(
                    "position {wanted} is missing: the log goes on with {position}"
                )));
            }
            _ => *next = Some(position + 1),
        }
        Ok(true)
    }
}

/// The log, read without a server.
#[derive(Debug)]
pub struct LogFeed {
    guest: Guest,
    order: Order,
    wake: Option<LogWake>,
    is_silent: bool,
}

impl LogFeed {
    pub fn new(guest: Guest, from: Option<i64>) -> Self {
        Self {
            guest,
            order: Order::Positions(from),
            wake: None,
            is_silent: false,
        }
    }

    async fn next(&mut self) -> Result<Vec<Document>, ExitError> {
        loop {
            match self.read().await {
                Ok(page) => {
                    self.is_silent = false;
                    let mut new = Vec::new();
                    for document in page {
                        if self.order.admits(&document)? {
                            new.push(document);
                        }
                    }
                    if !new.is_empty() {
                        return Ok(new);
                    }
                }
                Err(failure) => wait_for_mongodb(failure, &mut self.is_silent).await?,
            }
        }
    }

    /// The next page. Where there is none it waits until the log has grown.
    async fn read(&mut self) -> Result<Vec<Document>, Failure> {
        let Order::Positions(next) = self.order else {
            return Ok(Vec::new());
        };
        let page = self.guest.log(Position(next.unwrap_or(1)), PAGE).await?;
        if !page.is_empty() {
            return Ok(page);
        }
        match self.wake.take() {
            Some(mut wake) => {
                wake.next().await?;
                self.wake = Some(wake);
            }
            // The log is looked at once more before it is waited for.
            None => self.wake = Some(self.guest.log_wake().await?),
        }
        Ok(Vec::new())
    }
}

/// Pauses where another try may succeed, and says so once.
async fn wait_for_mongodb(failure: Failure, is_silent: &mut bool) -> Result<(), ExitError> {
    if failure.retry() != Retry::Safe {
        return Err(ClientError::from(failure).into());
    }
    if !*is_silent {
        *is_silent = true;
        let text = failure.to_string();
        say(&format!("waiting: {}", Failure::without_advice(&text)));
    }
    sleep(PAUSE).await;
    Ok(())
}

fn failed(message: String) -> ExitError {
    ExitError {
        exit: super::Exit::Failed,
        message,
    }
}

/// The position of a log document.
pub fn position_of(entry: &Document) -> Result<i64, ExitError> {
    match entry.get("_id") {
        Some(Bson::Int64(position)) => Ok(*position),
        Some(Bson::Int32(position)) => Ok(i64::from(*position)),
        _ => Err(ExitError {
            exit: Exit::Failed,
            message: "the server sent a log entry without a position".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(positions: &[i64]) -> VecDeque<Event> {
        let event = |position| Event {
            data: Some(format!("{{\"_id\":{{\"$numberLong\":\"{position}\"}}}}")),
            ..Event::default()
        };
        positions.iter().map(event).collect()
    }

    #[test]
    fn each_position_is_taken_once_and_none_is_passed_over() {
        let mut order = Order::Positions(None);
        assert_eq!(order.of(events(&[5, 6])).unwrap().len(), 2);
        assert_eq!(order.of(events(&[5, 6, 7])).unwrap().len(), 1);
        assert!(order.of(events(&[9])).is_err());
        assert!(order.of(events(&[8, 9])).is_ok());
        assert!(Order::Positions(Some(3)).of(events(&[4])).is_err());
    }
}
