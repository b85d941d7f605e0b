//! Asks a member to stand for election in place of a primary that is gone.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::chain::Change;
use super::source::have_copy;
use crate::metrics::Metrics;
use crate::store::{Greeting, Outlook, Sight, Store};

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
    /// `None` if it may not be asked for it. One that was too slow has told nothing that speaks for it.
    outlook: Option<Outlook>,
}

impl Candidate {
    fn source(&self) -> Option<&str> {
        self.outlook.as_ref()?.sync_source.as_deref()
    }

    fn hears_majority(&self) -> bool {
        self.outlook.as_ref().is_none_or(|o| o.hears_majority)
    }
}

/// What the members are that could be primary, and whether one is already.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Primary(String),
    Members(Answering),
}

/// The secondaries that answer; none, it may be.
#[derive(Debug, PartialEq, Eq)]
pub struct Answering {
    members: Vec<Candidate>,
    /// Those that the driver takes for secondaries and that did not answer in time, and those that
    /// are hidden from it: they may vote.
    silent: usize,
    /// The arbiters that answer the driver: they vote for anybody.
    arbiters: usize,
    /// How many members the set has.
    all: usize,
}

impl Answering {
    /// Those that can win now, in the order in which they are to be asked: the successor first, then who is
    /// furthest. To ask another one would use up this node's act, and a moment later it may win.
    pub fn candidates(&self) -> Vec<&str> {
        let mut able: Vec<_> = self.members.iter().filter(|c| self.may_win(c)).collect();
        able.sort_by_key(|c| std::cmp::Reverse((self.is_copied(c), c.greeting.applied)));
        able.into_iter().map(|c| &*c.host).collect()
    }

    /// A member that has not heard from a majority does not stand, and nobody votes for one that is behind it.
    fn may_win(&self, candidate: &Candidate) -> bool {
        let votes = self.members.iter().filter(|member| {
            let copies = member.source() == Some(&candidate.host);
            copies || member.greeting.applied <= candidate.greeting.applied
        });
        let votes = votes.count() + self.silent + self.arbiters;
        candidate.hears_majority() && votes * 2 > self.all
    }

    /// Who copies from another is never ahead of it, though it may look so for a moment.
    fn is_copied(&self, candidate: &Candidate) -> bool {
        let mut members = self.members.iter();
        members.any(|member| member.source() == Some(&candidate.host))
    }

    fn has(&self, host: Option<&str>) -> bool {
        self.members.iter().any(|c| Some(&*c.host) == host)
    }
}

/// Looks at the secondaries.
pub async fn look_around(store: &Store) -> Found {
    let Sight {
        secondaries,
        arbiters,
        hidden,
        all,
        ..
    } = store.topology().sight();
    let seen = secondaries.len();
    let looks = secondaries.into_iter().map(|host| look(store, host));
    let members: Vec<_> = join_all(looks).await.into_iter().flatten().collect();
    let silent = seen - members.len() + hidden;
    match members.iter().find(|member| member.greeting.primary) {
        Some(primary) => Found::Primary(primary.host.clone()),
        None => Found::Members(Answering {
            members,
            silent,
            arbiters,
            all,
        }),
    }
}

/// Asks the candidates one after the other, each once, until one is elected. `None`: nobody was, or the
/// one that was takes no writes; MongoDB's own election will come.
pub async fn ask(
    store: &Store,
    metrics: &Metrics,
    lost: Option<&str>,
    members: &Answering,
) -> Option<String> {
    let began = Instant::now();
    let catch_up = match members.has(lost) {
        true => CATCH_UP_FROM_OLD_MAX,
        false => CATCH_UP_MAX,
    };
    for host in members.candidates() {
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
                have_all_copy_from(store, metrics, host, members).await;
                Some(host.to_owned())
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
    let (greeting, outlook) = tokio::join!(
        timeout(LOOK_MAX, store.hello(&host)),
        timeout(LOOK_MAX, store.outlook(&host)),
    );
    let outlook = match outlook {
        Ok(Ok(outlook)) => Some(outlook),
        Ok(Err(error)) if error.is_unauthorized() => None,
        Ok(Err(_)) | Err(_) => Some(Outlook::default()),
    };
    Some(Candidate {
        greeting: greeting.ok()?.ok()?,
        outlook,
        host,
    })
}

/// Has the others copy from the new primary: one that lost its source would rest for a second.
async fn have_all_copy_from(store: &Store, metrics: &Metrics, primary: &str, members: &Answering) {
    for member in members
        .members
        .iter()
        .filter(|member| member.host != primary)
    {
        let change = Change {
            member: member.host.clone(),
            source: primary.to_owned(),
        };
        have_copy(store, metrics, primary, &change, "it is the new primary").await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(host: &str, applied: u32, source: &str, hears_majority: bool) -> Candidate {
        let greeting = Greeting {
            primary: false,
            term: None,
            applied: (1, applied, 0),
        };
        let outlook = Outlook {
            sync_source: Some(source.into()),
            hears_majority,
        };
        Candidate {
            host: host.into(),
            greeting,
            outlook: Some(outlook),
        }
    }

    /// The members of a set of three that answer.
    fn of_three(members: &[Candidate]) -> Answering {
        Answering {
            members: members.to_vec(),
            silent: 0,
            arbiters: 0,
            all: 3,
        }
    }

    fn asked(members: &[Candidate]) -> Vec<String> {
        asked_of(&of_three(members))
    }

    fn asked_of(answering: &Answering) -> Vec<String> {
        let asked = answering.candidates().into_iter();
        asked.map(str::to_owned).collect()
    }

    #[test]
    fn the_successor_comes_first_though_it_may_look_behind() {
        let chain = [candidate("b", 1, "a", true), candidate("c", 2, "b", true)];
        assert_eq!(asked(&chain), ["b", "c"]);
    }

    #[test]
    fn who_lacks_the_votes_of_a_majority_is_not_asked() {
        let star = [candidate("b", 1, "a", true), candidate("c", 2, "a", true)];
        assert_eq!(asked(&star), ["c"]);
        let equals = [candidate("b", 2, "a", true), candidate("c", 2, "a", true)];
        assert_eq!(asked(&equals), ["b", "c"]);
        assert_eq!(asked(&equals[..1]), [""; 0]);
    }

    #[test]
    fn one_that_is_slow_to_answer_may_vote() {
        let mut alone = of_three(&[candidate("b", 1, "a", true)]);
        assert_eq!(asked_of(&alone), [""; 0]);
        alone.silent = 1;
        assert_eq!(asked_of(&alone), ["b"]);
    }

    #[test]
    fn an_arbiter_votes_for_the_only_secondary() {
        let mut beside = of_three(&[candidate("b", 1, "a", true)]);
        beside.arbiters = 1;
        assert_eq!(asked_of(&beside), ["b"]);
        beside.all = 5;
        assert_eq!(asked_of(&beside), [""; 0]);
    }

    /// One that was made to step down may be ahead, and does not stand for a while.
    #[test]
    fn two_elect_without_a_third_that_is_ahead() {
        let all = [
            candidate("a", 3, "", true),
            candidate("b", 2, "a", true),
            candidate("c", 1, "a", true),
        ];
        assert_eq!(asked(&all), ["a", "b"]);
    }

    /// The old primary, which was without a majority, has what nobody else has, and no news yet of the one that
    /// came back.
    #[test]
    fn who_hears_no_majority_does_not_stand_and_is_not_asked() {
        let returned = [candidate("a", 2, "", false), candidate("b", 1, "", true)];
        assert_eq!(asked(&returned), [""; 0]);
        let heard = [candidate("a", 2, "", true), candidate("b", 1, "", true)];
        assert_eq!(asked(&heard), ["a"]);
    }

    #[test]
    fn who_may_not_be_asked_what_it_hears_may_stand() {
        let mut unknown = [candidate("b", 1, "a", false), candidate("c", 1, "a", true)];
        unknown[0].outlook = None;
        assert_eq!(asked(&unknown), ["b", "c"]);
    }
}
