//! A node's name belongs to one process at a time: its document in `nodes` says to which. Who comes
//! under a name that another holds asks, by that document, whether the other still answers.

use std::fs;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use mongodb::options::ReadConcern;
use tokio::time::{Instant, sleep};

use super::codes::DUPLICATE_KEY;
use super::error::StoreError;
use super::reply::first_write_error;
use super::schema::{DATABASE, NODES};
use super::{Store, within};
use crate::model::BatchId;

/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(1);
/// How long the holder of a name may take to answer. It looks once a second.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(3);
pub(super) const ANSWER_PAUSE: Duration = Duration::from_millis(200);

/// One process of a node, from its start to its end.
#[derive(Debug, Clone)]
pub struct Instance {
    id: i64,
    url: String,
    /// On which machine and which process it is, where that can be told.
    process: Option<String>,
}

/// Whose a name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    Me,
    /// Another process, which has just answered, at this URL.
    Other(String),
}

impl Instance {
    /// Draws an identity that no other process has.
    pub fn new(url: &str) -> Self {
        Self {
            id: drawn(),
            url: url.to_owned(),
            process: process(std::process::id()),
        }
    }
}

pub(super) fn drawn() -> i64 {
    BatchId::fresh().nonce().cast_signed()
}

/// The boot of the machine, the space that process ids are counted in, the id, and when it began.
fn process(pid: u32) -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let space = fs::read_link("/proc/self/ns/pid").ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 22 of the line; what is left after the name begins with field 3.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    let began = fields.nth(18)?;
    let ended = matches!(state, "Z" | "X");
    (!ended).then(|| format!("{} {} {pid} {began}", boot.trim(), space.display()))
}

/// Whether it ran on this machine and is gone. One elsewhere may live.
pub(super) fn is_gone(told: &str) -> bool {
    lives(told) == Some(false)
}

/// Whether it runs on this machine.
pub(super) fn lives_here(told: &str) -> bool {
    lives(told) == Some(true)
}

/// Whether it lives; `None` if it is not of this machine.
fn lives(told: &str) -> Option<bool> {
    let mut words = told.split(' ');
    let (boot, space, pid) = (words.next()?, words.next()?, words.next()?);
    let own = process(std::process::id())?;
    let here = own.starts_with(&format!("{boot} {space} "));
    let now = pid.parse().ok().and_then(process);
    here.then(|| now.as_deref() == Some(told))
}

impl Store {
    /// Answers for a name that this process holds, or takes it if nobody else does. Takes as long
    /// as another holder is given to answer.
    pub async fn hold_name(&self, me: &Instance) -> Result<Holder, StoreError> {
        loop {
            let found = self.read_name().await?.unwrap_or_default();
            let holder = found.get_i64("holder").ok();
            let Some(other) = holder.filter(|holder| *holder != me.id) else {
                if holder.is_none() {
                    if !self.take_name(me, None).await? {
                        continue;
                    }
                } else if let Some(asked) = unanswered(&found) {
                    let answer = doc! {"$set": {"answered": asked}};
                    self.change_name(Some(me.id), answer, 1.into()).await?;
                }
                return Ok(Holder::Me);
            };
            let gone = found.get_str("process").is_ok_and(is_gone);
            if !gone && self.answers(other).await? {
                let url = found.get_str("url").unwrap_or_default();
                return Ok(Holder::Other(url.to_owned()));
            }
            if self.take_name(me, Some(other)).await? {
                return Ok(Holder::Me);
            }
        }
    }

    /// Whether no other process holds the name of this one.
    pub async fn has_name(&self, me: &Instance) -> Result<bool, StoreError> {
        let found = self.read_name().await?.unwrap_or_default();
        let holder = found.get_i64("holder").ok();
        Ok(holder.is_none_or(|holder| holder == me.id))
    }

    /// Leaves the name to whoever comes next, for a moment at most: it is no loss if this fails.
    pub async fn give_up_name(&self, me: &Instance) {
        let none = doc! {"$unset": {"holder": "", "process": "", "url": ""}};
        if let Err(error) = self.change_name(Some(me.id), none, 1.into()).await {
            tracing::debug!(%error, "the name could not be given up");
        }
    }

    /// Whether the holder answers a question that is put to it now.
    async fn answers(&self, holder: i64) -> Result<bool, StoreError> {
        let question = drawn();
        let ask = doc! {"$set": {"asked": question}};
        if !self.change_name(Some(holder), ask, 1.into()).await? {
            return Ok(false); // it is another's by now
        }
        let end = Instant::now() + ANSWER_MAX;
        while Instant::now() < end {
            sleep(ANSWER_PAUSE).await;
            let found = self.read_name().await?.unwrap_or_default();
            if found.get_i64("holder").ok() != Some(holder) {
                return Ok(false);
            }
            // An answer to somebody else who asks is one too.
            if found.get_i64("answered").ok().is_some() && unanswered(&found).is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the name this process's, if it still is as it was seen. Durable: a name that is rolled
    /// back would be another's again.
    async fn take_name(&self, me: &Instance, from: Option<i64>) -> Result<bool, StoreError> {
        let mut set = doc! {"holder": me.id, "url": &me.url, "at": bson::DateTime::now()};
        set.extend(
            me.process
                .clone()
                .map(|told| ("process".to_owned(), told.into())),
        );
        let mine = doc! {"$set": set, "$unset": {"asked": "", "answered": ""}};
        self.change_name(from, mine, "majority".into()).await
    }

    /// `false`: the holder is another than that.
    async fn change_name(
        &self,
        holder: Option<i64>,
        change: Document,
        concern: bson::Bson,
    ) -> Result<bool, StoreError> {
        // Null finds a document without a holder too, and none makes one.
        let of = doc! {"_id": self.node.as_str(), "holder": holder};
        let update = doc! {"q": of, "u": change, "upsert": holder.is_none()};
        let command = doc! {
            "update": NODES, "updates": [update], "writeConcern": {"w": concern},
        };
        let call =
            |client: Client| async move { client.database(DATABASE).run_command(command).await };
        let reply = self.vital.call(CALL_MAX, call).await?;
        match first_write_error(&reply) {
            Some(error) if error.get_i32("code").ok() == Some(DUPLICATE_KEY) => Ok(false),
            Some(error) => Err(StoreError::from_write_error(error)),
            None => Ok(reply.get_i32("n").is_ok_and(|n| n > 0)),
        }
    }

    async fn read_name(&self) -> Result<Option<Document>, StoreError> {
        let of = doc! {"_id": self.node.as_str()};
        let find = |client: Client| async move {
            let nodes = client.database(DATABASE).collection::<Document>(NODES);
            nodes.find_one(of).read_concern(ReadConcern::local()).await
        };
        within(CALL_MAX, self.vital.call(CALL_MAX, find)).await
    }
}

/// A question that was put to the holder and has no answer yet.
pub(super) fn unanswered(found: &Document) -> Option<i64> {
    let asked = found.get_i64("asked").ok()?;
    (found.get_i64("answered").ok() != Some(asked)).then_some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_is_gone_and_one_elsewhere_may_live() {
        let own = process(std::process::id()).unwrap();
        assert!(!is_gone(&own) && lives_here(&own));
        let mut words: Vec<_> = own.split(' ').collect();
        words[3] = "1";
        assert!(is_gone(&words.join(" ")), "another that had its id before");
        words[0] = "another-machine";
        assert!(!is_gone(&words.join(" ")) && !lives_here(&words.join(" ")));
        assert!(!is_gone("") && !is_gone("a b"));
    }

    #[test]
    fn a_question_is_open_until_it_is_answered() {
        assert_eq!(unanswered(&doc! {"holder": 1_i64}), None);
        assert_eq!(unanswered(&doc! {"asked": 5_i64}), Some(5));
        assert_eq!(
            unanswered(&doc! {"asked": 5_i64, "answered": 4_i64}),
            Some(5)
        );
        assert_eq!(unanswered(&doc! {"asked": 5_i64, "answered": 5_i64}), None);
    }
}
