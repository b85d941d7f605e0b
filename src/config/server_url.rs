//! The address of a node.

use std::fmt;

use hyper::Uri;
use serde::Deserialize;

use super::text::tidied;
use crate::text::repeated;

/// `http://host:port` or `https://host:port`, with a path in front of the node's own if a proxy
/// wants one. Kept without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct ServerUrl(String);

impl ServerUrl {
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = tidied(text).trim_end_matches('/');
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
        // A port past 65535 would count as none, and what follows '#' would end up in every path.
        let rest = authority.as_str().rsplit(']').next().unwrap_or_default();
        let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let port = rest.split_once(':').map(|(_, port)| port);
        let bad_port = port.is_some_and(|port| !digits(port) || authority.port_u16().is_none());
        if uri.query().is_some() || text.contains('#') || bad_port {
            return Err(not_a_url(text));
        }
        let rest = text.get(scheme.len()..).unwrap_or_default();
        Ok(Self(format!("{scheme}{rest}")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host and port as the URL has them, for a `Host` header.
    pub fn authority(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }

    /// Host and port to connect to.
    pub fn address(&self) -> (&str, u16) {
        let default = if self.is_https() { 443 } else { 80 };
        let (host, port) = match self.authority().rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(default)),
            _ => (self.authority(), default),
        };
        (host.trim_matches(['[', ']']), port)
    }

    /// Whether a path stands behind host and port.
    pub fn has_path(&self) -> bool {
        self.0.len() > self.authority().len() + self.0.find("://").map_or(0, |at| at + 3)
    }

    pub fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }
}

fn not_a_url(text: &str) -> String {
    // A text with '@' may hold a password: it is not repeated.
    let shown = match text.contains('@') {
        true => "this".to_owned(),
        false => repeated(text),
    };
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
        assert!(ServerUrl::parse("HTTPS://a:1").unwrap().is_https());
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
            "http://a:1/#x",
            "http://a:99999",
            "http://a:+1",
            "http://a:",
            "http://[::1]:x",
            "mongodb://a",
        ] {
            assert!(ServerUrl::parse(bad).is_err(), "{bad:?} was taken");
        }
        let parts = |text: &str| {
            let url = ServerUrl::parse(text).unwrap();
            let (host, port) = url.address();
            (host.to_owned(), port, url.has_path())
        };
        assert_eq!(parts("http://a:1"), ("a".into(), 1, false));
        assert_eq!(parts("https://a/b"), ("a".into(), 443, true));
        assert_eq!(parts("http://[::1]:81"), ("::1".into(), 81, false));
        assert_eq!(parts("http://[::1]"), ("::1".into(), 80, false));
        assert!(
            !ServerUrl::parse("mongodb://u:secret@h")
                .unwrap_err()
                .contains("secret")
        );
    }
}
