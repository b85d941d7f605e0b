//! Puts documents into a replica set: those of a base, then what events make of them.
//!
//! Events are taken in by the thousand, so that a document that changed often is written once.

use std::collections::{BTreeMap, HashMap};

use super::catalog::{Collection, Span, Uuid};
use super::diff;
use super::error::Error;
use super::event::{Event, Kind};
use super::options::first_options;
use super::raw;
use super::sums::Sum;
use crate::store::Source;

/// So many changed documents, or so many bytes of changes, are held before they are written.
const CHANGES_MAX: usize = 4_000;
const BYTES_MAX: usize = 8 << 20;
/// The most in one command.
const COMMAND_DOCUMENTS_MAX: usize = 1_000;
const COMMAND_BYTES_MAX: usize = 8 << 20;

/// A collection that is being filled.
#[derive(Debug)]
pub struct Filled {
    pub collection: Collection,
    pub span: Option<Span>,
    /// What it must hold in the end.
    pub sum: Sum,
    changes: Changes,
}

/// What is to be done to a collection's documents, in the order of the first change of each.
#[derive(Debug, Default)]
struct Changes {
    by_key: HashMap<Vec<u8>, usize>,
    all: Vec<Change>,
}

#[derive(Debug)]
struct Change {
    /// `{_id: ...}`
    key: Vec<u8>,
    /// The document may be later than the change: what does not fit has happened already.
    early: bool,
    /// There was no such document before.
    is_new: bool,
    to: State,
}

#[derive(Debug)]
enum State {
    Changed(Vec<Vec<u8>>),
    Is(Vec<u8>),
    Gone,
}

impl State {
    /// What becomes of a document that is there; `None` if it goes.
    fn of(self, before: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Gone => Ok(None),
            Self::Is(document) => Ok(Some(document)),
            Self::Changed(updates) => {
                let mut document = before.to_vec();
                for update in &updates {
                    document = diff::apply(&document, update)?;
                }
                Ok(Some(document))
            }
        }
    }
}

/// Fills collections.
#[derive(Debug)]
pub struct Replay<'a> {
    target: &'a Source,
    pub filled: BTreeMap<Uuid, Filled>,
    /// What is taken in may have been taken in already, in part.
    pub is_second_try: bool,
    held: usize,
    held_bytes: usize,
}

impl<'a> Replay<'a> {
    pub fn new(
        target: &'a Source,
        collections: impl Iterator<Item = (Uuid, Collection, Option<Span>)>,
        is_second_try: bool,
    ) -> Self {
        let filled = collections.map(|(uuid, collection, span)| {
            let filled = Filled {
                collection,
                span,
                sum: Sum::default(),
                changes: Changes::default(),
            };
            (uuid, filled)
        });
        Self {
            target,
            filled: filled.collect(),
            is_second_try,
            held: 0,
            held_bytes: 0,
        }
    }

    /// Goes on where the collections held this.
    pub fn set_sums(&mut self, sums: &BTreeMap<Uuid, Sum>) {
        for (uuid, sum) in sums {
            if let Some(filled) = self.filled.get_mut(uuid) {
                filled.sum = *sum;
            }
        }
    }

    /// Takes in documents of the base.
    pub async fn base(&mut self, uuid: Uuid, documents: Vec<Vec<u8>>) -> Result<(), Error> {
        let Some(filled) = self.filled.get_mut(&uuid) else {
            return Ok(());
        };
        for document in &documents {
            filled.sum.add(document);
        }
        if self.is_second_try {
            let keyed = documents.into_iter().map(|document| {
                let key = raw::find(&document, "_id").map(|id| raw::single("_id", id));
                Ok((key.ok_or(raw::Malformed)?, document))
            });
            let keyed = keyed.collect::<Result<_, raw::Malformed>>()?;
            return replace(self.target, &filled.collection, keyed).await;
        }
        let Collection { database, name, .. } = &filled.collection;
        let ordered = filled.collection.is_capped();
        self.target.fill(database, name, documents, ordered).await?;
        Ok(())
    }

    /// What was taken in of the base of this collection counts no more.
    pub async fn forget(&mut self, uuid: Uuid) -> Result<(), Error> {
        let Some(filled) = self.filled.get_mut(&uuid) else {
            return Ok(());
        };
        if filled.sum.documents > 0 || self.is_second_try {
            let Collection {
                database,
                name,
                options,
                ..
            } = &filled.collection;
            self.target.unmake(database, name).await?;
            self.target
                .make(database, name, first_options(options))
                .await?;
            filled.sum = Sum::default();
        }
        Ok(())
    }

    /// Takes in an event, if it is of a document that is not later anyway.
    pub async fn event(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let Some(filled) = event.uuid.and_then(|uuid| self.filled.get_mut(&uuid)) else {
            return Ok(());
        };
        if !event.is_of_document() || Span::is_past(filled.span.as_ref(), event.time) {
            return Ok(());
        }
        let key = raw::single("_id", event.id()?);
        let again = filled.changes.by_key.contains_key(&key);
        // A capped collection keeps the order in which its documents came.
        if again && filled.collection.is_capped() {
            self.flush().await?;
        }
        let Some(filled) = event.uuid.and_then(|uuid| self.filled.get_mut(&uuid)) else {
            return Ok(());
        };
        let early = self.is_second_try || Span::may_hold(filled.span.as_ref(), event.time);
        let bytes = filled.changes.take(key, event, early)?;
        self.held += 1;
        self.held_bytes += bytes;
        match self.held >= CHANGES_MAX || self.held_bytes >= BYTES_MAX {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    /// Writes what is held.
    pub async fn flush(&mut self) -> Result<(), Error> {
        (self.held, self.held_bytes) = (0, 0);
        for filled in self.filled.values_mut() {
            let changes = std::mem::take(&mut filled.changes);
            if !changes.all.is_empty() {
                write(self.target, &filled.collection, &mut filled.sum, changes).await?;
            }
        }
        Ok(())
    }
}

impl Changes {
    fn take(&mut self, key: Vec<u8>, event: &Event<'_>, early: bool) -> Result<usize, Error> {
        let change = match self.by_key.get(&key).and_then(|at| self.all.get_mut(*at)) {
            Some(change) => change,
            None => {
                self.by_key.insert(key.clone(), self.all.len());
                let is_new = event.kind == Kind::Insert && !early;
                self.all.push(Change {
                    key,
                    early,
                    is_new,
                    to: State::Changed(Vec::new()),
                });
                let Some(change) = self.all.last_mut() else {
                    return Ok(0);
                };
                change
            }
        };
        // One that is not early must find its document.
        change.early &= early;
        match event.kind {
            Kind::Insert | Kind::Replace => {
                let document = event.document()?.to_vec();
                let bytes = document.len();
                change.to = State::Is(document);
                Ok(bytes)
            }
            Kind::Update => {
                let update = event.diff()?;
                match &mut change.to {
                    State::Changed(updates) => updates.push(update.to_vec()),
                    State::Is(document) => *document = diff::apply(document, update)?,
                    State::Gone if early => {}
                    State::Gone => return Err(missing(&change.key, event.collection)),
                }
                Ok(update.len())
            }
            _ => {
                change.to = State::Gone;
                Ok(0)
            }
        }
    }
}

fn missing(key: &[u8], collection: &str) -> Error {
    let key = bson::Document::from_reader(key).unwrap_or_default();
    let why = format!("the document {key} of {collection} was changed and is not there");
    Error::damaged("the events", why)
}

async fn write(
    target: &Source,
    collection: &Collection,
    sum: &mut Sum,
    mut changes: Changes,
) -> Result<(), Error> {
    let (database, name) = (collection.database.as_str(), collection.name.as_str());
    let mut old: Vec<_> = changes.all.iter().map(|change| change.is_new).collect();
    let asked = changes
        .all
        .iter()
        .enumerate()
        .filter(|(_, change)| !change.is_new);
    let asked: Vec<_> = asked.map(|(at, change)| (at, change.key.clone())).collect();
    for chunk in asked.chunks(COMMAND_DOCUMENTS_MAX) {
        let keys: Vec<_> = chunk.iter().map(|(_, key)| key.as_slice()).collect();
        let mut rows = target.fetch(database, name, &keys).await?;
        while let Some(batch) = rows.next().await? {
            let (mut gone, mut put) = (Vec::new(), Vec::new());
            for before in batch.documents()? {
                let key = raw::find(before, "_id").map(|id| raw::single("_id", id));
                let Some(at) = key.as_ref().and_then(|key| changes.by_key.get(key)) else {
                    continue;
                };
                let (Some(change), Some(found)) = (changes.all.get_mut(*at), old.get_mut(*at))
                else {
                    continue;
                };
                *found = true;
                let to = std::mem::replace(&mut change.to, State::Gone);
                let after = to.of(before)?;
                if after.as_deref() == Some(before) {
                    continue;
                }
                sum.take_out(before);
                match after {
                    None => gone.push(change.key.clone()),
                    Some(after) => {
                        sum.add(&after);
                        put.push((change.key.clone(), after));
                    }
                }
            }
            for keys in gone.chunks(COMMAND_DOCUMENTS_MAX) {
                let keys: Vec<_> = keys.iter().map(Vec::as_slice).collect();
                target.remove(database, name, &keys).await?;
            }
            replace(target, collection, put).await?;
        }
    }
    let all = changes.all.into_iter().zip(old);
    insert_new(target, collection, sum, all).await
}

/// Inserts what was not there. It comes last: an old document may have had an `_id` that counts as the
/// same (1 and 1.0).
async fn insert_new(
    target: &Source,
    collection: &Collection,
    sum: &mut Sum,
    all: impl Iterator<Item = (Change, bool)>,
) -> Result<(), Error> {
    let (database, name) = (collection.database.as_str(), collection.name.as_str());
    let mut new = Vec::new();
    for (change, found) in all {
        match change.to {
            State::Is(document) if change.is_new || !found => {
                sum.add(&document);
                new.push(document);
            }
            State::Changed(_) if !found && !change.early => return Err(missing(&change.key, name)),
            _ => {}
        }
    }
    for documents in commands(new, Vec::len) {
        target
            .fill(database, name, documents, collection.is_capped())
            .await?;
    }
    Ok(())
}

/// Puts documents in the place of others.
async fn replace(
    target: &Source,
    collection: &Collection,
    documents: Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<(), Error> {
    let (database, name) = (collection.database.as_str(), collection.name.as_str());
    // A replacement may not have names that look like operators; a new document may.
    let (odd, plain): (Vec<_>, Vec<_>) = documents
        .into_iter()
        .partition(|(_, document)| has_operator_names(document));
    for part in commands(plain, |(_, document)| document.len()) {
        target.put(database, name, &part).await?;
    }
    for part in commands(odd, |(_, document)| document.len()) {
        let keys: Vec<_> = part.iter().map(|(key, _)| key.as_slice()).collect();
        target.remove(database, name, &keys).await?;
        let documents = part.into_iter().map(|(_, document)| document).collect();
        target.fill(database, name, documents, true).await?;
    }
    Ok(())
}

fn has_operator_names(document: &[u8]) -> bool {
    let elements = raw::elements(document).into_iter().flatten();
    elements
        .flatten()
        .any(|element| element.name.first() == Some(&b'$'))
}

/// Cuts a list into parts that fit into one command each.
pub fn commands<T>(all: Vec<T>, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut parts = Vec::new();
    let (mut part, mut size) = (Vec::new(), 0);
    for one in all {
        let more = bytes(&one);
        let full = part.len() >= COMMAND_DOCUMENTS_MAX || size + more > COMMAND_BYTES_MAX;
        if full && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            size = 0;
        }
        size += more;
        part.push(one);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fit_into_commands_and_keep_their_order() {
        let parts = commands(vec![5 << 20, 2 << 20, 3 << 20, 9 << 20, 1], |size| *size);
        assert_eq!(
            parts,
            [
                vec![5 << 20, 2 << 20],
                vec![3 << 20],
                vec![9 << 20],
                vec![1]
            ]
        );
        let parts = commands(vec![1; 2_500], |size| *size);
        assert_eq!(
            parts.iter().map(Vec::len).collect::<Vec<_>>(),
            [1_000, 1_000, 500]
        );
        assert!(commands(Vec::<usize>::new(), |size| *size).is_empty());
    }
}
