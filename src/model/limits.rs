//! Every bound of the service in one place. docs/limits.md lists them for users.

use std::time::Duration;

/// The largest request body, in bytes. A MongoDB document is at most 16 MiB of BSON.
pub const BODY_BYTES_MAX: usize = 16 << 20;
/// The largest document in BSON: MongoDB's 16 MiB, less room for the `_id` and the stamp.
pub const DOCUMENT_BYTES_MAX: usize = (16 << 20) - (4 << 10);
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
/// A write whose work is not known beforehand may run for so long in a batch with others. A longer
/// one runs again, alone.
pub const SHARED_RUN_MAX: Duration = Duration::from_millis(250);
/// A write that runs alone may hold up the order for so long. A longer one is refused.
pub const ALONE_RUN_MAX: Duration = Duration::from_millis(800);
/// So many writes with a loop in an expression may be left to MongoDB, which computes on them
/// whatever happens, before the next one waits: each takes a core of it until it ends.
pub const LOOPS_LEFT_MAX: i64 = 2;
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
/// How much of that a request may wait until a coordinator is known. Then 503.
pub const COORDINATOR_WAIT_MAX: Duration = Duration::from_secs(3);
/// How long a causal read may wait for a member that has what the client has seen.
pub const CAUSAL_WAIT_MAX: Duration = Duration::from_secs(5);
/// The documents that a find returns when the client gives no limit.
pub const FIND_DOCUMENTS_DEFAULT: i64 = 1_000;
/// The most documents that a find or an aggregate returns.
pub const FIND_DOCUMENTS_MAX: i64 = 50_000;
/// How many documents a find returns whose client asks for so many; 0 asks for the default.
pub fn find_limit(asked: Option<i64>) -> Result<i64, String> {
    match asked {
        None | Some(0) => Ok(FIND_DOCUMENTS_DEFAULT),
        Some(limit) if limit <= FIND_DOCUMENTS_MAX => Ok(limit),
        Some(limit) => Err(format!("at most {FIND_DOCUMENTS_MAX}, {limit} is more")),
    }
}

/// The most bytes of BSON that one reply may hold.
pub const REPLY_BYTES_MAX: usize = 64 << 20;
/// The memory that all writes in flight may hold together. Past it: 429.
pub const IN_FLIGHT_BYTES_MAX: usize = 256 << 20;
/// The same for reads and their replies, which so take nothing from writes. Past it: 429.
pub const READ_BYTES_MAX: usize = 256 << 20;
/// How many look at the log at once, and how many more may wait for that. Past it: 429.
pub const LOG_LOOKS_MAX: usize = 2;
pub const LOG_LOOKS_WAITING_MAX: usize = 64;
/// How long a look at the log may wait for its turn. Then 429.
pub const LOG_WAIT_MAX: Duration = Duration::from_secs(5);
/// The memory that replies with the log may hold together until they are sent. Past it: 429.
pub const LOG_REPLY_BYTES_MAX: usize = 128 << 20;
/// How many may follow the log at a node at once. Past it: 429.
pub const LOG_FOLLOWERS_MAX: usize = 1_024;
/// How many may watch a collection at a node at once: each has a cursor in MongoDB, and a
/// connection to it. Past it: 429.
pub const WATCHES_MAX: usize = 32;
/// The memory that events may hold together until they are sent. Past it they wait.
pub const STREAM_BYTES_MAX: usize = 128 << 20;
/// How many of those who follow the log and have fallen behind read a page of it at once.
pub const LOG_PAGES_MAX: usize = 2;
/// A page of theirs ends with the log document that passes this size.
pub const LOG_PAGE_BYTES_MAX: usize = 256 << 10;
/// The end of the log that a node keeps for all who follow it, in bytes of BSON.
pub const LOG_KEPT_BYTES_MAX: usize = 4 << 20;
/// A stream without an event says at least so often that it lives.
pub const STREAM_BEAT: Duration = Duration::from_secs(2);
/// How long a stream waits for MongoDB before it is cut.
pub const STREAM_PATIENCE_MAX: Duration = Duration::from_secs(10);
/// The most connections a node keeps open. Past it, the one that is idle for longest is closed.
pub const CONNECTIONS_MAX: usize = 4_096;
/// So many more, for peers that come while all the others have requests in progress.
pub const PEER_CONNECTIONS: usize = 256;
/// How long a client may take to send its request's head, and then its body.
pub const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
pub const BODY_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a client may leave a reply unread before its connection is closed.
pub const REPLY_STALL_MAX: Duration = Duration::from_secs(30);
/// How long requests that run may take to finish when a node stops.
pub const DRAIN_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long one member may take to tell its state. Past that it counts as down.
pub const MEMBER_LOOK_MAX: Duration = Duration::from_secs(1);
/// A look at the members serves all who ask for the status while it is younger than this.
pub const LOOK_AGE_MAX: Duration = Duration::from_millis(250);

/// How far the time of a peer's message may be from the addressee's.
pub const MESSAGE_AGE_MAX: Duration = Duration::from_secs(5);
/// How far behind the newest message of its sender one may come. That is more than a second of
/// requests at any rate that a node passes on, and they are on their way at the same time.
pub const MESSAGES_BEHIND_MAX: u64 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{id, order};

    /// 1234567 as 1,234,567.
    fn grouped(number: i64) -> String {
        let digits = number.to_string();
        let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
        String::from_utf8(groups.join(&b',')).unwrap()
    }

    fn count(number: usize) -> String {
        grouped(i64::try_from(number).unwrap())
    }

    fn mebibytes(bytes: usize) -> String {
        format!("{} MiB", bytes >> 20)
    }

    fn seconds(wait: Duration) -> String {
        format!("{} s", wait.as_secs())
    }

    #[test]
    fn the_page_for_users_says_the_same() {
        let page = include_str!("../../docs/limits.md");
        for (bound, value) in [
            ("request body", mebibytes(BODY_BYTES_MAX)),
            (
                "one document in BSON",
                format!("{} KiB", count(DOCUMENT_BYTES_MAX >> 10)),
            ),
            (
                "nesting of a body's fields",
                format!("{NESTING_DEPTH_MAX} levels"),
            ),
            ("documents in one insertMany", count(INSERT_DOCUMENTS_MAX)),
            (
                "documents that one update or delete touches",
                count(TOUCHED_DOCUMENTS_MAX),
            ),
            ("`_id` values in one log entry", mebibytes(KEY_BYTES_MAX)),
            ("run of one read", seconds(REQUEST_RUN_MAX)),
            (
                "run of a write that is not by `_id`, with others",
                format!("{} ms", SHARED_RUN_MAX.as_millis()),
            ),
            (
                "run of a write alone",
                format!("{} ms", ALONE_RUN_MAX.as_millis()),
            ),
            (
                "run of a batch before it is cut",
                format!("{} ms", BATCH_RUN_MAX.as_millis()),
            ),
            (
                "writes with a loop that MongoDB still computes on",
                LOOPS_LEFT_MAX.to_string(),
            ),
            ("requests in one batch", count(BATCH_REQUESTS_MAX)),
            ("payload in one batch", mebibytes(BATCH_BYTES_MAX)),
            (
                "requests that wait for the sequencer",
                count(QUEUE_REQUESTS_MAX),
            ),
            (
                "payload that waits for the sequencer",
                mebibytes(QUEUE_BYTES_MAX),
            ),
            ("wait for an answer", seconds(REQUEST_WAIT_MAX)),
            ("wait for a coordinator", seconds(COORDINATOR_WAIT_MAX)),
            (
                "wait of a causal read for a fresh member",
                seconds(CAUSAL_WAIT_MAX),
            ),
            (
                "documents of a find without a limit",
                grouped(FIND_DOCUMENTS_DEFAULT),
            ),
            (
                "documents of a find or an aggregate",
                grouped(FIND_DOCUMENTS_MAX),
            ),
            ("BSON in one reply", mebibytes(REPLY_BYTES_MAX)),
            ("writes in flight together", mebibytes(IN_FLIGHT_BYTES_MAX)),
            (
                "reads and their replies together",
                mebibytes(READ_BYTES_MAX),
            ),
            ("looks at the log at once", count(LOG_LOOKS_MAX)),
            ("looks at the log that wait", count(LOG_LOOKS_WAITING_MAX)),
            ("wait of a look at the log", seconds(LOG_WAIT_MAX)),
            (
                "replies with the log together",
                mebibytes(LOG_REPLY_BYTES_MAX),
            ),
            ("streams of the log", count(LOG_FOLLOWERS_MAX)),
            ("streams of changes", count(WATCHES_MAX)),
            (
                "events that are to be sent together",
                mebibytes(STREAM_BYTES_MAX),
            ),
            ("pages of the log for streams at once", count(LOG_PAGES_MAX)),
            (
                "one page of the log for a stream",
                format!("{} KiB", LOG_PAGE_BYTES_MAX >> 10),
            ),
            (
                "end of the log that is kept for streams",
                mebibytes(LOG_KEPT_BYTES_MAX),
            ),
            ("silence of a stream", seconds(STREAM_BEAT)),
            ("wait of a stream for MongoDB", seconds(STREAM_PATIENCE_MAX)),
            ("open connections", count(CONNECTIONS_MAX)),
            ("further connections, for peers", count(PEER_CONNECTIONS)),
            (
                "wait for a request's head, and between two requests",
                seconds(HEAD_WAIT_MAX),
            ),
            ("wait for a request's body", seconds(BODY_WAIT_MAX)),
            (
                "wait for a client that reads none of its reply",
                seconds(REPLY_STALL_MAX),
            ),
            (
                "wait for running requests when a node stops",
                seconds(DRAIN_WAIT_MAX),
            ),
            (
                "wait for a member's part of the status",
                seconds(MEMBER_LOOK_MAX),
            ),
            (
                "age of a status that is given again",
                format!("{} ms", LOOK_AGE_MAX.as_millis()),
            ),
            ("age of a peer's message", seconds(MESSAGE_AGE_MAX)),
            (
                "messages by which a peer's may be overtaken",
                grouped(i64::try_from(MESSAGES_BEHIND_MAX).unwrap()),
            ),
            ("request id", format!("{} bytes", id::REQUEST_ID_BYTES_MAX)),
            ("node name", format!("{} bytes", id::NODE_NAME_BYTES_MAX)),
            (
                "client's clock ahead of the log",
                grouped(order::CLOCK_AHEAD_MAX),
            ),
        ] {
            let row = format!("| {bound} | {value} |");
            assert!(page.contains(&row), "docs/limits.md lacks {row:?}");
        }
    }
}
