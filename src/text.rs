//! Text for a terminal: in one line, cut to a width, in a tone. Never knows what it says.

/// How a line looks on a terminal with colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Heading,
    /// The one that leads, or what matters most.
    Leading,
    Good,
    Warning,
    Bad,
}

impl Tone {
    /// The line in the terminal's words (ECMA-48, select graphic rendition).
    pub fn paint(self, line: &str) -> String {
        let code = match self {
            Self::Plain => return line.to_owned(),
            Self::Heading => "2",
            Self::Leading => "1",
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "31",
        };
        format!("\u{1b}[{code}m{line}\u{1b}[0m")
    }
}

/// Control characters are escaped: text from elsewhere must not steer the terminal.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// A value in at most `width` characters.
pub fn cut(value: &str, width: usize) -> String {
    if value.chars().count() <= width {
        return value.to_owned();
    }
    let kept: String = value.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Words in lines of at most `width` characters; a word that is longer is broken.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(String::new());
            used = 0;
        }
        for (index, c) in word.chars().enumerate() {
            if used == width {
                lines.push(String::new());
                used = 0;
            }
            let Some(line) = lines.last_mut() else {
                break;
            };
            if index == 0 && used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push(c);
            used += 1;
        }
    }
    lines
}

/// Rows in aligned columns: the first to the left, the others, which hold figures, to the right.
pub fn columns(rows: &[Vec<String>]) -> Vec<String> {
    const GAP: usize = 2;
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(widest).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if index == 0 {
                line.push_str(&format!("{cell:<width$}"));
            } else {
                line.push_str(&" ".repeat(GAP));
                line.push_str(&format!("{cell:>width$}"));
            }
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_wrapped_and_long_ones_broken() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("abcdefgh i", 3), ["abc", "def", "gh", "i"]);
        assert_eq!(wrapped("  ", 5), [""]);
        for width in 1..12 {
            for line in wrapped("a bb ccc dddd eeeee ffffff", width) {
                assert!(line.chars().count() <= width, "{width}: {line:?}");
                assert_eq!(line.trim(), line);
            }
        }
    }

    #[test]
    fn figures_stand_to_the_right() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let rows: Vec<Vec<String>> = vec![row(&["", "p50"]), row(&["detect", "7"])];
        assert_eq!(columns(&rows), ["        p50", "detect    7"]);
        assert_eq!(columns(&[]), [""; 0]);
    }

    #[test]
    fn text_from_elsewhere_is_one_line() {
        assert_eq!(one_line("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
