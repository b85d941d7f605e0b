//! Text that must not be shown.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;

use super::ConfigError;

/// No secret is longer than this; a larger file is the wrong file.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// A password, a key, or a URI that holds one. Neither `Debug` nor any error text shows it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The one line of a text, wherever the text comes from: a line break at its end, or a byte order
    /// mark in front, is not of the secret.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let line = tidied(text);
        match line.contains(['\n', '\r']) {
            true => Err("there must be one line, with one key or URI, and nothing else"),
            false => Ok(Self(line.to_owned())),
        }
    }

    /// The one line of a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let wrong = |why: &str| ConfigError(format!("{}: {why}", path.display()));
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text))
            .map_err(|error| wrong(&error.to_string()))?;
        if text.len() as u64 > SECRET_BYTES_MAX {
            return Err(wrong("the file is too large to hold one key or URI"));
        }
        let secret = Self::parse(&text).map_err(wrong)?;
        match secret.0.is_empty() {
            true => Err(wrong("the file is empty")),
            false => Ok(secret),
        }
    }

    /// The text itself. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl TryFrom<toml::Value> for Secret {
    type Error = &'static str;

    /// Serde's own message would show a value of another type, like a key of digits without quotes.
    fn try_from(value: toml::Value) -> Result<Self, Self::Error> {
        match value {
            toml::Value::String(text) => Self::parse(&text),
            _ => Err("a secret is a string in quotes"),
        }
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("...")
    }
}

/// A text without what editors and shells put around it.
pub(super) fn tidied(text: &str) -> &str {
    text.trim_start_matches('\u{feff}').trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_a_secret_is_not_of_it() {
        for text in ["k", "k\n", "k\r\n", " k ", "\u{feff}k\r\n"] {
            assert_eq!(Secret::parse(text).unwrap().expose(), "k", "{text:?}");
            let value = toml::Value::String(text.to_owned());
            assert_eq!(Secret::try_from(value).unwrap().expose(), "k", "{text:?}");
        }
        assert_eq!(Secret::parse("the key\n").unwrap().expose(), "the key");
        assert!(Secret::parse("k\nl").is_err());
    }

    #[test]
    fn is_never_shown() {
        let secret = Secret::new("hunter2".into());
        assert!(!format!("{secret:?} {secret}").contains("hunter2"));
        assert_eq!(secret.expose(), "hunter2");
    }
}
