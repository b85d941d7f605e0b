//! What a proof covers: which parts of a message, and in what form.
//!
//! What means something and is not covered here is neither read nor passed on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use sha2::{Digest as _, Sha256};

/// The headers of a client's request that mean something to the coordinator. The node that passes a
/// request on keeps these, the proof covers them, and the coordinator reads no other.
pub const REQUEST_HEADERS: [HeaderName; 7] = [
    CONTENT_TYPE,
    ACCEPT,
    HeaderName::from_static("drumline-stamp"),
    HeaderName::from_static("drumline-token"),
    HeaderName::from_static("drumline-read"),
    HeaderName::from_static("drumline-show-stamp"),
    HeaderName::from_static("idempotency-key"),
];

/// The headers of a coordinator's reply that mean something to the client. Its proof covers them, and
/// no other comes to the client. In the order in which the coordinator itself writes them.
pub const REPLY_HEADERS: [HeaderName; 7] = [
    CONTENT_TYPE,
    RETRY_AFTER,
    HeaderName::from_static("drumline-stamp"),
    HeaderName::from_static("drumline-position"),
    HeaderName::from_static("drumline-token"),
    HeaderName::from_static("drumline-coordinator"),
    HeaderName::from_static("idempotency-replayed"),
];

/// Takes out all other headers.
pub(super) fn keep_only(names: &[HeaderName], headers: &mut HeaderMap) {
    let mut kept = HeaderMap::with_capacity(names.len());
    for name in names {
        for value in headers.get_all(name) {
            kept.append(name, value.clone());
        }
    }
    *headers = kept;
}

/// The SHA-256 of a body. The head carries it, so that a proof can be checked before the body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content([u8; 32]);

impl Content {
    pub fn of(body: &[u8]) -> Self {
        Self(Sha256::digest(body).into())
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }

    pub(super) fn text(self) -> String {
        STANDARD.encode(self.0)
    }
}

/// A proof in the making. Each part goes in with its length, so that no two different messages look
/// the same.
pub(super) struct Proof(Hmac<Sha256>);

impl Proof {
    /// `kind` keeps a proof of one kind of message from being shown for another.
    pub(super) fn new(key: &Hmac<Sha256>, kind: &str) -> Self {
        Self(key.clone()).part(kind.as_bytes())
    }

    pub(super) fn part(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Also that a header is not there, and which of several values comes first.
    pub(super) fn headers(mut self, names: &[HeaderName], headers: &HeaderMap) -> Self {
        for name in names {
            let values: Vec<_> = headers.get_all(name).iter().collect();
            self = self.part(name.as_str().as_bytes());
            self.0.update(&(values.len() as u64).to_le_bytes());
            for value in values {
                self = self.part(value.as_bytes());
            }
        }
        self
    }

    pub(super) fn text(self) -> String {
        STANDARD.encode(self.0.finalize().into_bytes())
    }

    /// Compares in a time that tells nothing about the proof.
    pub(super) fn is(self, shown: Option<&HeaderValue>) -> bool {
        let shown = shown.map_or(&b""[..], HeaderValue::as_bytes);
        let shown = STANDARD.decode(shown).unwrap_or_default();
        self.0.verify_slice(&shown).is_ok()
    }
}
