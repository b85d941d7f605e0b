//! Time and counts to places on the drawing. Every place lies within it, whatever the numbers are.

use crate::drill::report::Run;

/// The drawing is so many units wide; a unit is a pixel on a page of full width.
pub const WIDTH: f64 = 1_000.0;
/// Left of it stand the names.
pub const LEFT: f64 = 160.0;
pub const RIGHT: f64 = 988.0;

/// Before the fault and after the first acknowledgement, as the zoom shows it.
const ZOOM_BEFORE_MS: f64 = 1_000.0;
const ZOOM_AFTER_MS: f64 = 2_000.0;
const BUCKET_MS: f64 = 10.0;

/// A part of a run, and where its times stand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    pub from: f64,
    pub to: f64,
    /// The time that is called zero.
    pub zero: f64,
}

impl Window {
    pub fn whole(run: &Run) -> Self {
        Self {
            from: 0.0,
            to: length(run),
            zero: fault_from(run).unwrap_or(0.0),
        }
    }

    /// The fault and what came of it. None if that cannot be told from the whole.
    pub fn zoom(run: &Run) -> Option<Self> {
        let fault = fault_from(run)?;
        let over = first_ack_at(run).unwrap_or(fault + finite(run.outage.outage_ms)?);
        let from = (fault - ZOOM_BEFORE_MS).max(0.0);
        let to = (over + ZOOM_AFTER_MS).min(length(run));
        let is_part = from < to && to - from < length(run);
        is_part.then_some(Self {
            from,
            to,
            zero: fault,
        })
    }

    /// A time that is outside stands at the edge.
    pub fn x(&self, at_ms: f64) -> f64 {
        let part = (at_ms - self.from) / (self.to - self.from);
        let part = if part.is_nan() {
            0.0
        } else {
            part.clamp(0.0, 1.0)
        };
        LEFT + part * (RIGHT - LEFT)
    }

    pub fn holds(&self, at_ms: f64) -> bool {
        (self.from..=self.to).contains(&at_ms)
    }

    /// Times at round distances from zero, at most about ten.
    pub fn ticks(&self) -> Vec<f64> {
        const TICKS_MAX: f64 = 10.0;
        let length = self.to - self.from;
        let least = length / TICKS_MAX;
        let power = 10_f64.powf(least.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
        let step = steps
            .into_iter()
            .find(|step| *step >= least)
            .unwrap_or(length);
        let first = ((self.from - self.zero) / step).ceil();
        let ticks = (0..=12).map(|index| self.zero + (first + f64::from(index)) * step);
        ticks.filter(|at| self.holds(*at)).collect()
    }

    /// `+0.5 s` from zero.
    pub fn told(&self, at_ms: f64) -> String {
        let seconds = (at_ms - self.zero) / 1_000.0;
        if seconds.abs() < 0.000_5 {
            return "0 s".into();
        }
        let text = format!("{seconds:+.3}");
        format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// What a log axis spans, in whole powers of ten of a millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decades {
    pub least: i32,
    pub most: i32,
}

impl Decades {
    /// From 10 µs to a day.
    const LEAST: f64 = -2.0;
    const MOST: f64 = 8.0;

    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let logs = values.filter(|value| value.is_finite()).map(log);
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for log in logs {
            least = least.min(log);
            most = most.max(log);
        }
        if least > most {
            (least, most) = (0.0, 1.0);
        }
        let least = small(least.floor().min(Self::MOST - 1.0));
        Self {
            least,
            most: small(most.ceil()).max(least + 1),
        }
    }

    /// Its place from 0 to 1.
    pub fn part(&self, value_ms: f64) -> f64 {
        let span = f64::from(self.most - self.least);
        ((log(value_ms) - f64::from(self.least)) / span).clamp(0.0, 1.0)
    }

    /// Each power of ten, and its name.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let tick = |power: i32| {
            let value = 10_f64.powi(power);
            let name = match power {
                ..=-3 => format!("{} µs", value * 1_000.0),
                -2..=2 => format!("{value} ms"),
                _ => format!("{} s", value / 1_000.0),
            };
            (value, name)
        };
        (self.least..=self.most).map(tick).collect()
    }
}

fn log(value_ms: f64) -> f64 {
    let log = value_ms.max(0.0).log10();
    log.clamp(Decades::LEAST, Decades::MOST)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "it lies between LEAST and MOST"
)]
fn small(log: f64) -> i32 {
    log as i32
}

pub fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Within the run.
pub fn fault_from(run: &Run) -> Option<f64> {
    finite(run.fault_from_ms).filter(|at| (0.0..=length(run)).contains(at))
}

/// From where the parts of the outage are counted.
pub fn outage_from(run: &Run) -> Option<f64> {
    let fault = fault_from(run)?;
    if !run.outage.from_its_end {
        return Some(fault);
    }
    finite(run.fault_to_ms).filter(|at| (fault..=length(run)).contains(at))
}

pub fn first_ack_at(run: &Run) -> Option<f64> {
    let after = run.outage.first_ack_ms.and_then(finite)?;
    outage_from(run).map(|from| from + after.max(0.0))
}

/// Never nothing.
pub fn length(run: &Run) -> f64 {
    let counted = run.buckets.len() as f64 * BUCKET_MS;
    finite(run.length_ms)
        .unwrap_or(0.0)
        .max(counted)
        .max(BUCKET_MS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::example;

    #[test]
    fn times_stand_between_the_edges() {
        let window = Window {
            from: 1_000.0,
            to: 3_000.0,
            zero: 2_000.0,
        };
        assert_eq!(window.x(1_000.0), LEFT);
        assert_eq!(window.x(3_000.0), RIGHT);
        assert_eq!(window.x(2_000.0), f64::midpoint(LEFT, RIGHT));
        for outside in [f64::NAN, f64::NEG_INFINITY, -5.0] {
            assert_eq!(window.x(outside), LEFT);
        }
        assert_eq!(window.x(f64::INFINITY), RIGHT);
    }

    #[test]
    fn the_zoom_is_the_fault_and_what_came_of_it() {
        let mut run = example::runs(1).runs.remove(0);
        run.buckets.truncate(1_200);
        run.length_ms = 12_000.0;
        (run.fault_from_ms, run.outage.first_ack_ms) = (4_000.0, Some(120.0));
        let zoom = Window::zoom(&run).unwrap();
        assert_eq!((zoom.from, zoom.to, zoom.zero), (3_000.0, 6_120.0, 4_000.0));
        assert_eq!(Window::whole(&run).to, 12_000.0);

        // Never over: the outage says how long it was looked at.
        (run.outage.first_ack_ms, run.outage.outage_ms) = (None, 7_500.0);
        assert_eq!(Window::zoom(&run).unwrap().to, 12_000.0);
        // Nothing can be acknowledged before the fault's end, and so it counts from there.
        (run.outage.from_its_end, run.fault_to_ms) = (true, 7_000.0);
        run.outage.first_ack_ms = Some(250.0);
        let zoom = Window::zoom(&run).unwrap();
        assert_eq!((zoom.from, zoom.to, zoom.zero), (3_000.0, 9_250.0, 4_000.0));
        run.outage.from_its_end = false;

        run.fault_from_ms = 500.0;
        run.outage.first_ack_ms = Some(10_000.0);
        assert_eq!(Window::zoom(&run), None, "it is the whole run");
        run.fault_from_ms = f64::NAN;
        assert_eq!(Window::zoom(&run), None);
    }

    #[test]
    fn ticks_are_round_and_few() {
        let window = Window {
            from: 3_000.0,
            to: 6_120.0,
            zero: 4_000.0,
        };
        let told: Vec<String> = window.ticks().iter().map(|at| window.told(*at)).collect();
        assert_eq!(
            told,
            ["-1 s", "-0.5 s", "0 s", "+0.5 s", "+1 s", "+1.5 s", "+2 s"]
        );
        for length in [10.0, 11.0, 99.0, 1_234.0, 86_400_000.0] {
            let count = Window {
                from: 0.0,
                to: length,
                zero: 0.0,
            }
            .ticks()
            .len();
            assert!((4..=11).contains(&count), "{length}: {count}");
        }
    }

    #[test]
    fn a_log_axis_holds_whole_decades() {
        let decades = Decades::of([2.4, 118.0].into_iter());
        assert_eq!(decades, Decades { least: 0, most: 3 });
        assert_eq!(decades.part(1.0), 0.0);
        assert_eq!(decades.part(1_000.0), 1.0);
        assert!((decades.part(10.0) - 1.0 / 3.0).abs() < 1e-9);
        let names: Vec<String> = decades.ticks().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["1 ms", "10 ms", "100 ms", "1 s"]);
        assert_eq!(
            Decades::of(std::iter::empty()),
            Decades { least: 0, most: 1 }
        );
        let odd = Decades::of([f64::NAN, -1.0, 0.0, 1e300].into_iter());
        assert_eq!(odd, Decades { least: -2, most: 8 });
        assert!((0.0..=1.0).contains(&odd.part(f64::INFINITY)));
        assert_eq!(
            Decades::of([1e300].into_iter()),
            Decades { least: 7, most: 8 }
        );
    }
}
