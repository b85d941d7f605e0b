//! What is left of a request's body when its reply is known.
//!
//! A client that sends all before it reads would never see the reply if the connection were closed
//! on it: the system drops a reply that is on its way when unread bytes are thrown away. So the
//! rest is read first, within bounds, whoever refused the request and why.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Bytes, HttpBody};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

use crate::model::limits::{BODY_BYTES_MAX, BODY_WAIT_MAX};

/// How much is still read of a body that nobody wants.
const DISCARDED_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;

/// Two views of one body: one for whoever answers, one for what is left after the answer.
pub fn split<B>(body: B) -> (Read<B>, Leftover<B>) {
    let shared = Arc::new(Mutex::new(Shared {
        body,
        is_begun: false,
        is_ended: false,
    }));
    (Read(Arc::clone(&shared)), Leftover(shared))
}

#[derive(Debug)]
struct Shared<B> {
    body: B,
    is_begun: bool,
    is_ended: bool,
}

fn lock<B>(shared: &Mutex<Shared<B>>) -> MutexGuard<'_, Shared<B>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The body, for whoever answers.
#[derive(Debug)]
pub struct Read<B>(Arc<Mutex<Shared<B>>>);

/// The same body, for what was not read.
#[derive(Debug)]
pub struct Leftover<B>(Arc<Mutex<Shared<B>>>);

impl<B: HttpBody<Data = Bytes> + Unpin> Leftover<B> {
    /// Whether something may be left. A client that waits to be asked for its body
    /// (`Expect: 100-continue`) has sent none of it if nobody has begun to read.
    pub fn is_there(&self, waits_to_be_asked: bool) -> bool {
        let shared = lock(&self.0);
        let is_coming = shared.is_begun || !waits_to_be_asked;
        is_coming && !shared.is_ended && !shared.body.is_end_stream()
    }

    /// Reads the rest, as far as the bounds go.
    pub async fn discard(self) {
        // Past the time, the client is as slow as one whose body nobody waits for.
        let _ = timeout(BODY_WAIT_MAX, discard(Read(self.0))).await;
    }
}

async fn discard<B: HttpBody<Data = Bytes> + Unpin>(mut body: Read<B>) {
    let mut left = DISCARDED_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let read = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(read) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Read<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut shared = lock(&self.0);
        shared.is_begun = true;
        let polled = Pin::new(&mut shared.body).poll_frame(cx);
        shared.is_ended |= matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::{FutureExt as _, stream};

    use super::*;

    fn chunks(count: usize, bytes: usize) -> Body {
        let chunk = Bytes::from(vec![b'x'; bytes]);
        let chunks = std::iter::repeat_n(chunk, count).map(Ok::<_, std::io::Error>);
        Body::from_stream(stream::iter(chunks))
    }

    fn read_one(read: &mut Read<Body>) -> bool {
        matches!(read.frame().now_or_never(), Some(Some(Ok(_))))
    }

    #[tokio::test]
    async fn what_was_not_read_is_read_to_its_end() {
        let (mut read, left) = split(chunks(3, 10));
        assert!(read_one(&mut read));
        assert!(left.is_there(false));
        let shared = Arc::clone(&left.0);
        left.discard().await;
        assert!(lock(&shared).is_ended);
        assert!(!Leftover(shared).is_there(false));
    }

    #[tokio::test]
    async fn no_more_is_read_than_a_bound() {
        const CHUNK: usize = 1 << 20;
        let chunk = Bytes::from(vec![b'x'; CHUNK]);
        let endless = stream::iter(std::iter::repeat(chunk)).map_ok();
        let (_, left) = split(Body::from_stream(endless));
        let shared = Arc::clone(&left.0);
        left.discard().await;
        assert!(!lock(&shared).is_ended);
    }

    #[test]
    fn a_client_that_waits_to_be_asked_is_not_asked_in_vain() {
        let (mut read, left) = split(chunks(2, 10));
        assert!(!left.is_there(true));
        assert!(read_one(&mut read));
        assert!(left.is_there(true));
        let (_, none) = split(Body::empty());
        assert!(!none.is_there(false));
    }

    /// A stream of good chunks.
    trait MapOk: Sized {
        fn map_ok(self) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>>;
    }

    impl<S: futures_util::Stream<Item = Bytes>> MapOk for S {
        fn map_ok(self) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> {
            futures_util::StreamExt::map(self, Ok)
        }
    }
}
