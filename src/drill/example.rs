//! Reports that could be true, for tests and for the eye.

use std::collections::BTreeMap;

use super::report::*;
use super::{slo, stats};

const HOSTS: [&str; 3] = ["127.0.0.1:7411", "127.0.0.1:7412", "127.0.0.1:7413"];
const CALM_MS: f64 = 8_000.0;

/// A few pseudo-random numbers (splitmix64), the same for the same seed.
struct Dice(u64);

impl Dice {
    /// From 0 to 1.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64
    }
}

/// A primary killed so many times; all is well.
pub fn runs(count: usize) -> Report {
    let map = |pairs: &[(&str, &str)]| {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(pair).collect::<BTreeMap<_, _>>()
    };
    let runs: Vec<Run> = (1..=count).map(run).collect();
    let mut report = Report {
        versions: map(&[
            ("drumline", env!("CARGO_PKG_VERSION")),
            ("mongodb", "6.0.5"),
        ]),
        fault: "kill".into(),
        direct: false,
        target: "a throw-away cluster of 3 members and 3 nodes on this machine".into(),
        started_at: "2026-01-31T12:00:00Z".into(),
        seed: 42,
        command: format!("drumline drill kill --runs {count} --seed 42 --clients 32 --rate 400"),
        settings: map(&[
            ("clients", "32"),
            ("rate", "400/s"),
            ("length of a run", "12 s"),
            ("electionTimeoutMillis", "10000"),
        ]),
        distributions: stats::distributions(&runs),
        runs,
        verdict: checks(count),
    };
    let slo = slo::parse("outage=1.5s,loss=0").unwrap();
    let judged = slo::judge(&report, &slo);
    report.verdict.extend(judged);
    report
}

fn checks(runs: usize) -> Vec<Verdict> {
    let operations = stats::count(runs as u64 * 4_760);
    let check = |name: &str| Verdict {
        name: name.into(),
        holds: true,
        detail: format!("{operations} operations"),
    };
    let names = [
        slo::NOT_LOST,
        slo::NOT_DOUBLED,
        slo::NOT_REORDERED,
        "real time respected (I6)",
    ];
    names.map(check).into()
}

fn run(number: usize) -> Run {
    let mut dice = Dice(number as u64);
    let slow = if number % 9 == 4 { 600.0 } else { 0.0 };
    let parts = [
        5.0 + dice.roll() * 20.0,
        30.0 + dice.roll() * 60.0 + slow,
        8.0 + dice.roll() * 30.0,
        0.8 + dice.roll() * 3.0,
    ];
    run_of(number, parts, &mut dice)
}

fn run_of(number: usize, parts: [f64; 4], dice: &mut Dice) -> Run {
    let fault = 4_000.0 + (dice.roll() * 900.0).round();
    let first_ack: f64 = parts.iter().sum();
    let (buckets, slowest) = load(dice, fault, fault + first_ack);
    let end = buckets.len() as f64 * 10.0;
    let phase = |p50: f64, p99: f64, count| Percentiles {
        count,
        p50_ms: p50,
        p90_ms: p50 * 1.6,
        p99_ms: p99,
        max_ms: p99 * 1.3,
    };
    let count = |of: fn(&Bucket) -> u32| buckets.iter().map(|b| u64::from(of(b))).sum();
    Run {
        number,
        seed: 42 + number as u64,
        length_ms: end,
        fault_from_ms: fault,
        fault_to_ms: fault + 3_000.0,
        victims: vec![HOSTS[0].into()],
        confirmation: Confirmation {
            verdict: Confirmed::Confirmed,
            evidence: vec![
                format!("before: {} is primary, term 3, pid 4711 runs", HOSTS[0]),
                "during: pid 4711 is gone, connections are refused".into(),
                format!("after: {} is primary, term 4", HOSTS[1]),
            ],
        },
        calm: Some(Calm {
            carried: true,
            late_p99_ms: 6.8,
        }),
        outage: Outage {
            from_its_end: false,
            detect_ms: Some(parts[0]),
            elect_ms: Some(parts[1]),
            recover_ms: Some(parts[2]),
            answer_ms: Some(parts[3]),
            first_ack_ms: Some(first_ack),
            outage_ms: first_ack + 1.5,
            outage_at_ms: Some(fault),
            stall_ms: Some(41.0),
            stall_at_ms: Some(fault + 3_600.0),
        },
        counts: Counts {
            acknowledged: count(|b| b.acknowledged),
            failed: count(|b| b.failed),
            unknown: count(|b| b.unknown),
            retried: 31,
            unsent: 0,
        },
        latency: Phases {
            before: phase(2.4, 6.8, 1_650),
            during: phase(first_ack * 0.5, first_ack, 34),
            after: phase(2.6, 9.1, 2_970),
        },
        slowest,
        members: members(fault, fault + parts[0] + parts[1], fault + 3_000.0, end),
        nodes: nodes(end),
        checks: checks(1),
        buckets,
    }
}

fn load(dice: &mut Dice, from: f64, to: f64) -> (Vec<Bucket>, Vec<SlowOperation>) {
    let mut buckets = vec![Bucket::default(); stats::whole((to + CALM_MS) / 10.0)];
    let mut slowest = Vec::new();
    for (index, bucket) in buckets.iter_mut().enumerate() {
        let at = index as f64 * 10.0;
        if at + 10.0 > from && at < to {
            continue;
        }
        let after = at - to;
        let backlog = (0.0..60.0).contains(&after);
        bucket.acknowledged = if backlog {
            9
        } else {
            3 + u32::from(dice.roll() > 0.4) + u32::from(dice.roll() > 0.8)
        };
        bucket.unknown = u32::from((0.0..10.0).contains(&after));
        let waited = if backlog {
            (to - from) * (1.0 - after / 70.0)
        } else {
            0.0
        };
        slowest.push(SlowOperation {
            at_ms: at + 6.0,
            latency_ms: 1.6 + dice.roll() * dice.roll() * 7.0 + waited,
        });
    }
    (buckets, slowest)
}

fn members(fault: f64, elected: f64, back: f64, end: f64) -> Vec<Lane> {
    let lane = |name: &str, spans: &[(f64, f64, &str, Option<i64>)]| {
        let span = |(from, to, state, term): &(f64, f64, &str, Option<i64>)| Span {
            from_ms: stats::whole(*from) as u64,
            to_ms: stats::whole(*to) as u64,
            state: (*state).into(),
            term: *term,
        };
        Lane {
            name: name.into(),
            spans: spans.iter().map(span).collect(),
        }
    };
    let up = (back + 700.0).min(end);
    vec![
        lane(
            HOSTS[0],
            &[
                (0.0, fault, "primary", Some(3)),
                (fault, back, "down", None),
                (back, up, "recovering", Some(4)),
                (up, end, "secondary", Some(4)),
            ],
        ),
        lane(
            HOSTS[1],
            &[
                (0.0, elected, "secondary", Some(3)),
                (elected, end, "primary", Some(4)),
            ],
        ),
        lane(
            HOSTS[2],
            &[
                (0.0, elected, "secondary", Some(3)),
                (elected, end, "secondary", Some(4)),
            ],
        ),
    ]
}

fn nodes(end: f64) -> Vec<Lane> {
    let lane = |(name, state): (&str, &str)| Lane {
        name: name.into(),
        spans: vec![Span {
            from_ms: 0,
            to_ms: stats::whole(end) as u64,
            state: state.into(),
            term: None,
        }],
    };
    [
        ("n1", "coordinator"),
        ("n2", "follower"),
        ("n3", "follower"),
    ]
    .map(lane)
    .into()
}

/// The plain driver, which waits for MongoDB's own election; some operations fail, and one is lost.
pub fn plain() -> Report {
    let mut report = runs(1);
    let mut run = run_of(1, [10_012.0, 1_890.0, 180.0, 2.0], &mut Dice(7));
    run.fault_to_ms = run.length_ms;
    for (index, bucket) in run.buckets.iter_mut().enumerate() {
        let after = index as f64 * 10.0 - run.fault_from_ms;
        if (0.0..1_000.0).contains(&after) && index % 9 == 0 {
            bucket.failed = 2;
            run.counts.failed += 2;
        }
    }
    run.nodes.clear();
    run.checks[0] = Verdict {
        name: slo::NOT_LOST.into(),
        holds: false,
        detail:
            "insert of key 1042 was acknowledged in line 1688; the read in line 9120 shows nothing"
                .into(),
    };
    report.direct = true;
    report.verdict = run.checks.clone();
    report.runs = vec![run];
    report.distributions = stats::distributions(&report.runs);
    let slo = slo::parse("outage=1.5s,errors=0").unwrap();
    let judged = slo::judge(&report, &slo);
    report.verdict.extend(judged);
    report
}

/// Every text tries to leave its place, and every number that may be none is none.
pub fn hostile() -> Report {
    const TEXT: &str =
        "</title></script><script>alert(1)</script>\"'><img src=x onerror=a&b;\u{1b}[2J\n\u{202e}";
    let text = || TEXT.to_owned();
    let mut report = runs(2);
    for place in [
        &mut report.fault,
        &mut report.target,
        &mut report.started_at,
        &mut report.command,
    ] {
        *place = text();
    }
    report.versions.insert(text(), text());
    report.settings.insert(text(), text());
    report.distributions.insert(
        text(),
        Distribution {
            runs: 0,
            p50: f64::NAN,
            p95: f64::INFINITY,
            max: -1.0,
        },
    );
    for verdict in report
        .verdict
        .iter_mut()
        .chain(report.runs.iter_mut().flat_map(|run| &mut run.checks))
    {
        (verdict.name, verdict.detail, verdict.holds) = (text(), text(), false);
    }
    let run = &mut report.runs[0];
    run.victims = vec![text()];
    run.confirmation.evidence = vec![text()];
    run.outage = Outage {
        from_its_end: false,
        detect_ms: None,
        elect_ms: Some(f64::NAN),
        recover_ms: Some(-3.0),
        answer_ms: None,
        first_ack_ms: None,
        outage_ms: f64::INFINITY,
        outage_at_ms: Some(f64::NAN),
        stall_ms: Some(f64::INFINITY),
        stall_at_ms: Some(-1.0),
    };
    run.fault_from_ms = f64::NAN;
    run.fault_to_ms = -1.0;
    run.latency.during.p99_ms = f64::NAN;
    run.slowest[0] = SlowOperation {
        at_ms: f64::NAN,
        latency_ms: 0.0,
    };
    run.slowest[1] = SlowOperation {
        at_ms: 1e300,
        latency_ms: f64::INFINITY,
    };
    for lane in run.members.iter_mut().chain(&mut run.nodes) {
        lane.name = text();
        for span in &mut lane.spans {
            span.state = text();
            (span.from_ms, span.to_ms) = (span.to_ms, span.from_ms);
        }
    }
    report
}
