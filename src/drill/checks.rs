//! The checks of a run that are the drill's own, and which of them show a violation. Those of the checker all do.

use super::report::Verdict;

/// The checks of a majority-loss drill.
pub const FALSE_ACKNOWLEDGEMENT: &str = "no acknowledgement without a majority";
pub const ASKED: &str = "writes were asked for without a majority";

/// What may go wrong after the load.
pub const WELL_AGAIN: &str = "all is well after the fault";
pub const READ_BACK: &str = "all that was written can be read at the end";
pub const LOG_RECORDED: &str = "the log can be read at the end";
pub const REMOVED: &str = "what the load wrote is removed";
/// Does not hold if the checker had to leave keys out.
pub const DECIDED: &str = "the replies for each key were decided";

/// Of all runs together.
pub const ALL_RUNS: &str = "all runs were done";

/// Whether a check that does not hold shows a violation. Else the drill could not prove what it is for.
pub fn tells_a_violation(check: &Verdict) -> bool {
    let others = [ASKED, WELL_AGAIN, READ_BACK, LOG_RECORDED, REMOVED, DECIDED];
    !others.contains(&&*check.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::slo::{NOT_DOUBLED, NOT_LOST, NOT_REORDERED};

    #[test]
    fn what_was_lost_is_a_violation_and_what_could_not_be_seen_is_none() {
        let tells = |name: &str| {
            tells_a_violation(&Verdict {
                name: name.to_owned(),
                holds: false,
                detail: String::new(),
            })
        };
        let violations = [FALSE_ACKNOWLEDGEMENT, NOT_LOST, NOT_DOUBLED, NOT_REORDERED];
        assert!(violations.into_iter().all(tells));
        let unseen = [ASKED, WELL_AGAIN, READ_BACK, LOG_RECORDED, REMOVED, DECIDED];
        assert!(!unseen.into_iter().any(tells));
    }
}
