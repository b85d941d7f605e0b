//! Connections: accepts them up to a bound, serves them, and drains them at the end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, EXPECT, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::crowd::{Crowd, Pass, Places, Seat, Working};
use super::error::Problem;
use super::stall::StallGuard;
use super::{leftover, paths};
use crate::model::Failure;
use crate::model::limits::{
    CONNECTIONS_MAX, DRAIN_WAIT_MAX, HEAD_WAIT_MAX, PEER_CONNECTIONS, REPLY_STALL_MAX,
};
use crate::peer::{ACTION_PATH, MESSAGE_PATH};

/// How long to pause when the process has no file descriptor or memory for another connection.
/// Connections that end free them; a loop without a pause would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// File descriptors that are not for connections of clients: those to MongoDB and to peers, files.
const OTHER_FILES: usize = 256;

/// Serves until `shutdown` resolves, then lets requests that run finish within
/// [`DRAIN_WAIT_MAX`]. When it returns, every connection is closed.
pub async fn run(listener: TcpListener, app: Router, shutdown: impl Future<Output = ()>) {
    run_with(listener, app, shutdown, places()).await;
}

async fn run_with(
    listener: TcpListener,
    app: Router,
    shutdown: impl Future<Output = ()>,
    places: Places,
) {
    let (closing, _) = watch::channel(());
    let mut connections = JoinSet::new();
    let crowd = Crowd::new(places);
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, seat) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &crowd) => accepted,
        };
        connections.spawn(serve(stream, app.clone(), closing.subscribe(), seat));
    }
    drop(listener);
    drop(closing);
    if timeout(DRAIN_WAIT_MAX, drain(&mut connections))
        .await
        .is_err()
    {
        warn!(
            left = connections.len(),
            "closing connections that still run requests"
        );
        connections.shutdown().await;
    }
}

/// [`CONNECTIONS_MAX`], or what the process may have: it takes all that the system allows it.
fn places() -> Places {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    let files = files.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    });
    let others = OTHER_FILES + PEER_CONNECTIONS;
    let all = files.saturating_sub(others).max(files / 4);
    Places {
        all: CONNECTIONS_MAX.min(all),
        peers: PEER_CONNECTIONS,
    }
}

async fn drain(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// The next connection, and its place. While all places are taken by connections with a request in
/// progress, new ones wait in the kernel's queue. Safe to cancel.
async fn accept(listener: &TcpListener, crowd: &Arc<Crowd>) -> (TcpStream, Seat) {
    crowd.has_room().await;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, crowd.enter()),
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                warn!(%error, "cannot accept connections at the moment");
                crowd.make_room();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Serves one connection until its client leaves, it idles, it has to make room, or the node closes.
async fn serve(stream: TcpStream, app: Router, mut closing: watch::Receiver<()>, seat: Seat) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "the client is gone already");
        return;
    }
    let stream = TokioIo::new(StallGuard::new(stream, REPLY_STALL_MAX, seat.unsent()));
    let pass = seat.pass();
    let service = service_fn(move |request| answer(app.clone(), pass.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .serve_connection(stream, service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased;
        // First, so that a request that has come counts before the connection is closed.
        ended = &mut connection => ended,
        // The sender is dropped when the node closes; nothing is ever sent.
        _ = closing.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = seat.is_to_leave() => return debug!("an idle connection made room"),
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended early");
    }
}

/// Answers one request, which is in progress until its reply is sent.
async fn answer(
    app: Router,
    pass: Pass,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let (mut head, body) = request.into_parts();
    paths::tidy(&mut head.uri);
    let path = head.uri.path();
    let says_peer = path == MESSAGE_PATH || path.starts_with(ACTION_PATH);
    let waits_to_be_asked = head.headers.contains_key(EXPECT);
    let (body, left) = leftover::split(body);
    let mut working = pass.begin(says_peer);
    let reply = if working.is_some() {
        head.extensions.insert(pass.clone());
        let request = Request::from_parts(head, Body::new(body));
        TowerToHyperService::new(app).call(request).await?
    } else {
        let mut reply = Problem::from(Failure::Busy).into_response();
        let close = HeaderValue::from_static("close");
        reply.headers_mut().insert(CONNECTION, close);
        reply
    };
    // One that was too slow already is not waited for again.
    if left.is_there(waits_to_be_asked) && reply.status() != StatusCode::REQUEST_TIMEOUT {
        // Whoever only sends what nobody wants makes room for those who work.
        drop(working.take());
        left.discard().await;
        working = pass.begin(says_peer);
    }
    Ok(reply.map(|body| {
        Body::new(Attended {
            body,
            _working: working,
        })
    }))
}

/// A reply whose request is in progress until it is sent.
#[derive(Debug)]
struct Attended {
    body: Body,
    _working: Option<Working>,
}

impl HttpBody for Attended {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::{Notify, oneshot};

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: node\r\n\r\n";

    async fn connect(address: std::net::SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.unwrap()
    }

    #[tokio::test]
    async fn requests_that_run_are_answered_before_the_end() {
        let (started, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = {
            let (started, go_on) = (started.clone(), go_on.clone());
            move || async move {
                started.notify_one();
                go_on.notified().await;
                "done"
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let app = Router::new().route("/", get(handler));
        let server = tokio::spawn(run(listener, app, shutdown));

        let mut idle = connect(address).await;
        let mut busy = connect(address).await;
        busy.write_all(REQUEST).await.unwrap();
        started.notified().await;
        drop(stop);
        // The idle one ends first, which also shows that the node is closing.
        assert_eq!(idle.read(&mut [0; 16]).await.unwrap(), 0);
        go_on.notify_one();
        let mut reply = String::new();
        busy.read_to_string(&mut reply).await.unwrap();
        assert!(reply.ends_with("done"), "{reply:?}");
        server.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn idle_connections_and_half_heads_make_room_and_requests_that_run_do_not() {
        let (started, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = {
            let (started, go_on) = (started.clone(), go_on.clone());
            move || async move {
                started.notify_one();
                go_on.notified().await;
                "done"
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .route("/", get(handler))
            .route("/quick", get(|| async { "quick" }));
        let places = Places { all: 4, peers: 2 };
        let server = tokio::spawn(run_with(listener, app, std::future::pending(), places));

        let mut busy = connect(address).await;
        busy.write_all(REQUEST).await.unwrap();
        started.notified().await;
        let mut crowd = Vec::new();
        for at in 0..50 {
            let mut idle = connect(address).await;
            if at % 2 == 0 {
                idle.write_all(b"GET /qu").await.unwrap();
            }
            crowd.push(idle);
            let mut fresh = connect(address).await;
            let quick = b"GET /quick HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
            fresh.write_all(quick).await.unwrap();
            let mut reply = String::new();
            fresh.read_to_string(&mut reply).await.unwrap();
            assert!(reply.ends_with("quick"), "{reply:?}");
        }
        // The first have been closed; that is an end or, with bytes unread, a reset.
        let ended = crowd[0].read(&mut [0; 16]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        go_on.notify_one();
        let mut reply = [0; 512];
        let read = busy.read(&mut reply).await.unwrap();
        assert!(reply[..read].ends_with(b"done"));
        server.abort();
    }
}
