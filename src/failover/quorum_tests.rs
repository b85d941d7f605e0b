use std::collections::{BTreeSet, HashSet};

use super::quorum::{Input, Output, Quorum, Time, Told, Voice};
use crate::model::{NodeName, Rank};

fn rank(number: u64) -> Rank {
    Rank {
        number,
        node: NodeName::parse(&format!("n{number}")).unwrap(),
    }
}

fn says(number: u64, term: i64, passes: bool) -> Input {
    Input::Voice(Voice {
        rank: rank(number),
        term,
        passes,
    })
}

/// Finds no primary after that of term 5.
fn voice(number: u64) -> Input {
    says(number, 5, false)
}

fn passing(number: u64) -> Input {
    says(number, 5, true)
}

const fn tell(passes: bool) -> Output {
    tell_of(5, passes)
}

const fn tell_of(term: i64, passes: bool) -> Output {
    Output::Tell(Told { term, passes })
}

const LISTEN: Output = Output::Wait(Time::Heartbeat);
const LEAVE_IT: Output = Output::Wait(Time::Act);
const ASK: Output = Output::Ask { term: 5 };

/// Of three nodes, after the primary of term 5 was seen.
fn node(number: u64) -> Quorum {
    of(number, 2)
}

fn of(number: u64, peers: usize) -> Quorum {
    let mut node = Quorum::new(rank(number), peers);
    assert_eq!(node.step(Input::Led(5)), []);
    node
}

#[test]
fn one_of_three_does_nothing_and_two_wait_for_the_third_before_the_larger_asks_once() {
    let mut node = node(2);
    assert_eq!(node.step(Input::Lost), [tell(false)]);
    assert_eq!(node.step(Input::Waited), []);
    assert_eq!(node.step(voice(1)), [LISTEN]);
    assert_eq!(node.step(Input::Waited), [ASK]);
    assert_eq!(node.step(voice(3)), []);
    assert_eq!(node.step(Input::Lost), []);
    assert_eq!(node.step(Input::InVain), [tell(true)]);
    assert_eq!(node.step(passing(1)), []);
}

#[test]
fn when_all_agree_the_largest_asks_at_once_and_the_next_after_it_passes() {
    let mut largest = node(3);
    largest.step(voice(1));
    largest.step(voice(2));
    assert_eq!(largest.step(Input::Lost), [ASK, tell(false)]);

    let mut next = node(2);
    next.step(Input::Lost);
    assert_eq!(next.step(voice(3)), [LISTEN]);
    assert_eq!(next.step(voice(1)), [LEAVE_IT]);
    assert_eq!(next.step(passing(3)), [ASK]);
}

#[test]
fn a_larger_rank_that_neither_acts_nor_passes_is_passed_over_after_a_while() {
    let mut node = node(2);
    node.step(Input::Lost);
    node.step(voice(3));
    assert_eq!(node.step(Input::Waited), [LEAVE_IT]);
    assert_eq!(node.step(voice(1)), []);
    assert_eq!(node.step(Input::Waited), [ASK]);
}

#[test]
fn the_smaller_acts_when_the_larger_is_gone_and_two_still_agree() {
    let mut node = node(2);
    node.step(Input::Lost);
    node.step(voice(3));
    assert_eq!(node.step(Input::Hushed(rank(3).node)), []);
    node.step(Input::Waited);
    assert_eq!(node.step(voice(1)), [ASK]);
}

#[test]
fn a_primary_of_the_same_term_that_comes_back_is_not_replaced_a_second_time() {
    let mut node = of(1, 0);
    assert_eq!(node.step(Input::Lost), [ASK, tell(false)]);
    node.step(Input::Led(5));
    assert_eq!(node.step(Input::Lost), [tell(false)]);
    node.step(Input::Led(6));
    let again = [Output::Ask { term: 6 }, tell_of(6, false)];
    assert_eq!(node.step(Input::Lost), again);
}

#[test]
fn a_node_that_finds_a_primary_says_nothing_any_more() {
    let mut node = node(2);
    assert_eq!(node.told(), None);
    node.step(Input::Lost);
    let (term, passes) = (5, false);
    assert_eq!(node.told(), Some(Told { term, passes }));
    assert_eq!(node.step(Input::Led(5)), []);
    assert_eq!(node.told(), None);
}

#[test]
fn what_nobody_could_be_asked_for_is_tried_again_a_heartbeat_later_and_others_may() {
    let mut node = of(1, 0);
    node.step(Input::Lost);
    assert_eq!(node.step(Input::Unasked), [LISTEN, tell(true)]);
    assert_eq!(node.step(Input::Lost), []);
    assert_eq!(node.step(Input::Waited), [ASK, tell(false)]);
}

#[test]
fn what_was_called_off_because_the_primary_is_back_does_not_count() {
    let mut node = of(1, 0);
    node.step(Input::Lost);
    node.step(Input::Led(5));
    assert_eq!(node.step(Input::Unasked), []);
    assert_eq!(node.step(Input::Lost), [ASK, tell(false)]);
}

/// A member may have been asked already, and may be elected yet.
#[test]
fn what_was_called_off_in_the_middle_counts_and_the_others_need_not_wait_for_it() {
    let mut largest = node(3);
    largest.step(voice(1));
    largest.step(voice(2));
    assert_eq!(largest.step(Input::Lost), [ASK, tell(false)]);
    largest.step(Input::Led(5));
    assert_eq!(largest.step(Input::InVain), []);
    assert_eq!(largest.step(Input::Lost), [tell(true)]);
    assert_eq!(largest.step(Input::Waited), []);

    let mut next = node(2);
    next.step(passing(3));
    next.step(voice(1));
    assert_eq!(next.step(Input::Lost), [ASK, tell(false)]);
}

#[test]
fn one_that_is_not_fit_passes_and_keeps_its_act_for_when_it_is() {
    let mut node = of(1, 0);
    assert_eq!(node.step(Input::Fit(false)), []);
    assert_eq!(node.step(Input::Lost), [tell(true)]);
    assert_eq!(node.step(Input::Fit(true)), [ASK, tell(false)]);
    assert_eq!(node.step(Input::Fit(true)), []);
}

#[test]
fn a_voice_counts_for_the_primary_that_it_is_about_and_not_for_the_next() {
    let mut node = node(3);
    node.step(voice(1));
    node.step(voice(2));
    node.step(Input::Led(6));
    assert_eq!(node.step(Input::Lost), [tell_of(6, false)]);
    assert_eq!(node.step(voice(1)), [], "late");
    assert_eq!(node.agreeing(), (1, 3));
    assert_eq!(node.step(says(1, 6, false)), [LISTEN]);
}

#[test]
fn one_that_lost_an_older_primary_agrees_on_the_newer() {
    let mut node = node(2);
    node.step(Input::Lost);
    let learned = [LISTEN, tell_of(6, false)];
    assert_eq!(node.step(says(1, 6, false)), learned);
    assert_eq!(node.step(Input::Waited), [Output::Ask { term: 6 }]);
}

#[test]
fn a_node_that_sees_the_primary_never_asks_whatever_the_others_say() {
    let mut node = node(3);
    for said in [voice(1), voice(2), passing(1), Input::Waited] {
        assert_eq!(node.step(said), []);
    }
}

/// What a run of inputs has led to, beside the state itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Story {
    lost: bool,
    /// The terms that were asked for, less those in which nobody could be.
    asked: BTreeSet<i64>,
    last: Option<i64>,
}

/// All states that three nodes' inputs can reach: asked only by agreement, once a term.
#[test]
fn in_all_reachable_states_a_majority_agrees_and_a_term_is_asked_for_once() {
    let mut inputs = vec![
        Input::Led(1),
        Input::Led(2),
        Input::Lost,
        Input::Waited,
        Input::Unasked,
        Input::InVain,
        Input::Fit(false),
        Input::Fit(true),
        Input::Hushed(rank(1).node),
        Input::Hushed(rank(3).node),
    ];
    for (number, term) in [(1, 1), (1, 2), (3, 1), (3, 2)] {
        inputs.extend([says(number, term, false), says(number, term, true)]);
    }
    let first = (Quorum::new(rank(2), 2), Story::default());
    let mut seen = HashSet::from([first.clone()]);
    let mut todo = vec![first];
    let mut asks = 0;
    while let Some((quorum, story)) = todo.pop() {
        for input in &inputs {
            let (mut next, mut story) = (quorum.clone(), story.clone());
            match input {
                Input::Led(_) => story.lost = false,
                Input::Lost => story.lost = true,
                Input::Unasked => {
                    if let Some(last) = story.last.take() {
                        story.asked.remove(&last);
                    }
                }
                _ => {}
            }
            for output in next.step(input.clone()) {
                let Output::Ask { term } = output else {
                    continue;
                };
                asks += 1;
                assert!(story.lost, "{quorum:?} saw a primary");
                assert_eq!(term, next.term());
                assert!(next.agreeing().0 >= 2, "{quorum:?} was alone");
                assert!(story.asked.insert(term), "{quorum:?}: {term} again");
                story.last = Some(term);
            }
            let state = (next, story);
            if seen.insert(state.clone()) {
                todo.push(state);
            }
        }
    }
    assert!(asks > 0 && seen.len() > 100, "{asks} in {}", seen.len());
}
