//! Who may ask: API keys, in the places where clients of the Data API put them.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::error::Problem;
use super::headers::only;
use crate::config::tidied_bytes;
use crate::model::Failure;

/// Header names are the same in small and capital letters.
const API_KEY: HeaderName = HeaderName::from_static("apikey");
const API_KEY_HYPHENED: HeaderName = HeaderName::from_static("api-key");

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
        if let Some(key) = presented(headers)? {
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

/// The key that counts, in the form in which a key is read from a file.
fn presented(headers: &HeaderMap) -> Result<Option<&[u8]>, Failure> {
    let header = |name| only(headers, name).map(|value| value.map(HeaderValue::as_bytes));
    let keys = [
        header(&AUTHORIZATION)?.and_then(bearer),
        header(&API_KEY)?,
        header(&API_KEY_HYPHENED)?,
    ];
    Ok(keys.into_iter().flatten().next().map(tidied_bytes))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(token)
}

fn hash(key: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &'static str)]) -> Result<(), Problem> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        ApiKeys::new(["first", "second"]).check(&headers)
    }

    #[test]
    fn a_key_is_taken_wherever_clients_put_it() {
        for headers in [
            ("Authorization", "Bearer first"),
            ("authorization", "bearer second"),
            ("apiKey", "first"),
            ("api-key", "second"),
        ] {
            assert_eq!(check(&[headers]), Ok(()), "{headers:?}");
        }
        let basic = ("Authorization", "Basic eDp5");
        assert_eq!(check(&[basic, ("apiKey", "first")]), Ok(()));
    }

    #[test]
    fn the_first_credentials_decide() {
        let wrong = Err(Failure::WrongCredentials.into());
        let bad_bearer = ("Authorization", "Bearer x");
        assert_eq!(check(&[bad_bearer, ("apiKey", "first")]), wrong);
        assert_eq!(check(&[("apiKey", "x"), ("api-key", "first")]), wrong);
        for twice in ["apiKey", "api-key", "Authorization"] {
            let twice = check(&[(twice, "Bearer first"), (twice, "Bearer first")]);
            assert!(
                matches!(twice, Err(Problem::Failure(Failure::Invalid(_)))),
                "{twice:?}"
            );
        }
        for key in ["", "firs", "first2", "First"] {
            assert_eq!(check(&[("apiKey", key)]), wrong, "{key:?}");
        }
    }

    #[test]
    fn other_credentials_are_named_and_missing_ones_too() {
        let email = ("email", "a@b.c");
        assert_eq!(
            check(&[email, ("password", "x")]),
            Err(Problem::UnsupportedCredentials("email and password"))
        );
        assert_eq!(
            check(&[("jwtTokenString", "x")]),
            Err(Problem::UnsupportedCredentials("a JWT"))
        );
        assert_eq!(check(&[]), Err(Failure::NoCredentials.into()));
        assert_eq!(check(&[email]), Err(Failure::NoCredentials.into()));
    }

    #[test]
    fn the_keys_cannot_be_read_back() {
        assert!(!format!("{:?}", ApiKeys::new(["secret"])).contains("secret"));
    }
}
