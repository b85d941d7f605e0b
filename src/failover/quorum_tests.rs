use std::collections::BTreeSet;

use super::quorum::{Input, Output, Quorum};
use crate::model::{NodeName, Rank};

fn rank(number: u64) -> Rank {
    Rank {
        number,
        node: NodeName::parse(&format!("n{number}")).unwrap(),
    }
}

fn voice(number: u64, spent: bool) -> Input {
    Input::Voice {
        rank: rank(number),
        spent,
    }
}

const TELL: Output = Output::Tell { spent: false };
const SPENT: Output = Output::Tell { spent: true };
const ASK: Output = Output::Ask { term: 5 };

/// Of three nodes, after the primary of term 5 was seen.
fn node(number: u64) -> Quorum {
    let mut node = Quorum::new(rank(number), 2);
    assert_eq!(node.step(Input::Led(5)), []);
    node
}

#[test]
fn one_of_three_does_nothing_and_two_wait_for_the_third_before_the_larger_asks_once() {
    let mut node = node(2);
    assert_eq!(node.step(Input::Lost), [TELL]);
    assert_eq!(node.step(Input::Waited), []);
    assert_eq!(node.step(voice(1, false)), [Output::Wait]);
    assert_eq!(node.step(Input::Waited), [ASK]);
    assert_eq!(node.step(voice(3, false)), []);
    assert_eq!(node.step(Input::Lost), []);
    assert_eq!(node.step(Input::InVain), [SPENT]);
    assert_eq!(node.step(voice(1, true)), []);
}

#[test]
fn when_all_agree_the_largest_asks_at_once_and_the_next_after_it_failed() {
    let mut largest = node(3);
    largest.step(voice(1, false));
    largest.step(voice(2, false));
    assert_eq!(largest.step(Input::Lost), [TELL, ASK]);

    let mut next = node(2);
    next.step(Input::Lost);
    assert_eq!(next.step(voice(3, false)), [Output::Wait]);
    assert_eq!(next.step(voice(1, false)), []);
    assert_eq!(next.step(Input::Waited), []);
    assert_eq!(next.step(voice(3, true)), [ASK]);
}

#[test]
fn the_smaller_acts_when_the_larger_is_gone_and_two_still_agree() {
    let mut node = node(2);
    node.step(Input::Lost);
    node.step(voice(3, false));
    assert_eq!(node.step(Input::Hushed(rank(3).node)), []);
    node.step(Input::Waited);
    assert_eq!(node.step(voice(1, false)), [ASK]);
}

#[test]
fn a_primary_of_the_same_term_that_comes_back_is_not_replaced_a_second_time() {
    let mut node = Quorum::new(rank(1), 0);
    node.step(Input::Led(5));
    assert_eq!(node.step(Input::Lost), [TELL, ASK]);
    assert_eq!(node.step(Input::Led(5)), [Output::Hush]);
    assert_eq!(node.step(Input::Lost), [TELL]);
    assert_eq!(node.step(Input::Led(6)), [Output::Hush]);
    assert_eq!(node.step(Input::Lost), [TELL, Output::Ask { term: 6 }]);
}

#[test]
fn without_enough_members_to_elect_one_the_act_is_kept_for_when_they_are_back() {
    let mut node = Quorum::new(rank(1), 0);
    node.step(Input::Led(5));
    assert_eq!(node.step(Input::Enough(false)), []);
    assert_eq!(node.step(Input::Lost), [TELL]);
    assert_eq!(node.step(Input::Enough(true)), [ASK]);
    assert_eq!(node.step(Input::Enough(true)), []);
}

#[test]
fn a_node_that_sees_the_primary_never_asks_whatever_the_others_say() {
    let mut node = node(3);
    for said in [
        voice(1, false),
        voice(2, false),
        voice(1, true),
        Input::Waited,
    ] {
        assert_eq!(node.step(said), []);
    }
}

/// All states that three nodes' inputs can reach: asked only by agreement, once a term.
#[test]
fn in_all_reachable_states_a_majority_agrees_and_a_term_is_asked_for_once() {
    let inputs = [
        Input::Led(1),
        Input::Led(2),
        Input::Lost,
        Input::Waited,
        Input::InVain,
        Input::Enough(false),
        Input::Enough(true),
        voice(1, false),
        voice(1, true),
        voice(3, false),
        voice(3, true),
        Input::Hushed(rank(1).node),
        Input::Hushed(rank(3).node),
    ];
    // Beside each state: its term, whether it is lost, and the terms that were asked for.
    let first = (Quorum::new(rank(2), 2), BTreeSet::new(), 0, false);
    let mut seen = std::collections::HashSet::from([first.clone()]);
    let mut todo = vec![first];
    let mut asks = 0;
    while let Some((quorum, asked, term, lost)) = todo.pop() {
        for input in &inputs {
            let mut next = quorum.clone();
            let (mut asked, mut term, mut lost) = (asked.clone(), term, lost);
            match input {
                Input::Led(led) => (term, lost) = (term.max(*led), false),
                Input::Lost => lost = true,
                _ => {}
            }
            for output in next.step(input.clone()) {
                let Output::Ask { term: of } = output else {
                    continue;
                };
                asks += 1;
                assert!(lost, "{quorum:?} saw a primary");
                assert_eq!(of, term);
                assert!(next.agreeing().0 >= 2, "{quorum:?} was alone");
                assert!(asked.insert(of), "{quorum:?} asked twice in term {of}");
            }
            let state = (next, asked, term, lost);
            if seen.insert(state.clone()) {
                todo.push(state);
            }
        }
    }
    assert!(asks > 0 && seen.len() > 100, "{asks} in {}", seen.len());
}
