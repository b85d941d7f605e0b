//! The sequencer: puts writes in one serial order, a batch at a time.
//!
//! The core decides, the task carries out, the handle is the way in. Never decodes a request, never
//! names MongoDB.

mod arrange;
mod core;
mod handle;
mod steps;
mod task;
mod validator;

pub use handle::{Handle, Progress};
pub use task::spawn;
pub use validator::Validator;
