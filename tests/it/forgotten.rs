//! Connections that give no answer, while new ones do.

use tokio::runtime::Runtime;

use crate::support::Cluster;
use crate::support::forgotten::forgotten;
use crate::support::trio::{Setup, Trio};

#[test]
fn a_coordinator_whose_connections_hang_makes_new_ones_and_stays() {
    let cluster = Cluster::start(&["--nodes", "0", "--members", "1"]);
    Runtime::new().unwrap().block_on(async {
        let setup = Setup {
            mongodb_lines: true,
            ..Setup::default()
        };
        let trio = Trio::start(&cluster, setup).await;
        let seen = forgotten(&trio).await;
        println!("{seen:?}");
        assert_eq!(
            seen.reply,
            Ok(201),
            "the write waits for the new connections"
        );
        assert_eq!(seen.after, seen.before, "nobody takes over");
        assert!(seen.renewals >= 1);
        let said = trio.said(seen.before.node);
        assert!(
            said.contains("cannot serve: this node's calls got no answer"),
            "{said}"
        );
        assert!(
            said.contains("what kept this node from serving is over"),
            "{said}"
        );
    });
}
