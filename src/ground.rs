//! What keeps this node from serving, told where it is seen: in the log once per change, in
//! `/readyz` and in the status.
//!
//! Never mends anything. Never decides who is coordinator.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, error, info};

use crate::config::Secret;
use crate::sequencer::Progress;
use crate::store::{Fault, Store, StoreError, survey};

/// How often the primary is tried.
const PACE: Duration = Duration::from_secs(2);
/// How often a set that answers is asked what it promises.
const LOOK_INTERVAL: Duration = Duration::from_secs(20);
/// What may pass is told when it has lasted so long: an election is no fault.
const PASSING: Duration = Duration::from_secs(5);
/// A batch that is in doubt for longer is told.
const DOUBT: Duration = Duration::from_secs(2);

/// What is wrong, by who has found it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Troubles {
    /// With the replica set, or the way to it.
    pub ground: Option<String>,
    /// With this node's name.
    pub name: Option<String>,
    /// With the log.
    pub log: Option<String>,
    /// With this node's own connections.
    pub connections: Option<String>,
    /// With the batch that is to be committed.
    pub batch: Option<String>,
}

impl Troubles {
    /// One line each; empty if nothing keeps the node from serving.
    pub fn lines(&self) -> Vec<String> {
        let all = [
            &self.ground,
            &self.name,
            &self.log,
            &self.connections,
            &self.batch,
        ];
        all.into_iter().flatten().cloned().collect()
    }
}

/// Where troubles are put up. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Board(watch::Sender<Troubles>);

impl Board {
    pub fn read(&self) -> Troubles {
        self.0.borrow().clone()
    }

    /// Puts up what is wrong with the replica set, or takes it down.
    pub fn ground(&self, trouble: Option<String>) {
        self.change(|troubles| &mut troubles.ground, trouble);
    }

    /// Puts up what is wrong with this node's name, or takes it down.
    pub fn name(&self, trouble: Option<String>) {
        self.change(|troubles| &mut troubles.name, trouble);
    }

    /// Puts up what is wrong with the log, or takes it down.
    pub fn log(&self, trouble: Option<String>) {
        self.change(|troubles| &mut troubles.log, trouble);
    }

    /// Puts up what is wrong with this node's connections, or takes it down.
    pub fn connections(&self, trouble: Option<String>) {
        self.change(|troubles| &mut troubles.connections, trouble);
    }

    /// Puts up what keeps a batch from being committed, or takes it down.
    pub fn batch(&self, trouble: Option<String>) {
        self.change(|troubles| &mut troubles.batch, trouble);
    }

    /// The log tells a change, and no repetition.
    fn change(&self, of: fn(&mut Troubles) -> &mut Option<String>, now: Option<String>) {
        self.0.send_if_modified(|troubles| {
            let place = of(troubles);
            if *place == now {
                return false;
            }
            match &now {
                Some(trouble) => error!("cannot serve: {trouble}"),
                None => info!("what kept this node from serving is over"),
            }
            *place = now;
            true
        });
    }
}

/// Looks at the ground before a node stands on it. On one that serves nothing it does not
/// start; what may pass, and what forbids only a part, is put up on the board.
pub async fn before_start(uri: &Secret, board: &Board) -> Result<(), Fault> {
    match survey(uri.expose()).await {
        Ok(Some(fault)) if fault.forbids_all() => Err(fault),
        Ok(fault) => {
            board.ground(fault.map(|fault| fault.to_string()));
            Ok(())
        }
        Err(error) => {
            board.ground(Some(error.to_string()));
            Ok(())
        }
    }
}

/// Watches the ground for as long as the node runs.
pub async fn watch(store: Store, uri: Secret, board: Board) {
    let mut wrong = Suspicion::default();
    let mut looked = Instant::now();
    loop {
        sleep(PACE).await;
        let answers = store.is_there().await;
        let told = board.read().ground.is_some();
        if answers && !told && wrong.since.is_none() && looked.elapsed() < LOOK_INTERVAL {
            continue;
        }
        looked = Instant::now();
        let found = match answers {
            true => Ok(store.look_inside(uri.expose()).await),
            false => survey(uri.expose()).await,
        };
        debug!(?found, answers, "looked at the ground");
        match wrong.judge(found, answers, Instant::now()) {
            Verdict::Well => board.ground(None),
            Verdict::Wrong(trouble) => board.ground(Some(trouble)),
            Verdict::Wait => {}
        }
    }
}

/// Puts up what the store finds wrong with the log, for as long as the node runs.
pub async fn watch_log(store: Store, board: Board) {
    let mut fault = store.log_fault();
    while fault.changed().await.is_ok() {
        let trouble = fault.borrow_and_update().as_ref().map(ToString::to_string);
        board.log(trouble);
    }
}

/// Puts up what the store finds wrong with the node's connections, for as long as it runs.
pub async fn watch_connections(store: Store, board: Board) {
    let mut seen = store.trouble_with_connections();
    while seen.changed().await.is_ok() {
        let trouble = seen.borrow_and_update().clone();
        board.connections(trouble);
    }
}

/// Puts up that a batch stays in doubt, for as long as the node runs: no write is answered meanwhile.
pub async fn watch_batches(mut progress: watch::Receiver<Progress>, board: Board) {
    loop {
        let begun = progress.wait_for(|now| now.doubted_since.is_some());
        let Ok(since) = begun.await.map(|now| now.doubted_since) else {
            return;
        };
        let over = progress.wait_for(|now| now.doubted_since != since);
        let Some(until) = since.map(|since| since + DOUBT) else {
            continue;
        };
        if timeout_at(until, over).await.is_ok() {
            continue;
        }
        board.batch(Some(format!(
            "no write is answered: for {DOUBT:?} it has not been known whether the last batch was \
             committed; MongoDB does not say"
        )));
        let over = progress.wait_for(|now| now.doubted_since != since);
        if over.await.is_err() {
            return;
        }
        board.batch(None);
    }
}

/// Since when something has been wrong without a break.
#[derive(Debug, Default)]
struct Suspicion {
    since: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Well,
    Wrong(String),
    /// It may be over before it is worth a word.
    Wait,
}

impl Suspicion {
    fn judge(
        &mut self,
        found: Result<Option<Fault>, StoreError>,
        answers: bool,
        now: Instant,
    ) -> Verdict {
        let (trouble, stays) = match found {
            Ok(Some(fault)) => (fault.to_string(), fault.is_permanent()),
            // From outside all is well, and yet the node's own calls do not come through.
            Ok(None) if !answers => {
                let text = "the primary does not answer this node, and answers others".to_owned();
                (text, false)
            }
            Ok(None) => {
                self.since = None;
                return Verdict::Well;
            }
            Err(error) => (error.to_string(), false),
        };
        let since = *self.since.get_or_insert(now);
        match stays || now.duration_since(since) >= PASSING {
            true => Verdict::Wrong(trouble),
            false => Verdict::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_when_it_lasts_and_what_stays_at_once() {
        let mut wrong = Suspicion::default();
        let now = Instant::now();
        let gone = || {
            Ok(Some(Fault::Unreachable(vec![(
                "a:1".into(),
                "is gone".into(),
            )])))
        };
        assert_eq!(wrong.judge(gone(), false, now), Verdict::Wait);
        assert_eq!(wrong.judge(Ok(None), true, now + PACE), Verdict::Well);
        assert_eq!(wrong.judge(gone(), false, now + PASSING), Verdict::Wait);
        let later = wrong.judge(gone(), false, now + PASSING * 2);
        assert!(matches!(later, Verdict::Wrong(text) if text.contains("a:1 is gone")));
        let stays = || Ok(Some(Fault::WrongPassword("a:1".into())));
        let mut wrong = Suspicion::default();
        assert!(matches!(
            wrong.judge(stays(), false, now),
            Verdict::Wrong(_)
        ));
    }

    #[test]
    fn a_board_holds_one_trouble_of_each_kind() {
        let board = Board::default();
        board.ground(Some("no primary".into()));
        board.name(Some("taken".into()));
        assert_eq!(board.read().lines(), ["no primary", "taken"]);
        board.ground(None);
        assert_eq!(board.read().lines(), ["taken"]);
    }
}
