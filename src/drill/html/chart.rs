//! A run on one time axis: the load, the outage, a lane a member and a node, the latency.

use super::axis::{Decades, LEFT, RIGHT, WIDTH, Window, fault_from, finite, first_ack_at};
use super::columns::{Column, columns, slowest};
use super::lanes;
use super::svg::{Anchor, Drawing};
use crate::drill::report::Run;
use crate::drill::stats::{KINDS, count, ms};

/// Acknowledged ones stand on the base line, others hang from it.
const LOAD_TOP: f64 = 56.0;
const BASE: f64 = 186.0;
const WRONG_BOTTOM: f64 = 222.0;
const LANES_TOP: f64 = 230.0;
const LATENCY_HEIGHT: f64 = 130.0;
const AXIS_HEIGHT: f64 = 34.0;
/// What went wrong once in a long run is still seen.
const MARK_HEIGHT_MIN: f64 = 4.0;
const MARK_WIDTH_MIN: f64 = 2.0;
/// Bars that are wider have a gap between them.
const GAP_FROM: f64 = 4.0;

/// The drawing of one window of a run. The id is unique in the page.
pub fn svg(run: &Run, fault: &str, window: &Window, id: &str) -> String {
    let lanes = lanes::rows(run);
    let lanes_bottom = LANES_TOP + lanes::height(&lanes);
    let latency_top = lanes_bottom + 18.0;
    let bottom = latency_top + LATENCY_HEIGHT;

    let mut drawing = Drawing::default();
    shade(&mut drawing, run, window, bottom);
    grid(&mut drawing, window, bottom);
    marks(&mut drawing, run, fault, window, bottom);
    load(&mut drawing, run, window);
    lanes::draw(&mut drawing, &lanes, window, LANES_TOP);
    latency(&mut drawing, run, window, [latency_top, bottom]);

    let title = format!("Run {} over time: {fault}", run.number);
    let size = [WIDTH, bottom + AXIS_HEIGHT];
    drawing.finish(id, size, &title, &in_words(run, window))
}

/// The fault's time, behind everything else.
fn shade(drawing: &mut Drawing, run: &Run, window: &Window, bottom: f64) {
    let Some([x0, x1]) = shaded(run, window) else {
        return;
    };
    drawing.rect(
        "fault",
        [x0, x1],
        [LOAD_TOP, bottom],
        "while the fault was in place",
    );
}

/// From the fault until it was taken back, as far as the window shows it.
fn shaded(run: &Run, window: &Window) -> Option<[f64; 2]> {
    let from = fault_from(run)?;
    let to = finite(run.fault_to_ms).filter(|to| *to >= from)?;
    (from <= window.to && to >= window.from).then(|| [window.x(from), window.x(to)])
}

/// Lines with a word, each in a row of its own: they may stand close together.
fn marks(drawing: &mut Drawing, run: &Run, fault: &str, window: &Window, bottom: f64) {
    let mut mark = |class: &str, at: Option<f64>, y: f64, word: &str| {
        let Some(x) = at.filter(|at| window.holds(*at)).map(|at| window.x(at)) else {
            return;
        };
        drawing.line(class, [x, x], [y - 8.0, bottom]);
        // To the side that has more room.
        if x < f64::midpoint(LEFT, RIGHT) {
            drawing.text("word", x + 5.0, y, Anchor::Start, word, RIGHT - x - 5.0);
        } else {
            drawing.text("word", x - 5.0, y, Anchor::End, word, x - 5.0 - LEFT);
        }
    };
    let victims = run.victims.join(", ");
    mark(
        "fault-line",
        fault_from(run),
        14.0,
        &format!("{fault} {victims}"),
    );
    if let Some(after) = run.outage.first_ack_ms.and_then(finite) {
        let word = format!("first acknowledgement {} later", ms(after.max(0.0)));
        mark("ack-line", first_ack_at(run), 30.0, &word);
    }
    let back = finite(run.fault_to_ms).filter(|at| *at > window.from && *at < window.to);
    mark("fault-line", back, 46.0, "the fault is taken back");
}

fn grid(drawing: &mut Drawing, window: &Window, bottom: f64) {
    for at in window.ticks() {
        let x = window.x(at);
        drawing.line("grid", [x, x], [LOAD_TOP, bottom]);
        let half = 30.0;
        let middle = x.clamp(LEFT + half, RIGHT - half);
        let word = window.told(at);
        drawing.text(
            "tick",
            middle,
            bottom + 15.0,
            Anchor::Middle,
            &word,
            2.0 * half,
        );
    }
    drawing.line("axis", [LEFT, RIGHT], [bottom, bottom]);
    let middle = f64::midpoint(LEFT, RIGHT);
    let word = "time from the fault";
    drawing.text(
        "tick",
        middle,
        bottom + 30.0,
        Anchor::Middle,
        word,
        RIGHT - LEFT,
    );
}

fn load(drawing: &mut Drawing, run: &Run, window: &Window) {
    let columns = columns(&run.buckets, window);
    let most = columns
        .iter()
        .map(|c| c.acknowledged_most)
        .max()
        .unwrap_or(0)
        .max(1);
    let wrong = |c: &Column| c.failed.saturating_add(c.unknown);
    let most_wrong = columns.iter().map(wrong).max().unwrap_or(0);

    let name = |drawing: &mut Drawing, y: f64, text: &str| {
        drawing.text("name", LEFT - 8.0, y, Anchor::End, text, LEFT - 8.0);
    };
    name(
        drawing,
        LOAD_TOP + 10.0,
        &format!("{} in 10 ms", count(most.into())),
    );
    name(drawing, f64::midpoint(LOAD_TOP, BASE) + 4.0, "acknowledged");
    name(drawing, BASE + 14.0, "failed, unknown");
    let said = match most_wrong {
        0 => "none here".into(),
        most => format!("{} in 10 ms", count(most.into())),
    };
    name(drawing, WRONG_BOTTOM, &said);

    let mut least = Vec::new();
    let mut rest = Vec::new();
    let mut failed = Vec::new();
    let mut unknown = Vec::new();
    for column in &columns {
        let x = bar_x(column, window);
        let [low, high] = [column.acknowledged_least, column.acknowledged_most]
            .map(|count| BASE - height(count, most, BASE - LOAD_TOP));
        if low < BASE {
            least.push((x, [low, BASE]));
        }
        if high < low {
            rest.push((x, [high, low]));
        }
        let mut y = BASE;
        let x = [x[0], x[1].max(x[0] + MARK_WIDTH_MIN).min(RIGHT)];
        for (count, bars) in [(column.failed, &mut failed), (column.unknown, &mut unknown)] {
            if count > 0 {
                let long = height(count, most_wrong, WRONG_BOTTOM - BASE).max(MARK_HEIGHT_MIN);
                let to = (y + long).min(WRONG_BOTTOM);
                bars.push((x, [to - long, to]));
                y = to;
            }
        }
    }
    drawing.bars("acknowledged", &least);
    drawing.bars("acknowledged some", &rest);
    drawing.bars("failed", &failed);
    drawing.bars("unknown", &unknown);
    drawing.line("axis", [LEFT, RIGHT], [BASE, BASE]);
}

fn bar_x(column: &Column, window: &Window) -> [f64; 2] {
    let (x0, x1) = (window.x(column.from_ms), window.x(column.to_ms));
    let gap = if x1 - x0 >= GAP_FROM { 1.0 } else { 0.0 };
    [x0, x1 - gap]
}

fn height(count: u32, most: u32, room: f64) -> f64 {
    f64::from(count) / f64::from(most.max(1)) * room
}

fn latency(drawing: &mut Drawing, run: &Run, window: &Window, [top, bottom]: [f64; 2]) {
    let samples = slowest(&run.slowest, window);
    let decades = Decades::of(samples.iter().map(|sample| sample.latency_ms));
    let y = |value: f64| bottom - decades.part(value) * (bottom - top);
    for (value, name) in decades.ticks() {
        let y = y(value);
        drawing.line("grid", [LEFT, RIGHT], [y, y]);
        drawing.text("tick", LEFT - 8.0, y + 4.0, Anchor::End, &name, 60.0);
    }
    let middle = f64::midpoint(top, bottom);
    drawing.text("name", 4.0, middle, Anchor::Start, "slowest of", 90.0);
    drawing.text(
        "name",
        4.0,
        middle + 14.0,
        Anchor::Start,
        "each 10 ms",
        90.0,
    );
    let place = |sample: &crate::drill::report::SlowOperation| {
        (window.x(sample.at_ms), y(sample.latency_ms))
    };
    drawing.dots("sample", &samples.iter().map(place).collect::<Vec<_>>());
}

/// What the drawing shows, for those who do not see it.
fn in_words(run: &Run, window: &Window) -> String {
    let mut said = vec![format!(
        "From {} to {} of the fault.",
        window.told(window.from),
        window.told(window.to)
    )];
    let totals = KINDS.map(|kind| format!("{} {}", count((kind.of)(&run.counts)), kind.name));
    said.push(format!("The run has {} operations.", totals.join(", ")));
    for (figure, [from, to]) in lanes::gaps(run).into_iter().flatten() {
        let (from, to) = (window.told(from), window.told(to));
        let name = figure.name;
        said.push(format!(
            "No write was acknowledged from {from} to {to} ({name})."
        ));
    }
    if let Some(after) = run.outage.first_ack_ms.and_then(finite) {
        let since = match run.outage.from_its_end {
            true => "the fault's end",
            false => "the fault",
        };
        said.push(format!(
            "The first write after {since} was acknowledged {} later.",
            ms(after)
        ));
    }
    said.extend(lanes::in_words(run, window));
    said.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::example;
    use crate::drill::html::svg::places;
    use crate::drill::report::{Bucket, Report};

    fn run() -> Run {
        let mut run = example::runs(1).runs.remove(0);
        run.fault_from_ms = 4_000.0;
        run.fault_to_ms = 7_000.0;
        run.outage.first_ack_ms = Some(100.0);
        (run.outage.outage_at_ms, run.outage.outage_ms) = (Some(4_000.0), 100.0);
        for (index, bucket) in run.buckets.iter_mut().enumerate() {
            bucket.acknowledged = if (400..410).contains(&index) { 0 } else { 4 };
            (bucket.failed, bucket.unknown) = (0, u32::from(index == 410));
        }
        run
    }

    fn of_class(svg: &str, class: &str) -> Vec<(f64, f64)> {
        let found = places::of(svg)
            .into_iter()
            .filter(|(name, ..)| name == class);
        found.map(|(_, x, y)| (x, y)).collect()
    }

    #[test]
    fn the_shade_is_the_fault() {
        let (run, window) = (run(), Window::zoom(&run()).unwrap());
        assert_eq!(shaded(&run, &window), Some([window.x(4_000.0), RIGHT]));
        let whole = Window::whole(&run);
        let drawn = svg(&run, "kill", &whole, "a");
        let rect = of_class(&drawn, "fault");
        assert!((rect[0].0 - whole.x(4_000.0)).abs() < 0.1, "{rect:?}");
        assert!((rect[1].0 - whole.x(7_000.0)).abs() < 0.2, "{rect:?}");
        let elsewhere = Window {
            from: 8_000.0,
            to: 9_000.0,
            zero: 0.0,
        };
        assert_eq!(shaded(&run, &elsewhere), None);
    }

    #[test]
    fn no_bar_stands_in_the_outage() {
        let (run, window) = (run(), Window::zoom(&run()).unwrap());
        let drawn = svg(&run, "kill", &window, "a");
        let (from, to) = (window.x(4_000.0), window.x(4_100.0));
        let bars = of_class(&drawn, "acknowledged");
        assert!(bars.len() > 500);
        assert!(
            bars.iter().all(|(x, _)| *x <= from + 0.1 || *x >= to - 0.1),
            "a bar in the gap"
        );
        assert!(
            bars.iter().any(|(x, _)| (*x - to).abs() < 0.1),
            "the bar after the gap"
        );
        let unknown = of_class(&drawn, "unknown");
        assert!(
            unknown
                .iter()
                .all(|(x, y)| *x >= to - 0.1 && *x < to + 4.0 && *y >= BASE)
        );
        assert!(!unknown.is_empty() && of_class(&drawn, "failed").is_empty());
        assert!(
            drawn.contains("No write was acknowledged from 0 s to +0.1 s (outage)."),
            "{drawn}"
        );
    }

    #[test]
    fn the_highest_bar_is_the_largest_count() {
        let mut run = run();
        run.buckets[100].acknowledged = 40;
        let drawn = svg(&run, "kill", &Window::whole(&run), "a");
        let top = |class| {
            let ys = of_class(&drawn, class).into_iter().map(|(_, y)| y);
            ys.fold(f64::INFINITY, f64::min)
        };
        assert_eq!(top("acknowledged some"), LOAD_TOP);
        assert_eq!(top("acknowledged"), BASE - (BASE - LOAD_TOP) / 10.0);
        assert!(drawn.contains(">40 in 10 ms<"));
    }

    #[test]
    fn nothing_lies_outside() {
        let hostile = example::hostile();
        let mut empty = example::runs(1);
        empty.runs[0].buckets.clear();
        empty.runs[0].slowest.clear();
        empty.runs[0].members.clear();
        (empty.runs[0].length_ms, empty.runs[0].counts.failed) = (0.0, u64::MAX);
        let mut burst = example::runs(1);
        for bucket in &mut burst.runs[0].buckets {
            *bucket = Bucket {
                acknowledged: u32::MAX,
                failed: u32::MAX,
                unknown: u32::MAX,
            };
        }
        let reports: [Report; 4] = [example::runs(5), hostile, empty, burst];
        for run in reports.iter().flat_map(|report| &report.runs) {
            for window in [Some(Window::whole(run)), Window::zoom(run)]
                .into_iter()
                .flatten()
            {
                let drawn = svg(run, &"kill ".repeat(60), &window, "a");
                let size = drawn
                    .split("viewBox=\"0 0 ")
                    .nth(1)
                    .unwrap()
                    .split('"')
                    .next()
                    .unwrap();
                let (width, height) = size.split_once(' ').unwrap();
                let (width, height): (f64, f64) = (width.parse().unwrap(), height.parse().unwrap());
                for (class, x, y) in places::of(&drawn) {
                    let inside = (-0.5..=width + 0.5).contains(&x) && (0.0..=height).contains(&y);
                    assert!(inside, "{class} at {x} {y} of {width} {height}");
                }
            }
        }
    }
}
