//! What is refused before anything is started.

use crate::support::{Sandbox, processes_in};

#[test]
fn what_makes_no_sense_is_a_usage_error_and_starts_nothing() {
    let sandbox = Sandbox::new();
    for (arguments, why) in [
        (["drill", "nonsense"].as_slice(), "possible values"),
        (&["drill", "kill", "--runs", "0"], "--runs"),
        (&["drill", "kill", "--rate", "x"], "--rate"),
        (&["drill", "kill", "--slo", "outage=soon"], "is not a time"),
        (
            &["drill", "kill", "--slo", "nothing=1"],
            "cannot be limited",
        ),
        (
            &["drill", "handoff", "--direct"],
            "--direct does without nodes",
        ),
        (
            &["drill", "stepdown", "--member", "other"],
            "chooses its victims itself",
        ),
        (
            &["drill", "kill", "--fresh", "--name", "x"],
            "cannot be used with",
        ),
        (
            &["drill", "kill", "--compose", "x", "--fresh"],
            "cannot be used with",
        ),
        (
            &["drill", "kill", "--servers", "http://127.0.0.1:1"],
            "must reach the processes",
        ),
    ] {
        let outcome = sandbox.run(arguments);
        assert_eq!(outcome.status, 2, "{arguments:?}: {outcome:#?}");
        assert!(outcome.stderr.contains(why), "{arguments:?}: {outcome:#?}");
        assert!(outcome.stdout.is_empty());
    }
    let bare = sandbox.run(&["drill"]);
    assert_eq!(bare.status, 2, "{bare:#?}");
    let absent = sandbox.run(&["drill", "kill", "--name", "absent", "--confirm", "absent"]);
    assert_eq!(absent.status, 1, "{absent:#?}");
    assert!(absent.stderr.contains("does not run"), "{absent:#?}");
    assert!(processes_in(sandbox.folder()).is_empty());
}
