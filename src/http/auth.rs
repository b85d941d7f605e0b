//! Who may ask: API keys, in the places where clients of the Data API put them.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};

use super::error::Problem;
use crate::model::Failure;

/// The API keys that this node takes. It holds only their hashes, so that no message and no dump
/// of it can show a key.
#[derive(Debug, Clone)]
pub struct ApiKeys(Vec<[u8; 32]>);

impl ApiKeys {
    pub fn new<'k>(keys: impl IntoIterator<Item = &'k str>) -> Self {
        Self(keys.into_iter().map(hash).collect())
    }

    /// Checks the credentials of a request: a bearer token, else an API key, else what we do not
    /// take. The first that is there decides.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if let Some(key) = presented(headers) {
            return match self.holds(key) {
                true => Ok(()),
                false => Err(Failure::WrongCredentials.into()),
            };
        }
        if headers.contains_key("email") && headers.contains_key("password") {
            return Err(Problem::UnsupportedCredentials("email and password"));
        }
        if headers.contains_key("jwtTokenString") {
            return Err(Problem::UnsupportedCredentials("a JWT"));
        }
        Err(Failure::NoCredentials.into())
    }

    /// Compares with every key and through hashes, so that the time tells nothing about them.
    fn holds(&self, key: &[u8]) -> bool {
        let key = hash(key);
        let differs = |known: &[u8; 32]| known.iter().zip(key).fold(0, |d, (a, b)| d | (a ^ b));
        self.0
            .iter()
            .fold(false, |found, known| found | (differs(known) == 0))
    }
}

fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers
        .get(AUTHORIZATION)
        .and_then(|value| bearer(value.as_bytes()));
    let header = |name| {
        headers
            .get(name)
            .map(|value: &axum::http::HeaderValue| value.as_bytes())
    };
    bearer
        .or_else(|| header("apiKey"))
        .or_else(|| header("api-key"))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme
        .eq_ignore_ascii_case(SCHEME)
        .then(|| token.trim_ascii())
}

fn hash(key: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(key).into()
}
