//! A point within a batch: what of a batch's changes belongs to the requests up to a stamp.
//!
//! The changes of a transaction come in the order in which they were made, each by itself, and the
//! log's document names the requests in that order. An insert, a replacement and the mark of an
//! update carry the stamp of their request. A deletion carries none: the request is the one whose
//! tombstones name the document. An update comes as the client's change and the mark, in this order,
//! or in the other where the change makes the document anew; how many documents it modified is
//! in the log. Where all that leaves a doubt, the stamps that the doubt touches are refused.

use std::collections::HashMap;

use bson::{Bson, Document};

use super::error::Error;
use super::event::{Event, Kind};
use super::manifest::Time;
use super::raw::{self, ARRAY, Builder, Malformed};
use crate::model::request::encoded;

/// What of one transaction belongs to the point.
#[derive(Debug)]
pub struct Cut {
    pub time: Time,
    pub position: i64,
    /// The last stamp up to the point.
    pub stamp: i64,
    keeps: Vec<bool>,
    /// Where the log's document is among the changes, and that change with what the document held.
    log: (usize, Vec<u8>),
}

/// A request of the batch.
#[derive(Debug)]
struct Request {
    t: i64,
    id: String,
    namespace: String,
    is_update: bool,
    deletes: bool,
    keys: Vec<Vec<u8>>,
    modified: Option<i64>,
}

/// The stamps between which a change belongs: to both, if they are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    least: i64,
    most: i64,
}

impl Owner {
    const fn is(t: i64) -> Self {
        Self { least: t, most: t }
    }

    const fn leaves_a_doubt_at(self, stamp: i64) -> bool {
        self.least <= stamp && stamp < self.most
    }
}

/// What has been seen of a document within the batch.
#[derive(Debug, Default)]
struct Seen {
    /// The last request that is known to have changed it.
    current: Option<i64>,
    /// Its own change came before its mark.
    came_first: bool,
    /// Changes since whose request is not known yet.
    open: Vec<usize>,
}

impl Cut {
    /// Cuts a transaction behind a stamp that lies within its batch.
    pub fn make(transaction: &[Vec<u8>], stamp: i64) -> Result<Self, Error> {
        let events = transaction.iter().map(|bytes| Event::read(bytes));
        let events = events.collect::<Result<Vec<_>, _>>()?;
        let mut logs = events.iter().enumerate();
        let log = logs.find_map(|(at, event)| Some((at, event, event.log_entry()?.position)));
        let (at, log, position) =
            log.ok_or_else(|| Error::damaged("a batch", "it has no log document"))?;
        let document = log.document()?;
        let requests = requests(document)?;
        let owners = owners(&events, &requests)?;
        let is_told = |at: i64| !owners.iter().any(|owner| owner.leaves_a_doubt_at(at));
        if !is_told(stamp) {
            let near = requests.iter().map(|request| request.t);
            let near: Vec<_> = near.filter(|at| is_told(*at)).collect();
            let first = requests.first().map_or(stamp, |request| request.t);
            let before = near.iter().rev().find(|at| **at < stamp);
            let after = near.iter().find(|at| **at > stamp);
            return Err(Error::Point(format!(
                "stamp {stamp} lies within the batch at position {position}, whose changes do not \
                 tell which of them came after it: the nearest stamps that can be restored are {} \
                 and {}",
                before.copied().unwrap_or(first - 1),
                after.copied().unwrap_or(stamp)
            )));
        }
        let last = requests
            .iter()
            .map(|request| request.t)
            .filter(|t| *t <= stamp);
        let last = last.max().unwrap_or(stamp);
        let kept: Vec<_> = requests.iter().filter(|one| one.t <= last).collect();
        let cut = log_until(document, last, &kept)?;
        Ok(Self {
            time: log.time,
            position,
            stamp: last,
            keeps: owners.iter().map(|owner| owner.most <= stamp).collect(),
            log: (at, with_document(&transaction[at], &cut)?),
        })
    }

    /// The change in the transaction that has this number, if it belongs to the point.
    pub fn at<'a>(&'a self, number: usize, bytes: &'a [u8]) -> Option<&'a [u8]> {
        match number == self.log.0 {
            true => Some(&self.log.1),
            false => self.keeps.get(number)?.then_some(bytes),
        }
    }
}

/// The requests that a log document names, in order.
fn requests(log: &[u8]) -> Result<Vec<Request>, Error> {
    let read = Document::from_reader(log).map_err(|_| Malformed)?;
    let entries = read.get_array("entries").into_iter().flatten();
    let request = |entry: &Bson| {
        let entry = entry.as_document()?;
        let op = entry.get_str("op").ok()?;
        let keys = entry.get_array("keys").ok()?;
        let result = entry.get_document("result").ok();
        Some(Request {
            t: entry.get_i64("t").ok()?,
            id: entry.get_str("id").ok()?.to_owned(),
            namespace: entry.get_str("ns").ok()?.to_owned(),
            is_update: op.starts_with("update"),
            deletes: op.starts_with("delete") && result.is_some(),
            keys: keys.iter().map(encoded).collect(),
            modified: result.and_then(|result| result.get_i64("modified").ok()),
        })
    };
    let all: Option<Vec<_>> = entries.map(request).collect();
    all.ok_or_else(|| Error::damaged("a log document", "it is not what a node writes"))
}

/// Which request each change is of.
fn owners(events: &[Event<'_>], requests: &[Request]) -> Result<Vec<Owner>, Error> {
    let (first, last) = match (requests.first(), requests.last()) {
        (Some(first), Some(last)) => (first.t, last.t),
        _ => (0, 0),
    };
    let all = Owner {
        least: first,
        most: last,
    };
    let mut owners = vec![all; events.len()];
    let mut documents: HashMap<_, Seen> = HashMap::new();
    let mut latest = first;
    for (at, event) in events.iter().enumerate() {
        if event.log_entry().is_some() || !event.is_of_document() {
            owners[at] = Owner::is(first);
            continue;
        }
        let key = key_of(event)?;
        let seen = documents.entry((event.uuid, key.clone())).or_default();
        if event.kind == Kind::Delete {
            let known = seen.current;
            let found = deleted_by(event, &key, known, requests);
            let open = Owner {
                least: known.unwrap_or(first),
                most: known.or(found).unwrap_or(last),
            };
            seen.open.drain(..).for_each(|at| owners[at] = open);
            owners[at] = found.map_or(
                Owner {
                    least: latest,
                    ..all
                },
                Owner::is,
            );
            seen.current = found.or(known);
        } else {
            let stamp = stamp_in(event).filter(|t| (first..=last).contains(t));
            match stamp.filter(|t| seen.current != Some(*t)) {
                None => {
                    if event.kind == Kind::Insert {
                        // An upsert makes a document anew: what was before has no part in it.
                        seen.current = None;
                    }
                    seen.open.push(at);
                }
                Some(t) => {
                    let open = std::mem::take(&mut seen.open);
                    seen.came_first = settle(seen, &open, t, requests, &mut owners);
                    seen.current = Some(t);
                    owners[at] = Owner::is(t);
                    latest = latest.max(t);
                }
            }
        }
    }
    for seen in documents.into_values() {
        if let Some(t) = seen.current {
            seen.open.iter().for_each(|at| owners[*at] = Owner::is(t));
        }
    }
    Ok(owners)
}

/// The first request after a stamp whose tombstones name the document that is deleted.
fn deleted_by(event: &Event<'_>, key: &[u8], after: Option<i64>, all: &[Request]) -> Option<i64> {
    let namespace = Some((event.database, event.collection));
    let mut later = all
        .iter()
        .filter(|one| one.deletes && after.is_none_or(|after| one.t > after));
    let found = later.find(|one| {
        one.namespace.split_once('.') == namespace && one.keys.iter().any(|one| one == key)
    });
    found.map(|one| one.t)
}

/// Gives the changes between two marks of a document to the requests of the marks. Says whether the
/// later one has some of them.
fn settle(seen: &Seen, open: &[usize], t: i64, all: &[Request], owners: &mut [Owner]) -> bool {
    let Some(before) = seen.current else {
        open.iter().for_each(|at| owners[*at] = Owner::is(t));
        return !open.is_empty();
    };
    let of = |t: i64| all.iter().find(|request| request.t == t);
    // Whether a request has changed the documents that it has marked; unknown where it has some.
    let has_changed = |t: i64| {
        let request = of(t).filter(|request| request.is_update);
        let Some((request, modified)) = request.and_then(|one| Some((one, one.modified?))) else {
            return Some(false);
        };
        let marked = i64::try_from(request.keys.len()).unwrap_or(i64::MAX);
        match modified {
            0 => Some(false),
            modified if modified == marked => Some(true),
            _ => None,
        }
    };
    match open {
        [] => false,
        [at] => {
            let later = match (has_changed(before), has_changed(t)) {
                // The earlier one has one change: it came before its mark, or it is this.
                (Some(true), _) => Some(seen.came_first),
                (Some(false), _) => Some(true),
                (None, _) if seen.came_first => Some(true),
                (None, Some(false)) => Some(false),
                (None, _) => None,
            };
            owners[*at] = match later {
                Some(true) => Owner::is(t),
                Some(false) => Owner::is(before),
                None => Owner {
                    least: before,
                    most: t,
                },
            };
            later == Some(true)
        }
        [at, rest @ ..] => {
            owners[*at] = Owner::is(before);
            rest.iter().for_each(|at| owners[*at] = Owner::is(t));
            true
        }
    }
}

/// The `_id` in the form in which equal ones are equal.
fn key_of(event: &Event<'_>) -> Result<Vec<u8>, Error> {
    let key = raw::single("_id", event.id()?);
    let key = Document::from_reader(key.as_slice()).map_err(|_| Malformed)?;
    Ok(key.get("_id").map(encoded).unwrap_or_default())
}

/// The counter of the stamp that a change leaves in its document.
fn stamp_in(event: &Event<'_>) -> Option<i64> {
    const STAMP: &str = crate::store::STAMP_FIELD;
    let document = match event.kind {
        Kind::Insert | Kind::Replace => event.document().ok()?,
        _ => {
            let diff = event.diff().ok()?;
            let within = raw::find(diff, &format!("s{STAMP}"));
            if let Some(within) = within.and_then(|within| within.document()) {
                return raw::find_in(within, "u", "t")?.integer();
            }
            let set = ["u", "i"].map(|section| raw::find(diff, section));
            let mut set = set.into_iter().flatten();
            set.find_map(|section| {
                let section = section.document()?;
                raw::find(section, STAMP).map(|_| section)
            })?
        }
    };
    raw::find_in(document, STAMP, "t")?.integer()
}

/// The log's document with the requests up to a stamp.
fn log_until(document: &[u8], last: i64, kept: &[&Request]) -> Result<Vec<u8>, Malformed> {
    let mut builder = Builder::with_room(document.len());
    for element in raw::elements(document)? {
        let element = element?;
        let array = element.document().filter(|_| element.tag == ARRAY);
        match (element.name, array) {
            (b"last", _) => builder.push(element.tag, element.name, &last.to_le_bytes()),
            (b"entries", Some(entries)) => {
                let mut part = Builder::with_room(entries.len());
                for entry in raw::elements(entries)?.take(kept.len()) {
                    part.element(entry?);
                }
                builder.push(ARRAY, element.name, &part.end());
            }
            (b"ids", Some(ids)) => {
                let mut part = Builder::with_room(ids.len());
                let mut count = 0;
                for id in raw::elements(ids)? {
                    let id = id?;
                    if kept.iter().any(|one| id.text() == Some(one.id.as_str())) {
                        part.push(id.tag, count.to_string().as_bytes(), id.value);
                        count += 1;
                    }
                }
                if count > 0 {
                    builder.push(ARRAY, element.name, &part.end());
                }
            }
            _ => builder.element(element),
        }
    }
    Ok(builder.end())
}

/// A change with another document.
fn with_document(event: &[u8], document: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut builder = Builder::with_room(event.len());
    for element in raw::elements(event)? {
        let element = element?;
        match element.is("fullDocument") {
            true => builder.push(element.tag, element.name, document),
            false => builder.element(element),
        }
    }
    Ok(builder.end())
}

#[cfg(test)]
#[path = "cut_tests.rs"]
mod tests;
