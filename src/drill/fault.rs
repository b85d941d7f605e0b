//! The fault itself: who is hit, how, whether it had its effect, and how it is taken back.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::hands::{Condition, Ending, Part};
use super::report::Confirmed;
use super::scenario::{Aim, Fault};
use super::site::Site;
use super::timeline::Situation;
use super::watch::Watch;

/// How long a signal may take to have its effect.
const EFFECT_MAX: Duration = Duration::from_secs(3);
/// How long a part that is restarted may take to be well.
const RESTART_MAX: Duration = Duration::from_secs(60);
/// How long the primary and the coordinator may be out of sight before the fault.
const SITUATION_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(2);
/// `replSetStepDown` fails now and then because it does not get its lock in time.
const STEP_DOWN_TRIES: usize = 5;

/// Who is hit.
#[derive(Debug, Clone)]
pub struct Victim {
    /// A member's host or a node's name.
    pub name: String,
    pub is_member: bool,
    /// Its process before the fault; `None` if it is out of reach.
    part: Option<Part>,
}

impl Victim {
    async fn of(site: &Site, name: String, is_member: bool) -> Self {
        let part = match &site.hands {
            Some(hands) => hands.part(&name, is_member).await,
            None => None,
        };
        Self {
            name,
            is_member,
            part,
        }
    }

    fn part(&self) -> Result<&Part, String> {
        let part = self.part.as_ref();
        part.ok_or_else(|| format!("the process of {} is out of reach", self.name))
    }

    async fn condition(&self) -> Option<Condition> {
        self.part.as_ref()?.condition().await
    }

    fn pause(&self) -> Duration {
        self.part.as_ref().map_or(POLL, Part::pause)
    }
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
        let before = situation(site, watch).await;
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
        let mut victims = Vec::new();
        for name in nodes {
            victims.push(Victim::of(site, name, false).await);
        }
        for host in members {
            victims.push(Victim::of(site, host, true).await);
        }
        Ok(Self {
            site,
            fault,
            victims,
            before,
        })
    }

    /// Sees to it that who ends stays away until the fault is taken back.
    pub fn hold(&self) -> Result<(), String> {
        let mut ending = match self.fault {
            Fault::Kill
            | Fault::CoordinatorKill
            | Fault::CoordinatorAndPrimary
            | Fault::MajorityLoss
            | Fault::Handoff => self.victims.iter(),
            _ => return Ok(()),
        };
        ending.try_for_each(|victim| victim.part()?.hold())
    }

    /// Does it; it must be held. Returns at once, but for a restart of all and for a step-down.
    pub async fn inject(&self) -> Result<(), String> {
        match self.fault {
            Fault::Stepdown => self.step_down(false).await,
            Fault::StepdownForce => self.step_down(true).await,
            Fault::Freeze | Fault::CoordinatorFreeze => self.each(Part::freeze).await,
            Fault::Handoff => self.end_all(Ending::Asked).await,
            Fault::RestartRolling => self.restart_all().await,
            Fault::Isolate => self.each(Part::cut).await,
            _ => self.end_all(Ending::Killed).await,
        }
    }

    /// Takes it back.
    pub async fn heal(&self) -> Result<(), String> {
        match self.fault {
            Fault::Freeze | Fault::CoordinatorFreeze => self.each(Part::wake).await,
            Fault::Stepdown | Fault::StepdownForce => self.site.let_stand_again().await,
            Fault::RestartRolling => Ok(()),
            Fault::Isolate => self.each(Part::rejoin).await,
            _ => self.each(Part::start).await,
        }
    }

    /// What can be seen of the fault now: right after it, and again before it is taken back.
    pub async fn effects(&self, when: &str, watch: &Watch) -> Vec<Effect> {
        let mut effects = Vec::new();
        for victim in &self.victims {
            effects.push(match self.fault {
                Fault::Stepdown | Fault::StepdownForce => stepped_down(victim, when, watch).await,
                Fault::RestartRolling => restarted(victim).await,
                Fault::Freeze | Fault::CoordinatorFreeze => {
                    state_is(victim, when, Condition::Frozen).await
                }
                Fault::Isolate => isolated(victim, when, watch).await,
                _ => state_is(victim, when, Condition::Gone).await,
            });
        }
        effects
    }

    /// Whether MongoDB must elect because of it.
    pub fn hits_the_primary(&self) -> bool {
        let primary = self.before.primary.as_ref();
        let mut victims = self.victims.iter();
        victims.any(|victim| victim.is_member && Some(&victim.name) == primary)
    }

    /// Whether the nodes must elect because of it.
    pub fn hits_the_coordinator(&self) -> bool {
        self.victims.iter().any(|victim| !victim.is_member)
    }

    async fn step_down(&self, force: bool) -> Result<(), String> {
        let host = self.victims.first().map_or("", |victim| &victim.name);
        let probe = self.site.reach.open(host).await;
        let probe = probe.map_err(|error| error.to_string())?;
        self.site.will_rest(host);
        let mut tries = 1;
        loop {
            match probe.step_down(force).await {
                Ok(()) => return Ok(()),
                // The answer may have been lost.
                Err(_) if probe.look().await.is_ok_and(|look| !look.is_primary()) => {
                    return Ok(());
                }
                Err(error) if tries == STEP_DOWN_TRIES => {
                    return Err(format!("{host} does not step down: {error}"));
                }
                Err(_) => tries += 1,
            }
        }
    }

    async fn end_all(&self, how: Ending) -> Result<(), String> {
        self.each(async |part| part.end(how).await).await
    }

    /// To all victims at the same time.
    async fn each<'p>(
        &'p self,
        act: impl AsyncFn(&'p Part) -> Result<(), String>,
    ) -> Result<(), String> {
        let act = &act;
        let acts = self.victims.iter().map(async |victim| {
            let done = act(victim.part()?).await;
            done.map_err(|why| format!("{}: {why}", victim.name))
        });
        try_join_all(acts).await.map(drop)
    }

    /// One after the other, each when all are well again.
    async fn restart_all(&self) -> Result<(), String> {
        for victim in &self.victims {
            let part = victim.part()?;
            part.hold()?;
            let asked = part.end(Ending::Asked).await;
            asked.map_err(|why| format!("{}: {why}", victim.name))?;
            let end = Instant::now() + RESTART_MAX;
            while part.condition().await != Some(Condition::Gone) {
                if Instant::now() > end {
                    return Err(format!("{} does not stop", victim.name));
                }
                sleep(part.pause()).await;
            }
            part.start().await?;
            self.site.wait_until_settled().await?;
        }
        Ok(())
    }
}

/// What is so before the fault. On a busy machine a look at the primary may be late, which tells nothing.
async fn situation(site: &Site, watch: &Watch) -> Situation {
    let end = Instant::now() + SITUATION_MAX;
    loop {
        let now = watch.situation();
        let known = now.primary.is_some() && (site.nodes.is_empty() || now.coordinator.is_some());
        if known || Instant::now() > end {
            return now;
        }
        sleep(POLL).await;
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
    let probe = site.reach.open(first).await;
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
async fn state_is(victim: &Victim, when: &str, wanted: Condition) -> Effect {
    let name = &victim.name;
    let end = Instant::now() + EFFECT_MAX;
    let mut now = victim.condition().await;
    while now != Some(wanted) && Instant::now() < end {
        sleep(victim.pause()).await;
        now = victim.condition().await;
    }
    let (Some(part), Some(now)) = (&victim.part, now) else {
        return Effect {
            verdict: Confirmed::Inconclusive,
            fact: format!("{when}: the process of {name} cannot be seen"),
        };
    };
    if wanted == Condition::Gone
        && let Some((pid, true)) = part.replacement().await
    {
        return Effect {
            verdict: Confirmed::Mismatch,
            fact: format!("{when}: {name} runs again, as process {pid}"),
        };
    }
    let (pid, is, wanted_is) = (part.pid(), now.as_str(), wanted.as_str());
    if now == wanted {
        return Effect {
            verdict: Confirmed::Confirmed,
            fact: format!("{when}: {name}, process {pid}, is {is}"),
        };
    }
    Effect {
        verdict: Confirmed::Mismatch,
        fact: format!("{when}: {name}, process {pid}, is {is}, and not {wanted_is}"),
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

/// Its process runs, nobody hears of it, and what it says itself goes nowhere.
async fn isolated(victim: &Victim, when: &str, watch: &Watch) -> Effect {
    let name = &victim.name;
    let end = Instant::now() + EFFECT_MAX;
    loop {
        let silent = watch.member(name).is_some_and(|seen| seen.state == "down");
        let runs = victim.condition().await == Some(Condition::Running);
        let late = Instant::now() > end;
        let mute = silent && runs && victim.part.as_ref().is_some_and(Part::is_cut);
        if mute || late {
            let verdict = match (silent && runs, mute) {
                (true, true) => Confirmed::Confirmed,
                (true, false) => Confirmed::Inconclusive,
                _ => Confirmed::Mismatch,
            };
            let is = if silent { "is silent" } else { "answers" };
            let process = if runs { "runs" } else { "does not run" };
            let own = if mute { "is" } else { "is not seen to be" };
            return Effect {
                verdict,
                fact: format!(
                    "{when}: {name} {is}, its process {process}, and what it sends {own} dropped"
                ),
            };
        }
        sleep(victim.pause()).await;
    }
}

/// A restart shows by another process in the place of the old one.
async fn restarted(victim: &Victim) -> Effect {
    let now = match &victim.part {
        Some(part) => part
            .replacement()
            .await
            .map(|(new, is)| (part.pid(), new, is)),
        None => None,
    };
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
