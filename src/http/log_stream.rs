//! `GET /log` as a stream of server-sent events: one event a log document, its position the id.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::response::Response;
use tokio::time::{Instant, sleep};

use super::error::Problem;
use super::events::{self, Frame, Speech};
use super::log_tail::{LogEvent, Look, Membership, write_kept};
use super::router::App;
use crate::ejson::Format;
use crate::model::limits::STREAM_PATIENCE_MAX;
use crate::model::{Failure, Position};

/// The pause before a page is read again, or memory is asked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// Replies with the log from a position on, or from where the client left off.
pub async fn reply(
    app: &App,
    headers: &HeaderMap,
    from: Option<Position>,
    format: Format,
) -> Result<Response, Problem> {
    let next = match events::last_seen(headers)? {
        Some(id) => Some(after(id)?),
        None => from,
    };
    let seat = app.streams.follow()?;
    let mut follower = Follower {
        app: app.clone(),
        membership: app.tail.join(),
        next,
        format,
    };
    // What is not there is refused before the stream begins.
    let first = match follower.look() {
        Look::Behind => follower.page().await?,
        Look::Here(_) | Look::AtEnd => Bytes::new(),
    };
    Ok(events::reply(seat, first, follower))
}

fn after(id: &str) -> Result<Position, Failure> {
    let digits = id.bytes().all(|b| b.is_ascii_digit());
    let position = id.parse::<i64>().ok().filter(|_| digits);
    let position = position.filter(|position| *position < i64::MAX);
    position
        .map(|position| Position(position).next())
        .ok_or_else(|| {
            Failure::Invalid("Last-Event-ID must be a position of the log, a whole number".into())
        })
}

/// One who follows the log.
struct Follower {
    app: App,
    membership: Membership,
    /// `None`: wherever the log begins.
    next: Option<Position>,
    format: Format,
}

impl Follower {
    fn look(&mut self) -> Look {
        match self.next {
            Some(next) => self.membership.look(next),
            None => Look::Behind,
        }
    }

    /// Waits for what comes next, and writes it.
    async fn speak(&mut self) -> Result<Bytes, Failure> {
        loop {
            match self.look() {
                Look::Here(kept) => {
                    let memory = self.app.streams.memory();
                    let mut frame = Frame::new(memory.beside());
                    match write_kept(&kept, self.format, &memory, &mut frame) {
                        Err(Failure::Busy) => sleep(PAUSE).await,
                        written => {
                            written?;
                            self.passed(kept.iter().map(|event| event.position))?;
                            return Ok(frame.into_bytes());
                        }
                    }
                }
                Look::AtEnd => self.membership.grown().await?,
                Look::Behind => {
                    let page = self.patient_page().await?;
                    if !page.is_empty() {
                        return Ok(page);
                    }
                    // It is at the log's end, and what comes next is kept.
                    self.membership.grown().await?;
                }
            }
        }
    }

    async fn patient_page(&mut self) -> Result<Bytes, Failure> {
        let until = Instant::now() + STREAM_PATIENCE_MAX;
        loop {
            match self.page().await {
                Err(Failure::Busy) => {}
                Err(Failure::Unavailable(_)) if Instant::now() < until => {}
                page => return page,
            }
            sleep(PAUSE).await;
        }
    }

    /// Reads the next page of the log itself. Empty at the log's end.
    async fn page(&mut self) -> Result<Bytes, Failure> {
        let _turn = self.app.streams.page_turn().await?;
        let from = self.next.unwrap_or(Position(1));
        let mut page = LogEvent::page(self.app.gateway.log_page(from).await?);
        // What comes before a position that is missing is shown first.
        let next = page.iter().zip(from.0..);
        let whole = next
            .take_while(|(event, at)| event.position.0 == *at)
            .count();
        if whole > 0 && self.next.is_some() {
            page.truncate(whole);
        }
        let mut frame = Frame::new(self.app.streams.memory());
        for event in &page {
            event.write(self.format, &mut frame)?;
        }
        self.passed(page.iter().map(|event| event.position))?;
        Ok(frame.into_bytes())
    }

    /// Goes on behind these. Each must be the one that comes next: a position that is missing has
    /// been there before, and nobody is to take its lack for silence.
    fn passed(&mut self, positions: impl Iterator<Item = Position>) -> Result<(), Failure> {
        for position in positions {
            if let Some(next) = self.next.filter(|next| *next != position) {
                return Err(missing(next, position));
            }
            self.next = Some(position.next());
        }
        Ok(())
    }
}

/// What a client is told whose next position the log has no more.
fn missing(wanted: Position, first: Position) -> Failure {
    Failure::Gone(format!(
        "the log does not hold position {} any more: the first from there on is {}; go on with that",
        wanted.0, first.0
    ))
}

impl Speech for Follower {
    async fn next(mut self) -> (Self, Result<Bytes, Failure>) {
        let said = self.speak().await;
        (self, said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_goes_on_after_the_position_that_was_seen() {
        assert_eq!(after("7"), Ok(Position(8)));
        assert_eq!(after("0"), Ok(Position(1)));
        for wrong in [
            "-1",
            "+7",
            "7 ",
            "x",
            "9223372036854775807",
            "99999999999999999999",
        ] {
            assert!(after(wrong).is_err(), "{wrong}");
        }
    }
}
