//! What Drumline does not let a request do, decided from the request alone.

use super::{Call, Failure};

pub const STAMP_FIELD_DEFAULT: &str = "_stamp";

pub fn check(_call: &Call, _stamp_field: &str) -> Result<(), Failure> {
    Ok(())
}
