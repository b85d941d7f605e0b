//! Connections: accepts them up to a bound, serves them, and drains them at the end.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::stall::StallGuard;
use crate::model::limits::{CONNECTIONS_MAX, DRAIN_WAIT_MAX, HEAD_WAIT_MAX, REPLY_STALL_MAX};

/// How long to pause when the process has no file descriptor or memory for another connection.
/// Connections that end free them; a loop without a pause would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` resolves, then lets requests that run finish within
/// [`DRAIN_WAIT_MAX`]. When it returns, every connection is closed.
pub async fn run(listener: TcpListener, app: Router, shutdown: impl Future<Output = ()>) {
    let (closing, _) = watch::channel(());
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, place) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        connections.spawn(serve(stream, app.clone(), closing.subscribe(), place));
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

async fn drain(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// The next connection, and its place among [`CONNECTIONS_MAX`]. Without a free place new ones wait
/// in the kernel's queue. Safe to cancel.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed, so there is a place in the end.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                warn!(%error, "cannot accept connections at the moment");
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

/// Serves one connection until its client leaves, it idles, or the node closes.
async fn serve(
    stream: TcpStream,
    app: Router,
    mut closing: watch::Receiver<()>,
    place: Option<OwnedSemaphorePermit>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "the client is gone already");
        return;
    }
    let stream = TokioIo::new(StallGuard::new(stream, REPLY_STALL_MAX));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .serve_connection(stream, TowerToHyperService::new(app));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        // The sender is dropped when the node closes; nothing is ever sent.
        _ = closing.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended early");
    }
    drop(place);
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
}
