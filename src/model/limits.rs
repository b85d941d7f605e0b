//! Every bound of the service in one place. docs/limits.md lists them for users.

use std::time::Duration;

/// The largest request body, in bytes. A MongoDB document is at most 16 MiB of BSON.
pub const BODY_BYTES_MAX: usize = 16 << 20;
/// How deep documents may nest. MongoDB's own bound is 180 in BSON and 100 for users.
pub const NESTING_DEPTH_MAX: usize = 100;
/// The most documents one insertMany may hold.
pub const INSERT_DOCUMENTS_MAX: usize = 10_000;
/// The most documents one update or delete may touch. Its share of a batch is bounded by this.
pub const TOUCHED_DOCUMENTS_MAX: usize = 10_000;
/// The most bytes of `_id` values one request may put into its log entry.
pub const KEY_BYTES_MAX: usize = 1 << 20;
/// The longest one request may run inside its batch.
pub const REQUEST_RUN_MAX: Duration = Duration::from_secs(5);
/// A batch that has run this long is cut after the request that runs, so that one slow request
/// delays its neighbours once, not each batch they are in.
pub const BATCH_RUN_MAX: Duration = Duration::from_millis(250);
/// The most requests in one batch, which is one MongoDB transaction.
pub const BATCH_REQUESTS_MAX: usize = 512;
/// The most payload bytes in one batch; a larger request travels alone.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// The most requests that wait for the sequencer. One more is refused with 429.
pub const QUEUE_REQUESTS_MAX: usize = 4_096;
/// The most payload bytes that wait for the sequencer. One more is refused with 429.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// How long a request may wait, from its arrival to its answer.
pub const REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);
/// The documents that a find returns when the client gives no limit.
pub const FIND_DOCUMENTS_DEFAULT: i64 = 1_000;
/// The most documents that a find or an aggregate returns.
pub const FIND_DOCUMENTS_MAX: i64 = 50_000;
/// The most bytes of BSON that one reply may hold.
pub const REPLY_BYTES_MAX: usize = 64 << 20;
/// The memory that all bodies and replies in flight may hold together. Past it: 429.
pub const IN_FLIGHT_BYTES_MAX: usize = 256 << 20;
/// The most connections a node keeps open.
pub const CONNECTIONS_MAX: usize = 4_096;
/// How long a client may take to send its request's head, and then its body.
pub const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
pub const BODY_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long requests that run may take to finish when a node stops.
pub const DRAIN_WAIT_MAX: Duration = Duration::from_secs(10);
