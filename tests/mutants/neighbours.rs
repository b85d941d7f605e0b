//! Others go on writing beside clients that leave, and beside one that asks for much.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tokio::runtime::Runtime;

use super::support::http::Http;
use super::support::load::{End, Load};
use super::support::{Cluster, Sandbox, kill};
use super::{Violations, insert, one};

/// How long a request may take beside clients that leave or ask for much.
const REPLY_MAX: Duration = Duration::from_secs(5);

/// 512 readers leave while the only member is frozen for a moment.
pub fn readers_leave(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--nodes", "1", "--members", "1"]);
    runtime.block_on(async {
        let load = Load::new(&cluster, "load.leave");
        assert!(matches!(
            one(&load, insert("first")).await.end,
            End::Acknowledged(_)
        ));
        kill(cluster.member_pid(0), Signal::STOP);
        let reader = async |number: u32| {
            let http = Http::to(&cluster);
            let body = json!({"database": "load", "collection": "leave", "filter": {"n": number}});
            // The frozen member answers nobody: the reader hangs up.
            let read = http.try_act("find", &[], body.to_string().into());
            let _ = tokio::time::timeout(Duration::from_millis(500), read).await;
        };
        futures_util::future::join_all((0..512).map(reader)).await;
        kill(cluster.member_pid(0), Signal::CONT);
        let mut violations = next_write(&load).await;
        let begun = Instant::now();
        let body = json!({"database": "load", "collection": "leave", "filter": {}});
        let read = Http::to(&cluster).act("find", &body).await;
        let time = begun.elapsed();
        if read.status != 200 || time > REPLY_MAX {
            let found = format!("a read after {time:?}: {}", read.text);
            violations.else_found.push(found);
        }
        violations
    })
}

/// One client's update runs long in one expression, which MongoDB does not interrupt.
pub fn one_holds_up_all(runtime: &Runtime, sandbox: Sandbox) -> Violations {
    let cluster = Cluster::start_in(sandbox, &["--nodes", "1", "--members", "1"]);
    runtime.block_on(async {
        let load = Load::new(&cluster, "load.long");
        assert!(matches!(one(&load, insert("first")).await.end, End::Acknowledged(_)));
        let over = |name: &str, value| {
            json!({"$sum": {"$map": {"input": {"$range": [0, 15000]}, "as": name, "in": value}}})
        };
        let product = over("a", over("b", json!({"$multiply": ["$$a", "$$b"]})));
        let slow = json!({
            "database": "load", "collection": "long",
            "filter": {"$expr": {"$eq": [product, -1]}}, "update": {"$set": {"slow": true}},
        });
        let http = Http::to(&cluster);
        let busy = tokio::sync::Notify::new();
        let asking = async {
            busy.notified().await;
            http.act("updateOne", &slow).await;
            std::future::pending().await
        };
        // So many that the long request runs beside some of them, and arrives with some of them.
        let writer = async || {
            let mut found = Vec::new();
            for number in 0..60 {
                found.extend(next_write(&load).await.else_found);
                if number == 10 {
                    busy.notify_one();
                }
            }
            found
        };
        let writing = async {
            let found = futures_util::future::join_all((0..8).map(|_| writer())).await;
            Violations::other(found.into_iter().flatten().collect())
        };
        tokio::select! {
            violations = asking => violations,
            violations = writing => violations,
        }
    })
}

async fn next_write(load: &Load) -> Violations {
    let begun = Instant::now();
    let id = bson::oid::ObjectId::new().to_hex();
    let record = one(load, insert(&id)).await;
    let time = begun.elapsed();
    match record.end {
        End::Acknowledged(_) if time < REPLY_MAX => Violations::default(),
        end => Violations::other(vec![format!("after {time:?}: {end:?}")]),
    }
}
