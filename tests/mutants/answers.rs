//! Answers that are not the driver's.

use tokio::runtime::Runtime;

use super::Violations;
use super::support::answers::{Dice, barred_for_a_while, compare, must_agree};
use super::support::inside::Inside;
use super::support::{Cluster, SMALL, Sandbox};

/// Any would do: the requests are many.
const SEED: u64 = 7;

/// The comparison itself, which is also in tests/it/answers.rs. A mistake is made by the process
/// that runs the sequencer, and this one must make none.
#[test]
#[ignore = "each_mistake_is_found_and_without_one_nothing_is runs it in a process of its own"]
fn the_comparison() {
    let cluster = Cluster::start(&SMALL);
    Runtime::new().unwrap().block_on(async {
        let inside = Inside::patient(&cluster.info.mongodb_uri).await;
        must_agree(&compare(&inside, &mut Dice(SEED), 1, 3).await);
    });
}

/// Runs the comparison in a process with this sandbox's mistake.
pub fn compared(_: &Runtime, sandbox: Sandbox) -> Violations {
    let program = std::env::current_exe().unwrap();
    let mut command = sandbox.command(program.to_str().unwrap());
    command.args([
        "answers::the_comparison",
        "--exact",
        "--ignored",
        "--nocapture",
    ]);
    let output = command.output().unwrap();
    if output.status.success() {
        return Violations::default();
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let from = text.find("differences").unwrap_or_default();
    Violations::other(vec![text[from..].to_owned()])
}

/// What a request is told that the node may not do for a while is no answer for good.
pub fn barred(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    let cluster = Cluster::start_in(sandbox, &SMALL);
    let told = runtime.block_on(barred_for_a_while(&cluster));
    told.map_or_else(
        |why| Violations::other(vec![why]),
        |()| Violations::default(),
    )
}
