//! Faults at random, one after the other and one on top of the other, all drawn from one seed.
//!
//! `DRUMLINE_SEED` replays a run. `DRUMLINE_FAULTS` and `DRUMLINE_FAULT_SECONDS` set its length: 100
//! faults over 600 s is the long one.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::members::step_down;
use super::turn;
use crate::support::line::Mode;
use crate::support::trio::{NAMES, Setup, Trio, others};
use crate::support::under_load::UnderLoad;
use crate::support::{Cluster, kill, setting};

/// A client's pause after each request: what the comparison reads stays small in a long run.
const PACE: Duration = Duration::from_millis(20);

/// A fault's kind and place.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill(usize),
    Freeze(usize),
    Stop(usize),
    KillAll,
    /// Between two nodes.
    Line(usize, usize, Mode),
    /// What the first sends to the second.
    OneWay(usize, usize, Mode),
    Alone(usize, Mode),
    MongoDb(usize, Mode),
    StepDown,
    FreezeMember(usize),
    KillMember(usize),
}

/// Draws numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }

    fn choose<T: Copy>(&mut self, among: &[T]) -> T {
        let count = u64::try_from(among.len()).unwrap();
        among[usize::try_from(self.below(count)).unwrap()]
    }

    fn node(&mut self) -> usize {
        self.choose(&[0, 1, 2])
    }

    /// At most this long.
    fn time(&mut self, most: Duration) -> Duration {
        let most_ms = u64::try_from(most.as_millis()).unwrap();
        Duration::from_millis(self.below(most_ms.max(1)))
    }

    fn mode(&mut self) -> Mode {
        self.choose(&[Mode::Cut, Mode::Silent, Mode::NoReplies])
    }

    /// A fault of nodes, or of lines between nodes and to MongoDB.
    fn line_fault(&mut self, coordinator: usize) -> Fault {
        let node = self.victim(coordinator);
        let peer = self.choose(&others(node));
        match self.below(8) {
            0 | 1 => self.node_fault(coordinator),
            2 | 3 => Fault::Line(node, peer, self.mode()),
            4 => Fault::OneWay(node, peer, self.mode()),
            5 => Fault::Alone(node, self.mode()),
            _ => Fault::MongoDb(node, self.mode()),
        }
    }

    /// A fault of members or nodes.
    fn member_fault(&mut self, coordinator: usize) -> Fault {
        match self.below(8) {
            0 => Fault::StepDown,
            1 => Fault::FreezeMember(self.node()),
            2 => Fault::KillMember(self.node()),
            _ => self.node_fault(coordinator),
        }
    }

    fn node_fault(&mut self, coordinator: usize) -> Fault {
        let node = self.victim(coordinator);
        match self.below(7) {
            0 | 1 => Fault::Kill(node),
            2 | 3 => Fault::Freeze(node),
            4 | 5 => Fault::Stop(node),
            _ => Fault::KillAll,
        }
    }

    /// The coordinator half of the time.
    fn victim(&mut self, coordinator: usize) -> usize {
        match self.below(2) {
            0 => coordinator,
            _ => self.node(),
        }
    }
}

#[test]
fn random_faults_lose_nothing_double_nothing_and_keep_the_order() {
    let _turn = turn();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = setting("DRUMLINE_SEED", u64::try_from(now.as_millis()).unwrap());
    let faults = setting("DRUMLINE_FAULTS", 10);
    let time = Duration::from_secs(setting("DRUMLINE_FAULT_SECONDS", 40));
    println!("DRUMLINE_SEED={seed} DRUMLINE_FAULTS={faults}");
    let mut dice = Dice(seed);
    Runtime::new().unwrap().block_on(async {
        let lines = |lines| Setup {
            peer_lines: lines,
            mongodb_lines: lines,
            // The largest rank is not left out for long.
            dwell: "2s",
        };
        let slot = time / u32::try_from(faults).unwrap();
        // Lines to MongoDB lead to one member: so its members have a part of their own.
        half(lines(true), faults / 2, slot, &mut dice, Dice::line_fault).await;
        half(
            lines(false),
            faults - faults / 2,
            slot,
            &mut dice,
            Dice::member_fault,
        )
        .await;
    });
}

/// So many faults on a cluster of its own, and the comparison after them.
async fn half(
    setup: Setup,
    faults: u64,
    slot: Duration,
    dice: &mut Dice,
    draw: fn(&mut Dice, usize) -> Fault,
) {
    let cluster = Cluster::start(&["--nodes", "0"]);
    let mut trio = Trio::start(&cluster, setup).await;
    let load = trio.load("load.random").paced(PACE);
    let mut under_load = UnderLoad::begin(load).await;
    let mut coordinator = trio.agreed().await.node;
    for number in 1..=faults {
        let begun = Instant::now();
        sleep(dice.time(slot / 3)).await;
        let fault = draw(dice, coordinator);
        let lasts = dice.time(slot / 2);
        println!(
            "{number}: {fault:?} for {lasts:?}, the coordinator is {}",
            NAMES[coordinator]
        );
        strike(fault, lasts, &cluster, &mut trio).await;
        // Half of the time the next fault meets what is not well yet.
        if dice.below(2) == 0 {
            coordinator = trio.agreed().await.node;
            under_load.until_served().await;
        }
        sleep(slot.saturating_sub(begun.elapsed())).await;
    }
    trio.agreed().await;
    under_load.until_served().await;
    under_load.end(&cluster).await;
}

/// Makes the fault and takes it back.
async fn strike(fault: Fault, lasts: Duration, cluster: &Cluster, trio: &mut Trio<'_>) {
    match fault {
        Fault::Kill(node) => trio.kill(node),
        Fault::Freeze(node) => trio.freeze(node),
        Fault::Stop(node) => {
            trio.stop(node);
            trio.until_stopped(node);
        }
        Fault::KillAll => (0..3).for_each(|node| trio.kill(node)),
        Fault::Line(one, other, mode) => trio.between(one, other, mode),
        Fault::OneWay(from, to, mode) => trio.line(from, to).set(mode),
        Fault::Alone(node, mode) => trio.around(node, mode),
        Fault::MongoDb(node, mode) => trio.to_mongodb(node).set(mode),
        Fault::StepDown => return step_down(cluster).await,
        Fault::FreezeMember(member) => {
            let pid = cluster.member_pid(member);
            kill(pid, Signal::STOP);
            sleep(lasts).await;
            return kill(pid, Signal::CONT);
        }
        Fault::KillMember(member) => return kill(cluster.member_pid(member), Signal::KILL),
    }
    sleep(lasts).await;
    trio.heal();
}
