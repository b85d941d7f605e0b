//! Integers that would be rounded without a word: two ids of 20 digits would become one.

/// A JSON integer that neither 64 bits nor a double holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rounded<'j> {
    pub text: &'j str,
    /// Where it begins, in bytes.
    pub at: usize,
}

/// An integer of fewer digits fits into 64 bits.
const DIGITS_SAFE: usize = 18;

/// Finds the first one. The parser gives a double for every long integer and drops its digits, so
/// the digits are looked at beforehand; a text that is no JSON is the parser's to refuse.
pub(super) fn rounded(json: &[u8]) -> Option<Rounded<'_>> {
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => at = after_string(json, at + 1),
            b'-' | b'0'..=b'9' => {
                let rest = json.get(at..).unwrap_or_default();
                let length = rest.iter().take_while(|byte| in_number(**byte)).count();
                let number = rest.get(..length).unwrap_or_default();
                if let Ok(text) = std::str::from_utf8(number)
                    && length > DIGITS_SAFE
                    && is_rounded(text)
                {
                    return Some(Rounded { text, at });
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    None
}

fn after_string(json: &[u8], mut at: usize) -> usize {
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    at
}

const fn in_number(byte: u8) -> bool {
    matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
}

/// An integer that a double holds is none of them, nor one that is written as programs write a
/// double: JavaScript prints 2^64 as 18446744073709552000, which reads back as 2^64.
fn is_rounded(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || text.parse::<i64>().is_ok() {
        return false;
    }
    let Ok(double) = text.parse::<f64>() else {
        return false;
    };
    // Without an exponent `{}` is the shortest text that reads back, and `{:.0}` the exact value.
    double.is_finite() && text != format!("{double}") && text != format!("{double:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn found(json: &str) -> Option<&str> {
        rounded(json.as_bytes()).map(|rounded| rounded.text)
    }

    #[test]
    fn integers_that_a_double_does_not_hold_are_found() {
        for text in [
            "12345678901234567891",
            "-12345678901234567891",
            "9223372036854775809",
            "92345678901234567891234",
        ] {
            assert_eq!(found(text), Some(text));
            assert_eq!(found(&format!("{{\"a\":[1,{text} ]}}")), Some(text));
        }
        assert_eq!(rounded(b"[0,12345678901234567891]").unwrap().at, 3);
    }

    #[test]
    fn numbers_that_keep_their_value_pass() {
        for text in [
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "18446744073709551616",
            // What JavaScript and Python print for 2^64.
            "18446744073709552000",
            "100000000000000000000",
            "1234567890123456789012e0",
            "0.1234567890123456789012345",
            "\"12345678901234567891\"",
            "\"a\\\"12345678901234567891\"",
            "{\"12345678901234567891\":1}",
            "\"12345678901234567891",
            "\\",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
