//! A member that stands still, and a primary that steps down again and again.

use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use mongodb::Client;
use rustix::process::Signal;
use tokio::time::sleep;

use super::support::proxy::direct;
use super::support::{Cluster, eventually, kill, setting};

/// How long a member stands still, and how long the primary steps down each second.
const STILL_SECONDS: u64 = 60;

#[derive(Clone, Copy)]
pub enum Secondary {
    /// The one that the other copies from.
    Successor,
    Other,
}

#[derive(Clone, Copy)]
pub enum How {
    Frozen,
    /// As a backup does.
    Locked,
}

fn still_for() -> Duration {
    Duration::from_secs(setting("DRUMLINE_STILL_SECONDS", STILL_SECONDS))
}

/// Has a secondary do nothing for a while, once the other one copies from it or from the primary.
pub async fn stand_still(cluster: &Cluster, which: Secondary, how: How) {
    let admin = super::driver(cluster).await.database("admin");
    let host = eventually("the sync chain stands", async || {
        let status = admin.run_command(doc! {"replSetGetStatus": 1}).await.ok()?;
        let members = status
            .get_array("members")
            .ok()?
            .iter()
            .filter_map(Bson::as_document);
        let of = |member: &Document, key: &str| member.get_str(key).unwrap_or_default().to_owned();
        let sources: Vec<_> = members
            .map(|member| (of(member, "name"), of(member, "syncSourceHost")))
            .collect();
        let (successor, _) = sources.iter().find(|(name, _)| {
            let source = sources
                .iter()
                .find(|(by, _)| by == name)
                .map(|(_, from)| from);
            let copied = sources.iter().any(|(_, from)| from == name);
            copied && source.is_some_and(|source| !source.is_empty())
        })?;
        let (other, _) = sources.iter().find(|(_, from)| from == successor)?;
        Some(match which {
            Secondary::Successor => successor.clone(),
            Secondary::Other => other.clone(),
        })
    })
    .await;
    let at = cluster
        .info
        .members
        .iter()
        .position(|member| member.host == host);
    match how {
        How::Frozen => {
            let pid = cluster.member_pid(at.unwrap());
            kill(pid, Signal::STOP);
            sleep(still_for()).await;
            kill(pid, Signal::CONT);
        }
        How::Locked => {
            let uri = direct(&cluster.info.mongodb_uri, &host);
            let member = Client::with_uri_str(&uri).await.unwrap().database("admin");
            member
                .run_command(doc! {"fsync": 1, "lock": true})
                .await
                .unwrap();
            sleep(still_for()).await;
            member.run_command(doc! {"fsyncUnlock": 1}).await.unwrap();
        }
    }
}

pub async fn step_down(cluster: &Cluster) {
    let until = Instant::now() + still_for();
    let admin = super::driver(cluster).await.database("admin");
    while Instant::now() < until {
        let step = doc! {"replSetStepDown": 2, "secondaryCatchUpPeriodSecs": 1};
        // It breaks its connections as it steps down.
        drop(admin.run_command(step).await);
        sleep(Duration::from_secs(1)).await;
    }
}
