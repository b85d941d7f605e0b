//! Asks a member to stand for election in place of a primary that is gone.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::chain::Change;
use super::source::lead;
use crate::metrics::Metrics;
use crate::store::{Greeting, Store, StoreError};

/// How long a candidate may take to say how far it is. One that is slower is not asked.
const LOOK_MAX: Duration = Duration::from_millis(300);
/// How long a new primary may go on to copy what the others have: only members that answer can give it
/// anything, and they do so in a few milliseconds.
const CATCH_UP_MAX: Duration = Duration::from_millis(25);
/// The same if the old primary answers: it may have more that no majority has.
const CATCH_UP_FROM_OLD_MAX: Duration = Duration::from_millis(500);

/// A member that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    host: String,
    greeting: Greeting,
    source: Option<String>,
}

/// What the members are that could be primary, and whether one is already.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Primary(String),
    /// None, it may be.
    Candidates(Vec<Candidate>),
}

/// Looks at the secondaries.
pub async fn candidates(store: &Store) -> Found {
    let secondaries = store.topology().sight().secondaries;
    let looks = secondaries.into_iter().map(|host| look(store, host));
    let found: Vec<_> = join_all(looks).await.into_iter().flatten().collect();
    match found.iter().find(|member| member.greeting.primary) {
        Some(primary) => Found::Primary(primary.host.clone()),
        None => Found::Candidates(in_order(found)),
    }
}

/// Asks the candidates one after the other, each once, until one is elected. `None`: nobody was, or the
/// one that was takes no writes; MongoDB's own election will come.
pub async fn ask(
    store: &Store,
    metrics: &Metrics,
    lost: Option<&str>,
    candidates: &[Candidate],
) -> Option<String> {
    let began = Instant::now();
    let answers = candidates.iter().any(|member| Some(&*member.host) == lost);
    let catch_up = match answers {
        true => CATCH_UP_FROM_OLD_MAX,
        false => CATCH_UP_MAX,
    };
    for Candidate { host, .. } in candidates {
        if let Some(primary) = store.topology().sight().primary
            && Some(&*primary) != lost
        {
            info!(member = %primary, "is primary, and nobody else is asked");
            return Some(primary);
        }
        info!(member = %host, "is asked to stand for election");
        if let Err(error) = store.stand(host).await {
            warn!(member = %host, %error, "was not elected");
            continue;
        }
        return match store.until_writable(host, catch_up).await {
            Ok(()) => {
                let took_ms = began.elapsed().as_millis();
                info!(member = %host, took_ms, "is primary");
                lead_to(store, metrics, host, candidates).await;
                Some(host.clone())
            }
            Err(error) => {
                warn!(member = %host, %error, "was elected and takes no writes");
                None
            }
        };
    }
    None
}

async fn look(store: &Store, host: String) -> Option<Candidate> {
    let (greeting, source) = tokio::join!(
        timeout(LOOK_MAX, store.hello(&host)),
        timeout(LOOK_MAX, store.sync_source(&host)),
    );
    Some(Candidate {
        greeting: greeting.ok()?.ok()?,
        source: told(source),
        host,
    })
}

/// Not to be told costs the order, not the candidate.
fn told<E>(source: Result<Result<Option<String>, StoreError>, E>) -> Option<String> {
    source.ok()?.ok()?
}

/// The successor first: another one copies from it, so it is never behind that one, though it may look
/// so for a moment. Then who is furthest.
fn in_order(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    let sources: Vec<_> = candidates.iter().filter_map(|c| c.source.clone()).collect();
    candidates.sort_by_key(|candidate| {
        let is_copied = sources.contains(&candidate.host);
        std::cmp::Reverse((is_copied, candidate.greeting.applied))
    });
    candidates
}

/// Has the others copy from the new primary: one that lost its source would rest for a second.
async fn lead_to(store: &Store, metrics: &Metrics, primary: &str, members: &[Candidate]) {
    for member in members.iter().filter(|member| member.host != primary) {
        let change = Change {
            member: member.host.clone(),
            source: primary.to_owned(),
        };
        lead(store, metrics, primary, &change, "it is the new primary").await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(host: &str, applied: u32, source: &str) -> Candidate {
        let greeting = Greeting {
            primary: false,
            term: None,
            applied: (1, applied, 0),
        };
        Candidate {
            host: host.into(),
            greeting,
            source: Some(source.into()),
        }
    }

    fn order(candidates: Vec<Candidate>) -> Vec<String> {
        let ordered = in_order(candidates).into_iter();
        ordered.map(|candidate| candidate.host).collect()
    }

    #[test]
    fn the_successor_comes_first_then_who_is_furthest() {
        let star = vec![candidate("b", 1, "a"), candidate("c", 2, "a")];
        assert_eq!(order(star), ["c", "b"]);
        let chain = vec![candidate("b", 1, "a"), candidate("c", 2, "b")];
        assert_eq!(order(chain), ["b", "c"]);
    }
}
