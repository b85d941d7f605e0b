//! Three nodes of a test's own on a cluster's replica set, to kill, freeze, stop and cut off.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::timeout;

use super::extra_node::{ExtraNode, free_address};
use super::http::Http;
use super::line::{Line, Mode};
use super::load::Load;
use super::proxy::direct;
use super::{Cluster, Pid, eventually, kill};

pub const NAMES: [&str; 3] = ["n1", "n2", "n3"];
/// Nodes have a loopback address of their own: no outgoing connection takes the port of one that is
/// to come back.
const HOST: &str = "127.0.0.2";
pub const CLUSTER_NAME: &str = "trio";
pub const SECRET: &str = "the secret of the three";
/// A node that is cut off from MongoDB takes a second to say so.
const STATUS_MAX: Duration = Duration::from_secs(3);
/// Of the log of a node, if a test fails.
const LINES_SHOWN: usize = 40;

/// How the nodes are started.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Lines stand between the nodes.
    pub peer_lines: bool,
    /// Lines lead from each node to the member that is primary at the start, and to no other.
    pub mongodb_lines: bool,
    /// How long a coordinator is left in peace by larger ranks.
    pub dwell: &'static str,
}

impl Default for Setup {
    /// No lines, and nobody takes over while a test lasts.
    fn default() -> Self {
        Self {
            peer_lines: false,
            mongodb_lines: false,
            dwell: "600s",
        }
    }
}

/// The nodes, by their index in [`NAMES`]. They end with this.
#[derive(Debug)]
pub struct Trio<'a> {
    cluster: &'a Cluster,
    driver: Client,
    dwell: &'static str,
    addresses: Vec<String>,
    uris: Vec<String>,
    /// A new node gets the largest rank, with the next number.
    ranks: u64,
    nodes: Vec<Option<ExtraNode>>,
    frozen: [bool; 3],
    peer_lines: BTreeMap<(usize, usize), Line>,
    mongodb_lines: Vec<Line>,
}

/// Who is coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenure {
    pub node: usize,
    pub epoch: i64,
}

impl<'a> Trio<'a> {
    /// Starts three nodes and waits until they agree.
    pub async fn start(cluster: &'a Cluster, setup: Setup) -> Self {
        let mut trio = Self::prepare(cluster, setup).await;
        for node in 0..3 {
            trio.start_node(node);
        }
        trio.agreed().await;
        trio
    }

    /// The same without any node.
    pub async fn prepare(cluster: &'a Cluster, setup: Setup) -> Self {
        let addresses: Vec<_> = NAMES.iter().map(|_| free_address(HOST)).collect();
        let uri = &cluster.info.mongodb_uri;
        let mut trio = Self {
            cluster,
            driver: Client::with_uri_str(uri).await.unwrap(),
            dwell: setup.dwell,
            uris: vec![uri.clone(); 3],
            ranks: 0,
            nodes: vec![None, None, None],
            frozen: [false; 3],
            peer_lines: BTreeMap::new(),
            mongodb_lines: Vec::new(),
            addresses,
        };
        if setup.peer_lines {
            for (from, to) in pairs() {
                let line = Line::to(&trio.addresses[to]).await;
                trio.peer_lines.insert((from, to), line);
            }
        }
        if setup.mongodb_lines {
            let primary = primary(uri).await;
            for node in 0..3 {
                let line = Line::to(&primary).await;
                trio.uris[node] = direct(uri, line.address());
                trio.mongodb_lines.push(line);
            }
        }
        trio
    }

    /// Leads a node to MongoDB by this connection string from its next start on.
    pub fn set_uri(&mut self, node: usize, uri: String) {
        self.uris[node] = uri;
    }

    /// Starts a node that does not run. Its rank is larger than all before.
    pub fn start_node(&mut self, node: usize) {
        assert!(self.nodes[node].is_none(), "{} runs", NAMES[node]);
        self.ranks += 1;
        let rank = self.ranks.to_string();
        let peers: Vec<_> = (0..3)
            .filter(|peer| *peer != node)
            .map(|peer| format!("{}=http://{}", NAMES[peer], self.address_of(node, peer)))
            .collect();
        let (uri, address) = (&self.uris[node], &self.addresses[node]);
        let started = ExtraNode::start_with(self.cluster, NAMES[node], uri, address, |command| {
            command.args(["--rank", &rank, "--cluster", CLUSTER_NAME]);
            command.args(peers.iter().flat_map(|peer| ["--peer", peer]));
            command.args(["--dwell", self.dwell]);
            command.env("DRUMLINE_CLUSTER_SECRET", SECRET);
        });
        started.until_listening();
        self.nodes[node] = Some(started);
    }

    /// Where `from` reaches `to`.
    fn address_of(&self, from: usize, to: usize) -> &str {
        let line = self.peer_lines.get(&(from, to));
        line.map_or(&self.addresses[to], Line::address)
    }

    pub fn address(&self, node: usize) -> &str {
        &self.addresses[node]
    }

    pub fn runs(&self, node: usize) -> bool {
        self.nodes[node].is_some()
    }

    fn running(&self, node: usize) -> &ExtraNode {
        self.nodes[node].as_ref().unwrap()
    }

    pub fn pid(&self, node: usize) -> Pid {
        self.running(node).pid()
    }

    /// What the node has logged.
    pub fn said(&self, node: usize) -> String {
        self.running(node).said()
    }

    pub fn http(&self, node: usize) -> Http {
        let url = format!("http://{}", self.addresses[node]);
        Http::new(&url, &self.cluster.info.api_key)
    }

    /// Kill -9.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node] = None;
        self.frozen[node] = false;
    }

    /// SIGTERM, without waiting for its effect.
    pub fn stop(&self, node: usize) {
        kill(self.pid(node), Signal::TERM);
    }

    pub fn until_stopped(&mut self, node: usize) {
        self.nodes[node].as_mut().unwrap().until_ended();
        self.nodes[node] = None;
    }

    pub fn freeze(&mut self, node: usize) {
        kill(self.pid(node), Signal::STOP);
        self.frozen[node] = true;
    }

    pub fn thaw(&mut self, node: usize) {
        kill(self.pid(node), Signal::CONT);
        self.frozen[node] = false;
    }

    /// What `from` sends to `to`, and the replies to it.
    pub fn line(&self, from: usize, to: usize) -> &Line {
        &self.peer_lines[&(from, to)]
    }

    /// Both lines between two nodes.
    pub fn between(&self, one: usize, other: usize, mode: Mode) {
        self.line(one, other).set(mode);
        self.line(other, one).set(mode);
    }

    /// All lines between a node and its peers.
    pub fn around(&self, node: usize, mode: Mode) {
        for peer in others(node) {
            self.between(node, peer, mode);
        }
    }

    /// The line from a node to MongoDB.
    pub fn to_mongodb(&self, node: usize) -> &Line {
        &self.mongodb_lines[node]
    }

    /// Makes all lines whole, thaws who is frozen and starts who does not run.
    pub fn heal(&mut self) {
        let lines = self.peer_lines.values().chain(&self.mongodb_lines);
        lines.for_each(|line| line.set(Mode::Whole));
        for node in 0..3 {
            if self.nodes[node].is_none() {
                self.start_node(node);
            } else if self.frozen[node] {
                self.thaw(node);
            }
        }
    }

    /// What a node says of the cluster.
    pub async fn status(&self, node: usize) -> Option<Value> {
        let http = self.http(node);
        let asked = timeout(STATUS_MAX, http.try_get("/status")).await;
        let reply = asked.ok()?.ok()?;
        (reply.status == 200).then(|| reply.json())
    }

    /// Waits until all nodes that run, and are not frozen, name the same coordinator.
    pub async fn agreed(&self) -> Tenure {
        let live = (0..3).filter(|node| self.runs(*node) && !self.frozen[*node]);
        self.agreed_among(&live.collect::<Vec<_>>()).await
    }

    /// Waits until these nodes name the same coordinator, which is one of them and wrote the last
    /// claim.
    pub async fn agreed_among(&self, nodes: &[usize]) -> Tenure {
        eventually("the nodes agree on a coordinator", async || {
            let node = self.believed(nodes[0]).await?;
            for other in nodes {
                if !nodes.contains(&node) || self.believed(*other).await != Some(node) {
                    return None;
                }
            }
            let (epoch, author) = self.try_claims().await.ok()?.pop()?;
            (author == NAMES[node]).then_some(Tenure { node, epoch })
        })
        .await
    }

    /// Whom a node believes to be coordinator.
    pub async fn believed(&self, node: usize) -> Option<usize> {
        let view = self.status(node).await?;
        let name = view["coordinator"].as_str()?;
        NAMES.iter().position(|other| *other == name)
    }

    /// A node's own role, as it says.
    pub async fn role(&self, node: usize) -> Option<String> {
        let view = self.status(node).await?;
        let mut nodes = view["nodes"].as_array()?.iter();
        let own = nodes.find(|view| view["name"] == NAMES[node])?;
        Some(own["role"].as_str()?.to_owned())
    }

    /// Load through all nodes, each client beginning with another.
    pub fn load(&self, namespace: &str) -> Load {
        let urls = self.addresses.iter().map(|at| format!("http://{at}"));
        Load::new(self.cluster, namespace).through_all(urls)
    }

    /// All claims in the log: epoch and node.
    pub async fn claims(&self) -> Vec<(i64, String)> {
        self.try_claims().await.unwrap()
    }

    /// As above; an error if the primary changes meanwhile.
    async fn try_claims(&self) -> mongodb::error::Result<Vec<(i64, String)>> {
        let claims = self.log(doc! {"kind": "claim"}).await?;
        let form = |claim: &Document| {
            let node = claim.get_str("node").unwrap().to_owned();
            (claim.get_i64("epoch").unwrap(), node)
        };
        Ok(claims.iter().map(form).collect())
    }

    /// The name of the node that wrote this position of the log.
    pub async fn author(&self, position: i64) -> Option<String> {
        let found = self.log(doc! {"_id": position}).await.unwrap();
        let node = found.first()?.get_str("node").unwrap();
        Some(node.to_owned())
    }

    async fn log(&self, filter: Document) -> mongodb::error::Result<Vec<Document>> {
        let log = self.driver.database("drumline").collection("log");
        let find = log
            .find(filter)
            .sort(doc! {"_id": 1})
            .projection(doc! {"epoch": 1, "node": 1});
        let mut found = find.await?;
        let mut documents: Vec<Document> = Vec::new();
        while found.advance().await? {
            documents.push(found.deserialize_current()?);
        }
        Ok(documents)
    }
}

/// A test that waited in vain shows what the nodes that run have said last.
impl Drop for Trio<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for node in (0..3).filter(|node| self.runs(*node)) {
            let said = self.said(node);
            let lines: Vec<_> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
            eprintln!("{} has said last:\n{}", NAMES[node], last.join("\n"));
        }
    }
}

/// The other two.
pub fn others(node: usize) -> [usize; 2] {
    [(node + 1) % 3, (node + 2) % 3]
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..3).flat_map(|from| others(from).into_iter().map(move |to| (from, to)))
}

/// The host of the primary.
pub async fn primary(uri: &str) -> String {
    let driver = Client::with_uri_str(uri).await.unwrap();
    let admin = driver.database("admin");
    let hello = admin.run_command(doc! {"hello": 1}).await.unwrap();
    let primary = hello.get_str("primary").unwrap().to_owned();
    driver.shutdown().await;
    primary
}
