//! The address of a node.

use std::fmt;

use hyper::Uri;
use serde::Deserialize;

/// `http://host:port` or `https://host:port`, with a path in front of the node's own if a proxy
/// wants one. Kept without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ServerUrl(String);

impl ServerUrl {
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_end_matches('/');
        let uri: Uri = text.parse().map_err(|_| not_a_url(text))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(not_a_url(text));
        };
        if !matches!(scheme, "http" | "https") || authority.host().is_empty() {
            return Err(not_a_url(text));
        }
        if authority.as_str().contains('@') {
            return Err(
                "a server URL holds no credentials: use --api-key-file or DRUMLINE_API_KEY".into(),
            );
        }
        if uri.query().is_some() {
            return Err(not_a_url(text));
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }
}

fn not_a_url(text: &str) -> String {
    // A text with '@' may hold a password: it is not repeated.
    let shown = if text.contains('@') { "this" } else { text };
    format!("'{shown}' is not a server URL: write http://host:port, like http://127.0.0.1:7401")
}

impl TryFrom<String> for ServerUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_http_and_https_only() {
        for good in [
            "http://127.0.0.1:7117",
            "https://db.example.com/drumline",
            "http://[::1]:80",
        ] {
            assert_eq!(ServerUrl::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(
            ServerUrl::parse(" http://a:1/ ").unwrap().as_str(),
            "http://a:1"
        );
        for bad in [
            "",
            "a",
            "localhost:7117",
            "ftp://a",
            "http://",
            "http://u:p@a:1",
            "http://a:1/?x",
            "mongodb://a",
        ] {
            assert!(ServerUrl::parse(bad).is_err(), "{bad:?} was taken");
        }
        assert!(
            !ServerUrl::parse("mongodb://u:secret@h")
                .unwrap_err()
                .contains("secret")
        );
    }
}
