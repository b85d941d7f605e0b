//! Text that must not be shown.

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;

use super::text::tidied;
use super::{ConfigError, small_file};

/// No secret is longer than this; a larger file is the wrong file.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// A password, a key, or a URI that holds one. Neither `Debug` nor any error text shows it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct Secret(String);

impl Secret {
    /// One that this program has drawn itself. What somebody gives goes through [`Secret::parse`].
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The one line of a text, wherever the text comes from: blanks and line breaks around it, or a
    /// byte order mark in front, are not of the secret.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let line = tidied(text);
        if line.is_empty() {
            return Err("it is empty, and there must be one key or URI");
        }
        if line.contains(['\n', '\r']) {
            return Err("there must be one line, with one key or URI, and nothing else");
        }
        match line.chars().any(char::is_control) {
            true => Err("it holds a control character, which no key and no URI has"),
            false => Ok(Self(line.to_owned())),
        }
    }

    /// The one line of a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = small_file::read(path, SECRET_BYTES_MAX, "one key or URI")?;
        Self::parse(&text).map_err(|why| ConfigError(format!("{}: {why}", path.display())))
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

/// What a flag gave. It is refused only when it is used: whoever parses flags repeats a value that is
/// refused, and this one must not be shown.
#[derive(Debug, Clone)]
pub struct GivenSecret(Result<Secret, &'static str>);

impl GivenSecret {
    /// The secret; the error names the flag.
    pub fn of_flag(&self, flag: &str) -> Result<Secret, ConfigError> {
        let secret = self.0.clone();
        secret.map_err(|why| ConfigError(format!("{flag}: {why}")))
    }
}

impl FromStr for GivenSecret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(Secret::parse(text)))
    }
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
        for bad in ["k\nl", "", " \n", "k\u{1b}[2J", "k\tl", "k\0"] {
            assert!(Secret::parse(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn is_never_shown() {
        let secret = Secret::new("hunter2".into());
        assert!(!format!("{secret:?} {secret}").contains("hunter2"));
        assert_eq!(secret.expose(), "hunter2");
        let given: GivenSecret = "hunter2\nhunter3".parse().unwrap();
        let error = given.of_flag("--mongodb").unwrap_err();
        assert!(!format!("{given:?} {error}").contains("hunter"));
    }
}
