//! The words of SVG that the drawings use.

use std::fmt::Write as _;

use crate::drill::escape::escape;
use crate::text::cut;

/// A number in few characters: a tenth of a unit is less than a pixel shows.
pub fn n(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Whether a text stands right or left of its place.
#[derive(Debug, Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// About the width of a character of the drawings' text, in units.
pub const CHAR_WIDTH: f64 = 6.4;

/// A drawing in the making.
#[derive(Debug, Default)]
pub struct Drawing {
    body: String,
}

impl Drawing {
    pub fn rect(&mut self, class: &str, [x0, x1]: [f64; 2], [y0, y1]: [f64; 2], title: &str) {
        let (width, height) = ((x1 - x0).max(0.0), (y1 - y0).max(0.0));
        let place = format!("x=\"{}\" y=\"{}\"", n(x0), n(y0));
        let size = format!("width=\"{}\" height=\"{}\"", n(width), n(height));
        let title = titled(title);
        self.put(format_args!(
            "<rect class=\"{class}\" {place} {size}>{title}</rect>"
        ));
    }

    pub fn line(&mut self, class: &str, [x0, x1]: [f64; 2], [y0, y1]: [f64; 2]) {
        self.put(format_args!(
            "<line class=\"{class}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>",
            n(x0),
            n(y0),
            n(x1),
            n(y1),
        ));
    }

    /// Cut to the width that it may take.
    pub fn text(&mut self, class: &str, x: f64, y: f64, anchor: Anchor, text: &str, width: f64) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let shown = cut(
            text,
            crate::drill::stats::whole((width / CHAR_WIDTH).floor()),
        );
        let title = if shown == text {
            String::new()
        } else {
            titled(text)
        };
        self.put(format_args!(
            "<text class=\"{class}\" x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">{}{title}</text>",
            n(x),
            n(y),
            escape(&shown),
        ));
    }

    /// Many bars as one element: each from x to x, from y to y.
    pub fn bars(&mut self, class: &str, bars: &[([f64; 2], [f64; 2])]) {
        let mut path = String::new();
        for ([x0, x1], [y0, y1]) in bars {
            let (width, height) = (x1 - x0, y1 - y0);
            let bar = [*x0, *y0, width, height, -width].map(n);
            let [x, y, width, height, back] = bar;
            let _ = write!(path, "M{x} {y}h{width}v{height}h{back}z");
        }
        self.path(class, &path);
    }

    /// Many dots as one element; the class says how large they are.
    pub fn dots(&mut self, class: &str, dots: &[(f64, f64)]) {
        let mut path = String::new();
        for (x, y) in dots {
            let _ = write!(path, "M{} {}h0", n(*x), n(*y));
        }
        self.path(class, &path);
    }

    fn path(&mut self, class: &str, path: &str) {
        if !path.is_empty() {
            self.put(format_args!("<path class=\"{class}\" d=\"{path}\"/>"));
        }
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // A string takes everything.
        let _ = writeln!(self.body, "{element}");
    }

    /// The whole, with what it shows in words. The id is unique in the page.
    pub fn finish(self, id: &str, [width, height]: [f64; 2], title: &str, desc: &str) -> String {
        format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\n\
             <title id=\"{id}-t\">{}</title>\n<desc id=\"{id}-d\">{}</desc>\n{}</svg>\n",
            n(width),
            n(height),
            escape(title),
            escape(desc),
            self.body,
        )
    }
}

fn titled(text: &str) -> String {
    /// A title that is longer is no help.
    const TITLE_MAX: usize = 300;
    if text.is_empty() {
        return String::new();
    }
    format!("<title>{}</title>", escape(&cut(text, TITLE_MAX)))
}

/// For tests: every place that is drawn to.
#[cfg(test)]
pub mod places {
    fn attribute(tag: &str, name: &str) -> Option<f64> {
        let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
        rest.split('"').next()?.parse().ok()
    }

    /// The corners of all rectangles, lines, texts and paths of a drawing, with their class.
    pub fn of(svg: &str) -> Vec<(String, f64, f64)> {
        let mut found = Vec::new();
        for tag in svg.split('<').skip(1) {
            let class = tag
                .split("class=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            let class = class.unwrap_or_default().to_owned();
            let mut add = |x: f64, y: f64| found.push((class.clone(), x, y));
            let get = |name| attribute(tag, name).unwrap_or_else(|| panic!("{name} of <{tag}"));
            if tag.starts_with("rect ") {
                let (x, y) = (get("x"), get("y"));
                add(x, y);
                add(x + get("width"), y + get("height"));
            } else if tag.starts_with("line ") {
                add(get("x1"), get("y1"));
                add(get("x2"), get("y2"));
            } else if tag.starts_with("text ") {
                add(get("x"), get("y"));
                let text = tag.split('>').nth(1).unwrap_or_default();
                // An entity is one character.
                let length = text.split('&').map(|part| {
                    part.split_once(';')
                        .map_or(part, |(_, rest)| rest)
                        .chars()
                        .count()
                });
                let entities = text.matches('&').count();
                let width = (length.sum::<usize>() + entities) as f64 * super::CHAR_WIDTH;
                let anchor = tag.split("text-anchor=\"").nth(1).unwrap_or_default();
                match anchor.split('"').next() {
                    Some("start") => add(get("x") + width, get("y")),
                    Some("end") => add(get("x") - width, get("y")),
                    _ => {
                        add(get("x") - width / 2.0, get("y"));
                        add(get("x") + width / 2.0, get("y"));
                    }
                }
            } else if tag.starts_with("path ") {
                let path = tag
                    .split(" d=\"")
                    .nth(1)
                    .unwrap()
                    .split('"')
                    .next()
                    .unwrap();
                path_places(path, &mut add);
            }
        }
        found
    }

    fn path_places(path: &str, add: &mut impl FnMut(f64, f64)) {
        for part in path.split('M').skip(1) {
            let mut numbers = String::new();
            let mut steps = Vec::new();
            for c in part.chars().chain(['z']) {
                if c.is_ascii_alphabetic() {
                    steps.push(std::mem::take(&mut numbers));
                    steps.push(c.to_string());
                } else {
                    numbers.push(c);
                }
            }
            let (at_x, at_y) = steps[0].split_once(' ').unwrap();
            let (mut x, mut y): (f64, f64) = (at_x.parse().unwrap(), at_y.parse().unwrap());
            add(x, y);
            for pair in steps[1..].chunks(2) {
                let [step, by] = pair else { continue };
                match step.as_str() {
                    "h" => x += by.parse::<f64>().unwrap(),
                    "v" => y += by.parse::<f64>().unwrap(),
                    _ => (),
                }
                add(x, y);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_dots_stand_where_they_should() {
        let mut drawing = Drawing::default();
        drawing.bars("b", &[([1.0, 3.0], [5.0, 10.5]), ([4.0, 4.5], [0.0, 10.0])]);
        drawing.dots("d", &[(7.25, 8.0)]);
        drawing.bars("none", &[]);
        let svg = drawing.finish("x", [20.0, 20.0], "a <b>", "c");
        assert!(
            svg.contains("d=\"M1 5h2v5.5h-2zM4 0h0.5v10h-0.5z\""),
            "{svg}"
        );
        assert!(svg.contains("<title id=\"x-t\">a &lt;b&gt;</title>") && !svg.contains("none"));
        let found = places::of(&svg);
        assert!(found.contains(&("b".into(), 3.0, 10.5)), "{found:?}");
        assert!(found.contains(&("b".into(), 4.5, 10.0)), "{found:?}");
        assert!(found.iter().any(|(class, _, y)| class == "d" && *y == 8.0));
    }

    #[test]
    fn text_is_cut_to_its_room_and_kept_as_a_title() {
        let mut drawing = Drawing::default();
        drawing.text(
            "t",
            0.0,
            0.0,
            Anchor::Start,
            "a long <name>",
            8.0 * CHAR_WIDTH,
        );
        let svg = drawing.finish("x", [99.0, 9.0], "", "");
        assert!(
            svg.contains(">a long …<title>a long &lt;name&gt;</title></text>"),
            "{svg}"
        );
    }
}
