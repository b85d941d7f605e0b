//! Documents as columns, cut to the width of the terminal.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document};
use serde_json::Value;

use crate::model::Stamp;
use crate::text::{cut, left, one_line, width as columns_of};

/// The width when the terminal does not say.
const WIDTH_DEFAULT: usize = 80;
/// The height when the terminal does not say.
const HEIGHT_DEFAULT: usize = 24;
/// A column that is wider than this gives way first.
const COLUMN_WIDTH_MIN: usize = 6;
const GAP: usize = 2;

/// The columns of the terminal on stdout.
pub fn terminal_width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|width| *width > 0)
        .unwrap_or(WIDTH_DEFAULT)
}

/// The lines of the terminal on stdout.
pub fn terminal_height() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_row))
        .filter(|height| *height > 0)
        .unwrap_or(HEIGHT_DEFAULT)
}

/// A header line and a line for each document, each at most `width` columns wide. The names stand as
/// they are: of `qty` and `QTY` each is a field.
pub fn render(documents: &[Document], width: usize) -> String {
    let names = column_names(documents);
    let rows: Vec<Vec<String>> = documents
        .iter()
        .map(|document| {
            names
                .iter()
                .map(|name| document.get(name).map(cell).unwrap_or_default())
                .collect()
        })
        .collect();
    let header: Vec<String> = names.iter().map(|name| shown_name(name)).collect();
    let widths = fitted(natural_widths(&header, &rows), width);
    let mut text = String::new();
    for row in std::iter::once(&header)
        .chain(&rows)
        .filter(|row| !row.is_empty())
    {
        push_row(&mut text, row, &widths);
    }
    if widths.len() < names.len() {
        let hidden = header[widths.len()..].join(", ");
        let note = format!("no room for {hidden}");
        let end = ": -o json shows all)";
        let room = width.saturating_sub(1 + end.len());
        text.push_str(&cut(&format!("({}{end}", cut(&note, room)), width));
        text.push('\n');
    }
    text
}

/// A name that is empty is seen too.
fn shown_name(name: &str) -> String {
    match name {
        "" => "\"\"".into(),
        name => one_line(name),
    }
}

/// One value in one line. What steers is escaped: a document must not rule the terminal.
pub fn cell(value: &Bson) -> String {
    let text = match value {
        Bson::String(text) => text.clone(),
        Bson::ObjectId(id) => id.to_hex(),
        Bson::DateTime(at) => at
            .try_to_rfc3339_string()
            .unwrap_or_else(|_| at.to_string()),
        Bson::Decimal128(number) => number.to_string(),
        Bson::Binary(binary) if uuid(binary).is_some() => {
            uuid(binary).map(|id| id.to_string()).unwrap_or_default()
        }
        Bson::Document(document) => match Stamp::from_document(document) {
            Some(stamp) if document.len() == 2 => stamp.to_string(),
            _ => for_people(value.clone()).to_string(),
        },
        other => for_people(other.clone()).to_string(),
    };
    one_line(&text)
}

/// Relaxed Extended JSON, with a UUID by its name: `{"$uuid": "..."}`, which can be read back too.
pub fn for_people(value: Bson) -> Value {
    match value {
        Bson::Document(document) => {
            let fields = document.into_iter();
            let fields = fields.map(|(name, value)| (name, for_people(value)));
            Value::Object(fields.collect())
        }
        Bson::Array(values) => values.into_iter().map(for_people).collect(),
        Bson::Binary(binary) if uuid(&binary).is_some() => {
            let id = uuid(&binary).map(|id| id.to_string());
            serde_json::json!({ "$uuid": id })
        }
        other => other.into_relaxed_extjson(),
    }
}

/// Of the old subtype nobody can tell the order of the bytes: that stays a binary.
fn uuid(binary: &Binary) -> Option<bson::Uuid> {
    let bytes = binary.bytes.as_slice().try_into().ok()?;
    (binary.subtype == BinarySubtype::Uuid).then(|| bson::Uuid::from_bytes(bytes))
}

/// Every top-level field, in the order in which they first appear.
fn column_names(documents: &[Document]) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let fields = documents.iter().flat_map(Document::keys);
    fields
        .filter(|name| seen.insert(name.as_str()))
        .cloned()
        .collect()
}

fn natural_widths(names: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let column = |index: usize| rows.iter().map(move |row| columns_of(&row[index]));
    let widest =
        |(index, name): (usize, &String)| column(index).max().unwrap_or(0).max(columns_of(name));
    names.iter().enumerate().map(widest).collect()
}

/// Narrows the widest columns until all fit, then leaves out the last ones.
fn fitted(mut widths: Vec<usize>, width: usize) -> Vec<usize> {
    let total =
        |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    while total(&widths) > width {
        let excess = total(&widths) - width;
        let Some(widest) = widths.iter_mut().max() else {
            break;
        };
        if *widest > COLUMN_WIDTH_MIN {
            // Halving ends soon even when one value is megabytes wide.
            *widest -= excess.min((*widest - COLUMN_WIDTH_MIN).div_ceil(2));
        } else if widths.len() > 1 {
            widths.pop();
        } else {
            break;
        }
    }
    widths
}

fn push_row(text: &mut String, row: &[String], widths: &[usize]) {
    let mut line = String::new();
    for (value, width) in row.iter().zip(widths) {
        line.push_str(&left(&cut(value, *width), *width));
        line.push_str(&" ".repeat(GAP));
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn columns_are_the_union_of_fields() {
        let documents = [
            doc! {"_id": 1, "name": "Ada"},
            doc! {"_id": 2, "qty": 5_i64},
        ];
        assert_eq!(
            render(&documents, 80),
            "_id  name  qty\n1    Ada\n2          5\n"
        );
        assert_eq!(render(&[], 80), "");
    }

    #[test]
    fn wide_values_are_cut_and_no_line_is_too_long() {
        let documents = [doc! {"a": "x".repeat(1_000_000), "b": "y".repeat(90), "c": 1}];
        let text = render(&documents, 40);
        assert!(text.lines().all(|line| columns_of(line) <= 40), "{text}");
        assert!(text.contains('…'));

        let many: Document = (0..40)
            .map(|n| (format!("field{n}"), Bson::Int32(n)))
            .collect();
        let text = render(&[many], 40);
        assert!(text.contains("-o json shows all"), "{text}");
        assert!(text.lines().all(|line| columns_of(line) <= 40), "{text}");
    }

    #[test]
    fn names_stand_as_they_are_and_steer_nothing() {
        let text = render(&[doc! {"qty": 1, "QTY": 2, "straße": 3, "": 4}], 80);
        assert_eq!(text, "qty  QTY  straße  \"\"\n1    2    3       4\n");
        let hostile = doc! {"a\u{1b}[2J\u{202e}b": "\u{202e}x\n"};
        let text = render(&[hostile], 80);
        assert!(
            text.contains(r"a\u{1b}[2J\u{202e}b") && text.contains(r"\u{202e}x\n"),
            "{text}"
        );
    }

    #[test]
    fn wide_characters_push_nothing() {
        let documents = [
            doc! {"item": "太鼓", "qty": 1},
            doc! {"item": "drum", "qty": 2},
            doc! {"item": "🥁e\u{301}", "qty": 3},
        ];
        let text = render(&documents, 80);
        let begins = text.lines().map(|line| {
            let at = line.rfind(' ').unwrap() + 1;
            columns_of(&line[..at])
        });
        assert!(begins.eq([6; 4]), "{text}");
        let text = render(&[doc! {"a": "太".repeat(100), "b": "鼓".repeat(100)}], 40);
        assert!(text.lines().all(|line| columns_of(line) <= 40), "{text}");
    }

    #[test]
    fn a_uuid_is_shown_as_one() {
        let id = bson::Uuid::parse_str("6ba7b810-9dad-11d1-80b4-00c04fd430c8").unwrap();
        assert_eq!(cell(&Bson::from(id)), id.to_string());
        let within = cell(&bson::bson!({"owners": [id], "n": 1}));
        assert_eq!(
            within,
            r#"{"owners":[{"$uuid":"6ba7b810-9dad-11d1-80b4-00c04fd430c8"}],"n":1}"#
        );
        let old = Bson::Binary(Binary {
            subtype: BinarySubtype::UuidOld,
            bytes: id.bytes().into(),
        });
        assert!(
            cell(&old).contains("$binary"),
            "its byte order is not known"
        );
    }

    #[test]
    fn a_document_cannot_steer_the_terminal() {
        let text = cell(&Bson::String("a\u{1b}[2J\u{9b}b".into()));
        assert!(!text.chars().any(char::is_control), "{text}");
        let stamp = doc! {"t": 13_i64, "n": "n1"};
        assert_eq!(cell(&Bson::Document(stamp)), "13.n1");
    }
}
