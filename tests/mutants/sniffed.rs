//! Somebody listens between two nodes, and sends what he hears.

use tokio::runtime::Runtime;

use super::Violations;
use super::support::sniffed::{Sniffed, insert};
use super::support::trio::{Setup, Trio, others};
use super::support::{Cluster, Sandbox};

/// A message that was taken is sent again.
pub fn sent_again(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    sniffed(runtime, sandbox, async |trio, from, to| {
        Sniffed::answered(trio, from, to, "answered").await
    })
}

/// A message is kept from its way and sent with another body.
pub fn changed(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    sniffed(runtime, sandbox, async |trio, from, to| {
        let withheld = Sniffed::withheld(trio, from, to, "withheld").await;
        withheld.with_body(insert("forged").to_string())
    })
}

fn sniffed(
    runtime: &Runtime,
    sandbox: Sandbox,
    sniff: impl AsyncFn(&Trio<'_>, usize, usize) -> Sniffed,
) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--members", "1", "--nodes", "0"]);
    runtime.block_on(async {
        let setup = Setup {
            peer_lines: true,
            ..Setup::default()
        };
        let trio = Trio::start(&cluster, setup).await;
        let to = trio.agreed().await.node;
        let message = sniff(&trio, others(to)[0], to).await;
        let status = message.send_to(trio.address(to)).await;
        match status {
            401 | 409 => Violations::default(),
            _ => Violations::other(vec![format!("a stranger's message was taken: {status}")]),
        }
    })
}
