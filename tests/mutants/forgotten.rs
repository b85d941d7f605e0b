//! The connections of a coordinator hang.

use tokio::runtime::Runtime;

use super::Violations;
use super::support::forgotten::forgotten;
use super::support::trio::{Setup, Trio};
use super::support::{Cluster, Sandbox};

/// It makes new ones, and stays.
pub fn connections_hang(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--members", "1", "--nodes", "0"]);
    runtime.block_on(async {
        let setup = Setup {
            mongodb_lines: true,
            ..Setup::default()
        };
        let trio = Trio::start(&cluster, setup).await;
        let seen = forgotten(&trio).await;
        // In the end the driver's monitoring finds out too, and cuts off what hangs.
        let holds = seen.reply == Ok(201) && seen.after == seen.before && seen.renewals > 0;
        match holds {
            true => Violations::default(),
            false => Violations::other(vec![format!("what hangs was waited for: {seen:?}")]),
        }
    })
}
