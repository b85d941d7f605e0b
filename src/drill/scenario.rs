//! What a drill does: the fault, whom it hits, and how long it lasts.

use std::time::Duration;

use clap::ValueEnum;

use super::dice::Dice;

/// A frozen or isolated part stays so at least this long, so that the others act without it.
pub const FREEZE_HOLD_MIN: Duration = Duration::from_secs(2);
/// Without a majority the primary steps down after the election time-out of 10 s; it shall.
pub const MAJORITY_LOSS_HOLD: Duration = Duration::from_secs(12);
/// After the service is back the fault lasts this much longer: it must last without the victim.
pub const HOLD_AFTER_SERVICE: Duration = Duration::from_secs(1);
/// However long the service is away, the fault is taken back after this time.
pub const HOLD_MAX: Duration = Duration::from_secs(45);

/// What is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// The primary is asked to step down
    Stepdown,
    /// The primary is made to step down, without waiting for a successor
    StepdownForce,
    /// kill -9 of a member
    Kill,
    /// SIGSTOP of a member; it wakes up later and does not know
    Freeze,
    /// A member is cut off from everybody, both ways
    Isolate,
    /// Each member is stopped and started again, the primary last
    RestartRolling,
    /// kill -9 of the coordinator
    CoordinatorKill,
    /// SIGSTOP of the coordinator
    CoordinatorFreeze,
    /// kill -9 of the coordinator and of the primary
    CoordinatorAndPrimary,
    /// kill -9 of both secondaries
    MajorityLoss,
    /// The coordinator is asked to stop (SIGTERM), and hands over
    Handoff,
    /// One of the others but isolate, drawn for each run
    Random,
}

impl Fault {
    /// Those that a random drill draws from.
    const DRAWN: [Self; 10] = [
        Self::Stepdown,
        Self::StepdownForce,
        Self::Kill,
        Self::Freeze,
        Self::RestartRolling,
        Self::CoordinatorKill,
        Self::CoordinatorFreeze,
        Self::CoordinatorAndPrimary,
        Self::MajorityLoss,
        Self::Handoff,
    ];

    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// Whether it hits a node: a cluster without nodes cannot have it.
    pub const fn hits_a_node(self) -> bool {
        matches!(
            self,
            Self::CoordinatorKill
                | Self::CoordinatorFreeze
                | Self::CoordinatorAndPrimary
                | Self::Handoff
        )
    }

    /// Whether it can be had by asking MongoDB alone.
    pub const fn is_a_command(self) -> bool {
        matches!(self, Self::Stepdown | Self::StepdownForce)
    }

    /// Whether it hits one member that can be chosen.
    pub const fn takes_aim(self) -> bool {
        matches!(self, Self::Kill | Self::Freeze | Self::Isolate)
    }

    /// Whether the outage is counted from the fault's end: without a majority nothing can be
    /// acknowledged before.
    pub const fn counts_from_healing(self) -> bool {
        matches!(self, Self::MajorityLoss)
    }

    /// How long it lasts at least.
    pub const fn hold_min(self) -> Duration {
        match self {
            Self::Freeze | Self::Isolate | Self::CoordinatorFreeze => FREEZE_HOLD_MIN,
            Self::MajorityLoss => MAJORITY_LOSS_HOLD,
            _ => Duration::ZERO,
        }
    }

    /// What one run does: itself, or one that is drawn.
    pub fn draw(self, direct: bool, dice: &mut Dice) -> Self {
        if self != Self::Random {
            return self;
        }
        loop {
            let at = usize::try_from(dice.below(Self::DRAWN.len() as u64)).unwrap_or(0);
            let drawn = Self::DRAWN[at];
            if !(direct && drawn.hits_a_node()) {
                return drawn;
            }
        }
    }
}

/// Which member a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Aim {
    /// The primary
    Primary,
    /// The secondary that the other secondary copies from; without such a chain any
    Successor,
    /// The other secondary
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_drill_draws_the_same_faults_from_the_same_seed() {
        let draw = |seed, direct| -> Vec<Fault> {
            let mut dice = Dice::new(seed);
            (0..40)
                .map(|_| Fault::Random.draw(direct, &mut dice))
                .collect()
        };
        assert_eq!(draw(7, false), draw(7, false));
        assert_ne!(draw(7, false), draw(8, false));
        assert!(draw(7, false).iter().any(|fault| fault.hits_a_node()));
        assert!(!draw(7, true).iter().any(|fault| fault.hits_a_node()));
        assert_eq!(
            Fault::Kill.draw(true, &mut Dice::new(1)),
            Fault::Kill,
            "only random draws"
        );
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        assert_eq!(
            Fault::CoordinatorAndPrimary.name(),
            "coordinator-and-primary"
        );
        assert_eq!(Fault::StepdownForce.name(), "stepdown-force");
    }
}
