//! Documents as columns, cut to the width of the terminal.

use bson::{Bson, Document};

use crate::model::Stamp;
use crate::text::{cut, one_line};

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

/// A header line and a line for each document, each at most `width` characters wide.
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
    let widths = fitted(natural_widths(&names, &rows), width);
    let header: Vec<String> = names.iter().map(|name| name.to_uppercase()).collect();
    let mut text = String::new();
    for row in std::iter::once(&header)
        .chain(&rows)
        .filter(|row| !row.is_empty())
    {
        push_row(&mut text, row, &widths);
    }
    if widths.len() < names.len() {
        let hidden = names[widths.len()..].join(", ");
        text.push_str(&format!("(no room for {hidden}: -o json shows all)\n"));
    }
    text
}

/// One value in one line. Control characters are escaped: a document must not steer the terminal.
pub fn cell(value: &Bson) -> String {
    let text = match value {
        Bson::String(text) => text.clone(),
        Bson::ObjectId(id) => id.to_hex(),
        Bson::DateTime(at) => at
            .try_to_rfc3339_string()
            .unwrap_or_else(|_| at.to_string()),
        Bson::Decimal128(number) => number.to_string(),
        Bson::Document(document) => match Stamp::from_document(document) {
            Some(stamp) if document.len() == 2 => stamp.to_string(),
            _ => value.clone().into_relaxed_extjson().to_string(),
        },
        other => other.clone().into_relaxed_extjson().to_string(),
    };
    one_line(&text)
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
    let column = |index: usize| rows.iter().map(move |row| row[index].chars().count());
    let widest = |(index, name): (usize, &String)| {
        column(index).max().unwrap_or(0).max(name.chars().count())
    };
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
        let cut = cut(value, *width);
        line.push_str(&format!("{cut:<width$}"));
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
            "_ID  NAME  QTY\n1    Ada\n2          5\n"
        );
        assert_eq!(render(&[], 80), "");
    }

    #[test]
    fn wide_values_are_cut_and_no_line_is_too_long() {
        let documents = [doc! {"a": "x".repeat(1_000_000), "b": "y".repeat(90), "c": 1}];
        let text = render(&documents, 40);
        assert!(
            text.lines().all(|line| line.chars().count() <= 40),
            "{text}"
        );
        assert!(text.contains('…'));

        let many: Document = (0..40)
            .map(|n| (format!("field{n}"), Bson::Int32(n)))
            .collect();
        let text = render(&[many], 40);
        assert!(text.contains("-o json shows all"), "{text}");
    }

    #[test]
    fn a_document_cannot_steer_the_terminal() {
        let text = cell(&Bson::String("a\u{1b}[2J\u{9b}b".into()));
        assert!(!text.chars().any(char::is_control), "{text}");
        let stamp = doc! {"t": 13_i64, "n": "n1"};
        assert_eq!(cell(&Bson::Document(stamp)), "13.n1");
    }
}
