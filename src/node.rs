//! One node: puts the parts together, serves until it is told to stop.
//!
//! The composition root; nothing else makes a store, a sequencer, an election and a server.

use std::future::Future;
use std::io;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::info;

use crate::config::{HostName, Secret, ServerUrl};
use crate::election::{self, Aside, Parts, Timing};
use crate::failover::{self, Assist, Wire};
use crate::gateway::Gateway;
use crate::ground::{self, Board};
use crate::http::auth::ApiKeys;
use crate::http::browser::Names;
use crate::http::router::{App, router};
use crate::http::server;
use crate::metrics::Metrics;
use crate::model::{NodeName, Rank};
use crate::namesake;
use crate::observer::Observer;
use crate::peer::{Credentials, Forwarder, Peer};
use crate::sequencer::{self, Bounds};
use crate::store::{Fault, Instance, STAMP_FIELD, Store, StoreError};

/// Messages of nodes about their replica set that wait to be sent, or to be read.
const ASIDE_MAX: usize = 16;

/// What a node needs to know.
#[derive(Debug)]
pub struct Settings {
    /// Its name, and its number in elections.
    pub rank: Rank,
    /// The connection string of the replica set, with its credentials.
    pub mongodb_uri: Secret,
    /// The keys that clients may use.
    pub api_keys: Vec<Secret>,
    pub peers: Vec<Peer>,
    /// What the nodes of the cluster know each other by. Needed if there are peers.
    pub credentials: Option<Credentials>,
    pub timing: Timing,
    /// Ask a member to stand when the primary is lost; `None` leaves it to MongoDB.
    pub assist: Option<Assist>,
    /// Where others reach this node, if not at the address that it listens on.
    pub url: Option<ServerUrl>,
    /// The names that requests may reach this node by, beside addresses.
    pub hosts: Vec<HostName>,
}

/// Why a node does not start, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the address that this node listens on cannot be told: {0}")]
    Address(io::Error),
    /// It would never serve.
    #[error("this node does not start: {0}")]
    Ground(Fault),
    #[error(
        "this node stops: another process has taken the name {0} while this one did not answer; \
         nodes of one cluster need a --name each"
    )]
    Replaced(NodeName),
}

/// Its text holds the fault's already; a source would be told once more.
impl From<Fault> for NodeError {
    fn from(fault: Fault) -> Self {
        Self::Ground(fault)
    }
}

/// How a node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// A coordinator hands over to a peer first.
    Leave,
    /// The peers end too, or there is no time: they find out by themselves.
    AtOnce,
}

/// Runs a node on this listener until `shutdown` resolves; then finishes what it has begun.
pub async fn run(
    listener: TcpListener,
    settings: Settings,
    shutdown: impl Future<Output = Shutdown>,
) -> Result<(), NodeError> {
    let name = settings.rank.node.clone();
    let board = Board::default();
    ground::before_start(&settings.mongodb_uri, &board).await?;
    let store = Store::connect(settings.mongodb_uri.expose(), name.clone()).await?;
    let (claims_out, claims) = mpsc::channel(1);
    let sequencer = sequencer::spawn(store.clone(), name.clone(), claims, Bounds::default());
    let forwarder = Forwarder::new(&settings.peers, settings.credentials.clone());
    info!(node = %name, rank = %format_args!("{:016x}", settings.rank.number), "serving");
    let address = listener.local_addr().map_err(NodeError::Address)?;
    let names = Names::new(address.ip(), settings.hosts);
    let url = settings.url.map(|url| url.to_string());
    let (tell, outgoing) = mpsc::channel(ASIDE_MAX);
    let (incoming, heard) = mpsc::channel(ASIDE_MAX);
    let (rank, peers) = (settings.rank.clone(), settings.peers.len());
    let url = url.unwrap_or_else(|| format!("http://{address}"));
    let instance = Instance::new(&url);
    let keeper = namesake::keep(store.clone(), name.clone(), instance.clone(), board.clone());
    tokio::spawn(ground::watch_log(store.clone(), board.clone()));
    tokio::spawn(ground::watch_connections(store.clone(), board.clone()));
    tokio::spawn(ground::watch_batches(sequencer.watch(), board.clone()));
    tokio::spawn(ground::watch(
        store.clone(),
        settings.mongodb_uri,
        board.clone(),
    ));
    let (election, inbox) = election::spawn(Parts {
        join: keeper.may_take_part(),
        instance: instance.clone(),
        store: store.clone(),
        sequencer: sequencer.clone(),
        claims: claims_out,
        rank: settings.rank,
        url,
        peers: settings.peers,
        credentials: settings.credentials,
        timing: settings.timing,
        aside: Aside { outgoing, incoming },
    });
    let metrics = Metrics::default();
    if let Some(assist) = settings.assist {
        failover::spawn(failover::Parts {
            store: store.clone(),
            rank,
            peers,
            assist,
            heartbeat: settings.timing.heartbeat,
            patience: settings.timing.patience(),
            wire: Wire { heard, tell },
            leadership: election.leadership.clone(),
            metrics: metrics.clone(),
        });
    }
    let leadership = election.leadership.clone();
    let observer = Observer::new(store.clone(), election.nodes.clone(), board.clone());
    let gateway = Gateway::new(
        store.clone(),
        sequencer,
        name.clone(),
        leadership,
        forwarder,
    );
    let keys = ApiKeys::new(settings.api_keys.iter().map(Secret::expose));
    let app = App::new(gateway, inbox, observer, board, metrics, keys, STAMP_FIELD);
    let streams = app.streams.clone();
    let app = router(app, names);
    let mut replaced = false;
    let left = async {
        let ended = tokio::select! {
            ended = shutdown => ended,
            () = keeper.replaced() => {
                replaced = true;
                Shutdown::AtOnce
            }
        };
        // Before the hand-over: whoever follows goes on at another node meanwhile.
        streams.end();
        if ended == Shutdown::Leave {
            election.leave().await;
        }
    };
    tokio::select! {
        () = server::run(listener, app, left) => {}
        never = store.watch_log() => never,
    }
    if replaced {
        return Err(NodeError::Replaced(name));
    }
    keeper.end();
    store.give_up_name(&instance).await;
    info!(node = %name, "stopped");
    Ok(())
}
