//! The times that `$date` takes as a text.

use std::borrow::Cow;

use bson::DateTime;

/// Reads an ISO 8601 time with its offset. Beside `Z` and `+02:00` that is `+0200`, which the tools
/// of MongoDB wrote for years and Java's formatters still write, and `+02`.
pub(super) fn parse(text: &str) -> Option<DateTime> {
    DateTime::parse_rfc3339_str(with_colon(text)).ok()
}

/// The offset in the one form that the parser knows. Only what follows a time of day is an offset:
/// the last part of `2024-01-01` is a day.
fn with_colon(text: &str) -> Cow<'_, str> {
    let Some(time) = text.find(['T', 't', ' ']) else {
        return text.into();
    };
    let Some((before, offset)) = text
        .rfind(['+', '-'])
        .filter(|sign| *sign > time)
        .and_then(|sign| text.split_at_checked(sign + 1))
    else {
        return text.into();
    };
    if !offset.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.into();
    }
    match offset.split_at_checked(2) {
        Some((hours, minutes)) if minutes.len() == 2 => format!("{before}{hours}:{minutes}").into(),
        Some((hours, "")) => format!("{before}{hours}:00").into(),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_taken_with_and_without_its_colon() {
        let at = |text: &str| parse(text).map(DateTime::timestamp_millis);
        let expected = Some(1_638_548_110_000);
        for text in [
            "2021-12-03T16:15:10Z",
            "2021-12-03T16:15:10.000+0000",
            "2021-12-03T18:15:10+0200",
            "2021-12-03T18:15:10+02:00",
            "2021-12-03T18:15:10+02",
            "2021-12-03T10:45:10.000-0530",
            "2021-12-03t16:15:10z",
        ] {
            assert_eq!(at(text), expected, "{text}");
        }
        assert_eq!(at("2021-12-03T10:45:10.5-0530"), Some(1_638_548_110_500));
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for text in [
            "",
            "2021-12-03",
            "2021-12-03T16:15:10",
            "2021-12-03T16:15:10+",
            "2021-12-03T16:15:10+2",
            "2021-12-03T16:15:10+020",
            "2021-12-03T16:15:10+02000",
            "2021-12-03T16:15:10+2500",
            "2021-12-03T16:15:10+0260",
            "2021-13-03T16:15:10+0000",
            "2021-12-03T16:15:10+ü0",
            "yesterday",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
