//! Whole numbers of 0 or more, as limits and skips are: one rule for a field and for a flag.

use bson::Bson;
use thiserror::Error;

use super::read::values;

/// What is expected where a count stands.
pub const EXPECTED: &str = "a whole number of 0 or more";

/// A value that is no count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("it must be {EXPECTED}")]
pub struct NotACount;

/// A count in any of the types that can hold one: `10`, `10.0`, `{"$numberLong": "10"}`.
pub fn count(value: &Bson) -> Result<i64, NotACount> {
    let number = match value {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        Bson::Double(number) => whole(*number),
        _ => None,
    };
    number.filter(|number| *number >= 0).ok_or(NotACount)
}

/// A count as a flag has it: the text of the JSON that a field would hold.
pub fn count_text(text: &str) -> Result<i64, NotACount> {
    let values = values(text.as_bytes()).map_err(|_| NotACount)?;
    match values.as_slice() {
        [only] => count(&only.value),
        _ => Err(NotACount),
    }
}

/// Any whole number as a flag has it, by the same rules, but up to the end of 64 bits.
pub fn whole_text(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    match text.parse() {
        Ok(number) if is_plain => Some(number),
        _ => u64::try_from(count_text(text).ok()?).ok(),
    }
}

/// The integer that a double holds exactly, if it is one.
fn whole(number: f64) -> Option<i64> {
    // 2^53: past it doubles skip integers.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole and in range")]
    (number.fract() == 0.0 && number.abs() <= EXACT_MAX).then_some(number as i64)
}
