//! How a tenure ends by itself: handed over, left, abdicated, taken by a node that is no peer.

use super::*;

/// A coordinator whose dwell time is over.
fn settled(me: &str) -> Machine {
    let mut machine = coordinator(me);
    assert_eq!(machine.step(Input::Timeout(Timer::Dwell)), []);
    machine
}

fn request(node: &str, coordinator: &str) -> Input {
    says(following(node, coordinator, 1), Message::Request)
}

fn handover(node: &str, epoch: i64) -> Input {
    says(electing_since(node, epoch), Message::Handover)
}

/// A node whose tenure has just ended.
fn electing_since(node: &str, epoch: i64) -> Beat {
    Beat {
        version: 2 + u64::try_from(epoch).unwrap(),
        ..electing(node)
    }
}

#[test]
fn a_larger_follower_asks_each_dwell_time_for_the_handoff() {
    let mut machine = follower("n3", "n1");
    let asks = [timer(Timer::Dwell), send("n1", Message::Request)];
    assert_eq!(machine.step(Input::Timeout(Timer::Dwell)), asks);
    assert_eq!(machine.step(Input::Timeout(Timer::Dwell)), asks);
}

#[test]
fn a_smaller_follower_and_one_that_is_not_the_largest_ask_for_nothing() {
    let mut smaller = follower("n1", "n2");
    let waits = [timer(Timer::Dwell)];
    assert_eq!(smaller.step(Input::Timeout(Timer::Dwell)), waits);

    let mut middle = follower("n2", "n1");
    assert_eq!(middle.step(Input::Timeout(Timer::Dwell)), waits);
    middle.step(became("n3", Liveness::Suspect));
    let asks = [timer(Timer::Dwell), send("n1", Message::Request)];
    assert_eq!(middle.step(Input::Timeout(Timer::Dwell)), asks);
}

#[test]
fn a_follower_without_mongodb_and_one_that_does_not_hear_the_coordinator_ask_for_nothing() {
    let mut machine = follower("n3", "n1");
    machine.step(Input::Reaches(false));
    let waits = [timer(Timer::Dwell)];
    assert_eq!(machine.step(Input::Timeout(Timer::Dwell)), waits);

    machine.step(Input::Reaches(true));
    machine.step(heard(following("n2", "n1", 1)));
    machine.step(became("n1", Liveness::Suspect));
    assert_eq!(machine.step(Input::Timeout(Timer::Dwell)), waits);
}

#[test]
fn nothing_is_handed_over_before_the_dwell_time_has_passed() {
    let mut machine = coordinator("n2");
    assert_eq!(machine.step(request("n3", "n2")), []);
    machine.step(Input::Timeout(Timer::Dwell));
    assert_eq!(machine.step(request("n3", "n2")), [Output::Drain]);
}

#[test]
fn nothing_is_handed_over_to_a_smaller_rank_or_to_one_that_cannot_serve() {
    let mut machine = settled("n2");
    assert_eq!(machine.step(request("n1", "n2")), []);
    let cut_off = says(ineligible(following("n3", "n2", 1)), Message::Request);
    assert_eq!(machine.step(cut_off), []);
    assert_eq!(machine.role(), Role::Coordinator);
}

#[test]
fn a_handoff_drains_then_tells_the_successor_then_waits_for_it() {
    let mut machine = settled("n2");
    assert_eq!(machine.step(request("n3", "n2")), [Output::Drain]);
    assert_eq!(machine.role(), Role::Coordinator, "until it has drained");
    assert_eq!(machine.step(request("n3", "n2")), [], "once is enough");
    assert_eq!(
        machine.step(Input::Drained),
        [send("n3", Message::Handover), timer(Timer::Coordinator)]
    );
    assert_eq!(machine.role(), Role::Electing);
    assert_eq!(
        machine.step(says(coordinating("n3", 2), Message::Coordinator)),
        [timer(Timer::Dwell)]
    );
}

#[test]
fn the_successor_claims_at_once_and_becomes_coordinator() {
    let mut machine = follower("n3", "n2");
    assert_eq!(machine.step(handover("n2", 1)), [claim(1)]);
    let out = machine.step(Input::Claimed(Epoch(2)));
    assert_eq!(out[0], Output::Serve(Epoch(2)));
}

#[test]
fn a_handover_that_the_beat_overtakes_ends_the_look_that_the_beat_began() {
    let mut machine = follower("n3", "n2");
    let resigned = heard(electing_since("n2", 1));
    assert_eq!(machine.step(resigned), [Output::Look(Patience::None)]);
    assert_eq!(machine.step(handover("n2", 1)), [claim(1)]);
    assert_eq!(machine.step(quiet("n2", 1)), [], "that look is over");
}

#[test]
fn a_handover_that_is_lost_is_made_good_by_the_beat() {
    let mut machine = follower("n3", "n2");
    let resigned = heard(electing_since("n2", 1));
    assert_eq!(machine.step(resigned), [Output::Look(Patience::None)]);
    assert_eq!(machine.step(quiet("n2", 1)), [claim(1)]);
}

#[test]
fn a_node_that_is_handed_over_to_by_another_than_its_coordinator_stays() {
    let mut machine = follower("n3", "n2");
    assert_eq!(machine.step(handover("n1", 1)), []);
    assert_eq!(machine.coordinator(), Some(tenure("n2", 1)));
}

#[test]
fn a_handover_reaches_a_node_without_mongodb_in_vain() {
    let mut machine = follower("n3", "n2");
    machine.step(Input::Reaches(false));
    assert_eq!(
        machine.step(handover("n2", 1)),
        [timer(Timer::Coordinator)],
        "its coordinator has resigned and it cannot stand"
    );
}

#[test]
fn the_old_coordinator_claims_again_when_its_successor_died_on_the_way() {
    let mut machine = settled("n2");
    machine.step(request("n3", "n2"));
    machine.step(Input::Drained);
    machine.step(became("n3", Liveness::Down));
    assert_eq!(
        machine.step(Input::Timeout(Timer::Coordinator)),
        [Output::Look(Patience::Long)]
    );
    assert_eq!(machine.step(quiet("n2", 1)), [claim(1)]);
}

#[test]
fn a_coordinator_that_leaves_hands_over_to_the_largest_that_can_serve() {
    let mut machine = coordinator("n1");
    machine.step(heard(Beat {
        version: 3,
        ..ineligible(following("n3", "n1", 1))
    }));
    assert_eq!(machine.step(Input::Leave), [Output::Drain]);
    assert!(!machine.beat().eligible);
    assert_eq!(
        machine.step(Input::Drained),
        [send("n2", Message::Handover), timer(Timer::Coordinator)]
    );
    assert_eq!(
        machine.step(Input::Timeout(Timer::Coordinator)),
        [timer(Timer::Coordinator)],
        "it stands no more"
    );
}

#[test]
fn a_coordinator_that_leaves_and_knows_nobody_to_hand_over_to_just_ends() {
    let mut machine = coordinator("n1");
    machine.step(became("n2", Liveness::Down));
    machine.step(became("n3", Liveness::Down));
    assert_eq!(machine.step(Input::Leave), []);
    assert_eq!(machine.role(), Role::Coordinator);
}

#[test]
fn a_node_that_leaves_while_it_looks_does_not_claim() {
    let mut machine = follower("n2", "n3");
    machine.step(became("n3", Liveness::Down));
    assert_eq!(machine.step(Input::Leave), []);
    assert_eq!(
        machine.step(quiet("n3", 1)),
        [timer(Timer::Coordinator)],
        "it could serve for a moment only"
    );
}

#[test]
fn a_coordinator_that_loses_mongodb_abdicates_if_a_peer_reaches_it() {
    let mut machine = coordinator("n2");
    assert_eq!(
        machine.step(Input::Reaches(false)),
        [timer(Timer::Abdicate)]
    );
    assert_eq!(machine.role(), Role::Coordinator, "not yet");
    assert_eq!(
        machine.step(Input::Timeout(Timer::Abdicate)),
        [step_down(2), timer(Timer::Coordinator)]
    );
    assert_eq!(machine.role(), Role::Electing);
}

#[test]
fn a_coordinator_whose_log_was_changed_steps_down_at_once() {
    let mut machine = coordinator("n2");
    assert_eq!(
        machine.step(Input::LogFault),
        [step_down(2), timer(Timer::Coordinator)]
    );
    assert_eq!(machine.role(), Role::Electing);
    assert!(!machine.beat().eligible, "nobody can append");
    assert_eq!(
        machine.step(Input::Timeout(Timer::Coordinator)),
        [timer(Timer::Coordinator)]
    );
}

#[test]
fn a_coordinator_that_reaches_mongodb_in_time_stays() {
    let mut machine = coordinator("n2");
    machine.step(Input::Reaches(false));
    assert_eq!(machine.step(Input::Reaches(true)), []);
    assert_eq!(machine.step(Input::Timeout(Timer::Abdicate)), []);
    assert_eq!(machine.role(), Role::Coordinator);
    assert_eq!(
        machine.step(Input::Reaches(false)),
        [timer(Timer::Abdicate)],
        "the next time counts anew"
    );
}

#[test]
fn a_coordinator_abdicates_for_nobody_when_no_peer_reaches_mongodb_either() {
    let mut machine = coordinator("n2");
    for peer in ["n1", "n3"] {
        machine.step(heard(Beat {
            version: 3,
            ..ineligible(following(peer, "n2", 1))
        }));
    }
    assert_eq!(machine.step(Input::Reaches(false)), []);
    let recovered = Beat {
        version: 4,
        ..following("n1", "n2", 1)
    };
    assert_eq!(machine.step(heard(recovered)), [timer(Timer::Abdicate)]);
    assert_eq!(machine.step(became("n1", Liveness::Down)), []);
    assert_eq!(machine.step(Input::Timeout(Timer::Abdicate)), []);
}

#[test]
fn a_coordinator_shows_life_while_a_peer_may_be_cut_off_from_it() {
    let mut machine = coordinator("n2");
    assert!(!machine.must_show_life());
    machine.step(became("n1", Liveness::Suspect));
    assert!(machine.must_show_life());
    let mut follower = follower("n1", "n2");
    follower.step(became("n3", Liveness::Down));
    assert!(!follower.must_show_life(), "only a coordinator does");
}

#[test]
fn a_deposed_coordinator_looks_once_and_follows_the_peer_that_deposed_it() {
    let mut machine = coordinator("n2");
    assert_eq!(
        machine.step(Input::Deposed(Epoch(2))),
        [timer(Timer::Answer), send("n3", Message::Election)]
    );
    assert_eq!(
        machine.step(heard(coordinating("n3", 2))),
        [timer(Timer::Dwell)]
    );
    assert_eq!(
        machine.step(Input::Deposed(Epoch(2))),
        [],
        "that is known by now"
    );
}

#[test]
fn a_node_that_a_stranger_deposed_does_not_depose_the_stranger() {
    let mut machine = lone("n1");
    machine.step(Input::Looked(Looked::Quiet(None)));
    machine.step(Input::Claimed(Epoch(1)));
    assert_eq!(
        machine.step(Input::Deposed(Epoch(2))),
        [Output::Look(Patience::None)]
    );
    assert_eq!(machine.step(quiet("n9", 2)), []);
    assert_eq!(machine.coordinator(), Some(tenure("n9", 2)));
    assert!(!machine.beat().eligible);
}

#[test]
fn a_node_that_sees_the_stranger_at_work_does_not_depose_it_when_it_rests() {
    let mut machine = lone("n1");
    machine.step(Input::Looked(Looked::Quiet(None)));
    machine.step(Input::Claimed(Epoch(1)));
    machine.step(Input::Deposed(Epoch(2)));
    machine.step(Input::Looked(Looked::Active(tenure("n9", 2))));
    machine.step(Input::Timeout(Timer::Confirm));
    assert_eq!(machine.step(quiet("n9", 2)), []);
    assert_eq!(machine.coordinator(), Some(tenure("n9", 2)));
}
