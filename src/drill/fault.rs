//! The fault itself: who is hit, how, whether it had its effect, and how it is taken back.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::report::Confirmed;
use super::scenario::{Aim, Fault};
use super::site::Site;
use super::timeline::Situation;
use super::watch::Watch;
use crate::cluster::{Handles, Process};
use crate::store::Probe;

/// How long a signal may take to have its effect.
const EFFECT_MAX: Duration = Duration::from_secs(3);
/// How long a part that is restarted may take to be well.
const RESTART_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(2);
/// `replSetStepDown` fails now and then because it does not get its lock in time.
const STEP_DOWN_TRIES: usize = 5;

/// Who is hit.
#[derive(Debug, Clone)]
pub struct Victim {
    /// A member's host or a node's name.
    pub name: String,
    pub is_member: bool,
    /// What the supervisor calls it, and its process before the fault.
    process: Option<(String, Process)>,
}

/// One fact about the effect of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    pub verdict: Confirmed,
    pub fact: String,
}

/// A fault that is about to be done, or has been.
#[derive(Debug)]
pub struct Act<'a> {
    site: &'a Site,
    fault: Fault,
    pub victims: Vec<Victim>,
    pub before: Situation,
}

impl<'a> Act<'a> {
    /// Chooses the victims by what the watch sees now.
    pub async fn prepare(
        site: &'a Site,
        fault: Fault,
        aim: Aim,
        watch: &Watch,
    ) -> Result<Self, String> {
        let before = watch.situation();
        let primary = || {
            let primary = before.primary.clone();
            primary.ok_or("the replica set has no primary to begin with")
        };
        let coordinator = || {
            let coordinator = before.coordinator.clone();
            coordinator.ok_or("no node is coordinator to begin with")
        };
        let mut members = Vec::new();
        let mut nodes = Vec::new();
        match fault {
            Fault::Stepdown | Fault::StepdownForce => members.push(primary()?),
            Fault::Kill | Fault::Freeze | Fault::Isolate => match aim {
                Aim::Primary => members.push(primary()?),
                Aim::Successor => members.push(secondaries(site, &primary()?).await?.0),
                Aim::Other => members.push(secondaries(site, &primary()?).await?.1),
            },
            Fault::CoordinatorKill | Fault::CoordinatorFreeze | Fault::Handoff => {
                nodes.push(coordinator()?);
            }
            Fault::CoordinatorAndPrimary => {
                nodes.push(coordinator()?);
                members.push(primary()?);
            }
            Fault::MajorityLoss => {
                let primary = primary()?;
                members.extend(site.members_but(&primary));
            }
            Fault::RestartRolling => {
                let primary = primary()?;
                members.extend(site.members_but(&primary));
                members.push(primary);
            }
            Fault::Random => return Err("a random fault is drawn before it is done".into()),
        }
        let nodes = nodes.into_iter().map(|name| victim(site, name, false));
        let members = members.into_iter().map(|host| victim(site, host, true));
        Ok(Self {
            site,
            fault,
            victims: nodes.chain(members).collect(),
            before,
        })
    }

    /// Does it. Returns at once, but for a restart of all and for a step-down.
    pub async fn inject(&self) -> Result<(), String> {
        match self.fault {
            Fault::Stepdown => self.step_down(false).await,
            Fault::StepdownForce => self.step_down(true).await,
            Fault::Freeze | Fault::CoordinatorFreeze => self.signal_all(Signal::STOP),
            Fault::Handoff => self.end_all(Signal::TERM),
            Fault::RestartRolling => self.restart_all().await,
            Fault::Isolate => self.cut_all(),
            _ => self.end_all(Signal::KILL),
        }
    }

    /// Takes it back.
    pub async fn heal(&self) -> Result<(), String> {
        match self.fault {
            Fault::Freeze | Fault::CoordinatorFreeze => self.signal_all(Signal::CONT),
            Fault::Stepdown | Fault::StepdownForce => self.let_stand().await,
            Fault::RestartRolling => Ok(()),
            Fault::Isolate => {
                for victim in &self.victims {
                    let (handles, child, _) = self.hand_on(victim)?;
                    handles.rejoin(child);
                }
                Ok(())
            }
            _ => {
                for victim in &self.victims {
                    let (handles, child, _) = self.hand_on(victim)?;
                    handles.release(child);
                }
                Ok(())
            }
        }
    }

    /// What can be seen of the fault now: right after it, and again before it is taken back.
    pub async fn effects(&self, when: &str, watch: &Watch) -> Vec<Effect> {
        let mut effects = Vec::new();
        for victim in &self.victims {
            effects.push(match self.fault {
                Fault::Stepdown | Fault::StepdownForce => stepped_down(victim, when, watch).await,
                Fault::RestartRolling => restarted(victim, self.site),
                Fault::Freeze | Fault::CoordinatorFreeze => {
                    state_is(victim, when, Some('T'), "frozen (T)").await
                }
                Fault::Isolate => isolated(victim, when, watch).await,
                _ => state_is(victim, when, None, "gone").await,
            });
        }
        effects
    }

    /// Whether MongoDB must elect because of it.
    pub fn hits_the_primary(&self) -> bool {
        let primary = self.before.primary.as_ref();
        self.fault != Fault::MajorityLoss
            && self
                .victims
                .iter()
                .any(|v| v.is_member && Some(&v.name) == primary)
    }

    /// Whether the nodes must elect because of it.
    pub fn hits_the_coordinator(&self) -> bool {
        self.victims.iter().any(|victim| !victim.is_member)
    }

    async fn step_down(&self, force: bool) -> Result<(), String> {
        let host = self.victims.first().map_or("", |victim| &victim.name);
        let probe = Probe::open(self.site.uri.expose(), host).await;
        let probe = probe.map_err(|error| error.to_string())?;
        let mut tries = 1;
        loop {
            match probe.step_down(force).await {
                Ok(()) => return Ok(()),
                Err(error) if tries == STEP_DOWN_TRIES => {
                    return Err(format!("{host} does not step down: {error}"));
                }
                Err(_) => tries += 1,
            }
        }
    }

    /// Otherwise the next run may find no member that may be elected.
    async fn let_stand(&self) -> Result<(), String> {
        let host = self.victims.first().map_or("", |victim| &victim.name);
        let probe = Probe::open(self.site.uri.expose(), host).await;
        let probe = probe.map_err(|error| error.to_string())?;
        let allowed = probe.let_stand().await;
        allowed.map_err(|error| format!("{host} may not stand again for a while: {error}"))
    }

    /// Ends all victims; they stay away until the fault is taken back.
    fn end_all(&self, signal: Signal) -> Result<(), String> {
        for victim in &self.victims {
            let (handles, child, _) = self.hand_on(victim)?;
            handles.hold(child).map_err(|error| error.to_string())?;
        }
        self.signal_all(signal)
    }

    fn cut_all(&self) -> Result<(), String> {
        for victim in &self.victims {
            let (handles, child, _) = self.hand_on(victim)?;
            self.site.cut(handles, child)?;
        }
        Ok(())
    }

    fn signal_all(&self, signal: Signal) -> Result<(), String> {
        for victim in &self.victims {
            let (_, _, process) = self.hand_on(victim)?;
            if !process.signal(signal) {
                let name = &victim.name;
                return Err(format!("{name} ended before the fault could be done to it"));
            }
        }
        Ok(())
    }

    /// One after the other, each when all are well again.
    async fn restart_all(&self) -> Result<(), String> {
        for victim in &self.victims {
            let (handles, child, process) = self.hand_on(victim)?;
            handles.hold(child).map_err(|error| error.to_string())?;
            if !process.signal(Signal::TERM) {
                return Err(format!("{} ended before it was restarted", victim.name));
            }
            let end = Instant::now() + RESTART_MAX;
            while process.state().is_some() {
                if Instant::now() > end {
                    return Err(format!("{} does not stop", victim.name));
                }
                sleep(POLL).await;
            }
            handles.release(child);
            self.site.wait_until_well().await?;
        }
        Ok(())
    }

    fn hand_on<'v>(
        &'v self,
        victim: &'v Victim,
    ) -> Result<(&'v Handles, &'v str, &'v Process), String> {
        match (&self.site.handles, &victim.process) {
            (Some(handles), Some((child, process))) => Ok((handles, child, process)),
            _ => Err(format!("the process of {} is out of reach", victim.name)),
        }
    }
}

fn victim(site: &Site, name: String, is_member: bool) -> Victim {
    let process = site.handles.as_ref().and_then(|handles| {
        let child = match is_member {
            true => handles.member_at(&name)?,
            false => &name,
        };
        Some((child.to_owned(), handles.process(child)?))
    });
    Victim {
        name,
        is_member,
        process,
    }
}

/// The successor and the other one. The successor is the secondary that the other copies from.
async fn secondaries(site: &Site, primary: &str) -> Result<(String, String), String> {
    let hosts: Vec<_> = site
        .members
        .iter()
        .filter(|host| *host != primary)
        .collect();
    let [first, second] = hosts.as_slice() else {
        return Err("--member successor and other need exactly two secondaries".into());
    };
    let probe = Probe::open(site.uri.expose(), first).await;
    let source = match probe {
        Ok(probe) => probe.sync_source().await.ok().flatten(),
        Err(_) => None,
    };
    Ok(if source.as_ref() == Some(*second) {
        ((*second).clone(), (*first).clone())
    } else {
        ((*first).clone(), (*second).clone())
    })
}

/// Waits until the victim's process is in the state that the fault gives it.
async fn state_is(victim: &Victim, when: &str, wanted: Option<char>, words: &str) -> Effect {
    let name = &victim.name;
    let Some((_, process)) = &victim.process else {
        return Effect {
            verdict: Confirmed::Inconclusive,
            fact: format!("{when}: the process of {name} cannot be seen"),
        };
    };
    let end = Instant::now() + EFFECT_MAX;
    let mut state = process.state();
    while state != wanted && Instant::now() < end {
        sleep(POLL).await;
        state = process.state();
    }
    let pid = process.pid();
    if state == wanted {
        return Effect {
            verdict: Confirmed::Confirmed,
            fact: format!("{when}: {name}, process {pid}, is {words}"),
        };
    }
    let state = state.map_or("gone".to_owned(), |letter| format!("in state {letter}"));
    Effect {
        verdict: Confirmed::Mismatch,
        fact: format!("{when}: {name}, process {pid}, is {state}, and not {words}"),
    }
}

async fn stepped_down(victim: &Victim, when: &str, watch: &Watch) -> Effect {
    let name = &victim.name;
    let end = Instant::now() + EFFECT_MAX;
    loop {
        let seen = watch.member(name).map(|seen| seen.state);
        let (verdict, state) = match seen.as_deref() {
            Some("secondary" | "other") => (Confirmed::Confirmed, "no primary any more"),
            Some("primary") => (Confirmed::Mismatch, "still primary"),
            _ => (Confirmed::Inconclusive, "silent"),
        };
        if verdict == Confirmed::Confirmed || Instant::now() > end {
            return Effect {
                verdict,
                fact: format!("{when}: {name} is {state}"),
            };
        }
        sleep(POLL).await;
    }
}

/// Its process runs, and nobody hears of it.
async fn isolated(victim: &Victim, when: &str, watch: &Watch) -> Effect {
    let name = &victim.name;
    let end = Instant::now() + EFFECT_MAX;
    loop {
        let silent = watch.member(name).is_some_and(|seen| seen.state == "down");
        let state = victim
            .process
            .as_ref()
            .and_then(|(_, process)| process.state());
        let runs = state.is_some_and(|letter| letter != 'T');
        if (silent && runs) || Instant::now() > end {
            let verdict = match (silent, runs) {
                (true, true) => Confirmed::Confirmed,
                _ => Confirmed::Mismatch,
            };
            let is = if silent { "is silent" } else { "answers" };
            let process = if runs { "runs" } else { "does not run" };
            return Effect {
                verdict,
                fact: format!("{when}: {name} {is}, and its process {process}"),
            };
        }
        sleep(POLL).await;
    }
}

/// A restart shows by another process in the place of the old one.
fn restarted(victim: &Victim, site: &Site) -> Effect {
    let now = victim.process.as_ref().and_then(|(child, old)| {
        let now = site.handles.as_ref()?.process(child)?;
        Some((old.pid(), now.pid(), now != *old && now.state().is_some()))
    });
    let name = &victim.name;
    match now {
        Some((old, new, true)) => Effect {
            verdict: Confirmed::Confirmed,
            fact: format!("{name} was process {old} and is process {new}"),
        },
        Some((old, _, false)) => Effect {
            verdict: Confirmed::Mismatch,
            fact: format!("{name} is still process {old}"),
        },
        None => Effect {
            verdict: Confirmed::Inconclusive,
            fact: format!("the process of {name} cannot be seen"),
        },
    }
}
