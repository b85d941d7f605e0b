//! One node of the small world: the machine, the detector, and what its task would remember.

use std::collections::BTreeMap;

use drumline::election::{Machine, Timer};
use drumline::liveness::Detector;
use drumline::model::{Epoch, NodeName, Rank};

use super::events::Arrival;

pub struct Node {
    pub name: NodeName,
    pub life: u32,
    pub up: bool,
    pub frozen: bool,
    pub missed: Vec<Arrival>,
    pub machine: Machine,
    pub detector: Detector,
    pub timers: BTreeMap<Timer, u64>,
    pub peer_timers: BTreeMap<NodeName, u64>,
    pub look: u64,
    pub claim: u64,
    pub ticks: u64,
    /// What the sequencer serves.
    pub serving: Option<Epoch>,
    pub without_mongo: u32,
    pub knows_reach: bool,
}

impl Node {
    pub fn absent(index: usize) -> Self {
        let name = NodeName::parse(&format!("n{}", index + 1)).unwrap();
        let rank = Rank {
            number: 0,
            node: name.clone(),
        };
        Self {
            name,
            life: 0,
            up: false,
            frozen: false,
            missed: Vec::new(),
            machine: Machine::new(rank, []),
            detector: Detector::new([]).0,
            timers: BTreeMap::new(),
            peer_timers: BTreeMap::new(),
            look: 0,
            claim: 0,
            ticks: 0,
            serving: None,
            without_mongo: 0,
            knows_reach: false,
        }
    }
}
