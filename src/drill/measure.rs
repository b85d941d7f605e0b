//! From what clients and watch saw to the figures of a run. Pure.

use hdrhistogram::Histogram;

use super::load::Sample;
use super::report::{Bucket, Calm, Counts, Outage, Percentiles, Phases, SlowOperation};
use super::timeline::Moments;
use crate::check::history::Outcome;

const BUCKET_US: u32 = 10_000;
/// The longest latency that is told apart from longer ones.
const LATENCY_US_MAX: u64 = 300_000_000;
/// Three digits: an error of at most 0.1%.
const DIGITS: u8 = 3;
/// A machine whose load is later than this before the fault does not carry it: an outage is of
/// the same length, and cannot be told from it.
const CALM_P99_US_MAX: u64 = 250_000;

/// What the clients saw of the fault. Times are microseconds after the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first acknowledgement of a write that was sent when the fault was done, or after its end.
    pub first_ack_us: Option<u32>,
    /// The longest time without an acknowledged write, from the fault until it was taken back and
    /// writes had gone on: from, and to.
    pub outage: (u32, u32),
    /// The longest such time after that. None if writes did not go on.
    pub stall: Option<(u32, u32)>,
}

/// When what is looked at happened, in microseconds after the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    pub fault_us: u32,
    /// The first acknowledgement that counts is of a write that was sent from here on: when the
    /// fault is done, or its end.
    pub sent_from_us: u32,
    /// When the drill began to take the fault back.
    pub heal_us: u32,
    pub end_us: u32,
}

/// Looks for the gaps that begin at the fault at the earliest. What was silent when the fault was
/// taken back and writes had gone on before is silent twice: until then by the fault, from then on
/// by the return.
pub fn gap(samples: &[Sample], course: &Course) -> Gap {
    let Course {
        fault_us,
        sent_from_us,
        heal_us,
        end_us,
    } = *course;
    let writes_done = || acknowledged(samples).filter(|sample| sample.is_write);
    let first_ack_us = writes_done()
        .filter(|sample| sample.sent_us >= sent_from_us)
        .map(|sample| sample.returned_us)
        .min();
    let mut returns: Vec<_> = writes_done()
        .map(|sample| sample.returned_us)
        .filter(|at| *at >= fault_us)
        .collect();
    returns.sort_unstable();
    // The time after the last acknowledgement counts too, as long as somebody waited for another.
    let writes = samples.iter().filter(|sample| sample.is_write);
    let waited = writes.map(|sample| sample.returned_us).max();
    returns.push(match returns.last() {
        None => end_us,
        Some(last) => waited.unwrap_or(0).max(*last),
    });
    let begins = std::iter::once(fault_us).chain(returns.iter().copied());
    let gaps = begins.zip(returns.iter().copied());
    let over_us = first_ack_us.map(|at| at.max(heal_us));
    let until = over_us.unwrap_or(u32::MAX);
    let in_outage = gaps.clone().filter(|(from, _)| *from < until);
    let in_outage = in_outage.map(|(from, to)| (from, to.min(until)));
    let stall = over_us.and_then(|over| {
        let after = gaps.filter(|(_, to)| *to > over);
        longest(after.map(|(from, to)| (from.max(over), to)))
    });
    Gap {
        first_ack_us,
        outage: longest(in_outage).unwrap_or((fault_us, fault_us)),
        stall,
    }
}

fn longest(gaps: impl Iterator<Item = (u32, u32)>) -> Option<(u32, u32)> {
    gaps.max_by_key(|(from, to)| to.saturating_sub(*from))
}

/// Whether the machine carried the load before the fault. What is not answered when the fault
/// comes is as late as it is then.
pub fn calm(samples: &[Sample], fault_us: u32) -> Calm {
    let due = samples.iter().filter(|sample| sample.due_us < fault_us);
    let late = |sample: &Sample| sample.returned_us.min(fault_us) - sample.due_us;
    let mut lates: Vec<u32> = due.map(late).collect();
    lates.sort_unstable();
    let rank = (lates.len() * 99).div_ceil(100).saturating_sub(1);
    let p99_us = lates.get(rank).copied().unwrap_or(0);
    Calm {
        carried: u64::from(p99_us) <= CALM_P99_US_MAX,
        late_p99_ms: millis(p99_us),
    }
}

/// Splits the way to the first acknowledgement. Moments out of order are pulled to the one before: the
/// looks are some milliseconds apart.
pub fn outage(gap: &Gap, origin_us: u32, start_ns: u64, moments: Moments) -> Outage {
    let micros = |ns: Option<u64>| {
        let us = ns?.saturating_sub(start_ns) / 1_000;
        u32::try_from(us).ok()
    };
    let mut last = origin_us;
    let mut span = |at: Option<u32>| {
        // What was seen after the answer was there, was there before it.
        let at = at?
            .max(last)
            .min(gap.first_ack_us.unwrap_or(u32::MAX).max(last));
        let length = at - last;
        last = at;
        Some(millis(length))
    };
    let detect_ms = span(micros(moments.detected_ns));
    let elect_ms = detect_ms.and_then(|_| span(micros(moments.elected_ns)));
    let recover_ms = elect_ms.and_then(|_| span(micros(moments.recovered_ns)));
    let answer_ms = span(gap.first_ack_us);
    Outage {
        from_its_end: false,
        detect_ms,
        elect_ms,
        recover_ms,
        answer_ms,
        first_ack_ms: gap
            .first_ack_us
            .map(|at| millis(at.saturating_sub(origin_us))),
        outage_ms: length(gap.outage),
        outage_at_ms: Some(millis(gap.outage.0)),
        stall_ms: gap.stall.map(length),
        stall_at_ms: gap.stall.map(|(from, _)| millis(from)),
    }
}

fn length((from, to): (u32, u32)) -> f64 {
    millis(to.saturating_sub(from))
}

pub fn counts(samples: &[Sample], unsent: u64) -> Counts {
    let count = |is: &dyn Fn(&&Sample) -> bool| samples.iter().filter(is).count() as u64;
    Counts {
        acknowledged: count(&|sample| sample.outcome == Outcome::Ok),
        failed: count(&|sample| sample.outcome == Outcome::Fail),
        unknown: count(&|sample| sample.outcome == Outcome::Unknown),
        retried: count(&|sample| sample.outcome == Outcome::Ok && sample.retried),
        unsent,
    }
}

pub fn buckets(samples: &[Sample], end_us: u32) -> Vec<Bucket> {
    let last = samples.iter().map(|sample| sample.returned_us).max();
    let last = last.unwrap_or(0).max(end_us) / BUCKET_US;
    let mut buckets = vec![Bucket::default(); last as usize + 1];
    for sample in samples {
        let bucket = &mut buckets[(sample.returned_us / BUCKET_US) as usize];
        match sample.outcome {
            Outcome::Ok => bucket.acknowledged += 1,
            Outcome::Fail => bucket.failed += 1,
            Outcome::Unknown => bucket.unknown += 1,
        }
    }
    buckets
}

/// The slowest acknowledged operation of each bucket that has one.
pub fn slowest(samples: &[Sample]) -> Vec<SlowOperation> {
    let mut slowest: Vec<Option<Sample>> = Vec::new();
    for sample in acknowledged(samples) {
        let at = (sample.returned_us / BUCKET_US) as usize;
        if slowest.len() <= at {
            slowest.resize(at + 1, None);
        }
        let known = slowest[at].map_or(0, latency_us);
        if slowest[at].is_none() || latency_us(*sample) > known {
            slowest[at] = Some(*sample);
        }
    }
    let slowest = slowest.into_iter().flatten();
    slowest
        .map(|sample| SlowOperation {
            at_ms: millis(sample.returned_us),
            latency_ms: millis(latency_us(sample)),
        })
        .collect()
}

/// Latencies of acknowledged operations before the fault, in it, and after it.
pub fn phases(samples: &[Sample], fault_us: u32, gap: &Gap) -> Phases {
    let outage_to = gap.outage.1.max(gap.first_ack_us.unwrap_or(0));
    let due_in_it = acknowledged(samples)
        .filter(|sample| sample.due_us >= fault_us && sample.due_us <= outage_to);
    let during_to = due_in_it.map(|sample| sample.returned_us).max();
    let during_to = during_to.unwrap_or(outage_to);
    let of = |is: &dyn Fn(&Sample) -> bool| {
        percentiles(acknowledged(samples).filter(|sample| is(sample)))
    };
    Phases {
        before: of(&|sample| sample.returned_us < fault_us),
        during: of(&|sample| sample.returned_us >= fault_us && sample.due_us <= during_to),
        after: of(&|sample| sample.returned_us >= fault_us && sample.due_us > during_to),
    }
}

fn percentiles<'a>(samples: impl Iterator<Item = &'a Sample>) -> Percentiles {
    let none = Percentiles {
        count: 0,
        p50_ms: 0.0,
        p90_ms: 0.0,
        p99_ms: 0.0,
        max_ms: 0.0,
    };
    let Ok(mut histogram) = Histogram::<u64>::new_with_bounds(1, LATENCY_US_MAX, DIGITS) else {
        return none;
    };
    for sample in samples {
        histogram.saturating_record(u64::from(latency_us(*sample)));
    }
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
    Percentiles {
        count: histogram.len(),
        p50_ms: at(0.50),
        p90_ms: at(0.90),
        p99_ms: at(0.99),
        max_ms: histogram.max() as f64 / 1_000.0,
    }
}

fn acknowledged(samples: &[Sample]) -> impl Iterator<Item = &Sample> {
    let is_acknowledged = |sample: &&Sample| sample.outcome == Outcome::Ok;
    samples.iter().filter(is_acknowledged)
}

const fn latency_us(sample: Sample) -> u32 {
    sample.returned_us.saturating_sub(sample.due_us)
}

pub fn millis(us: u32) -> f64 {
    f64::from(us) / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const COURSE: Course = Course {
        fault_us: 100_000,
        sent_from_us: 100_000,
        heal_us: 900_000,
        end_us: 1_000_000,
    };

    fn until(end_us: u32) -> Course {
        Course {
            heal_us: end_us,
            end_us,
            ..COURSE
        }
    }

    fn write(due_us: u32, returned_us: u32, outcome: Outcome) -> Sample {
        Sample {
            due_us,
            sent_us: due_us,
            returned_us,
            outcome,
            is_write: true,
            retried: false,
        }
    }

    /// A write each 10 ms, answered after 1 ms; none is answered from 100 to 400 ms.
    fn outage_of_300_ms() -> Vec<Sample> {
        let due = (0..100).map(|number| number * 10_000);
        due.map(|due| {
            let answered = if (100_000..400_000).contains(&due) {
                400_000
            } else {
                due
            };
            write(due, answered + 1_000, Outcome::Ok)
        })
        .collect()
    }

    #[test]
    fn the_gap_begins_at_the_fault_and_ends_with_an_answer() {
        let samples = outage_of_300_ms();
        let gap = gap(&samples, &COURSE);
        assert_eq!(gap.first_ack_us, Some(401_000));
        assert_eq!(gap.outage, (100_000, 401_000));
        let phases = phases(&samples, 100_000, &gap);
        assert_eq!(phases.before.count, 10);
        assert_eq!(
            phases.during.count, 31,
            "30 in the outage, and one due at its end"
        );
        assert_eq!(phases.after.count, 59);
        assert!((phases.during.max_ms - 301.0).abs() < 1.0);
    }

    #[test]
    fn what_stalls_at_the_return_is_no_outage() {
        let answers = [110_000, 300_000, 890_000, 910_000, 1_600_000, 1_610_000];
        let samples = answers.map(|at| write(at - 5_000, at, Outcome::Ok));
        let course = |heal_us| Course { heal_us, ..COURSE };
        let found = gap(&samples, &course(900_000));
        assert_eq!(found.first_ack_us, Some(110_000));
        assert_eq!(found.outage, (300_000, 890_000));
        assert_eq!(found.stall, Some((910_000, 1_600_000)));
        // One gap on both sides of the return is divided by it.
        let found = gap(&samples, &course(1_490_000));
        assert_eq!(found.outage, (300_000, 890_000));
        assert_eq!(found.stall, Some((1_490_000, 1_600_000)));
        let found = gap(&samples, &course(1_590_000));
        assert_eq!(found.outage, (910_000, 1_590_000));
        // Where nothing can be acknowledged before the return, the outage lasts until it is.
        let of_majority = Course {
            sent_from_us: 900_000,
            ..course(900_000)
        };
        let samples = [1_500_000, 1_510_000, 1_600_000].map(|at| write(950_000, at, Outcome::Ok));
        let found = gap(&samples, &of_majority);
        assert_eq!(found.outage, (100_000, 1_500_000));
        assert_eq!(found.stall, Some((1_510_000, 1_600_000)));
        let outage = outage(&found, 900_000, 0, Moments::default());
        assert_eq!(
            (outage.stall_ms, outage.stall_at_ms),
            (Some(90.0), Some(1_510.0))
        );
    }

    #[test]
    fn a_load_that_is_late_before_the_fault_is_not_carried() {
        let of = |took: u32| -> Vec<Sample> {
            let due = (0..100).map(|number| number * 10_000);
            due.map(|due| write(due, due + took, Outcome::Ok)).collect()
        };
        let found = calm(&of(2_000), 900_000);
        assert!(
            found.carried && (found.late_p99_ms - 2.0).abs() < 1e-9,
            "{found:?}"
        );
        let found = calm(&of(400_000), 900_000);
        assert!(
            !found.carried && (found.late_p99_ms - 400.0).abs() < 1e-9,
            "{found:?}"
        );
        // Nothing is answered before the fault: as late as it is then.
        let found = calm(&of(60_000_000), 900_000);
        assert!(
            !found.carried && (found.late_p99_ms - 900.0).abs() < 1e-9,
            "{found:?}"
        );
        assert!(calm(&[], 900_000).carried);
    }

    #[test]
    fn a_write_in_flight_at_the_fault_is_not_the_first_after_it() {
        let samples = [
            write(99_000, 105_000, Outcome::Ok),
            write(110_000, 350_000, Outcome::Ok),
        ];
        let gap = gap(&samples, &until(400_000));
        assert_eq!(gap.first_ack_us, Some(350_000));
        assert_eq!(gap.outage, (105_000, 350_000));
    }

    #[test]
    fn one_answer_does_not_end_an_outage_that_goes_on() {
        let samples = [
            write(110_000, 120_000, Outcome::Ok),
            write(130_000, 800_000, Outcome::Unknown),
        ];
        let gap = gap(&samples, &until(900_000));
        assert_eq!(gap.outage, (120_000, 800_000));
    }

    #[test]
    fn without_any_answer_the_outage_lasts_to_the_end() {
        let samples = [write(150_000, 190_000, Outcome::Unknown)];
        let gap = gap(&samples, &until(900_000));
        assert_eq!((gap.first_ack_us, gap.outage), (None, (100_000, 900_000)));
        assert_eq!(gap.stall, None);
        let outage = outage(&gap, 100_000, 0, Moments::default());
        assert_eq!((outage.first_ack_ms, outage.answer_ms), (None, None));
    }

    #[test]
    fn the_spans_of_an_outage_add_up() {
        let gap = gap(&outage_of_300_ms(), &COURSE);
        let moments = Moments {
            detected_ns: Some(200_000_000),
            elected_ns: Some(250_000_000),
            // The look that saw the commit came after the answer.
            recovered_ns: Some(405_000_000),
        };
        let outage = outage(&gap, 100_000, 0, moments);
        assert_eq!(
            [
                outage.detect_ms,
                outage.elect_ms,
                outage.recover_ms,
                outage.answer_ms
            ],
            [Some(100.0), Some(50.0), Some(151.0), Some(0.0)]
        );
        assert_eq!(outage.first_ack_ms, Some(301.0));
    }

    #[test]
    fn what_could_not_be_seen_is_null_and_the_rest_still_adds_up() {
        let gap = gap(&outage_of_300_ms(), &COURSE);
        let moments = Moments {
            detected_ns: Some(200_000_000),
            elected_ns: None,
            recovered_ns: Some(300_000_000),
        };
        let outage = outage(&gap, 100_000, 0, moments);
        assert_eq!(
            [
                outage.detect_ms,
                outage.elect_ms,
                outage.recover_ms,
                outage.answer_ms
            ],
            [Some(100.0), None, None, Some(201.0)]
        );
    }

    #[test]
    fn a_bucket_without_an_answer_is_empty_and_none_is_missing() {
        let buckets = buckets(&outage_of_300_ms(), 1_100_000);
        assert_eq!(buckets.len(), 111);
        assert_eq!(buckets[10].acknowledged, 0);
        assert_eq!(buckets[40].acknowledged, 31);
        assert_eq!(buckets.iter().map(|b| b.acknowledged).sum::<u32>(), 100);
        assert_eq!(slowest(&outage_of_300_ms()).len(), 70);
    }
}
