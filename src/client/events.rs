//! Server-sent events, as they are read.
//!
//! Never does IO. A part of an event that was cut off is no event.

use std::collections::VecDeque;
use std::mem::take;

use crate::model::limits::DOCUMENT_BYTES_MAX;

/// The longest line that is believed: a document of the log or a change, in canonical Extended
/// JSON, which takes up to six times its BSON.
const LINE_BYTES_MAX: usize = 6 * (DOCUMENT_BYTES_MAX + (1 << 20));

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Empty for an ordinary one.
    pub kind: String,
    /// Where to resume; `None` if this event changed nothing about that.
    pub id: Option<String>,
    /// `None` if there is nothing but the id.
    pub data: Option<String>,
}

/// Bytes become events.
#[derive(Debug, Default)]
pub(super) struct Reader {
    line: Vec<u8>,
    event: Event,
    ready: VecDeque<Event>,
}

impl Reader {
    /// Takes what has come in.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = take(&mut self.line);
            self.end_line(line.strip_suffix(b"\r").unwrap_or(&line))?;
        }
        if self.line.len() + bytes.len() > LINE_BYTES_MAX {
            return Err(format!("an event is longer than {LINE_BYTES_MAX} bytes"));
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, line: &[u8]) -> Result<(), String> {
        if line.is_empty() {
            let event = take(&mut self.event);
            if event.id.is_some() || event.data.is_some() {
                self.ready.push_back(event);
            }
            return Ok(());
        }
        let line = str::from_utf8(line).map_err(|_| "an event is not UTF-8".to_owned())?;
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "event" => self.event.kind = value,
            "id" => self.event.id = Some(value),
            "data" => match &mut self.event.data {
                Some(data) if data.len() + value.len() > LINE_BYTES_MAX => {
                    return Err(format!("an event is longer than {LINE_BYTES_MAX} bytes"));
                }
                Some(data) => {
                    data.push('\n');
                    data.push_str(&value);
                }
                None => self.event.data = Some(value),
            },
            // A comment, or what is not known yet.
            _ => {}
        }
        Ok(())
    }

    /// All whole events.
    pub(super) fn take(&mut self) -> VecDeque<Event> {
        take(&mut self.ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, id: Option<&str>, data: Option<&str>) -> Event {
        Event {
            kind: kind.into(),
            id: id.map(str::to_owned),
            data: data.map(str::to_owned),
        }
    }

    #[test]
    fn events_are_the_same_however_their_bytes_come() {
        let text = ":\n\nid: 7\ndata: {\"a\": 1}\n\nid:8\r\n\r\nevent: cut\ndata: a\ndata:  b\n\n\
                    retry: 5\n\nid: 9\ndata: half";
        let expected = [
            event("", Some("7"), Some("{\"a\": 1}")),
            event("", Some("8"), None),
            event("cut", None, Some("a\n b")),
        ];
        for size in [1, 2, 3, 7, 1_000] {
            let mut reader = Reader::default();
            for part in text.as_bytes().chunks(size) {
                reader.push(part).unwrap();
            }
            assert_eq!(reader.take(), expected, "in parts of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_not_kept_for_ever() {
        let mut reader = Reader::default();
        reader.push(&vec![b'x'; LINE_BYTES_MAX]).unwrap();
        assert!(reader.push(b"x").is_err());
        assert!(Reader::default().push(b"data: \xff\n").is_err());
    }
}
