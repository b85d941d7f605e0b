//! The outage in parts, and what its figures are over many runs.

use std::collections::BTreeMap;

use super::axis::{Decades, LEFT, RIGHT, WIDTH};
use super::svg::{Anchor, Drawing};
use crate::drill::report::{Report, Run};
use crate::drill::stats::{FIGURES, PARTS, distributions, ms, of_runs, whole};

const ROW: f64 = 26.0;
const TOP: f64 = 6.0;
/// The figures stand at the end of the bars.
const FIGURE_WIDTH: f64 = 90.0;

const DOT: f64 = 7.0;
/// So many dots stand on each other; more share the highest place.
const STACK_MAX: usize = 6;
const DOTS_ROW: f64 = 58.0;

/// Detect, elect, recover, answer: each begins where the one before it ends.
pub fn parts(run: &Run, id: &str) -> String {
    let took = PARTS.map(|part| part.of(run).filter(|took| *took >= 0.0));
    let total: f64 = took.iter().flatten().sum();
    let place = |at: f64| {
        let part = if total > 0.0 {
            (at / total).min(1.0)
        } else {
            0.0
        };
        LEFT + part * (RIGHT - FIGURE_WIDTH - LEFT)
    };
    let mut drawing = Drawing::default();
    let mut said = Vec::new();
    let mut at = 0.0;
    for (index, (part, took)) in PARTS.iter().zip(took).enumerate() {
        let y = TOP + index as f64 * ROW;
        let (x0, x1) = (place(at), place(at + took.unwrap_or(0.0)));
        at += took.unwrap_or(0.0);
        let figure = took.map_or_else(|| "not seen".into(), ms);
        let middle = y + 14.0;
        drawing.text(
            "name",
            LEFT - 8.0,
            middle,
            Anchor::End,
            part.name,
            LEFT - 8.0,
        );
        if took.is_some() {
            drawing.rect(
                &format!("part{index}"),
                [x0, x1.max(x0 + 1.0)],
                [y, y + 20.0],
                "",
            );
        }
        drawing.text(
            "figure",
            x1 + 6.0,
            middle,
            Anchor::Start,
            &figure,
            FIGURE_WIDTH - 6.0,
        );
        said.push(format!("{} {figure}", part.name));
    }
    let size = [WIDTH, TOP + PARTS.len() as f64 * ROW];
    let title = format!("The outage of run {} in its parts", run.number);
    drawing.finish(id, size, &title, &said.join(", "))
}

/// A row a figure, a dot a run, on one log axis.
pub fn over_runs(report: &Report, id: &str) -> String {
    let values = |run| FIGURES.iter().filter_map(move |figure| figure.of(run));
    let decades = Decades::of(report.runs.iter().flat_map(values));
    let x = |value: f64| LEFT + DOT + decades.part(value) * (RIGHT - LEFT - 2.0 * DOT);
    let bottom = TOP + FIGURES.len() as f64 * DOTS_ROW;
    let mut drawing = Drawing::default();
    for (value, name) in decades.ticks() {
        drawing.line("grid", [x(value), x(value)], [TOP, bottom]);
        let middle = x(value).clamp(LEFT, RIGHT - 20.0);
        drawing.text("tick", middle, bottom + 16.0, Anchor::Middle, &name, 60.0);
    }
    let found = distributions(&report.runs);
    let mut said = Vec::new();
    for (index, figure) in FIGURES.iter().enumerate() {
        let base = TOP + (index + 1) as f64 * DOTS_ROW - 6.0;
        drawing.text(
            "name",
            LEFT - 8.0,
            base - 4.0,
            Anchor::End,
            figure.name,
            LEFT - 8.0,
        );
        drawing.line("axis", [LEFT, RIGHT], [base, base]);
        let values: Vec<f64> = report
            .runs
            .iter()
            .filter_map(|run| figure.of(run))
            .collect();
        drawing.dots("dot", &stacked(values.iter().map(|value| x(*value)), base));
        let Some(found) = found.get(figure.key) else {
            said.push(format!("{}: in no run.", figure.name));
            continue;
        };
        for (class, value) in [("p50", found.p50), ("p95", found.p95)] {
            drawing.line(class, [x(value), x(value)], [base - 46.0, base + 4.0]);
        }
        let (half, most, max) = (ms(found.p50), ms(found.p95), ms(found.max));
        let runs = of_runs(found.runs);
        said.push(format!(
            "{}: p50 {half}, p95 {most}, max {max} in {runs}.",
            figure.name
        ));
    }
    let title = "Each run's figures on a log axis";
    drawing.finish(id, [WIDTH, bottom + 22.0], title, &said.join(" "))
}

/// Dots at these places; those that would hide each other stand on each other.
fn stacked(places: impl Iterator<Item = f64>, base: f64) -> Vec<(f64, f64)> {
    let mut stacks: BTreeMap<usize, usize> = BTreeMap::new();
    for x in places {
        *stacks.entry(whole((x - LEFT) / DOT)).or_default() += 1;
    }
    let dots = stacks.into_iter().flat_map(|(column, count)| {
        let x = LEFT + column as f64 * DOT;
        let y = move |level: usize| base - DOT / 2.0 - 1.0 - level as f64 * DOT;
        (0..count.min(STACK_MAX)).map(move |level| (x, y(level)))
    });
    dots.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::example;
    use crate::drill::html::svg::places;

    fn assert_inside(svg: &str) {
        let size = svg
            .split("viewBox=\"0 0 ")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        let height: f64 = size.split_once(' ').unwrap().1.parse().unwrap();
        for (class, x, y) in places::of(svg) {
            let inside = (0.0..=WIDTH).contains(&x) && (0.0..=height).contains(&y);
            assert!(inside, "{class} at {x} {y}");
        }
    }

    #[test]
    fn a_part_begins_where_the_one_before_it_ends() {
        let mut run = example::runs(1).runs.remove(0);
        let outage = &mut run.outage;
        (outage.detect_ms, outage.elect_ms) = (Some(25.0), Some(50.0));
        (outage.recover_ms, outage.answer_ms) = (Some(25.0), None);
        let svg = parts(&run, "a");
        let x = |class: &str| {
            let found = places::of(&svg)
                .into_iter()
                .filter(|(name, ..)| name == class);
            found.map(|(_, x, _)| x).collect::<Vec<_>>()
        };
        let end = RIGHT - FIGURE_WIDTH;
        let quarter = (end - LEFT) / 4.0;
        assert_eq!(x("part0"), [LEFT, LEFT + quarter]);
        assert_eq!(x("part1"), [LEFT + quarter, LEFT + 3.0 * quarter]);
        assert_eq!(x("part2"), [LEFT + 3.0 * quarter, end]);
        assert!(x("part3").is_empty() && svg.contains(">not seen<"), "{svg}");
        assert_inside(&svg);
    }

    #[test]
    fn equal_runs_stand_on_each_other_up_to_a_bound() {
        let dots = stacked([200.0, 200.0, 300.0].into_iter(), 50.0);
        assert_eq!(dots.len(), 3);
        assert_eq!(dots[0].0, dots[1].0);
        assert!(dots[1].1 < dots[0].1);
        assert_eq!(stacked([200.0; 10_000].into_iter(), 50.0).len(), STACK_MAX);
    }

    #[test]
    fn each_run_has_a_dot_and_nothing_lies_outside() {
        let svg = over_runs(&example::runs(3), "a");
        assert!(svg.contains("in 3 runs."), "{svg}");
        for report in [example::runs(30), example::hostile()] {
            assert_inside(&over_runs(&report, "a"));
            report
                .runs
                .iter()
                .for_each(|run| assert_inside(&parts(run, "a")));
        }
    }
}
