//! Whether the fault had its effect: by what was seen, not by what was asked for. Pure.

use super::fault::Effect;
use super::report::{Confirmation, Confirmed};
use super::timeline::Situation;

/// Weighs what was seen of each victim, and tells who led before and at the end of the fault.
pub fn confirm(effects: &[Effect], before: &Situation, after: &Situation) -> Confirmation {
    let has = |verdict| effects.iter().any(|effect| effect.verdict == verdict);
    let verdict = if has(Confirmed::Mismatch) {
        Confirmed::Mismatch
    } else if effects.is_empty() || has(Confirmed::Inconclusive) {
        Confirmed::Inconclusive
    } else {
        Confirmed::Confirmed
    };
    let mut evidence = vec![format!("before: {}", led(before))];
    evidence.extend(effects.iter().map(|effect| effect.fact.clone()));
    evidence.push(format!("at its end: {}", led(after)));
    Confirmation { verdict, evidence }
}

fn led(situation: &Situation) -> String {
    let text = |name: &Option<String>| name.clone().unwrap_or_else(|| "none".into());
    let number = |n: Option<i64>| n.map_or_else(|| "unknown".into(), |n| n.to_string());
    let mut led = format!(
        "primary {} in term {}",
        text(&situation.primary),
        number(situation.term)
    );
    if situation.epoch.is_some() || situation.coordinator.is_some() {
        led.push_str(&format!(
            ", coordinator {} in epoch {}",
            text(&situation.coordinator),
            number(situation.epoch)
        ));
    }
    led
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(verdict: Confirmed) -> Effect {
        Effect {
            verdict,
            fact: format!("{verdict:?}"),
        }
    }

    fn verdict(effects: &[Confirmed]) -> Confirmed {
        let effects: Vec<_> = effects.iter().copied().map(effect).collect();
        confirm(&effects, &Situation::default(), &Situation::default()).verdict
    }

    #[test]
    fn one_mismatch_is_a_mismatch_and_nothing_seen_confirms_nothing() {
        use Confirmed::{Confirmed as Yes, Inconclusive, Mismatch};
        assert_eq!(verdict(&[Yes, Yes]), Yes);
        assert_eq!(verdict(&[Yes, Inconclusive]), Inconclusive);
        assert_eq!(verdict(&[Inconclusive, Mismatch, Yes]), Mismatch);
        assert_eq!(verdict(&[]), Inconclusive);
    }

    #[test]
    fn the_evidence_tells_who_led() {
        let before = Situation {
            primary: Some("a:1".into()),
            term: Some(4),
            coordinator: Some("n1".into()),
            epoch: Some(2),
        };
        let told = confirm(
            &[effect(Confirmed::Confirmed)],
            &before,
            &Situation::default(),
        );
        assert_eq!(
            told.evidence,
            [
                "before: primary a:1 in term 4, coordinator n1 in epoch 2",
                "Confirmed",
                "at its end: primary none in term unknown"
            ]
        );
    }
}
