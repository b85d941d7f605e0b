//! Asks a member to stand for election in place of a primary that is gone.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::store::{Greeting, Store};

/// How long a candidate may take to say how far it is. One that is slower is not asked.
const LOOK_MAX: Duration = Duration::from_millis(300);

/// A member that could be primary.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    host: String,
    greeting: Greeting,
    source: Option<String>,
}

/// Asks the candidates one after the other, each once, until one takes writes. `None`: nobody was
/// elected; MongoDB's own election will come.
pub async fn ask(store: &Store) -> Option<String> {
    let began = Instant::now();
    let secondaries = store.topology().sight().secondaries;
    let looks = secondaries.into_iter().map(|host| look(store, host));
    let candidates: Vec<_> = join_all(looks).await.into_iter().flatten().collect();
    if let Some(primary) = candidates.iter().find(|member| member.greeting.primary) {
        return Some(primary.host.clone());
    }
    for candidate in in_order(candidates.clone()) {
        let host = candidate.host;
        info!(member = %host, "is asked to stand for election");
        match store.stand(&host).await {
            Ok(()) => {
                let took_ms = began.elapsed().as_millis();
                info!(member = %host, took_ms, "is primary");
                lead_to(store, &host, &candidates).await;
                return Some(host);
            }
            Err(error) => warn!(member = %host, %error, "was not elected"),
        }
    }
    None
}

async fn look(store: &Store, host: String) -> Option<Candidate> {
    let asking = async { tokio::join!(store.hello(&host), store.sync_source(&host)) };
    let (greeting, source) = timeout(LOOK_MAX, asking).await.ok()?;
    Some(Candidate {
        greeting: greeting.ok()?,
        // Not to be told costs the order, not the candidate.
        source: source.ok().flatten(),
        host,
    })
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
async fn lead_to(store: &Store, primary: &str, members: &[Candidate]) {
    let strays = members
        .iter()
        .filter(|member| member.host != primary && member.source.as_deref() != Some(primary));
    for member in strays {
        match store.sync_from(&member.host, primary).await {
            Ok(()) => {
                info!(member = %member.host, source = %primary, "copies from the new primary");
            }
            Err(error) => warn!(member = %member.host, %error, "cannot be led to the new primary"),
        }
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
