//! Rows of a table: a text, and what every way in must make of it.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;

/// What must become of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// It is taken, and this is what was read.
    Taken(String),
    /// It is refused, and this is a part of what is said.
    Refused(String),
}

/// What one way made of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// This was read.
    Taken(String),
    /// It was taken; what was read does not show.
    Accepted,
    Refused(String),
    /// The text cannot be sent this way at all: no variable holds a null character, no header a line
    /// break.
    Impossible,
}

/// One text.
#[derive(Debug, Clone)]
pub struct Row {
    line: &'static str,
    pub text: Text,
    pub expected: Expected,
}

/// Any bytes.
#[derive(Clone)]
pub struct Text(pub Vec<u8>);

impl Text {
    pub fn os(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// The text, if it is one.
    pub fn utf8(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    pub fn has(&self, bytes: &[u8]) -> bool {
        self.0.iter().any(|byte| bytes.contains(byte))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

/// The rows of a file of the form `text | = what is read` or `text | ! what is said`.
pub fn rows(table: &'static str) -> Vec<Row> {
    let is_row = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let row = |line: &'static str| {
        let (text, expected) = line.rsplit_once(" | ").unwrap_or_else(|| panic!("{line}"));
        let (kind, expected) = expected.split_at(1);
        let expected = String::from_utf8(unescaped(expected.trim())).unwrap();
        Row {
            line,
            text: Text(unescaped(text.trim_end())),
            expected: match kind {
                "=" => Expected::Taken(expected),
                "!" => Expected::Refused(expected),
                _ => panic!("{line}"),
            },
        }
    };
    table.lines().filter(is_row).map(row).collect()
}

/// `\n`, `\r`, `\t`, `\0`, `\s` (a blank), `\\`, `\xff`, `\u{202e}`, and `\{300 x}` for 300 of them.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend(before.as_bytes());
        let braced = || after.split_once('{').unwrap().1.split_once('}').unwrap();
        let kind = after.chars().next().unwrap();
        rest = &after[kind.len_utf8()..];
        match kind {
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            's' => bytes.push(b' '),
            '0' => bytes.push(0),
            '\\' => bytes.push(b'\\'),
            'x' => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).unwrap());
                rest = &rest[2..];
            }
            'u' => {
                let (code, after) = braced();
                let code = u32::from_str_radix(code, 16).unwrap();
                let c = char::from_u32(code).unwrap();
                bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
            '{' => {
                let (repeat, after) = braced();
                let (count, what) = repeat.split_once(' ').unwrap();
                bytes.extend(what.repeat(count.parse().unwrap()).as_bytes());
                rest = after;
            }
            other => panic!("\\{other} means nothing"),
        }
    }
    bytes.extend(rest.as_bytes());
    bytes
}

/// A way in, with its name.
pub type Way<'w> = (&'static str, Box<dyn Fn(&Text) -> Made + Sync + 'w>);

/// Sends each text each way, and fails the test with all that differs from the table.
#[track_caller]
pub fn check(table: &'static str, ways: &[Way<'_>]) {
    let rows = rows(table);
    let wrong: Vec<String> = rows.iter().flat_map(|row| differing(row, ways)).collect();
    assert!(
        wrong.is_empty(),
        "{} of {} texts, {} ways:\n{}",
        wrong.len(),
        rows.len(),
        ways.len(),
        wrong.join("\n")
    );
    println!("{} texts, {} ways", rows.len(), ways.len());
}

/// The ways are gone side by side: most of the time of each is a program's start.
fn differing(row: &Row, ways: &[Way<'_>]) -> Vec<String> {
    let wrong = |(name, way): &Way<'_>| {
        let made = way(&row.text);
        let right = match (&row.expected, &made) {
            (_, Made::Impossible) | (Expected::Taken(_), Made::Accepted) => true,
            (Expected::Taken(expected), Made::Taken(read)) => expected == read,
            (Expected::Refused(expected), Made::Refused(said)) => said.contains(expected),
            _ => false,
        };
        (!right).then(|| format!("{}\n  {name}: {made:?}", row.line))
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = ways.iter().map(|way| scope.spawn(|| wrong(way))).collect();
        let ended = running.into_iter().filter_map(|way| way.join().unwrap());
        ended.collect()
    })
}
