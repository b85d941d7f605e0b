//! Who serves a replica set: the processes that the collection `nodes` names, if they live.

use std::time::Duration;

use bson::{Document, doc};
use tokio::time::{Instant, sleep};

use super::capture::Source;
use super::error::StoreError;
use super::name::{ANSWER_MAX, ANSWER_PAUSE, drawn, is_gone, lives_here, unanswered};
use super::reply::first_write_error;
use super::schema::{DATABASE, NODES};

/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(5);

impl Source {
    /// The nodes that serve this replica set: their names and URLs. A process on this machine is
    /// looked at; one elsewhere is asked, by its document, and may take some seconds to answer.
    pub async fn serving(&self) -> Result<Vec<String>, StoreError> {
        let mut serving = Vec::new();
        let mut asked = Vec::new();
        for found in self.holders().await? {
            let process = found.get_str("process").unwrap_or_default();
            let Ok(holder) = found.get_i64("holder") else {
                continue;
            };
            if lives_here(process) {
                serving.push(told(&found));
            } else if !is_gone(process) {
                let of = doc! {"_id": found.get("_id"), "holder": holder};
                let update = doc! {"q": of, "u": {"$set": {"asked": drawn()}}};
                let ask = doc! { "update": NODES, "updates": [update] };
                let reply = self.run(DATABASE, ask, CALL_MAX).await?;
                if let Some(error) = first_write_error(&reply) {
                    return Err(StoreError::from_write_error(error));
                }
                asked.push(holder);
            }
        }
        let end = Instant::now() + ANSWER_MAX;
        while !asked.is_empty() && Instant::now() < end {
            sleep(ANSWER_PAUSE).await;
            for found in self.holders().await? {
                let holder = found.get_i64("holder").ok();
                let answers = found.contains_key("answered") && unanswered(&found).is_none();
                if answers && let Some(at) = asked.iter().position(|of| Some(*of) == holder) {
                    asked.swap_remove(at);
                    serving.push(told(&found));
                }
            }
        }
        serving.sort();
        Ok(serving)
    }

    async fn holders(&self) -> Result<Vec<Document>, StoreError> {
        let find = doc! { "find": NODES, "filter": {"holder": {"$exists": true}} };
        self.listing(DATABASE, find).await
    }
}

fn told(found: &Document) -> String {
    let text = |field| found.get_str(field).unwrap_or("?");
    format!("{} at {}", text("_id"), text("url"))
}
