//! Drumline beside the bare driver: the same clients, the same machine, the same run.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use serde::Serialize;

use super::{Plan, Report, Stop, Target, run};
use crate::model::Namespace;

/// One of the two things compared, with a collection of its own.
#[derive(Debug)]
pub struct Side {
    pub target: Target,
    pub namespace: Namespace,
    pub keys: Arc<AtomicI64>,
}

impl Side {
    pub fn new(target: Target, namespace: Namespace) -> Self {
        Self {
            target,
            namespace,
            keys: Arc::default(),
        }
    }
}

/// The figures at one number of clients. Each is the median of the rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub clients: u32,
    pub direct_per_second: f64,
    pub drumline_per_second: f64,
    /// Drumline's throughput in units of the driver's.
    pub ratio: f64,
    pub direct_p50_ms: f64,
    pub drumline_p50_ms: f64,
    pub direct_p99_ms: f64,
    pub drumline_p99_ms: f64,
    pub errors: u64,
    pub rounds: Vec<Report>,
}

/// Runs both sides in turn, `rounds` times: what disturbs the machine for a while disturbs both.
/// `told` hears of each round when it has ended.
pub async fn compare(
    plan: &Plan,
    rounds: u32,
    direct: &Side,
    drumline: &Side,
    stop: &Stop,
    told: impl Fn(&Report),
) -> Result<Comparison, String> {
    let mut reports = Vec::new();
    for round in 0..rounds {
        // The first of a pair finds caches as the last round left them: they take turns.
        let order = if round % 2 == 0 {
            [direct, drumline]
        } else {
            [drumline, direct]
        };
        for side in order {
            let plan = Plan {
                namespace: side.namespace.clone(),
                ..plan.clone()
            };
            let report = run(&plan, &side.target, &side.keys, None, stop).await?;
            told(&report);
            reports.push(report);
        }
    }
    Ok(summary(
        plan.clients,
        reports,
        [direct.target.name(), drumline.target.name()],
    ))
}

fn summary(clients: u32, rounds: Vec<Report>, [direct, drumline]: [&str; 2]) -> Comparison {
    let of = |name: &str, value: fn(&Report) -> f64| {
        let side = rounds.iter().filter(|report| report.target == name);
        median(side.map(value).collect())
    };
    let direct_per_second = of(direct, |report| report.per_second);
    let drumline_per_second = of(drumline, |report| report.per_second);
    Comparison {
        clients,
        direct_per_second,
        drumline_per_second,
        ratio: drumline_per_second / direct_per_second.max(f64::EPSILON),
        direct_p50_ms: of(direct, |report| report.p50_ms),
        drumline_p50_ms: of(drumline, |report| report.p50_ms),
        direct_p99_ms: of(direct, |report| report.p99_ms),
        drumline_p99_ms: of(drumline, |report| report.p99_ms),
        errors: rounds.iter().map(Report::error_count).sum(),
        rounds,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len() % 2, values.get(middle)) {
        (_, None) => 0.0,
        (1, Some(value)) => *value,
        (_, Some(value)) => values[middle - 1].midpoint(*value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(vec![]).abs() < f64::EPSILON);
    }
}
