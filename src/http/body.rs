//! Reads a request's body within bounds of size, time and memory.

use axum::body::Body;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::error::Problem;
use crate::budget::Reservation;
use crate::model::Failure;
use crate::model::limits::{BODY_BYTES_MAX, BODY_WAIT_MAX};

/// What one value costs in memory once it is decoded, beside its text.
const VALUE_BYTES: usize = 150;

/// Reads the whole body and grows the reservation to what it will cost decoded.
pub async fn read(body: Body, reservation: &mut Reservation) -> Result<Vec<u8>, Problem> {
    match timeout(BODY_WAIT_MAX, collect(body, reservation)).await {
        Ok(read) => read,
        Err(_) => Err(Problem::SlowBody),
    }
}

async fn collect(mut body: Body, reservation: &mut Reservation) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::BrokenBody)?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        check(bytes.len() + data.len(), reservation)?;
        bytes.extend_from_slice(data);
    }
    reservation.grow_to(decoded_cost(&bytes))?;
    Ok(bytes)
}

fn check(size: usize, reservation: &mut Reservation) -> Result<(), Failure> {
    if size > BODY_BYTES_MAX {
        return Err(Failure::TooLarge(format!(
            "the body is larger than {} MiB; send it in parts",
            BODY_BYTES_MAX >> 20
        )));
    }
    reservation.grow_to(size)
}

/// The text, which a node keeps to pass it on, and the decoded form. An upper bound, got without parsing: each value but the first follows one of three characters.
fn decoded_cost(json: &[u8]) -> usize {
    let opens = |byte: &&u8| matches!(byte, b',' | b'{' | b'[');
    2 * json.len() + VALUE_BYTES * json.iter().filter(opens).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_values_cost_more_than_one_large() {
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(10_000));
        let many = format!("{{\"a\":[{}]}}", vec!["1"; 5_000].join(","));
        let cost = 2 * large.len() + VALUE_BYTES;
        assert_eq!(decoded_cost(large.as_bytes()), cost);
        assert_eq!(
            decoded_cost(many.as_bytes()),
            2 * many.len() + 5_001 * VALUE_BYTES
        );
    }
}
