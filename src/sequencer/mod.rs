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

pub use self::core::Core;
pub use handle::{Handle, Progress};
pub use steps::{Batch, Input, Output, Ran, Reject, Resolved, Slot, Submission, Ticket};
pub use task::{Bounds, spawn};
pub use validator::Validator;
