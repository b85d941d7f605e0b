//! Buckets of 10 ms as at most so many columns, in which nothing that went wrong is lost.

use super::axis::Window;
use crate::drill::report::{Bucket, SlowOperation};
use crate::drill::stats::whole;

const BUCKET_MS: f64 = 10.0;
/// A column is two units wide at least.
pub const COLUMNS_MAX: usize = 414;

/// Some buckets that stand next to each other.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Column {
    pub from_ms: f64,
    pub to_ms: f64,
    /// The bucket with the fewest: a gap of one bucket shows.
    pub acknowledged_least: u32,
    pub acknowledged_most: u32,
    /// The bucket with the most.
    pub failed: u32,
    pub unknown: u32,
}

/// The columns of a window.
pub fn columns(buckets: &[Bucket], window: &Window) -> Vec<Column> {
    let first = whole((window.from / BUCKET_MS).floor()).min(buckets.len());
    let end = whole((window.to / BUCKET_MS).ceil()).clamp(first, buckets.len());
    let shown = &buckets[first..end];
    let each = shown.len().div_ceil(COLUMNS_MAX).max(1);
    let column = |(index, group): (usize, &[Bucket])| {
        let from = first + index * each;
        let most = |of: fn(&Bucket) -> u32| group.iter().map(of).max().unwrap_or(0);
        Column {
            from_ms: from as f64 * BUCKET_MS,
            to_ms: (from + group.len()) as f64 * BUCKET_MS,
            acknowledged_least: group.iter().map(|b| b.acknowledged).min().unwrap_or(0),
            acknowledged_most: most(|b| b.acknowledged),
            failed: most(|b| b.failed),
            unknown: most(|b| b.unknown),
        }
    };
    shown.chunks(each).enumerate().map(column).collect()
}

/// Of the samples that would stand in one column, the slowest.
pub fn slowest(samples: &[SlowOperation], window: &Window) -> Vec<SlowOperation> {
    let mut kept: Vec<Option<&SlowOperation>> = vec![None; COLUMNS_MAX + 1];
    let length = window.to - window.from;
    let good =
        |sample: &&SlowOperation| window.holds(sample.at_ms) && sample.latency_ms.is_finite();
    for sample in samples.iter().filter(good) {
        let place = whole((sample.at_ms - window.from) / length * COLUMNS_MAX as f64);
        let place = &mut kept[place.min(COLUMNS_MAX)];
        if place.is_none_or(|other| other.latency_ms < sample.latency_ms) {
            *place = Some(sample);
        }
    }
    kept.into_iter().flatten().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(to: f64) -> Window {
        Window {
            from: 0.0,
            to,
            zero: 0.0,
        }
    }

    fn bucket(acknowledged: u32, failed: u32, unknown: u32) -> Bucket {
        Bucket {
            acknowledged,
            failed,
            unknown,
        }
    }

    #[test]
    fn few_buckets_are_columns_of_their_own() {
        let buckets = [bucket(3, 0, 0), bucket(0, 1, 2), bucket(4, 0, 0)];
        let found = columns(&buckets, &window(25.0));
        assert_eq!(found.len(), 3);
        assert_eq!((found[1].from_ms, found[1].to_ms), (10.0, 20.0));
        assert_eq!(
            (found[1].acknowledged_least, found[1].acknowledged_most),
            (0, 0)
        );
        assert_eq!((found[1].failed, found[1].unknown), (1, 2));
        let part = Window {
            from: 10.0,
            to: 20.0,
            zero: 0.0,
        };
        assert_eq!(columns(&buckets, &part), [found[1]]);
        assert_eq!(columns(&buckets, &window(9e9)).len(), 3);
        assert!(columns(&[], &window(100.0)).is_empty());
    }

    #[test]
    fn in_an_hour_each_gap_and_each_failure_shows() {
        let mut buckets = vec![bucket(4, 0, 0); 360_000];
        for odd in [0, 1_234, 77_777, 359_999] {
            buckets[odd] = bucket(0, 1, 0);
            buckets[odd / 2 + 5] = bucket(4, 0, 7);
        }
        let found = columns(&buckets, &window(3_600_000.0));
        assert!(found.len() <= COLUMNS_MAX);
        for (index, bucket) in buckets.iter().enumerate() {
            let at = index as f64 * 10.0;
            let column = found
                .iter()
                .find(|c| c.from_ms <= at && at < c.to_ms)
                .unwrap();
            assert!(column.failed >= bucket.failed && column.unknown >= bucket.unknown);
            assert!(column.acknowledged_least <= bucket.acknowledged);
            if index % 1_000 != 0 && bucket.acknowledged != 0 {
                continue;
            }
            assert!(column.acknowledged_most >= bucket.acknowledged);
        }
    }

    #[test]
    fn of_many_samples_the_slowest_stay() {
        let sample = |n: usize| SlowOperation {
            at_ms: n as f64,
            latency_ms: if n == 50_123 { 900.0 } else { 2.0 },
        };
        let samples: Vec<SlowOperation> = (0..100_000).map(sample).collect();
        let kept = slowest(&samples, &window(100_000.0));
        assert!(kept.len() <= COLUMNS_MAX + 1);
        assert!(kept.contains(&samples[50_123]));
        let odd = [
            SlowOperation {
                at_ms: f64::NAN,
                latency_ms: 1.0,
            },
            SlowOperation {
                at_ms: 5.0,
                latency_ms: f64::NAN,
            },
        ];
        assert!(slowest(&odd, &window(10.0)).is_empty());
    }
}
