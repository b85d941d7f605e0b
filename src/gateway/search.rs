//! Where the coordinator is, for one request that needs it.

use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::election::Leadership;
use crate::model::failure::Retry;
use crate::model::limits::COORDINATOR_WAIT_MAX;
use crate::model::{Failure, NodeName, Role, Tenure};
use crate::sequencer::Progress;

/// The longest pause before the next try, when nothing is heard of a change meanwhile.
const PAUSE_MAX: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(2);

/// Where a request goes now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Here,
    /// To this peer, which is coordinator by this tenure.
    Peer(Tenure),
}

/// Why a try gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setback {
    /// Whoever was asked did not begin it.
    NotBegun,
    /// It may have been done.
    InDoubt,
    /// There is no use in another try.
    Final(Failure),
}

/// The tries of one request.
#[derive(Debug)]
pub struct Search {
    leadership: watch::Receiver<Leadership>,
    progress: watch::Receiver<Progress>,
    deadline: Instant,
    pause: Duration,
    /// A try may have been executed.
    in_doubt: bool,
}

impl Search {
    pub fn new(
        leadership: watch::Receiver<Leadership>,
        progress: watch::Receiver<Progress>,
        deadline: Instant,
    ) -> Self {
        Self {
            leadership,
            progress,
            deadline,
            pause: PAUSE,
            in_doubt: false,
        }
    }

    /// The coordinator's place, as soon as there is one.
    pub async fn place(&mut self) -> Result<Place, Failure> {
        // Each coordinator that is lost may take its time to be succeeded.
        let found_by = self.deadline.min(Instant::now() + COORDINATOR_WAIT_MAX);
        loop {
            let known = place_of(&self.leadership.borrow_and_update());
            if let Some(place) = known {
                return Ok(place);
            }
            let left = found_by.saturating_duration_since(Instant::now());
            match timeout(left, self.leadership.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(self.last_word()),
            }
        }
    }

    /// Takes note of a setback. Returns when another try makes sense.
    pub async fn after(&mut self, setback: Setback) -> Result<(), Failure> {
        match setback {
            // "Nothing was done" is said of the last try alone: an earlier one may have done it.
            Setback::Final(failure) if self.in_doubt && failure.retry() == Retry::Safe => {}
            Setback::Final(failure) => return Err(failure),
            Setback::InDoubt => self.in_doubt = true,
            Setback::NotBegun => {}
        }
        if Instant::now() >= self.deadline {
            return Err(self.last_word());
        }
        // The progress tells when this node itself begins to serve.
        let _ = timeout(self.pause, async {
            tokio::select! {
                _ = self.leadership.changed() => {}
                _ = self.progress.changed() => {}
            }
        })
        .await;
        self.pause = PAUSE_MAX.min(self.pause * 2);
        Ok(())
    }

    /// Resolves when the coordinator is another than this, and can be reached.
    pub async fn moved_from(&self, place: &Place) {
        let elsewhere = |leadership: &Leadership| {
            let now = place_of(leadership);
            now.is_some() && now.as_ref() != Some(place)
        };
        let mut leadership = self.leadership.clone();
        if leadership.wait_for(elsewhere).await.is_err() {
            std::future::pending::<()>().await; // the election has ended: nothing moves any more
        }
    }

    /// Whether a reply that says "nothing was done" leaves open what an earlier try has done.
    pub fn leaves_open(&self, status: StatusCode) -> bool {
        let not_done = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ];
        self.in_doubt && not_done.contains(&status)
    }

    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What is known when no further try is made.
    const fn last_word(&self) -> Failure {
        match self.in_doubt {
            true => Failure::Unknown,
            false => Failure::NoCoordinator,
        }
    }
}

fn place_of(leadership: &Leadership) -> Option<Place> {
    if leadership.role == Role::Coordinator {
        return Some(Place::Here);
    }
    let coordinator = leadership.coordinator.clone();
    coordinator
        .filter(|_| leadership.reachable)
        .map(Place::Peer)
}

/// Why this node is not ready for requests; `None` if it is.
pub fn why_not_ready(leadership: &Leadership, progress: &Progress) -> Option<String> {
    let unreachable = |node: &NodeName| format!("the coordinator {node} cannot be reached");
    match (place_of(leadership), &leadership.coordinator) {
        (Some(Place::Here), _) if progress.epoch.is_none() => Some("about to serve".into()),
        (Some(_), _) => None,
        (None, Some(tenure)) => Some(unreachable(&tenure.node)),
        (None, None) => Some("no coordinator is known".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search() -> (Search, watch::Sender<Leadership>, watch::Sender<Progress>) {
        let nobody = Leadership {
            role: Role::Electing,
            coordinator: None,
            reachable: false,
        };
        let (leadership, leadership_in) = watch::channel(nobody);
        let (progress, progress_in) = watch::channel(Progress::default());
        let deadline = Instant::now() + COORDINATOR_WAIT_MAX * 3;
        let search = Search::new(leadership_in, progress_in, deadline);
        (search, leadership, progress)
    }

    #[tokio::test]
    async fn nothing_was_done_is_no_last_word_after_a_doubt() {
        let (mut search, _leadership, _progress) = search();
        let busy = StatusCode::TOO_MANY_REQUESTS;
        assert!(!search.leaves_open(busy));
        let refused = search.after(Setback::Final(Failure::Busy)).await;
        assert_eq!(refused, Err(Failure::Busy));
        search.after(Setback::InDoubt).await.unwrap();
        assert!(search.leaves_open(busy));
        search.after(Setback::Final(Failure::Busy)).await.unwrap();
        let wrong = Setback::Final(Failure::IdReused);
        assert_eq!(search.after(wrong).await, Err(Failure::IdReused));
        assert_eq!(search.place().await, Err(Failure::Unknown));
    }

    #[tokio::test]
    async fn without_a_coordinator_nothing_is_done_after_a_bounded_wait() {
        let (mut search, _leadership, _progress) = search();
        let begun = Instant::now();
        assert_eq!(search.place().await, Err(Failure::NoCoordinator));
        let waited = begun.elapsed();
        assert!(waited >= COORDINATOR_WAIT_MAX && waited < COORDINATOR_WAIT_MAX * 2);
    }
}
