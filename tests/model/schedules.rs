//! Seeded schedules of the election: faults for a while, then a lasting state of the network. Soon
//! one node is coordinator, all know it, and it stays so.

use drumline::model::{NodeName, Rank};

use super::events::Fault;
use super::random::Random;
use super::times::{BEAT_MS, CLAIM_LANDS_MS, DWELL_MS};
use super::world::World;

/// When the faults end that end.
const CALM_MS: u64 = 100 * BEAT_MS;
/// How long it may take until all agree then. The longest chain: a coordinator without MongoDB
/// abdicates (30 beats), a claim is lost (20), whoever waits for it looks (15 and 4) and claims.
const AGREED_MS: u64 = 80 * BEAT_MS;
/// How long a handoff may take that is under way.
const HANDOFF_MS: u64 = 20 * BEAT_MS;

/// What does not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    Nothing,
    Down,
    WithoutMongo,
    Deaf,
    Cut,
    Alone,
}

fn lasting(random: &mut Random) -> Lasting {
    use Lasting::{Alone, Cut, Deaf, Down, Nothing, WithoutMongo};
    random.pick(&[Nothing, Nothing, Down, WithoutMongo, Deaf, Cut, Alone])
}

fn two(random: &mut Random, nodes: usize) -> (usize, usize) {
    let all: Vec<usize> = (0..nodes).collect();
    let one = random.pick(&all);
    let others: Vec<usize> = all.into_iter().filter(|node| *node != one).collect();
    (one, random.pick(&others))
}

fn some_fault(random: &mut Random, nodes: usize) -> Fault {
    let (one, other) = two(random, nodes);
    match random.below(9) {
        0 | 1 => Fault::Killed(one),
        2 => Fault::Stopped(one),
        3 => Fault::Frozen(one),
        4 => Fault::WithoutMongo(one),
        5 => Fault::Deaf(one, other),
        6 => Fault::Cut(one, other),
        7 => Fault::Alone(one),
        _ => Fault::Weather,
    }
}

/// A world with its faults laid out.
fn troubled(seed: u64, nodes: usize) -> (World, Lasting) {
    let mut random = Random::new(!seed);
    let spread_ms = random.pick(&[0, 50, 300, 2000]);
    let mut world = World::new(seed, nodes, spread_ms);
    for _ in 0..random.below(8) {
        let fault = some_fault(&mut random, nodes);
        let from_ms = random.below(CALM_MS - 600);
        let most_ms = random.pick(&[200, 1000, 5000]);
        let to_ms = (from_ms + 510 + random.below(most_ms)).min(CALM_MS);
        world.fault(fault, from_ms, Some(to_ms));
    }
    let lasting = lasting(&mut random);
    let (one, other) = two(&mut random, nodes);
    let fault = match lasting {
        Lasting::Nothing => return (world, lasting),
        Lasting::Down => Fault::Killed(one),
        Lasting::WithoutMongo => Fault::WithoutMongo(one),
        Lasting::Deaf => Fault::Deaf(one, other),
        Lasting::Cut => Fault::Cut(one, other),
        Lasting::Alone => Fault::Alone(one),
    };
    world.fault(fault, CALM_MS - 10 * BEAT_MS, None);
    (world, lasting)
}

fn schedule(seed: u64, nodes: usize, long: bool) -> Result<u32, String> {
    let (mut world, lasting) = troubled(seed, nodes);
    world.run_until(CALM_MS + CLAIM_LANDS_MS);
    world.everybody_writes();
    let agreed = world.run_until_agreed(AGREED_MS);
    agreed.map_err(|why| format!("{lasting:?}: {why}"))?;
    let known = world.tenures.len();

    world.run_until(world.now_ms + if long { 5 * DWELL_MS } else { DWELL_MS / 2 });
    let agreed = world.run_until_agreed(HANDOFF_MS);
    let tenure = agreed.map_err(|why| format!("{lasting:?}, late: {why}"))?;
    for pair in world.tenures[known - 1..].windows(2) {
        let [(before_ms, before, less), (ms, after, more)] = pair else {
            unreachable!()
        };
        if less >= more || ms - before_ms < DWELL_MS {
            return Err(format!(
                "{lasting:?}: {before:?} yields to {after:?} at {ms} ms"
            ));
        }
    }
    let whole = matches!(lasting, Lasting::Nothing | Lasting::Down);
    if long && whole && world.largest_rank().node != tenure.node {
        return Err(format!("{lasting:?}: {tenure:?} is not the largest"));
    }
    Ok(world.busiest())
}

/// A node asks or tells its peers a few times in an election, and no election is lost more often
/// than its timers ring: about five a second, each with a message to each peer.
const ACTIONS_A_SECOND_MAX: u32 = 10;

fn run_schedules(seeds: u64, nodes: usize) {
    let mut busiest = 0;
    let mut wrong = Vec::new();
    for seed in 1..=seeds {
        match std::panic::catch_unwind(|| schedule(seed, nodes, seed % 16 == 0)) {
            Ok(Ok(busy)) => busiest = busy.max(busiest),
            Ok(Err(why)) => wrong.push(format!("seed {seed}: {why}")),
            Err(_) => wrong.push(format!("seed {seed}: panicked")),
        }
    }
    println!("{nodes} nodes, {seeds} seeds, {busiest} actions a second at most");
    let peers = u32::try_from(nodes - 1).unwrap();
    assert!(
        busiest <= ACTIONS_A_SECOND_MAX * peers,
        "a storm: {busiest}"
    );
    for why in wrong.iter().take(5) {
        println!("{why}");
    }
    assert!(wrong.is_empty(), "{} of {seeds} seeds", wrong.len());
}

#[test]
fn three_nodes_agree_soon_after_the_faults_and_stay_so() {
    run_schedules(600, 3);
}

#[test]
fn five_nodes_agree_soon_after_the_faults_and_stay_so() {
    run_schedules(150, 5);
}

#[test]
fn a_node_that_restarts_again_and_again_takes_over_once_a_dwell_time_at_most() {
    for seed in 1..=40 {
        let mut world = World::new(seed, 3, 0);
        world.run_until(20 * BEAT_MS);
        let flapper = 2;
        let rank = Rank {
            number: u64::MAX,
            node: NodeName::parse("n3").unwrap(),
        };
        let mut random = Random::new(seed);
        let began_ms = world.now_ms;
        let before = world.tenures.len();
        while world.now_ms < began_ms + 5 * DWELL_MS {
            let now_ms = world.now_ms;
            world.fault(Fault::Killed(flapper), now_ms, None);
            world.run_until(now_ms + random.below(10 * BEAT_MS));
            world.start_with(flapper, rank.clone());
            let up_ms = random.below(2 * DWELL_MS);
            world.run_until(world.now_ms + up_ms);
        }
        let ms = world.now_ms - began_ms;
        let taken = world.tenures[before..]
            .iter()
            .filter(|(_, tenure, _)| tenure.node == rank.node)
            .count();
        let most = usize::try_from(ms / DWELL_MS).unwrap() + 1;
        assert!(taken <= most, "seed {seed}: {taken} times in {ms} ms");
    }
}
