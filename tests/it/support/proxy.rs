//! A proxy in front of one mongod that can hold commits back, or lose the replies to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bson::doc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The command by its name, as the wire has it.
const COMMIT: &[u8] = b"commitTransaction\0";

/// Forwards connections until its runtime ends.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    /// How many replies to commits are still to be lost.
    losses: AtomicU32,
    /// How many of them are still to be replaced.
    interruptions: AtomicU32,
    /// Whether commits are kept from the server.
    hold: AtomicBool,
    held: AtomicBool,
}

impl Proxy {
    /// In front of the mongod at `host`.
    pub async fn start(host: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let faults = Arc::<Faults>::default();
        let (server, shared) = (host.to_owned(), faults.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(forward(client, server, shared.clone()));
            }
        });
        Self { address, faults }
    }

    /// A connection string that leads through this proxy only, with the credentials of `uri`.
    pub fn uri(&self, uri: &str) -> String {
        direct(uri, &self.address)
    }

    /// Lets this many commits through to the server and loses their replies with the connections.
    pub fn lose_replies(&self, count: u32) {
        self.faults.losses.store(count, Ordering::SeqCst);
    }

    /// Whether all that were to be lost are lost.
    #[allow(dead_code, reason = "not all who share this wait for it")]
    pub fn all_lost(&self) -> bool {
        self.faults.losses.load(Ordering::SeqCst) == 0
    }

    /// Lets this many commits through to the server and tells that a change of its state interrupted
    /// them, as a server does that steps down while it waits for a majority.
    #[allow(dead_code, reason = "tests/mutants.rs uses it")]
    pub fn interrupt_commits(&self, count: u32) {
        self.faults.interruptions.store(count, Ordering::SeqCst);
    }

    /// Keeps every commit from now on from the server.
    pub fn hold_commits(&self) {
        self.faults.hold.store(true, Ordering::SeqCst);
    }

    /// Whether a commit is held: its transaction is complete and open.
    pub fn holds_a_commit(&self) -> bool {
        self.faults.held.load(Ordering::SeqCst)
    }
}

/// A connection string that leads to this address alone, with the credentials of `uri`.
pub fn direct(uri: &str, address: &str) -> String {
    let (credentials, _) = uri.split_once('@').unwrap();
    format!("{credentials}@{address}/?directConnection=true&authSource=admin")
}

/// Forwards both ways until one side ends, or until a reply is to be lost.
async fn forward(mut client: TcpStream, mut server: TcpStream, faults: Arc<Faults>) {
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut lose = false;
    let mut interrupt = false;
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                let bytes = &up[..count];
                let commit = bytes.windows(COMMIT.len()).any(|part| part == COMMIT);
                if commit && faults.hold.load(Ordering::SeqCst) {
                    faults.held.store(true, Ordering::SeqCst);
                    return std::future::pending().await;
                }
                lose |= commit && take_one(&faults.losses);
                interrupt = commit && take_one(&faults.interruptions);
                if server.write_all(bytes).await.is_err() { return }
            }
            read = server.read(&mut down) => {
                let Ok(count @ 1..) = read else { return };
                // The server has done it; the client never hears of it.
                if lose { return }
                let reply = match std::mem::take(&mut interrupt) {
                    true => interrupted(&down[..count]),
                    false => down[..count].to_vec(),
                };
                if client.write_all(&reply).await.is_err() { return }
            }
        }
    }
}

/// An error in place of this reply.
fn interrupted(reply: &[u8]) -> Vec<u8> {
    const HEADER_BYTES: usize = 16;
    const LENGTH_BYTES: usize = 4;
    /// No flags, then a section of the kind that is one document.
    const LEAD: [u8; 5] = [0; 5];
    let error = doc! {
        "ok": 0.0,
        "code": 11602,
        "codeName": "InterruptedDueToReplStateChange",
        "errmsg": "operation was interrupted",
    };
    let error = bson::serialize_to_vec(&error).unwrap();
    let length = HEADER_BYTES + LEAD.len() + error.len();
    let length = i32::try_from(length).unwrap().to_le_bytes();
    [&length, &reply[LENGTH_BYTES..HEADER_BYTES], &LEAD, &error].concat()
}

fn take_one(losses: &AtomicU32) -> bool {
    let less = |count: u32| count.checked_sub(1);
    losses
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
        .is_ok()
}
