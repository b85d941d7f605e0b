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

use crate::model::limits::{CONNECTIONS_MAX, DRAIN_WAIT_MAX, HEAD_WAIT_MAX};

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
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
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
