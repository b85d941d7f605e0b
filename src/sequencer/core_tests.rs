//! The core alone: exact outputs for each decision, and seeded schedules against a log in memory.

#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use super::*;
use crate::model::order::STAMP_MAX;
use crate::sequencer::steps::Resolved;

type Step = Input<()>;

fn submission(ticket: Ticket, id: &str, digest: Option<u8>) -> Submission<()> {
    Submission {
        ticket,
        id: RequestId::parse(id).unwrap(),
        digest: digest.map(|byte| Digest([byte; 32])),
        clock: 0,
        bytes: 100,
        touches: None,
        loops: false,
        payload: (),
    }
}

fn submit(ticket: Ticket) -> Step {
    Input::Submit(submission(ticket, &format!("r{ticket}"), None))
}

fn refusal() -> Refusal {
    Refusal {
        code: 11000,
        name: "DuplicateKey".into(),
        message: "E11000".into(),
    }
}

/// A core that serves epoch 1 from position 1 on.
fn serving() -> Core<()> {
    let mut core = Core::default();
    let out = core.step(Input::Serve {
        epoch: Epoch(1),
        tail: Position(1),
        clock: 1,
        nonce: 7,
    });
    assert_eq!(
        out,
        [Output::Advanced {
            tail: Position(1),
            clock: 1,
            guest: false,
        }]
    );
    core
}

/// A core with one batch in flight that holds the tickets `1..=n`.
fn with_batch(n: u64) -> (Core<()>, Batch<()>) {
    let mut core = serving();
    core.step(submit(0));
    for ticket in 1..=n {
        assert_eq!(core.step(submit(ticket)), []);
    }
    let out = core.step(Input::Ran(Ran::Committed { count: 1 }));
    let batch = run_of(&out);
    assert_eq!(tickets(&batch), (1..=n).collect::<Vec<_>>());
    (core, batch)
}

fn run_of(out: &[Output<()>]) -> Batch<()> {
    let run = out.iter().find_map(|output| match output {
        Output::Run(batch) => Some(batch.clone()),
        _ => None,
    });
    run.unwrap_or_else(|| panic!("no batch runs: {out:?}"))
}

fn tickets(batch: &Batch<()>) -> Vec<Ticket> {
    let slots = batch.slots.iter();
    slots.map(|slot| slot.submission.ticket).collect()
}

fn rejects(out: &[Output<()>]) -> Vec<(Ticket, Reject)> {
    let of = |output: &Output<()>| match output {
        Output::Reject { ticket, why } => Some((*ticket, *why)),
        _ => None,
    };
    out.iter().filter_map(of).collect()
}

fn answers(out: &[Output<()>]) -> Vec<(Ticket, i64)> {
    let of = |output: &Output<()>| match output {
        Output::Answer { ticket, stamp, .. } => Some((*ticket, *stamp)),
        _ => None,
    };
    out.iter().filter_map(of).collect()
}

#[test]
fn a_node_without_a_claim_takes_nothing() {
    let mut core: Core<()> = Core::default();
    let out = core.step(submit(1));
    assert_eq!(rejects(&out), [(1, Reject::NotCoordinator)]);
    assert!(core.is_idle());
}

#[test]
fn what_arrives_while_a_batch_runs_forms_the_next_one_in_order() {
    let (mut core, batch) = with_batch(3);
    assert_eq!(batch.position, Position(3));
    assert_eq!(batch.attempt, 1);
    let out = core.step(Input::Ran(Ran::Committed { count: 3 }));
    assert_eq!(answers(&out), [(1, 3), (2, 4), (3, 5)]);
    assert!(core.is_idle());
}

#[test]
fn a_stamp_passes_the_clients_clock_and_stays_increasing() {
    let mut core = serving();
    let mut first = submission(1, "a", None);
    first.clock = 41;
    let batch = run_of(&core.step(Input::Submit(first)));
    assert_eq!(batch.slots[0].stamp, 42);
    core.step(submit(2));
    let batch = run_of(&core.step(Input::Ran(Ran::Committed { count: 1 })));
    assert_eq!(batch.slots[0].stamp, 43);
}

#[test]
fn a_clock_absurdly_far_ahead_is_refused_and_changes_nothing() {
    let mut core = serving();
    let mut absurd = submission(1, "a", None);
    absurd.clock = 2 + CLOCK_AHEAD_MAX;
    let before = core.clone();
    let out = core.step(Input::Submit(absurd));
    assert_eq!(rejects(&out), [(1, Reject::ClockAhead)]);
    assert_eq!(core, before);
}

#[test]
fn at_the_end_of_the_counter_writes_are_refused_and_nothing_wraps() {
    for (clock, taken) in [
        (STAMP_MAX - 2 * CLOCK_AHEAD_MAX - 1, true),
        (STAMP_MAX - 2 * CLOCK_AHEAD_MAX, false),
        (STAMP_MAX, false),
        (i64::MAX, false),
    ] {
        let mut core: Core<()> = Core::default();
        core.step(Input::Serve {
            epoch: Epoch(1),
            tail: Position(1),
            clock,
            nonce: 7,
        });
        let out = core.step(submit(1));
        match taken {
            true => assert!(run_of(&out).slots[0].stamp <= STAMP_MAX),
            false => assert_eq!(rejects(&out), [(1, Reject::ClockAtEnd)]),
        }
    }
}

#[test]
fn doubt_looks_before_anything_else() {
    let (mut core, batch) = with_batch(2);
    let out = core.step(Input::Ran(Ran::Doubt { repeated: false }));
    assert_eq!(out, [Output::Resolve(batch.clone())]);
    let out = core.step(Input::Resolved(Resolved::Absent));
    let again = run_of(&out);
    assert_eq!((again.id, again.position), (batch.id, batch.position));
    assert_eq!((again.attempt, &again.slots), (2, &batch.slots));
    core.step(Input::Ran(Ran::Doubt { repeated: false }));
    let out = core.step(Input::Resolved(Resolved::Mine { count: 2 }));
    assert_eq!(answers(&out).len(), 2);
}

#[test]
fn where_the_primary_knows_of_nothing_only_the_very_same_batch_may_run() {
    let (mut core, batch) = with_batch(2);
    core.step(Input::Ran(Ran::Doubt { repeated: false }));
    let again = run_of(&core.step(Input::Resolved(Resolved::Vacant)));
    assert_eq!((again.id, again.attempt), (batch.id, 2));
    assert_eq!(again.slots, batch.slots);
    // What a primary of yesterday refuses may stand.
    let refused = Ran::Refused {
        index: 0,
        refusal: refusal(),
    };
    let out = core.step(Input::Ran(refused.clone()));
    assert_eq!(out, [Output::Prove(again)]);
    let out = core.step(Input::Resolved(Resolved::Mine { count: 2 }));
    assert_eq!(answers(&out).len(), 2);

    let (mut core, batch) = with_batch(2);
    core.step(Input::Ran(Ran::Doubt { repeated: false }));
    core.step(Input::Resolved(Resolved::Vacant));
    core.step(Input::Ran(refused.clone()));
    let again = run_of(&core.step(Input::Resolved(Resolved::Absent)));
    assert_eq!(again.id, batch.id);
    // Now it is known that no earlier attempt stands.
    let without = run_of(&core.step(Input::Ran(refused)));
    assert_ne!(without.id, batch.id);
}

#[test]
fn a_batch_that_changes_runs_only_where_nothing_stands_for_sure() {
    let (mut core, batch) = with_batch(2);
    core.step(Input::Withdraw(1));
    core.step(Input::Ran(Ran::Doubt { repeated: false }));
    let out = core.step(Input::Resolved(Resolved::Vacant));
    assert!(matches!(&out[..], [Output::Prove(proven)] if proven.id == batch.id));
    let out = core.step(Input::Resolved(Resolved::Absent));
    assert_eq!(tickets(&run_of(&out)), [2]);
    assert_ne!(run_of(&out).id, batch.id);
}

#[test]
fn the_fence_answers_nobody() {
    let (mut core, _) = with_batch(2);
    core.step(submit(9));
    core.step(Input::Ran(Ran::Doubt { repeated: false }));
    let out = core.step(Input::Resolved(Resolved::Fenced));
    let not = Reject::NotCoordinator;
    assert_eq!(rejects(&out), [(9, not), (1, not), (2, not)]);
    assert_eq!(out.last(), Some(&Output::Fenced));
    assert_eq!(rejects(&core.step(submit(10))), [(10, not)]);
}

#[test]
fn a_changed_log_ends_the_tenure_and_only_doubt_is_told_as_unknown() {
    for (ran, why) in [
        (None, Reject::LogFault),
        (Some(Ran::Clash), Reject::LogFault),
        (Some(Ran::Doubt { repeated: true }), Reject::LogFault),
        (Some(Ran::Doubt { repeated: false }), Reject::Unknown),
    ] {
        let (mut core, _) = with_batch(2);
        core.step(submit(9));
        if let Some(ran) = ran {
            core.step(Input::Ran(ran));
        }
        let out = core.step(Input::Faulted);
        let waiting = (9, Reject::NotCoordinator);
        assert_eq!(rejects(&out), [waiting, (1, why), (2, why)]);
        assert!(core.is_idle());
        assert_eq!(
            rejects(&core.step(submit(10))),
            [(10, Reject::NotCoordinator)]
        );
    }
}

#[test]
fn a_deposed_node_still_settles_what_was_committed_before() {
    let (mut core, _) = with_batch(2);
    core.step(submit(9));
    assert_eq!(
        rejects(&core.step(Input::Depose)),
        [(9, Reject::NotCoordinator)]
    );
    let out = core.step(Input::Ran(Ran::Committed { count: 1 }));
    assert_eq!(answers(&out).len(), 1);
    assert_eq!(rejects(&out), [(2, Reject::NotCoordinator)]);
    assert!(core.is_idle());
}

#[test]
fn a_guest_moves_the_batch_behind_it_with_new_stamps_and_a_new_id() {
    let (mut core, batch) = with_batch(2);
    core.step(Input::Ran(Ran::Doubt { repeated: false }));
    let out = core.step(Input::Resolved(Resolved::Guest {
        tail: Position(5),
        clock: 50,
    }));
    let moved = run_of(&out);
    assert_eq!(moved.position, Position(6));
    assert_eq!(tickets(&moved), [1, 2]);
    assert_eq!(moved.slots[0].stamp, 51);
    assert_ne!(moved.id, batch.id);
}

#[test]
fn a_refused_request_leaves_the_others_in_order_under_a_new_id() {
    let (mut core, batch) = with_batch(4);
    let refused = Ran::Refused {
        index: 1,
        refusal: refusal(),
    };
    let again = run_of(&core.step(Input::Ran(refused)));
    assert_ne!(again.id, batch.id);
    assert_eq!(tickets(&again), [1, 2, 3, 4]);
    let marks: Vec<_> = again
        .slots
        .iter()
        .map(|slot| slot.refused.is_some())
        .collect();
    assert_eq!(marks, [false, true, false, false]);
    let out = core.step(Input::Ran(Ran::Committed { count: 4 }));
    assert_eq!(answers(&out).len(), 4);
}

#[test]
fn a_refusal_before_a_refusal_puts_the_later_one_in_question() {
    let (mut core, _) = with_batch(4);
    let at = |index| {
        Input::Ran(Ran::Refused {
            index,
            refusal: refusal(),
        })
    };
    core.step(at(3));
    let again = run_of(&core.step(at(1)));
    let marks: Vec<_> = again
        .slots
        .iter()
        .map(|slot| slot.refused.is_some())
        .collect();
    assert_eq!(marks, [false, true, false, false]);
}

#[test]
fn any_mix_of_refusals_takes_a_bounded_number_of_attempts() {
    for refuses in [
        |n: u64| n.is_multiple_of(2),
        |n: u64| n > 250,
        |n: u64| n <= 250,
        |_: u64| true,
        |n: u64| n == 500,
        |n: u64| n % 10 < 5,
    ] {
        let (mut core, mut batch) = with_batch(500);
        let (mut attempts, mut redone, mut answered) = (0, 0, Vec::new());
        while !core.is_idle() {
            attempts += 1;
            let open = |slot: &&Slot<()>| slot.refused.is_none();
            let first = (batch.slots.iter())
                .position(|slot| slot.refused.is_none() && refuses(slot.submission.ticket));
            let out = match first {
                Some(index) => {
                    redone += batch.slots[..index].iter().filter(open).count();
                    core.step(Input::Ran(Ran::Refused {
                        index,
                        refusal: refusal(),
                    }))
                }
                None => {
                    let count = batch.slots.len();
                    core.step(Input::Ran(Ran::Committed { count }))
                }
            };
            answered.extend(answers(&out).into_iter().map(|(ticket, _)| ticket));
            if !core.is_idle() {
                batch = run_of(&out);
            }
        }
        assert_eq!(answered, (1..=500).collect::<Vec<_>>());
        let refused = (1..=500).filter(|n| refuses(*n)).count();
        assert!(attempts <= 2 * refused + 1, "{attempts} for {refused}");
        assert!(
            redone <= (REDO_MAX + 500) * (refused + 1),
            "{redone} for {refused}"
        );
    }
}

#[test]
fn a_batch_too_large_for_the_log_is_halved_and_nothing_is_left_behind() {
    let (mut core, batch) = with_batch(5);
    let out = core.step(Input::Ran(Ran::Oversized));
    let half = run_of(&out);
    assert_eq!(tickets(&half), [1, 2, 3]);
    assert_ne!(half.id, batch.id);
    let out = core.step(Input::Ran(Ran::Committed { count: 3 }));
    assert_eq!(tickets(&run_of(&out)), [4, 5]);
}

#[test]
fn what_a_deposed_node_cuts_off_is_turned_away_at_once() {
    let (mut core, _) = with_batch(5);
    core.step(Input::Depose);
    let out = core.step(Input::Ran(Ran::Oversized));
    assert_eq!(rejects(&out).len(), 5);
    assert!(core.is_idle());
}

#[test]
fn the_same_id_joins_while_it_runs_and_another_payload_is_refused() {
    let mut core = serving();
    core.step(Input::Submit(submission(1, "same", Some(1))));
    assert_eq!(core.step(Input::Submit(submission(2, "same", Some(1)))), []);
    let out = core.step(Input::Submit(submission(3, "same", Some(2))));
    assert_eq!(rejects(&out), [(3, Reject::IdReused)]);
    let out = core.step(Input::Ran(Ran::Committed { count: 1 }));
    assert_eq!(answers(&out), [(1, 2), (2, 2)]);
    assert!(core.by_id.is_empty());
}

#[test]
fn ids_that_the_log_holds_are_replayed_and_the_rest_runs() {
    let mut core = serving();
    core.step(submit(0));
    for (ticket, id) in [(1, "a"), (2, "b"), (3, "c")] {
        core.step(Input::Submit(submission(ticket, id, Some(1))));
    }
    core.step(Input::Ran(Ran::Committed { count: 1 }));
    let out = core.step(Input::Ran(Ran::Doubt { repeated: true }));
    assert!(matches!(out[..], [Output::Resolve(_)]));
    let out = core.step(Input::Resolved(Resolved::Vacant));
    assert!(matches!(out[..], [Output::Prove(_)]));
    let out = core.step(Input::Resolved(Resolved::Absent));
    assert!(matches!(out[..], [Output::Look(_)]));
    let (same, other) = (Some(Digest([1; 32])), Some(Digest([2; 32])));
    let out = core.step(Input::Looked(vec![(0, same), (1, other)]));
    assert!(out.contains(&Output::Replay {
        ticket: 1,
        index: 0
    }));
    assert_eq!(rejects(&out), [(2, Reject::IdReused)]);
    assert_eq!(tickets(&run_of(&out)), [3]);
}

#[test]
fn a_caller_that_leaves_the_queue_was_not_served_and_one_in_a_batch_cannot_know() {
    let (mut core, _) = with_batch(2);
    core.step(submit(9));
    let out = core.step(Input::Withdraw(9));
    assert_eq!(rejects(&out), [(9, Reject::Expired)]);
    let out = core.step(Input::Withdraw(1));
    assert_eq!(rejects(&out), [(1, Reject::Unknown)]);
    // Nothing was done and nobody waits: it is not run again.
    core.step(Input::Ran(Ran::Doubt { repeated: false }));
    let out = core.step(Input::Resolved(Resolved::Absent));
    assert_eq!(tickets(&run_of(&out)), [2]);
    let out = core.step(Input::Ran(Ran::Committed { count: 1 }));
    assert_eq!(answers(&out), [(2, 4)]);
    assert!(core.is_idle());
}

#[test]
fn the_queue_is_bounded_in_requests_and_in_bytes() {
    let mut core = serving();
    core.step(submit(0));
    for ticket in 1..=limits::QUEUE_REQUESTS_MAX as u64 {
        assert_eq!(core.step(submit(ticket)), []);
    }
    assert_eq!(
        rejects(&core.step(submit(99_999))),
        [(99_999, Reject::Full)]
    );

    let mut core = serving();
    core.step(submit(0));
    let big = |ticket| {
        let mut big = submission(ticket, "big", None);
        big.bytes = limits::QUEUE_BYTES_MAX / 2;
        Input::Submit(big)
    };
    assert_eq!(core.step(big(1)), []);
    assert_eq!(core.step(big(2)), []);
    assert_eq!(rejects(&core.step(big(3))), [(3, Reject::Full)]);
    // A request larger than a batch travels alone.
    let batch = run_of(&core.step(Input::Ran(Ran::Committed { count: 1 })));
    assert_eq!(tickets(&batch), [1]);
}

#[test]
fn a_batch_that_was_cut_leaves_the_rest_at_the_head_of_the_queue() {
    let (mut core, _) = with_batch(4);
    core.step(submit(9));
    let out = core.step(Input::Ran(Ran::Committed { count: 2 }));
    assert_eq!(answers(&out), [(1, 3), (2, 4)]);
    let rest = run_of(&out);
    assert_eq!(tickets(&rest), [3, 4, 9]);
    assert_eq!(rest.slots[0].stamp, 5);
}

#[path = "core/lone_tests.rs"]
mod lone;

#[path = "core/schedule_tests.rs"]
mod schedule;
