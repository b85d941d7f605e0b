//! The models, checked: each whole within its bounds, and each mistake found. The properties that are
//! `sometimes` true keep a model from passing empty.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::elections::Elections;
use super::writes::{Mistake, State, Writes};

/// Three tenures that may overlap, and a command without a server.
const TENURES: Writes = Writes {
    mistake: Mistake::None,
    nodes: 3,
    epochs: 3,
    requests: 2,
    tries: 1,
    attempts: 2,
    guests: 1,
};

/// Two tenures, and clients that send everything twice.
const RETRIES: Writes = Writes {
    epochs: 2,
    tries: 2,
    guests: 0,
    ..TENURES
};

fn check_all(name: &str, model: Writes) {
    let began = Instant::now();
    let checker = model
        .checker()
        .symmetry_fn(State::representative)
        .threads(2)
        .spawn_dfs()
        .join();
    println!(
        "{name}: {} states, {} steps, {:.1?}",
        checker.unique_state_count(),
        checker.state_count(),
        began.elapsed()
    );
    checker.assert_properties();
}

#[test]
fn writes_of_three_tenures_are_safe() {
    check_all("three tenures", TENURES);
}

#[test]
fn writes_that_are_sent_again_are_safe() {
    check_all("retries", RETRIES);
}

/// The shortest way to what the mistake breaks.
fn breaks(mistake: Mistake, property: &'static str) {
    let model = Writes { mistake, ..TENURES };
    let found = HasDiscoveries::AllOf([property].into());
    let checker = model.checker().finish_when(found).spawn_bfs().join();
    let path = checker.assert_any_discovery(property);
    println!("{mistake:?}: not {property}: {:?}", path.into_actions());
}

#[test]
fn without_the_fence_a_deposed_coordinator_answers() {
    let property = "only the coordinator of a position answers for it (I8)";
    breaks(Mistake::NoFence, property);
}

#[test]
fn without_burial_a_request_happens_that_was_said_not_to() {
    breaks(Mistake::NoBurial, "what was not done never happens");
}

#[test]
fn an_answer_before_the_commit_is_no_answer() {
    let property = "an answered request is in the log (I4)";
    breaks(Mistake::AnswerBeforeCommit, property);
}

/// Three new nodes, before anything goes wrong.
const NEW: Elections = Elections {
    settled: false,
    served_unclaimed: false,
    claims: 3,
    faults: 0,
    letters: 1,
};

/// A coordinator whom all follow, and what ends its tenure.
const SETTLED: Elections = Elections {
    settled: true,
    faults: 2,
    letters: 2,
    ..NEW
};

/// Checks all schedules of so many steps.
fn check_steps(name: &str, model: Elections, steps: usize) {
    let began = Instant::now();
    // The checker counts the first state, and does not look at those of the last depth.
    let depth = steps + 2;
    // One thread: with more, a state may be met first on a longer way, and what follows be left out.
    let checker = model.checker().target_max_depth(depth);
    let checker = checker.threads(1).spawn_bfs().join();
    println!(
        "{name}: {} states, {} steps, {:.1?}",
        checker.unique_state_count(),
        checker.state_count(),
        began.elapsed()
    );
    checker.assert_properties();
}

#[test]
fn first_elections_give_each_epoch_one_coordinator() {
    check_steps("first elections", NEW, 9);
}

#[test]
fn later_elections_give_each_epoch_one_coordinator() {
    check_steps("later elections", SETTLED, 7);
}

#[test]
fn a_claim_that_is_served_without_being_in_the_log_is_found() {
    let property = "whoever serves has claimed in this life";
    let model = Elections {
        served_unclaimed: true,
        ..NEW
    };
    let found = HasDiscoveries::AllOf([property].into());
    let checker = model.checker().finish_when(found).spawn_bfs().join();
    let path = checker.assert_any_discovery(property);
    println!("not {property}: {:?}", path.into_actions());
}
