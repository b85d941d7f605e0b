//! Which member serves causal reads: the one that answers a ping first.
//!
//! Never decides whether its data is fresh enough.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bson::doc;
use futures_util::future::select_ok;
use mongodb::options::{SelectionCriteria, ServerAddress};
use mongodb::{Client, ServerInfo, ServerType};
use tokio::time::{Instant, sleep, timeout};

use super::Store;
use super::error::StoreError;
use super::sightings::Seen;

/// How long a member may be silent before another one is asked.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How long a choice is kept. Then another member may be the nearest.
const CHOICE_AGE_MAX: Duration = Duration::from_secs(1);

/// The members that can be read, and the one that is chosen. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Nearest {
    seen: Seen,
    choice: Arc<Mutex<Option<Choice>>>,
}

#[derive(Debug)]
struct Choice {
    member: ServerAddress,
    made: Instant,
}

impl Nearest {
    pub fn new(seen: Seen) -> Self {
        Self {
            seen,
            choice: Arc::default(),
        }
    }

    /// The choice that was made a moment ago.
    fn kept(&self, except: &[ServerAddress]) -> Option<ServerAddress> {
        let choice = self.choice();
        let choice = choice.as_ref()?;
        let valid = choice.made.elapsed() < CHOICE_AGE_MAX && !except.contains(&choice.member);
        valid.then(|| choice.member.clone())
    }

    fn keep(&self, member: &ServerAddress) {
        *self.choice() = Some(Choice {
            member: member.clone(),
            made: Instant::now(),
        });
    }

    /// Has the next read choose anew.
    pub fn drop_choice(&self, member: &ServerAddress) {
        self.choice().take_if(|choice| choice.member == *member);
    }

    fn choice(&self) -> MutexGuard<'_, Option<Choice>> {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// The member that serves causal reads now, none of `except`; `None` if no other answers within
    /// [`ANSWER_MAX`].
    pub(super) async fn nearest(&self, except: &[ServerAddress]) -> Option<ServerAddress> {
        if let Some(member) = self.nearest.kept(except) {
            return Some(member);
        }
        let mut seen = self.nearest.seen.clone();
        let known = seen.wait_for(|seen| !readable(seen).is_empty());
        let known = readable(&timeout(ANSWER_MAX, known).await.ok()?.ok()?);
        let others = known.into_iter().filter(|member| !except.contains(member));
        let pings: Vec<_> = others
            .map(|member| {
                Box::pin(async move {
                    let answered = self.ping(&member).await;
                    answered.map(|()| member)
                })
            })
            .collect();
        if pings.is_empty() {
            return None;
        }
        let (member, _) = select_ok(pings).await.ok()?;
        self.nearest.keep(&member);
        Some(member)
    }

    /// Ends when the member has become silent. A query may be slow; one on a frozen member never
    /// ends.
    pub(super) async fn silence(&self, member: &ServerAddress) {
        loop {
            sleep(ANSWER_MAX).await;
            if self.ping(member).await.is_err() {
                return;
            }
        }
    }

    async fn ping(&self, member: &ServerAddress) -> Result<(), StoreError> {
        let only = only(member);
        let ping = |client: Client| async move {
            let admin = client.database("admin");
            let ping = admin.run_command(doc! {"ping": 1});
            ping.selection_criteria(only).await
        };
        self.vital.call(ANSWER_MAX, ping).await.map(drop)
    }
}

/// Selects this member alone.
pub(super) fn only(member: &ServerAddress) -> SelectionCriteria {
    let member = member.clone();
    SelectionCriteria::Predicate(Arc::new(move |info: &ServerInfo<'_>| {
        *info.address() == member
    }))
}

/// The members that hold data and can be read, as far as the driver knows.
fn readable(seen: &[(ServerAddress, ServerType)]) -> Vec<ServerAddress> {
    let holds_data = |kind| matches!(kind, ServerType::RsPrimary | ServerType::RsSecondary);
    let readable = seen.iter().filter(|(_, kind)| holds_data(*kind));
    readable.map(|(address, _)| address.clone()).collect()
}
