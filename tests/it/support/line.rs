//! A line between two processes that a test can cut, silence, or make one-way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::eventually;

/// Lines have a loopback address of their own: no outgoing connection takes a port there while the
/// line is cut and its port is free.
const ADDRESS: &str = "127.0.0.3:0";

/// What a line does with what is sent over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Whole,
    /// Connections break, new ones are refused.
    Cut,
    /// Connections stay and new ones are taken; nothing passes until the line is whole again.
    Silent,
    /// Requests pass, their replies do not.
    NoReplies,
    /// The connections before this one, by their numbers, are as if silent for ever; others pass.
    Forgets(u64),
}

impl Mode {
    /// Whether requests pass over the connection of this number.
    fn passes(self, number: u64) -> bool {
        match self {
            Self::Silent | Self::Cut => false,
            Self::Whole | Self::NoReplies => true,
            Self::Forgets(before) => number >= before,
        }
    }
}

/// Forwards connections to one address until its runtime ends.
#[derive(Debug)]
pub struct Line {
    address: String,
    mode: watch::Sender<Mode>,
    /// How many connections were made.
    made: Arc<AtomicU64>,
    heard: Heard,
}

/// What was sent over each connection since somebody began to listen. It is heard also if it does not
/// pass.
#[derive(Debug, Clone, Default)]
struct Heard(Arc<Mutex<Option<ByConnection>>>);

/// By the port that the connection comes from.
type ByConnection = BTreeMap<u16, Vec<u8>>;

impl Heard {
    fn note(&self, connection: u16, bytes: &[u8]) {
        if let Some(heard) = self.0.lock().unwrap().as_mut() {
            heard
                .entry(connection)
                .or_default()
                .extend_from_slice(bytes);
        }
    }
}

impl Line {
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind(ADDRESS).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (mode, modes) = watch::channel(Mode::Whole);
        let heard = Heard::default();
        let made = Arc::<AtomicU64>::default();
        let end = End {
            target: target.to_owned(),
            made: made.clone(),
            heard: heard.clone(),
        };
        tokio::spawn(serve(listener, end, modes));
        Self {
            address,
            mode,
            made,
            heard,
        }
    }

    /// Lets the connections of this moment hang, as a firewall does that has forgotten them.
    pub fn forget(&self) {
        self.set(Mode::Forgets(self.made.load(Ordering::Relaxed)));
    }

    /// Where the line begins.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Cuts the line, and makes it whole when all its connections are gone with what they held back.
    pub async fn lose_all(&self) {
        self.set(Mode::Cut);
        eventually("the connections of a line are gone", async || {
            // That of the listener is left.
            (self.mode.receiver_count() == 1).then_some(())
        })
        .await;
        self.set(Mode::Whole);
    }

    /// Begins to listen to requests, anew if it did before.
    pub fn listen(&self) {
        *self.heard.0.lock().unwrap() = Some(BTreeMap::new());
    }

    /// The requests that were heard, by connection.
    pub fn heard(&self) -> Vec<Vec<u8>> {
        let heard = self.heard.0.lock().unwrap();
        heard.iter().flat_map(BTreeMap::values).cloned().collect()
    }
}

/// Where a line leads, and what is known of its connections.
#[derive(Debug, Clone)]
struct End {
    target: String,
    made: Arc<AtomicU64>,
    heard: Heard,
}

async fn serve(mut listener: TcpListener, end: End, mut modes: watch::Receiver<Mode>) {
    let address = listener.local_addr().unwrap();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.unwrap();
                tokio::spawn(carry(client, end.clone(), modes.clone()));
            }
            cut = until(&mut modes, |mode| mode == Mode::Cut) => {
                drop(listener);
                if !cut || !until(&mut modes, |mode| mode != Mode::Cut).await {
                    return;
                }
                listener = TcpListener::bind(address).await.unwrap();
            }
        }
    }
}

/// One connection, until one side ends it or the line is cut.
async fn carry(mut client: TcpStream, end: End, mut modes: watch::Receiver<Mode>) {
    let End {
        target,
        made,
        heard,
    } = end;
    let number = made.fetch_add(1, Ordering::Relaxed);
    let passes = |mode: Mode| mode.passes(number);
    let mut cut = modes.clone();
    let carried = async {
        let port = client.peer_addr().map_or(0, |address| address.port());
        let mut first = Vec::new();
        if !passes(*modes.borrow()) {
            // It is heard before there is anybody to send it to.
            first.resize(1 << 16, 0);
            let Ok(count @ 1..) = client.read(&mut first).await else {
                return;
            };
            first.truncate(count);
            heard.note(port, &first);
        }
        if !until(&mut modes, passes).await {
            return;
        }
        let Ok(mut server) = TcpStream::connect(&target).await else {
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        if server.write_all(&first).await.is_err() {
            return;
        }
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let replies = |mode: Mode| mode != Mode::NoReplies && passes(mode);
        tokio::select! {
            () = pump(from_client, to_server, modes.clone(), passes, |bytes| heard.note(port, bytes)) => {}
            () = pump(from_server, to_client, modes.clone(), replies, |_| ()) => {}
        }
    };
    tokio::select! {
        () = carried => {}
        _ = until(&mut cut, |mode| mode == Mode::Cut) => {}
    }
}

/// Forwards one direction while the mode lets it pass.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    passes: impl Fn(Mode) -> bool,
    hear: impl Fn(&[u8]),
) {
    let mut bytes = vec![0; 1 << 16];
    loop {
        let Ok(count @ 1..) = from.read(&mut bytes).await else {
            return;
        };
        hear(&bytes[..count]);
        // What was read when the line fell silent waits, as in a network that sends it again.
        if !until(&mut modes, &passes).await || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// Waits for such a mode; false if the line has ended.
async fn until(modes: &mut watch::Receiver<Mode>, wanted: impl Fn(Mode) -> bool) -> bool {
    modes.wait_for(|mode| wanted(*mode)).await.is_ok()
}
