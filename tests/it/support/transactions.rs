//! Catching a process of Drumline inside a transaction.

use bson::{Bson, Document, doc};
use mongodb::Client;
use rustix::process::Signal;

use super::{Pid, kill};

/// How often a process may be stopped outside a transaction before the test gives up.
const TRIES_MAX: usize = 500;

/// The sessions whose transactions the primary holds open for programs with this name, while no
/// operation of theirs runs.
pub async fn open_transactions(driver: &Client, app: &str) -> Vec<Bson> {
    let pipeline = vec![
        doc! {"$currentOp": {"allUsers": true, "idleSessions": true, "localOps": true}},
        doc! {"$match": {
            "type": "idleSession",
            "transaction.parameters.autocommit": false,
            "appName": {"$regex": app},
        }},
    ];
    let admin = driver.database("admin");
    let mut found = admin.aggregate(pipeline).await.unwrap();
    let mut sessions = Vec::new();
    while found.advance().await.unwrap() {
        let op: Document = found.deserialize_current().unwrap();
        sessions.push(op.get_document("lsid").unwrap().get("id").unwrap().clone());
    }
    sessions
}

/// Stops the process at a moment at which it has a transaction open and nothing under way, and
/// gives the transaction's session. The process then stands still inside its transaction.
pub async fn freeze_inside_transaction(driver: &Client, app: &str, pid: Pid) -> Bson {
    for _ in 0..TRIES_MAX {
        kill(pid, Signal::STOP);
        // What was under way ends; after two equal looks the transaction is really idle.
        let first = open_transactions(driver, app).await;
        let second = open_transactions(driver, app).await;
        if let [session] = first.as_slice()
            && first == second
        {
            return session.clone();
        }
        kill(pid, Signal::CONT);
    }
    panic!("never inside a transaction");
}
