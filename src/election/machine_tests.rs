//! The machine alone: exact outputs for each decision. Ranks are n1 < n2 < n3.

use super::*;

#[path = "handoff_tests.rs"]
mod handoff;

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn rank(node: &str) -> Rank {
    let digit: String = node.chars().filter(char::is_ascii_digit).collect();
    Rank {
        number: digit.parse().unwrap(),
        node: name(node),
    }
}

fn tenure(node: &str, epoch: i64) -> Tenure {
    Tenure {
        node: name(node),
        epoch: Epoch(epoch),
    }
}

/// The beat of a node that knows no coordinator.
fn electing(node: &str) -> Beat {
    Beat {
        rank: rank(node),
        version: 1,
        role: Role::Electing,
        coordinator: None,
        hears_coordinator: false,
        eligible: true,
    }
}

fn coordinating(node: &str, epoch: i64) -> Beat {
    Beat {
        version: 2,
        role: Role::Coordinator,
        coordinator: Some(tenure(node, epoch)),
        hears_coordinator: true,
        ..electing(node)
    }
}

fn following(node: &str, coordinator: &str, epoch: i64) -> Beat {
    Beat {
        version: 2,
        role: Role::Follower,
        coordinator: Some(tenure(coordinator, epoch)),
        hears_coordinator: true,
        ..electing(node)
    }
}

fn ineligible(beat: Beat) -> Beat {
    Beat {
        eligible: false,
        ..beat
    }
}

fn heard(beat: Beat) -> Input {
    says(beat, Message::Heartbeat)
}

fn says(beat: Beat, message: Message) -> Input {
    Input::Heard {
        from: beat.rank.node.clone(),
        beat,
        message,
    }
}

fn became(node: &str, liveness: Liveness) -> Input {
    Input::Became(name(node), liveness)
}

fn quiet(node: &str, epoch: i64) -> Input {
    Input::Looked(Looked::Quiet(Some(tenure(node, epoch))))
}

fn send(node: &str, message: Message) -> Output {
    Output::Send(name(node), message)
}

fn timer(timer: Timer) -> Output {
    Output::SetTimer(timer)
}

fn step_down(before: i64) -> Output {
    Output::StepDown {
        before: Epoch(before),
    }
}

fn claim(over: i64) -> Output {
    Output::Claim { over: Epoch(over) }
}

/// A node of three that reaches MongoDB and whose peers live, but have said nothing yet.
fn started(me: &str) -> Machine {
    let peers: Vec<_> = ["n1", "n2", "n3"]
        .into_iter()
        .filter(|one| *one != me)
        .collect();
    let mut machine = Machine::new(rank(me), peers.iter().map(|peer| name(peer)));
    assert_eq!(machine.step(Input::Reaches(true)), []);
    assert_eq!(machine.step(Input::Start), [timer(Timer::Discover)]);
    for peer in peers {
        assert_eq!(machine.step(became(peer, Liveness::Alive)), []);
    }
    machine
}

/// A node that has heard its coordinator of epoch 1, and the third node, which knows none.
fn follower(me: &str, coordinator: &str) -> Machine {
    let mut machine = started(me);
    let out = machine.step(heard(coordinating(coordinator, 1)));
    assert_eq!(out, [timer(Timer::Dwell)]);
    let third = third(me, coordinator);
    assert_eq!(machine.step(heard(electing(third))), []);
    machine
}

fn third(one: &str, other: &str) -> &'static str {
    let mut all = ["n1", "n2", "n3"].into_iter();
    all.find(|node| *node != one && *node != other).unwrap()
}

/// The coordinator of epoch 1, which both peers follow.
fn coordinator(me: &str) -> Machine {
    let mut machine = started(me);
    let followers = ["n1", "n2", "n3"].into_iter().filter(|node| *node != me);
    assert_eq!(
        machine.step(Input::Timeout(Timer::Discover)),
        [Output::Look(Patience::Long)]
    );
    assert_eq!(machine.step(Input::Looked(Looked::Quiet(None))), [claim(0)]);
    let mut expected = vec![Output::Serve(Epoch(1)), timer(Timer::Dwell)];
    expected.extend(
        followers
            .clone()
            .map(|peer| send(peer, Message::Coordinator)),
    );
    assert_eq!(machine.step(Input::Claimed(Epoch(1))), expected);
    for peer in followers {
        assert_eq!(machine.step(heard(following(peer, me, 1))), []);
    }
    machine
}

fn lone(node: &str) -> Machine {
    let mut machine = Machine::new(rank(node), []);
    assert_eq!(machine.step(Input::Start), [timer(Timer::Discover)]);
    assert_eq!(
        machine.step(Input::Reaches(true)),
        [Output::Look(Patience::None)]
    );
    machine
}

#[test]
fn a_node_without_peers_looks_at_the_log_and_claims() {
    let mut machine = lone("n1");
    assert_eq!(machine.step(Input::Looked(Looked::Quiet(None))), [claim(0)]);
    assert_eq!(
        machine.step(Input::Claimed(Epoch(1))),
        [Output::Serve(Epoch(1)), timer(Timer::Dwell)]
    );
    assert_eq!(machine.coordinator(), Some(tenure("n1", 1)));
    assert!(!machine.must_show_life());
}

#[test]
fn a_node_that_hears_nobody_stands_when_the_time_to_discover_is_over() {
    let mut machine = Machine::new(rank("n1"), [name("n2"), name("n3")]);
    machine.step(Input::Reaches(true));
    assert_eq!(machine.step(Input::Start), [timer(Timer::Discover)]);
    assert_eq!(
        machine.step(Input::Timeout(Timer::Discover)),
        [Output::Look(Patience::Long)]
    );
}

#[test]
fn the_largest_looks_and_claims_as_soon_as_it_has_heard_all() {
    let mut machine = started("n3");
    assert_eq!(machine.step(heard(electing("n1"))), []);
    assert_eq!(
        machine.step(heard(electing("n2"))),
        [Output::Look(Patience::None)]
    );
    assert_eq!(machine.step(Input::Looked(Looked::Quiet(None))), [claim(0)]);
    assert_eq!(
        machine.step(Input::Claimed(Epoch(1))),
        [
            Output::Serve(Epoch(1)),
            timer(Timer::Dwell),
            send("n1", Message::Coordinator),
            send("n2", Message::Coordinator),
        ]
    );
    assert_eq!(machine.role(), Role::Coordinator);
    assert_eq!(
        machine.step(Input::Timeout(Timer::Discover)),
        [],
        "a timer of before"
    );
}

#[test]
fn a_smaller_rank_asks_waits_for_the_answerer_and_follows_it() {
    let mut machine = started("n1");
    machine.step(heard(electing("n2")));
    assert_eq!(
        machine.step(heard(electing("n3"))),
        [
            timer(Timer::Answer),
            send("n2", Message::Election),
            send("n3", Message::Election),
        ]
    );
    let answer = says(electing("n2"), Message::Answer);
    assert_eq!(machine.step(answer), [timer(Timer::Coordinator)]);
    let claimed = says(coordinating("n3", 1), Message::Coordinator);
    assert_eq!(machine.step(claimed), [timer(Timer::Dwell)]);
    assert_eq!(machine.coordinator(), Some(tenure("n3", 1)));
    assert!(machine.beat().hears_coordinator);
}

#[test]
fn a_smaller_rank_that_nobody_answers_looks_for_itself() {
    let mut machine = started("n2");
    machine.step(heard(electing("n1")));
    assert_eq!(
        machine.step(heard(electing("n3"))),
        [timer(Timer::Answer), send("n3", Message::Election)]
    );
    assert_eq!(
        machine.step(Input::Timeout(Timer::Answer)),
        [Output::Look(Patience::None)]
    );
    assert_eq!(
        machine.step(says(electing("n3"), Message::Answer)),
        [],
        "it comes too late"
    );
}

#[test]
fn an_answerer_that_never_claims_is_not_waited_for_twice() {
    let mut machine = started("n2");
    machine.step(heard(electing("n1")));
    machine.step(heard(electing("n3")));
    machine.step(says(electing("n3"), Message::Answer));
    assert_eq!(
        machine.step(Input::Timeout(Timer::Coordinator)),
        [Output::Look(Patience::Long)]
    );
}

#[test]
fn a_node_that_waits_answers_a_smaller_rank_and_stands() {
    let mut machine = started("n2");
    machine.step(heard(electing("n1")));
    machine.step(heard(electing("n3")));
    machine.step(says(electing("n3"), Message::Answer));
    assert_eq!(
        machine.step(says(electing("n1"), Message::Election)),
        [
            send("n1", Message::Answer),
            timer(Timer::Answer),
            send("n3", Message::Election),
        ]
    );
}

#[test]
fn a_node_that_is_asked_while_it_knows_a_coordinator_says_so_by_its_beat() {
    let mut machine = follower("n2", "n3");
    assert_eq!(
        machine.step(says(electing("n1"), Message::Election)),
        [send("n1", Message::Heartbeat)]
    );
    let beat = machine.beat();
    assert_eq!(beat.coordinator, Some(tenure("n3", 1)));
    assert!(beat.hears_coordinator);
}

#[test]
fn a_killed_coordinator_is_succeeded_after_a_short_look() {
    let mut machine = follower("n2", "n3");
    assert_eq!(
        machine.step(Input::Refused(name("n3"))),
        [Output::Look(Patience::Short)]
    );
    assert_eq!(machine.role(), Role::Electing);
    assert_eq!(machine.step(quiet("n3", 1)), [claim(1)]);
}

#[test]
fn a_frozen_coordinator_is_succeeded_after_a_long_look() {
    let mut machine = follower("n2", "n3");
    assert_eq!(
        machine.step(became("n3", Liveness::Suspect)),
        [Output::Look(Patience::Long)]
    );
    assert_eq!(machine.step(quiet("n3", 1)), [claim(1)]);
}

#[test]
fn a_peer_that_hears_the_coordinator_keeps_a_node_from_standing() {
    let mut machine = follower("n2", "n3");
    machine.step(heard(following("n1", "n3", 1)));
    assert_eq!(machine.step(became("n3", Liveness::Suspect)), []);
    assert_eq!(machine.coordinator(), Some(tenure("n3", 1)));
    assert!(!machine.beat().hears_coordinator, "it does not vouch");
    let lost = Beat {
        version: 3,
        hears_coordinator: false,
        ..following("n1", "n3", 1)
    };
    assert_eq!(machine.step(heard(lost)), [Output::Look(Patience::Long)]);
}

#[test]
fn a_voucher_that_is_not_heard_any_more_vouches_for_nobody() {
    let mut machine = follower("n2", "n3");
    machine.step(heard(following("n1", "n3", 1)));
    assert_eq!(machine.step(became("n1", Liveness::Suspect)), []);
    assert_eq!(
        machine.step(Input::Refused(name("n3"))),
        [Output::Look(Patience::Short)]
    );
}

#[test]
fn a_coordinator_that_was_silent_for_long_is_watched_for_as_long_as_any_silent_one() {
    let mut machine = follower("n2", "n3");
    machine.step(heard(following("n1", "n3", 1)));
    machine.step(became("n3", Liveness::Suspect));
    machine.step(became("n3", Liveness::Down));
    assert_eq!(
        machine.step(became("n1", Liveness::Suspect)),
        [Output::Look(Patience::Long)]
    );
}

#[test]
fn a_coordinator_that_comes_back_as_a_new_node_is_not_watched_for() {
    let mut machine = follower("n2", "n3");
    let reborn = Beat {
        rank: Rank {
            number: 0,
            node: name("n3"),
        },
        version: 0,
        ..electing("n3")
    };
    assert_eq!(
        machine.step(heard(reborn)),
        [Output::Look(Patience::None)],
        "a lower version counts, for it is of another life"
    );
}

#[test]
fn followers_of_a_coordinator_that_was_reborn_do_not_vouch_for_it_to_each_other() {
    let mut machine = follower("n2", "n3");
    machine.step(heard(following("n1", "n3", 1)));
    let reborn = Beat {
        rank: Rank {
            number: 0,
            node: name("n3"),
        },
        ..electing("n3")
    };
    assert_eq!(machine.step(heard(reborn)), [Output::Look(Patience::None)]);
    assert!(!machine.beat().hears_coordinator);
}

#[test]
fn a_beat_that_arrives_late_changes_nothing() {
    let mut machine = follower("n2", "n3");
    let before = machine.clone();
    assert_eq!(machine.step(heard(electing("n3"))), []);
    assert_eq!(machine, before);
}

#[test]
fn strangers_are_not_heard() {
    let mut machine = follower("n2", "n3");
    let before = machine.clone();
    assert_eq!(machine.step(heard(coordinating("n9", 7))), []);
    assert_eq!(machine.step(became("n9", Liveness::Alive)), []);
    assert_eq!(machine, before);
}

#[test]
fn a_node_that_does_not_reach_mongodb_neither_stands_nor_answers() {
    let mut machine = started("n3");
    machine.step(Input::Reaches(false));
    machine.step(heard(electing("n1")));
    assert_eq!(machine.step(heard(electing("n2"))), []);
    assert_eq!(
        machine.step(Input::Timeout(Timer::Discover)),
        [timer(Timer::Coordinator)]
    );
    assert!(!machine.beat().eligible);
    assert_eq!(
        machine.step(says(electing("n1"), Message::Election)),
        [send("n1", Message::Heartbeat)]
    );
    assert_eq!(
        machine.step(Input::Timeout(Timer::Coordinator)),
        [timer(Timer::Coordinator)]
    );
}

#[test]
fn a_node_that_reaches_mongodb_again_stands() {
    let mut machine = started("n3");
    machine.step(Input::Reaches(false));
    machine.step(Input::Timeout(Timer::Discover));
    assert_eq!(
        machine.step(Input::Reaches(true)),
        [Output::Look(Patience::Long)]
    );
    assert_eq!(machine.step(Input::Reaches(true)), [], "no news");
}

#[test]
fn a_larger_rank_that_does_not_reach_mongodb_is_waited_for_at_the_start_and_not_asked() {
    let mut machine = started("n2");
    machine.step(heard(electing("n1")));
    assert_eq!(machine.step(heard(ineligible(electing("n3")))), []);
    assert_eq!(
        machine.step(Input::Timeout(Timer::Discover)),
        [Output::Look(Patience::Long)]
    );
}

#[test]
fn a_coordinator_that_is_seen_at_work_is_followed_and_watched() {
    let mut machine = follower("n2", "n3");
    machine.step(became("n3", Liveness::Suspect));
    assert_eq!(
        machine.step(Input::Looked(Looked::Active(tenure("n3", 1)))),
        [timer(Timer::Confirm), timer(Timer::Dwell)]
    );
    assert_eq!(machine.role(), Role::Follower);
    assert_eq!(
        machine.step(Input::Timeout(Timer::Confirm)),
        [Output::Look(Patience::Long)]
    );
    assert_eq!(
        machine.coordinator(),
        Some(tenure("n3", 1)),
        "it knows one while it looks"
    );
    assert_eq!(machine.step(quiet("n3", 1)), [claim(1)]);
}

#[test]
fn a_look_that_meets_no_mongodb_ends_in_waiting() {
    let mut machine = follower("n2", "n3");
    machine.step(became("n3", Liveness::Down));
    assert_eq!(
        machine.step(Input::Looked(Looked::Unreachable)),
        [timer(Timer::Coordinator)]
    );
}

#[test]
fn a_coordinator_that_is_heard_ends_the_look_for_one() {
    let mut machine = follower("n2", "n3");
    machine.step(became("n3", Liveness::Suspect));
    machine.step(became("n3", Liveness::Alive));
    assert_eq!(
        machine.step(heard(coordinating("n3", 1))),
        [timer(Timer::Dwell)]
    );
    assert_eq!(machine.step(quiet("n3", 1)), [], "that look is over");
}

#[test]
fn a_claim_of_a_peer_that_lives_is_followed_and_has_a_while_to_be_confirmed() {
    let mut machine = started("n3");
    machine.step(heard(electing("n1")));
    machine.step(heard(electing("n2")));
    assert_eq!(
        machine.step(quiet("n2", 4)),
        [timer(Timer::Dwell), timer(Timer::Confirm)]
    );
    assert_eq!(
        machine.step(Input::Timeout(Timer::Confirm)),
        [Output::Look(Patience::None)]
    );
    assert_eq!(machine.step(quiet("n2", 4)), [claim(4)]);
}

#[test]
fn a_claim_of_the_nodes_own_earlier_life_is_no_obstacle() {
    let mut machine = lone("n1");
    assert_eq!(machine.step(quiet("n1", 6)), [claim(6)]);
}

#[test]
fn an_epoch_that_is_not_in_the_log_is_forgotten() {
    let mut machine = follower("n2", "n3");
    machine.step(heard(coordinating("n1", 9)));
    machine.step(Input::Refused(name("n3")));
    machine.step(Input::Refused(name("n1")));
    machine.step(quiet("n3", 1));
    let behind = Input::NotClaimed(NotClaimed::Behind(Epoch(1)));
    assert_eq!(machine.step(behind), [Output::Look(Patience::None)]);
    let claim = Output::Claim { over: Epoch(1) };
    assert_eq!(machine.step(quiet("n3", 1)), [claim]);
}

#[test]
fn a_node_whose_claim_came_second_follows_the_first() {
    let mut machine = follower("n2", "n3");
    machine.step(became("n3", Liveness::Down));
    machine.step(quiet("n3", 1));
    let superseded = NotClaimed::Superseded(tenure("n1", 2));
    assert_eq!(
        machine.step(Input::NotClaimed(superseded)),
        [timer(Timer::Dwell), timer(Timer::Confirm)]
    );
    assert_eq!(machine.coordinator(), Some(tenure("n1", 2)));
    assert!(!machine.beat().hears_coordinator, "it was only told");
    assert_eq!(machine.step(heard(coordinating("n1", 2))), []);
    assert!(machine.beat().hears_coordinator);
    assert_eq!(machine.step(Input::Timeout(Timer::Confirm)), []);
}

#[test]
fn an_own_claim_of_which_nothing_was_heard_is_claimed_over() {
    let mut machine = follower("n2", "n3");
    machine.step(became("n3", Liveness::Down));
    machine.step(quiet("n3", 1));
    let out = machine.step(Input::NotClaimed(NotClaimed::Unreachable));
    assert_eq!(out, [timer(Timer::Coordinator)]);
    assert_eq!(
        machine.step(Input::Timeout(Timer::Coordinator)),
        [Output::Look(Patience::Long)]
    );
    assert_eq!(machine.step(quiet("n2", 2)), [claim(2)]);
}

#[test]
fn a_coordinator_that_hears_of_a_later_epoch_steps_down_and_follows() {
    let mut machine = coordinator("n2");
    assert_eq!(
        machine.step(heard(coordinating("n3", 2))),
        [step_down(2), timer(Timer::Dwell)]
    );
    assert_eq!(machine.coordinator(), Some(tenure("n3", 2)));
}

#[test]
fn a_coordinator_that_only_hears_of_an_earlier_epoch_stays() {
    let mut machine = coordinator("n2");
    let late = coordinating("n3", 0);
    assert_eq!(machine.step(heard(late)), []);
    assert_eq!(machine.coordinator(), Some(tenure("n2", 1)));
}

#[test]
fn a_claim_that_returns_after_a_later_epoch_was_heard_of_is_not_served() {
    let mut machine = started("n2");
    machine.step(Input::Timeout(Timer::Discover));
    machine.step(Input::Looked(Looked::Quiet(None)));
    assert_eq!(machine.step(heard(coordinating("n3", 2))), []);
    assert_eq!(
        machine.step(Input::Claimed(Epoch(1))),
        [timer(Timer::Answer), send("n3", Message::Election)]
    );
    assert_eq!(
        machine.step(heard(coordinating("n3", 2))),
        [timer(Timer::Dwell)]
    );
}
