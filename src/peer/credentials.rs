//! How nodes of one cluster know each other: by proofs that they have its secret.
//!
//! The secret itself never travels: whoever happens to listen at a peer's address must not learn it.
//! Nor is what he hears of any use to him. The proof of a request covers all that is done with it,
//! is for one process of the addressee, for some seconds on that process's own clock, and is taken
//! once. The proof of a reply is for that one request. What is said is not encrypted.
//!
//! No two clocks need to agree: a process whose clock is not known yet, or has run away, refuses
//! the message and tells the sender its time, and the sender goes by that from then on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bson::Uuid;
use hmac::{Hmac, KeyInit as _};
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request;
use hyper::{HeaderMap, StatusCode};
use sha2::Sha256;

use super::proof::{Content, Proof, REPLY_HEADERS, REQUEST_HEADERS};
use super::refused::Refused;
use super::seen::Seen;
use crate::config::{ConfigError, Secret};
use crate::model::NodeName;
use crate::model::limits::MESSAGE_AGE_MAX;
use crate::mutants::{self, Mutant};

const CLUSTER: HeaderName = HeaderName::from_static("drumline-cluster");
const FROM: HeaderName = HeaderName::from_static("drumline-from");
const TO: HeaderName = HeaderName::from_static("drumline-to");
/// The sender's process and the message's number in it.
const NONCE: HeaderName = HeaderName::from_static("drumline-nonce");
/// The addressee's process and the time on its clock.
const TIME: HeaderName = HeaderName::from_static("drumline-time");
const CONTENT: HeaderName = HeaderName::from_static("drumline-content");
const PROOF: HeaderName = HeaderName::from_static("drumline-proof");

/// What one node proves to another with each request, and checks in theirs. Cheap to clone; all
/// clones are of the same process.
#[derive(Clone)]
pub struct Credentials {
    me: NodeName,
    cluster: HeaderValue,
    key: Hmac<Sha256>,
    process: Arc<Process>,
}

/// This process, as its peers know it.
struct Process {
    id: Uuid,
    /// Its clock begins at zero.
    began: Instant,
    /// How many messages it has sent.
    sent: AtomicU64,
    /// The peers' processes and their clocks.
    met: Mutex<BTreeMap<NodeName, Met>>,
    seen: Mutex<Seen>,
}

/// A peer's process, and how far its clock is ahead of ours, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Met {
    process: Uuid,
    ahead: i64,
}

/// What a request was sent with, to check its reply.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    to: NodeName,
    nonce: String,
}

/// The head of a request that somebody with the cluster's secret has sent to this node, at some time.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) from: NodeName,
    nonce: String,
    process: Uuid,
    number: u64,
    /// The process that it is meant for, and the time there.
    meant: (Uuid, i64),
    content: Content,
}

/// A request of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    pub from: NodeName,
    /// What its body must be.
    pub content: Content,
    nonce: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({} of {:?})", self.me, self.cluster)
    }
}

impl Credentials {
    pub fn new(me: NodeName, cluster: &str, secret: &Secret) -> Result<Self, ConfigError> {
        let wrong = |_| ConfigError("the cluster's name must be visible ASCII characters".into());
        let empty = |_| ConfigError("the cluster secret cannot be used".into());
        Ok(Self {
            me,
            cluster: HeaderValue::from_str(cluster).map_err(wrong)?,
            key: Hmac::new_from_slice(secret.expose().as_bytes()).map_err(empty)?,
            process: Arc::new(Process {
                id: Uuid::new(),
                began: Instant::now(),
                sent: AtomicU64::new(0),
                met: Mutex::default(),
                seen: Mutex::default(),
            }),
        })
    }

    /// Puts a proof into the head of a request to this peer, whose body is this.
    pub(super) fn write(&self, head: &mut request::Parts, to: &NodeName, body: Content) -> Sent {
        let number = self.process.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let nonce = pair(self.process.id, number);
        let headers = &mut head.headers;
        headers.insert(CLUSTER, self.cluster.clone());
        put(headers, FROM, self.me.as_str());
        put(headers, TO, to.as_str());
        put(headers, NONCE, &nonce);
        put(headers, TIME, &self.time_at(to));
        put(headers, CONTENT, &body.text());
        let proof = self.of_request(head).text();
        put(&mut head.headers, PROOF, &proof);
        Sent {
            to: to.clone(),
            nonce,
        }
    }

    /// The peer's process and the time there, as far as they are known. A peer that was not met is
    /// asked by a message that it cannot take.
    fn time_at(&self, peer: &NodeName) -> String {
        let met = self.process.met.lock();
        let met = met.unwrap_or_else(PoisonError::into_inner);
        match met.get(peer) {
            Some(met) => pair(met.process, self.process.now().saturating_add(met.ahead)),
            None => pair(Uuid::from_bytes([0; 16]), 0),
        }
    }

    /// Who sends a request with this head, if it belongs to the cluster and means this node. That
    /// may have been at any time.
    pub(super) fn check(&self, head: &request::Parts) -> Result<Proven, Refused> {
        if !self.of_request(head).is(head.headers.get(PROOF)) {
            return Err(Refused::Secret);
        }
        let headers = &head.headers;
        let (cluster, wanted) = (text(headers, &CLUSTER), text(headers, &TO));
        if cluster.as_bytes() != self.cluster.as_bytes() {
            return Err(Refused::Cluster(cluster));
        }
        if wanted != self.me.as_str() {
            let here = self.me.clone();
            return Err(Refused::Addressee { here, wanted });
        }
        self.proven(headers).ok_or(Refused::Secret)
    }

    fn proven(&self, headers: &HeaderMap) -> Option<Proven> {
        let nonce = text(headers, &NONCE);
        let (process, number) = parted(&nonce)?;
        Some(Proven {
            from: NodeName::parse(&text(headers, &FROM)).ok()?,
            process,
            number,
            meant: parted(&text(headers, &TIME))?,
            content: Content::read(&text(headers, &CONTENT))?,
            nonce,
        })
    }

    /// Takes a request whose head is proven, if it is for now and comes for the first time.
    pub(super) fn admit(&self, request: Proven) -> Result<Admitted, Refused> {
        self.admit_at(self.process.now(), request)
    }

    fn admit_at(&self, now: i64, request: Proven) -> Result<Admitted, Refused> {
        let (from, nonce) = (request.from, request.nonce);
        let (process, time) = request.meant;
        let off = Duration::from_millis(time.abs_diff(now));
        if process != self.process.id || off > MESSAGE_AGE_MAX {
            return Err(Refused::Stale { from, nonce });
        }
        if !mutants::active(Mutant::RepeatedMessages) {
            let seen = self.process.seen.lock();
            let mut seen = seen.unwrap_or_else(PoisonError::into_inner);
            seen.take(&from, request.process, request.number, now.unsigned_abs())?;
        }
        Ok(Admitted {
            from,
            content: request.content,
            nonce,
        })
    }

    /// Tells the sender of a stale request this process and its time, with a proof.
    pub(super) fn greet(&self, headers: &mut HeaderMap, from: &NodeName, nonce: &str) {
        put(headers, TIME, &pair(self.process.id, self.process.now()));
        let proof = self.of_greeting(&self.me, from, nonce, headers).text();
        put(headers, PROOF, &proof);
    }

    /// Whether this is the reply to a stale request. If it is, the peer is known by its process and
    /// time from now on: the same request, sent again, is taken.
    pub(super) fn learns(&self, sent: &Sent, status: StatusCode, headers: &HeaderMap) -> bool {
        if status != StatusCode::UNAUTHORIZED {
            return false;
        }
        let proof = self.of_greeting(&sent.to, &self.me, &sent.nonce, headers);
        if !proof.is(headers.get(PROOF)) {
            return false;
        }
        let Some((process, time)) = parted::<i64>(&text(headers, &TIME)) else {
            return false;
        };
        let ahead = time.saturating_sub(self.process.now());
        let met = self.process.met.lock();
        let mut met = met.unwrap_or_else(PoisonError::into_inner);
        met.insert(sent.to.clone(), Met { process, ahead });
        true
    }

    /// Puts the proof into the reply to a request. It covers the body if this is given.
    pub(super) fn sign(
        &self,
        request: &Admitted,
        status: StatusCode,
        headers: &mut HeaderMap,
        body: Option<Content>,
    ) {
        if let Some(body) = body {
            put(headers, CONTENT, &body.text());
        }
        let between = (&self.me, &request.from);
        let proof = self.of_reply(between, &request.nonce, status, headers);
        put(headers, PROOF, &proof.text());
    }

    /// Whether this is the reply of the peer that was asked.
    pub(super) fn is_reply_to(&self, sent: &Sent, status: StatusCode, headers: &HeaderMap) -> bool {
        let between = (&sent.to, &self.me);
        let proof = self.of_reply(between, &sent.nonce, status, headers);
        proof.is(headers.get(PROOF))
    }

    fn of_request(&self, head: &request::Parts) -> Proof {
        let headers = &head.headers;
        let target = head.uri.path_and_query();
        let target = target.map_or("", |target| target.as_str());
        Proof::new(&self.key, "request")
            .part(head.method.as_str().as_bytes())
            .part(target.as_bytes())
            .headers(&[CLUSTER, FROM, TO, NONCE, TIME, CONTENT], headers)
            .headers(&REQUEST_HEADERS, headers)
    }

    fn of_greeting(
        &self,
        from: &NodeName,
        to: &NodeName,
        nonce: &str,
        headers: &HeaderMap,
    ) -> Proof {
        self.between("greeting", from, to, nonce)
            .headers(&[TIME], headers)
    }

    fn of_reply(
        &self,
        (from, to): (&NodeName, &NodeName),
        nonce: &str,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Proof {
        self.between("reply", from, to, nonce)
            .part(status.as_str().as_bytes())
            .headers(&[CONTENT], headers)
            .headers(&REPLY_HEADERS, headers)
    }

    fn between(&self, kind: &str, from: &NodeName, to: &NodeName, nonce: &str) -> Proof {
        Proof::new(&self.key, kind)
            .part(self.cluster.as_bytes())
            .part(from.as_str().as_bytes())
            .part(to.as_str().as_bytes())
            .part(nonce.as_bytes())
    }
}

impl Process {
    /// Milliseconds since this process began.
    fn now(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

/// The body that a proven reply must have, if its proof covers it.
pub(super) fn content_of(headers: &HeaderMap) -> Option<Content> {
    Content::read(&text(headers, &CONTENT))
}

/// A process and a number of it.
fn pair(process: Uuid, number: impl std::fmt::Display) -> String {
    format!("{process}.{number}")
}

fn parted<N: std::str::FromStr>(text: &str) -> Option<(Uuid, N)> {
    let (process, number) = text.split_once('.')?;
    Some((Uuid::parse_str(process).ok()?, number.parse().ok()?))
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Names, nonces and proofs are signs that any header may hold.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    let value = headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
    String::from_utf8_lossy(value).into_owned()
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
