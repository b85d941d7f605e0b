//! Times as people write them.

use std::time::Duration;

use serde::Deserialize;

use super::text::tidied;
use crate::text::repeated;

/// Ten years: past any use, and far from where sums of instants overflow.
const DURATION_MAX: Duration = Duration::from_secs(3_650 * 24 * 60 * 60);

/// What every refusal says of the form.
const FORM: &str = "write 10s, 1.5s, 500ms, 2m, 24h or 7d";

/// Reads `10`, `10s`, `1.5s`, `500ms`, `2m`, `24h` or `7d`; a bare number is in seconds. More than
/// nothing, and at most ten years.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = tidied(text);
    let (number, unit) = split(text);
    let unit = if unit.is_empty() { "s" } else { unit };
    let duration = of(number, unit);
    let text = repeated(text);
    let duration = duration.ok_or_else(|| format!("'{text}' is not a duration: {FORM}"))?;
    match duration {
        Duration::ZERO => Err(format!("'{text}' is no time at all: {FORM}")),
        duration if duration > DURATION_MAX => Err(format!("'{text}' is longer than ten years")),
        duration => Ok(duration),
    }
}

/// Reads a bound on a time: as [`parse_duration`], but it may be nothing at all, and without a unit it
/// would be read as what it is not.
pub fn parse_bound(text: &str) -> Option<Duration> {
    let (number, unit) = split(tidied(text));
    of(number, unit)
}

fn split(text: &str) -> (&str, &str) {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    text.split_at(text.len() - text.trim_start_matches(is_number).len())
}

/// `None` if one of the two is none, or if it is longer than a `Duration` can be.
fn of(number: &str, unit: &str) -> Option<Duration> {
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    Duration::try_from_secs_f64(number * seconds).ok()
}

/// A duration in a settings file: a text, or a bare number of seconds as a flag may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub(super) struct Span(pub(super) Duration);

impl TryFrom<toml::Value> for Span {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(seconds) => seconds.to_string(),
            toml::Value::Float(seconds) => seconds.to_string(),
            _ => return Err(format!("it is not a duration: {FORM}")),
        };
        parse_duration(&text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let millis = |text| parse_duration(text).map(|duration| duration.as_millis());
        for (text, expected) in [
            ("10", 10_000),
            ("250ms", 250),
            ("2m", 120_000),
            ("1.5s", 1_500),
            ("0.25", 250),
            (" 007s\n", 7_000),
            ("1440m", 86_400_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(millis(text), Ok(expected), "{text:?}");
        }
        for bad in [
            "",
            "s",
            "-1",
            "+1",
            "0",
            "0.0s",
            "1w",
            "1 s",
            "1.s",
            ".5s",
            "1.2.3s",
            "1e3s",
            "infs",
            "٣s",
            "1000000000000000000000s",
            "18446744073709551615m",
            "3651d",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_bound_needs_a_unit_and_may_be_nothing() {
        assert_eq!(parse_bound("0ms"), Some(Duration::ZERO));
        assert_eq!(parse_bound("1.5s"), Some(Duration::from_millis(1_500)));
        assert_eq!(parse_bound("2m"), Some(Duration::from_secs(120)));
        for bad in ["300", "", "ms", "-1s", "1e3ms", "infs", "nans"] {
            assert_eq!(parse_bound(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_settings_file_may_leave_the_unit_out() {
        let read = |value: toml::Value| Span::try_from(value).map(|span| span.0);
        assert_eq!(read(5.into()), parse_duration("5"));
        assert_eq!(read(1.5.into()), parse_duration("1.5"));
        assert_eq!(read("5s".into()), parse_duration("5"));
        for bad in [(-5).into(), f64::NAN.into(), true.into(), 0.into()] {
            assert!(read(bad).is_err());
        }
    }
}
