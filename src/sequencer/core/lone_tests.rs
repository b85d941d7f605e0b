use super::*;
use crate::sequencer::arrange::Touches;

/// What the task is told to let rest, with the conflicts so far.
fn rests(out: &[Output<()>]) -> Vec<(Ticket, u32)> {
    let rest = |output: &Output<()>| match output {
        Output::Rest { ticket, conflicts } => Some((*ticket, *conflicts)),
        _ => None,
    };
    out.iter().filter_map(rest).collect()
}

#[test]
fn a_request_that_meets_a_lock_leaves_its_batch_at_once_and_goes_back_in_the_end() {
    let (mut core, _) = with_batch(3);
    let met = |first| Input::Ran(Ran::Contended { first, count: 1 });
    let out = core.step(met(1));
    assert_eq!(rests(&out), [(2, 1)]);
    assert_eq!(tickets(&run_of(&out)), [1, 3]);
    core.step(Input::Ran(Ran::Committed { count: 2 }));
    for conflicts in 2..=CONFLICTS_MAX {
        let out = core.step(Input::Rested(2));
        assert_eq!(tickets(&run_of(&out)), [2]);
        assert!(run_of(&out).alone);
        let out = core.step(met(0));
        assert_eq!(rests(&out), [(2, conflicts)]);
        assert!(!core.is_idle(), "it rests");
    }
    core.step(Input::Rested(2));
    let out = core.step(met(0));
    assert_eq!(rejects(&out), [(2, Reject::Contended)]);
    assert!(core.is_idle());
}

#[test]
fn a_request_that_the_servers_bar_goes_back_and_the_others_run_without_it() {
    let (mut core, _) = with_batch(3);
    let out = core.step(Input::Ran(Ran::Barred { index: 1 }));
    assert_eq!(rejects(&out), [(2, Reject::Barred)]);
    assert_eq!(tickets(&run_of(&out)), [1, 3]);
    core.step(Input::Ran(Ran::Committed { count: 2 }));
    assert!(core.is_idle());
}

#[test]
fn those_that_shared_a_command_that_met_a_lock_run_alone_and_turn_about_with_the_queue() {
    let (mut core, _) = with_batch(4);
    let (first, count) = (1, 2);
    let out = core.step(Input::Ran(Ran::Contended { first, count }));
    assert_eq!(rests(&out), [(2, 1), (3, 1)]);
    assert_eq!(tickets(&run_of(&out)), [1, 4]);
    for ticket in [3, 2] {
        core.step(Input::Rested(ticket));
    }
    for ticket in [5, 6] {
        core.step(submit(ticket));
    }
    let mut order = Vec::new();
    let mut count = 2;
    loop {
        let out = core.step(Input::Ran(Ran::Committed { count }));
        if core.is_idle() {
            break;
        }
        let batch = run_of(&out);
        count = batch.slots.len();
        order.push(tickets(&batch));
    }
    assert_eq!(order, [vec![3], vec![5, 6], vec![2]]);
}

#[test]
fn a_request_that_runs_for_long_runs_again_alone_and_is_refused_in_the_end() {
    let (mut core, _) = with_batch(3);
    let held = |index| {
        Input::Ran(Ran::Held {
            index,
            refusal: refusal(),
        })
    };
    // What its neighbours do is not known beforehand either: they run alone too, when those whose
    // work is known have had their time.
    let out = core.step(held(1));
    assert_eq!(rests(&out), [RECOVERY]);
    let known = |ticket| {
        let touches = Touches {
            kind: 1,
            documents: vec![ticket],
        };
        let submission = submission(ticket, &format!("r{ticket}"), None);
        Input::Submit(Submission {
            touches: Some(touches),
            ..submission
        })
    };
    let out = core.step(known(4));
    assert_eq!(tickets(&run_of(&out)), [4]);
    assert!(core.step(submit(5)).is_empty());
    assert!(
        core.step(Input::Ran(Ran::Committed { count: 1 })).len() == 2,
        "5 waits too"
    );

    let out = core.step(Input::Rested(RECOVERY.0));
    let batch = run_of(&out);
    assert_eq!((tickets(&batch), batch.alone), (vec![1], true));
    let out = core.step(Input::Ran(Ran::Committed { count: 1 }));
    assert_eq!(tickets(&run_of(&out)), [2]);
    assert_eq!(rests(&core.step(held(0))), [RECOVERY]);
    let mut out = core.step(Input::Rested(RECOVERY.0));
    for next in [3, 5] {
        assert_eq!(
            tickets(&run_of(&out)),
            [next],
            "2 stands behind those that waited"
        );
        out = core.step(Input::Ran(Ran::Committed { count: 1 }));
    }
    assert_eq!(tickets(&run_of(&out)), [2]);
    let out = core.step(held(0));
    let batch = run_of(&out);
    assert_eq!(tickets(&batch), [2]);
    assert_eq!(batch.slots[0].refused, Some(refusal()), "it is logged");
    let out = core.step(Input::Ran(Ran::Committed { count: 1 }));
    assert_eq!(answers(&out).len(), 1);
    assert!(core.is_idle());
}

/// A request that may compute for long without a look at the clock.
fn looping(ticket: Ticket) -> Input<()> {
    Input::Submit(Submission {
        loops: true,
        ..submission(ticket, &format!("r{ticket}"), None)
    })
}

fn awaits_left(out: &[Output<()>]) -> bool {
    out.contains(&Output::AwaitLeft)
}

/// What stood before it in its transaction would stay locked for as long as MongoDB computes.
#[test]
fn a_request_that_may_loop_shares_no_transaction() {
    let mut core = serving();
    assert_eq!(tickets(&run_of(&core.step(submit(1)))), [1]);
    for ticket in [looping(2), submit(3), looping(4), submit(5)] {
        core.step(ticket);
    }
    let (mut order, mut count) = (Vec::new(), 1);
    loop {
        let out = core.step(Input::Ran(Ran::Committed { count }));
        if core.is_idle() {
            break;
        }
        let batch = run_of(&out);
        count = batch.slots.len();
        order.push((tickets(&batch), batch.alone));
    }
    let alone = |ticket| (vec![ticket], true);
    assert_eq!(order, [(vec![3, 5], false), alone(2), alone(4)]);
}

#[test]
fn while_mongodb_computes_on_what_was_left_no_other_that_may_loop_runs() {
    let held = || {
        Input::Ran(Ran::Held {
            index: 0,
            refusal: refusal(),
        })
    };
    let mut core = serving();
    assert!(run_of(&core.step(looping(1))).alone);
    core.step(looping(2));
    let out = core.step(held());
    assert!(awaits_left(&out));
    assert_eq!(rests(&out), [RECOVERY]);
    // The pause is over, and MongoDB still computes: only what cannot loop has its turn.
    assert!(core.step(Input::Rested(RECOVERY.0)).is_empty());
    assert_eq!(tickets(&run_of(&core.step(submit(3)))), [3]);
    core.step(Input::Ran(Ran::Committed { count: 1 }));
    assert!(!core.is_idle());

    let out = core.step(Input::LeftEnded);
    assert_eq!(tickets(&run_of(&out)), [1]);
    // It has run alone twice.
    let out = core.step(held());
    assert!(awaits_left(&out));
    assert_eq!(run_of(&out).slots[0].refused, Some(refusal()));
    let out = core.step(Input::Ran(Ran::Committed { count: 1 }));
    assert_eq!(answers(&out).len(), 1);
    core.step(Input::Rested(RECOVERY.0));
    assert!(!core.is_idle(), "2 waits");
    let out = core.step(Input::LeftEnded);
    assert_eq!(tickets(&run_of(&out)), [2]);
}
