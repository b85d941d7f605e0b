//! Text for a terminal: in one line, cut to a width, in a tone. Never knows what it says.
//!
//! Widths are what a terminal makes of a character (wcwidth): two columns for one of East Asia, none
//! for an accent that stands on the letter before it.

use unicode_width::UnicodeWidthChar as _;

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

/// Whether a character does something to the text around it and is not seen itself: control characters,
/// those that turn the direction of the text (with them it says something else than it holds), and
/// those that show nothing, so that two texts look like one. The joiners of letters stay.
pub fn steers(c: char) -> bool {
    match c {
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' => true,
        '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => true,
        '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        c => c.is_control(),
    }
}

/// What steers is escaped: text from elsewhere must not rule the terminal.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' | '\n' | '\r' => line.extend(c.escape_default()),
            c if steers(c) => line.extend(c.escape_unicode()),
            c => line.push(c),
        }
    }
    line
}

/// JSON that says the same and steers nothing: in JSON such a character stands only in strings, where
/// it may be written as an escape. Line breaks between the values stay.
pub fn shown_json(json: &str) -> std::borrow::Cow<'_, str> {
    let hidden = |c: char| c != '\n' && steers(c);
    if !json.contains(hidden) {
        return json.into();
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

/// The columns that a text takes.
pub fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

fn width_of(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// A value in at most `most` columns.
pub fn cut(value: &str, most: usize) -> String {
    /// Accents stand on one letter without end, and none takes a column.
    const CHARS_PER_COLUMN: usize = 8;
    let chars = most.saturating_mul(CHARS_PER_COLUMN);
    if value.chars().nth(chars).is_none() && width(value) <= most {
        return value.to_owned();
    }
    let room = most.saturating_sub(1);
    let mut used = 0;
    let fits = |c: &char| {
        used += width_of(*c);
        used <= room
    };
    let kept: String = value.chars().take(chars).take_while(fits).collect();
    format!("{kept}…")
}

/// With spaces behind it, `most` columns wide.
pub fn left(value: &str, most: usize) -> String {
    format!("{value}{}", gap(value, most))
}

/// With spaces before it, `most` columns wide.
pub fn right(value: &str, most: usize) -> String {
    format!("{}{value}", gap(value, most))
}

fn gap(value: &str, most: usize) -> String {
    " ".repeat(most.saturating_sub(width(value)))
}

/// How much of a text that was refused is repeated, in columns.
const REPEATED_MAX: usize = 80;

/// A text that was refused, as an error repeats it: in one line, and cut.
pub fn repeated(text: &str) -> String {
    // A text of megabytes need not be escaped to be cut.
    let end = text.char_indices().nth(REPEATED_MAX + 1);
    let begin = end.map_or(text, |(at, _)| &text[..at]);
    cut(&one_line(begin), REPEATED_MAX)
}

/// Words in lines of at most `most` columns; a word that is longer is broken.
pub fn wrapped(text: &str, most: usize) -> Vec<String> {
    let most = most.max(1);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_whitespace() {
        if used > 0 && used + 1 + width(word) > most {
            lines.push(String::new());
            used = 0;
        }
        for (index, c) in word.chars().enumerate() {
            let space = usize::from(index == 0 && used > 0);
            if used > 0 && used + space + width_of(c) > most {
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
            used += width_of(c);
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
        cells.map(|cell| width(cell)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(widest).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if index == 0 {
                line.push_str(&left(cell, *width));
            } else {
                line.push_str(&" ".repeat(GAP));
                line.push_str(&right(cell, *width));
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

    #[test]
    fn what_turns_or_hides_text_is_seen() {
        for c in [
            '\0',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{ad}',
            '\u{61c}',
            '\u{200b}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            let hostile = format!("a{c}b");
            let shown = one_line(&hostile);
            assert!(
                shown.contains("\\u{") && !shown.contains(steers),
                "{c:?}: {shown}"
            );
            let json = serde_json::Value::from(hostile).to_string();
            let shown = shown_json(&json);
            assert!(!shown.contains(steers), "{c:?}: {shown}");
            let read: String = serde_json::from_str(&shown).unwrap();
            assert_eq!(read, format!("a{c}b"), "it is the same text");
        }
        for kept in [
            "naïve",
            "太鼓",
            "می\u{200c}خواهم",
            "👩\u{200d}🚀",
            "e\u{301}",
        ] {
            assert_eq!(
                (one_line(kept), &*shown_json(kept)),
                (kept.to_owned(), kept)
            );
        }
    }

    #[test]
    fn widths_are_those_of_a_terminal() {
        for (text, columns) in [
            ("ab", 2),
            ("太鼓", 4),
            ("ｆ", 2),
            ("e\u{301}", 1),
            ("🥁", 2),
        ] {
            assert_eq!(width(text), columns, "{text}");
        }
        assert_eq!(cut("太鼓太鼓", 5), "太鼓…");
        assert_eq!(cut("太鼓太鼓", 4), "太…");
        assert_eq!(left("太", 4) + "|", "太  |");
        assert_eq!(right("太", 4), "  太");
        for width_max in 2..9 {
            for line in wrapped("太鼓 drum 太鼓太鼓太鼓 x", width_max) {
                assert!(width(&line) <= width_max, "{width_max}: {line:?}");
            }
        }
        let tower = format!("e{}", "\u{301}".repeat(100_000));
        assert!(cut(&tower, 10).chars().count() < 100);
    }
}
