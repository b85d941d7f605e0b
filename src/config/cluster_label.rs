//! What the nodes of one cluster call it.

use serde::Deserialize;

use super::text::tidied;

const LABEL_BYTES_MAX: usize = 128;

/// The name that the nodes of a cluster give with each message, in the form in which a header can
/// hold it: visible ASCII characters, with blanks between them but not around them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ClusterLabel(String);

impl ClusterLabel {
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = tidied(text);
        let fits = (1..=LABEL_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "the cluster's name is 1 to {LABEL_BYTES_MAX} visible ASCII characters"
        ))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ClusterLabel {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_what_a_header_gives_back() {
        assert_eq!(
            ClusterLabel::parse(" my cluster\n").unwrap().as_str(),
            "my cluster"
        );
        for bad in [
            "",
            " ",
            "a\nb",
            "a\tb",
            "ü",
            &"x".repeat(LABEL_BYTES_MAX + 1),
        ] {
            assert!(ClusterLabel::parse(bad).is_err(), "{bad:?} was taken");
        }
    }
}
