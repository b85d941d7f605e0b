//! The name of a host, as it stands in URLs.

use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;

use super::ServerUrl;
use super::text::tidied;
use crate::text::repeated;

/// The longest name that DNS has.
const NAME_BYTES_MAX: usize = 253;

/// A host's name or address, in the one form that it is compared in: in small letters, without a dot
/// at its end, and an address of IPv6 without brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct HostName(String);

impl HostName {
    /// Reads what somebody has set.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = tidied(text);
        let wrong = |why: &str| {
            let shown = repeated(text);
            format!("'{shown}' is not a host name: {why}, like db.example.com")
        };
        if text.contains("//") || text.contains('/') {
            return Err(wrong("write it without a scheme and a path"));
        }
        if text.contains('*') {
            return Err(wrong("write each name"));
        }
        let is_address = text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        if text.contains(':') && !is_address {
            return Err(wrong("write it without a port"));
        }
        Self::of_text(text).ok_or_else(|| wrong("write letters, digits, dots and hyphens"))
    }

    /// The host of a header or a URL, which may have a port; `None` if it is no host.
    pub fn of_authority(text: &str) -> Option<Self> {
        let text = text.trim_ascii();
        let host = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) if port.is_empty() || port.starts_with(':') => address,
            Some(_) => return None,
            None => text.split_once(':').map_or(text, |(host, _)| host),
        };
        Self::of_text(host)
    }

    pub fn of_url(url: &ServerUrl) -> Option<Self> {
        Self::of_authority(url.authority())
    }

    /// What this machine, or this container, calls itself.
    pub fn of_machine() -> Option<Self> {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
        Self::of_text(name.trim())
    }

    fn of_text(text: &str) -> Option<Self> {
        let text = text.trim_matches(['[', ']']);
        let text = text.strip_suffix('.').unwrap_or(text);
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self(address.to_canonical().to_string()));
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let is_name = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits);
        is_name.then(|| Self(text.to_ascii_lowercase()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, if it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }

    /// Whether it means this machine wherever it is said.
    pub fn is_loopback(&self) -> bool {
        let is_local = self.0 == "localhost" || self.0.ends_with(".localhost");
        is_local || self.address().is_some_and(|address| address.is_loopback())
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for HostName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_form() {
        for (text, form) in [
            ("db.example.com", "db.example.com"),
            (" DB.Example.com. ", "db.example.com"),
            ("n1", "n1"),
            ("my_host", "my_host"),
            ("10.0.0.1", "10.0.0.1"),
            ("::1", "::1"),
            ("[0:0::1]", "::1"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(HostName::parse(text).unwrap().as_str(), form, "{text}");
        }
        for (text, why) in [
            ("http://a", "scheme"),
            ("a/b", "path"),
            ("a:7401", "port"),
            ("10.0.0.1:7401", "port"),
            ("[::1]:7401", "port"),
            ("*.example.com", "each name"),
            ("", "letters"),
            ("a b", "letters"),
            ("ä", "letters"),
            ("a@b", "letters"),
        ] {
            let said = HostName::parse(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
        assert!(HostName::parse(&"a".repeat(254)).is_err());
    }

    #[test]
    fn a_header_may_have_a_port() {
        let host = |text| HostName::of_authority(text).map(|host| host.to_string());
        for (text, form) in [
            ("a:7401", Some("a")),
            ("A.:7401", Some("a")),
            ("[::1]:7401", Some("::1")),
            ("[::1]", Some("::1")),
            ("127.0.0.1:1", Some("127.0.0.1")),
            ("", None),
            (":7401", None),
            ("a@b:1", None),
            ("[::1]evil", None),
            ("a b", None),
        ] {
            assert_eq!(host(text).as_deref(), form, "{text}");
        }
    }

    #[test]
    fn some_names_mean_this_machine() {
        let is_loopback = |text| HostName::parse(text).unwrap().is_loopback();
        for text in ["localhost", "a.localhost", "LOCALHOST.", "127.0.0.3", "::1"] {
            assert!(is_loopback(text), "{text}");
        }
        for text in [
            "localhost.evil.com",
            "127.0.0.1.evil.com",
            "notlocalhost",
            "0.0.0.0",
        ] {
            assert!(!is_loopback(text), "{text}");
        }
    }
}
