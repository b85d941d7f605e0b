//! The text of a setting, the same whichever way it comes in.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// Programs on some systems begin a text file with it; to a setting it says nothing.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// A text without what editors and shells put around it: byte order marks in front, and ASCII blanks
/// and line breaks on both sides.
pub fn tidied(text: &str) -> &str {
    text.trim_start_matches(BYTE_ORDER_MARK).trim_ascii()
}

/// The same for bytes that need not be text, as those of a header or a path.
pub fn tidied_bytes(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = bytes.strip_prefix(BYTE_ORDER_MARK.as_bytes()) {
        bytes = rest;
    }
    bytes.trim_ascii()
}

/// The same for a path.
pub(super) fn tidied_path(path: &OsStr) -> &OsStr {
    OsStr::from_bytes(tidied_bytes(path.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_have_one_form() {
        for (text, form) in [
            ("k", "k"),
            ("\u{feff}\u{feff} k l\t\r\n", "k l"),
            ("\u{feff}", ""),
            (" \n", ""),
            ("\u{a0}k\u{2003}", "\u{a0}k\u{2003}"),
            ("k\u{feff}", "k\u{feff}"),
        ] {
            assert_eq!(tidied(text), form, "{text:?}");
            assert_eq!(tidied_bytes(text.as_bytes()), form.as_bytes(), "{text:?}");
            assert_eq!(tidied_path(OsStr::new(text)), form, "{text:?}");
        }
    }
}
