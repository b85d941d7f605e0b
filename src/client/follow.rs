//! A stream of events from one server after the other: where it is cut it goes on at the next,
//! after the event that was seen last.

use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout};

use super::Client;
use super::attempt::{Opened, Setback};
use super::error::{ClientError, Setbacks};
use super::events::{Event, Reader};
use super::wire::{self, Message};
use super::{Clock, definite, strange};
use crate::model::limits::STREAM_BEAT;

/// A stream that says nothing for so long is cut: a node says more often that it lives.
const SILENCE_MAX: Duration = STREAM_BEAT.saturating_mul(3);
/// The pause when no server has given the stream.
const PAUSE: Duration = Duration::from_millis(200);

/// What a stream tells.
#[derive(Debug)]
pub enum Told {
    /// Events that came together, in order. Each has data.
    Events(VecDeque<Event>),
    /// None of the servers has given the stream. They are asked again and again.
    Waiting(Setbacks),
}

/// A stream under way.
#[derive(Debug)]
pub struct Following<'c> {
    client: &'c Client,
    path: String,
    last_id: Option<String>,
    open: Option<(Incoming, Reader)>,
    /// The server that is asked, or asked next.
    server: usize,
    /// Why each server gave nothing, or no more.
    setbacks: Vec<Option<String>>,
    /// How many servers have refused since the stream was cut.
    refused: usize,
    begun: Instant,
    /// Whether a server has given the stream yet.
    was_open: bool,
    /// Whether anything has come of the stream that is open, or was last.
    has_spoken: bool,
}

impl Client {
    /// Follows what a path streams. Until a server has given it for the first time, the client's
    /// time bounds the tries; after that it is never given up.
    pub fn follow(&self, path: String) -> Following<'_> {
        Following {
            client: self,
            path,
            last_id: None,
            open: None,
            server: 0,
            setbacks: vec![None; self.servers.len()],
            refused: 0,
            begun: Instant::now(),
            was_open: false,
            has_spoken: false,
        }
    }
}

impl Following<'_> {
    /// Begins after the event with this id.
    pub fn after(mut self, id: String) -> Self {
        self.last_id = Some(id);
        self
    }

    /// The id to go on after.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// The server that gives the stream, or is asked next, by its place in the list.
    pub const fn server(&self) -> usize {
        self.server
    }

    /// Waits for what comes next. To be dropped only with the stream.
    pub async fn next(&mut self) -> Result<Told, ClientError> {
        loop {
            let events = match self.open.take() {
                Some((body, reader)) => self.read(body, reader).await?,
                None => match self.ask().await? {
                    Some(waiting) => return Ok(waiting),
                    None => continue,
                },
            };
            if !events.is_empty() {
                return Ok(Told::Events(events));
            }
        }
    }

    /// Reads what comes next of an open stream. A stream that is cut is not open afterwards.
    async fn read(
        &mut self,
        mut body: Incoming,
        mut reader: Reader,
    ) -> Result<VecDeque<Event>, ClientError> {
        let frame = timeout(SILENCE_MAX, body.frame()).await;
        let Ok(Some(Ok(frame))) = frame else {
            let why = match frame {
                Err(_) => format!("silent for {SILENCE_MAX:?}"),
                Ok(_) => "the stream broke off".into(),
            };
            self.lost(why);
            if !self.has_spoken {
                // Nor may the next one have more to say.
                sleep(PAUSE).await;
            }
            return Ok(VecDeque::new());
        };
        self.has_spoken = true;
        let bytes = frame.into_data().unwrap_or_default();
        reader.push(&bytes).map_err(|why| self.strange(why))?;
        let mut events = reader.take();
        let cut = events.iter().position(|event| event.kind == "cut");
        let cut = cut.and_then(|at| events.drain(at..).next());
        if let Some(id) = events.iter().rev().find_map(|event| event.id.as_ref()) {
            self.last_id = Some(id.clone());
        }
        events.retain(|event| event.data.is_some());
        match cut {
            None => self.open = Some((body, reader)),
            Some(cut) => self.was_cut(&cut.data.unwrap_or_default(), events.is_empty())?,
        }
        Ok(events)
    }

    /// The server has cut the stream, and said why. For what no other server does better this is
    /// the end; it comes again if there are events to be told first.
    fn was_cut(&mut self, data: &str, may_end: bool) -> Result<(), ClientError> {
        let (message, code) = wire::refusal_in(data.as_bytes())
            .ok_or_else(|| self.strange("it cut the stream without a reason".into()))?;
        let passes = wire::PASSING_CODES.contains(&code.as_str());
        if !passes && may_end {
            return Err(ClientError::Refused {
                status: 0,
                code,
                message,
            });
        }
        self.lost(message);
        Ok(())
    }

    fn strange(&self, why: String) -> ClientError {
        ClientError::Strange {
            server: self.client.servers[self.server].clone(),
            status: 200,
            why,
        }
    }

    /// The next server is asked.
    fn lost(&mut self, why: String) {
        self.setbacks[self.server] = Some(why);
        self.server = (self.server + 1) % self.client.servers.len();
    }

    /// Asks one server. When all have been asked in vain, it is time to wait.
    async fn ask(&mut self) -> Result<Option<Told>, ClientError> {
        let limit = self.client.timeout;
        if !self.was_open && self.begun.elapsed() >= limit {
            return Err(ClientError::Unreachable(self.why()));
        }
        // One that is silent leaves time for the others.
        let share = limit / u32::try_from(self.client.servers.len()).unwrap_or(u32::MAX);
        match timeout(share, self.attempt()).await {
            Ok(Ok(body)) => {
                self.open = Some((body, Reader::default()));
                self.was_open = true;
                self.has_spoken = false;
                self.setbacks.fill(None);
                self.refused = 0;
                return Ok(None);
            }
            Ok(Err(Ended::Final(error))) => return Err(error),
            Ok(Err(Ended::Setback(setback))) => self.lost(setback.why),
            Err(_) => self.lost(format!("no answer within {share:?}")),
        }
        self.refused += 1;
        let servers = self.client.servers.len();
        if !self.refused.is_multiple_of(servers) {
            return Ok(None);
        }
        if self.refused == servers {
            // Said once; again only after the stream was open.
            return Ok(Some(Told::Waiting(self.why())));
        }
        sleep(PAUSE).await;
        Ok(None)
    }

    async fn attempt(&self) -> Result<Incoming, Ended> {
        let (client, server) = (self.client, &self.client.servers[self.server]);
        let message = Message::stream(&self.path, self.last_id.as_deref());
        let request = message.to_request(server, client.key.as_ref(), &Clock::default().seen());
        let request = request.map_err(|error| Setback::unsent(error.to_string()))?;
        let response = match client.connections.open(request).await {
            Opened::Stream(response) => response,
            Opened::Answer(received) => {
                let received = definite(server, received).map_err(Ended::Final)?;
                let why = "the answer is no stream of events".to_owned();
                return Err(Ended::Final(strange(server, &received, why)));
            }
            Opened::Setback(setback) => return Err(setback.into()),
        };
        Ok(response)
    }

    fn why(&self) -> Setbacks {
        let known = self.client.servers.iter().zip(&self.setbacks);
        let whys = known.filter_map(|(server, why)| Some((server.clone(), why.clone()?)));
        Setbacks::of(whys.collect())
    }
}

/// Why a server gave no stream.
enum Ended {
    Final(ClientError),
    Setback(Setback),
}

impl From<Setback> for Ended {
    fn from(setback: Setback) -> Self {
        Self::Setback(setback)
    }
}
