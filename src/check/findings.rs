//! What a check found.

use std::fmt;

/// Violations of one rule that are told in words. The rest is counted.
pub const WITNESSES_MAX: usize = 3;

/// What must hold, in the order in which it is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Contiguous,
    Epochs,
    Stamps,
    Durable,
    Once,
    RealTime,
    Replies,
    Reads,
    Clients,
    NothingElse,
}

impl Rule {
    pub const ALL: [Self; 10] = [
        Self::Contiguous,
        Self::Epochs,
        Self::Stamps,
        Self::Durable,
        Self::Once,
        Self::RealTime,
        Self::Replies,
        Self::Reads,
        Self::Clients,
        Self::NothingElse,
    ];

    /// What it says.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Contiguous => "the log's positions are contiguous (I1)",
            Self::Epochs => "epochs never decrease and begin with a claim (I2)",
            Self::Stamps => "stamps and positions give one order (I3)",
            Self::Durable => "every acknowledged write is in the log, where it was told (I4)",
            Self::Once => "no request happened twice (I5)",
            Self::RealTime => "what was answered before comes before (I6)",
            Self::Replies => "every write's reply is the model's",
            Self::Reads => "every read shows the state at its stamp (I7)",
            Self::Clients => "the stamps of each client increase",
            Self::NothingElse => "nothing happened that failed, or that nobody asked for",
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// Lines that contradict each other, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    pub text: String,
    /// The lines of the history that the text names.
    pub lines: Vec<u64>,
}

/// What was found of one rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// Whether the history, and the log if there is one, hold what the rule speaks of.
    pub checked: bool,
    pub violations: u64,
    pub witnesses: Vec<Witness>,
}

/// What was looked at, and the sums of what is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    pub operations: u64,
    pub reads: u64,
    /// Reads and writes with the outcome `ok`, and refusals that have a stamp.
    pub acknowledged: u64,
    /// Nothing was done.
    pub failed: u64,
    pub unknown: u64,
    /// Entries of the log, if there is one.
    pub entries: u64,
    /// Acknowledged, and the log does not have it, or a reply contradicts it.
    pub lost: u64,
    pub doubled: u64,
    /// Answers whose stamps contradict real time, or each other.
    pub reordered: u64,
}

/// All that a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    pub counts: Counts,
    /// By [`Rule::ALL`].
    findings: [Finding; Rule::ALL.len()],
    /// Keys with so many unknown writes that it was not decided whether their replies are possible.
    pub undecided: u64,
    /// What was not checked, and why, a sentence each.
    pub not_checked: Vec<String>,
}

impl Findings {
    /// Whether all was decided and nothing is wrong.
    pub fn hold(&self) -> bool {
        self.undecided == 0 && self.violations() == 0
    }

    pub fn violations(&self) -> u64 {
        self.findings.iter().map(|finding| finding.violations).sum()
    }

    pub const fn of(&self, rule: Rule) -> &Finding {
        &self.findings[rule.index()]
    }

    /// A line of a verdict for each rule that was checked: its name, whether it holds, and the first
    /// witness or what it was checked on.
    pub fn verdicts(&self) -> impl Iterator<Item = (&'static str, bool, String)> {
        let checked = Rule::ALL.into_iter().filter(|rule| self.of(*rule).checked);
        checked.map(|rule| {
            let finding = self.of(rule);
            let Some(first) = finding.witnesses.first() else {
                return (rule.name(), true, self.scope());
            };
            let others = Others(finding.violations - 1);
            (rule.name(), false, format!("{}{others}", first.text))
        })
    }

    fn scope(&self) -> String {
        match self.counts.entries {
            0 => format!("{} operations", self.counts.operations),
            entries => format!(
                "{} operations, {entries} entries of the log",
                self.counts.operations
            ),
        }
    }

    pub(super) fn checking(&mut self, rules: &[Rule]) {
        for rule in rules {
            self.findings[rule.index()].checked = true;
        }
    }

    /// Counts a violation; `lines` are those that `text` names.
    pub(super) fn violate(&mut self, rule: Rule, lines: &[u64], text: impl FnOnce() -> String) {
        let counts = &mut self.counts;
        match rule {
            Rule::Durable | Rule::Replies | Rule::Reads => counts.lost += 1,
            Rule::Once => counts.doubled += 1,
            Rule::Stamps | Rule::RealTime | Rule::Clients => counts.reordered += 1,
            Rule::Contiguous | Rule::Epochs | Rule::NothingElse => (),
        }
        let finding = &mut self.findings[rule.index()];
        finding.violations += 1;
        if finding.witnesses.len() < WITNESSES_MAX {
            finding.witnesses.push(Witness {
                text: text(),
                lines: lines.to_vec(),
            });
        }
    }
}

/// How many more there are, if any.
#[derive(Debug)]
pub struct Others(pub u64);

impl fmt::Display for Others {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            more => write!(formatter, " (and {more} more)"),
        }
    }
}
