//! How far a restore has come, noted in the replica set that it fills. One that was interrupted goes
//! on there, and no node serves what is half restored.

use std::collections::BTreeMap;

use bson::{Bson, Document, Timestamp, doc};

use super::catalog::{Uuid, binary};
use super::error::Error;
use super::manifest::{Base, Manifest, Time};
use super::sums::Sum;
use crate::store::Source;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// What was there is dropped, and the collections are made.
    Begun,
    /// So many files of documents are in.
    Documents(usize),
    /// So many segments are in, after all documents.
    Events(usize),
    /// Everything is in and was read back; indexes and views are made.
    Indexes,
    /// What was read back is not what it must be: it does not go on.
    Spoiled,
}

impl Stage {
    fn parts(self) -> (&'static str, usize) {
        match self {
            Self::Begun => ("begun", 0),
            Self::Documents(done) => ("documents", done),
            Self::Events(done) => ("events", done),
            Self::Indexes => ("indexes", 0),
            Self::Spoiled => ("spoiled", 0),
        }
    }

    fn of(name: &str, done: usize) -> Option<Self> {
        Some(match name {
            "begun" => Self::Begun,
            "documents" => Self::Documents(done),
            "events" => Self::Events(done),
            "indexes" => Self::Indexes,
            "spoiled" => Self::Spoiled,
            _ => return None,
        })
    }
}

/// A restore that is not at its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// What tells this base of this backup from all others.
    pub backup: String,
    /// What was asked for, in words.
    pub arguments: String,
    /// The cluster time that is to be reached, whatever the backup holds by now.
    pub until: Time,
    /// Whether everything that was there is to go.
    pub drop: bool,
    /// Whether it is all of the backup, with the log: then nobody serves until its end.
    pub is_everything: bool,
    pub stage: Stage,
    /// The SHA-256 of the last file that is in at this stage; empty if there is none. Another copy of
    /// the backup may have grown otherwise.
    pub after: String,
    /// What the collections hold at this stage.
    pub sums: BTreeMap<Uuid, Sum>,
}

/// What tells a base from all others.
pub fn identity(manifest: &Manifest, base: &Base) -> String {
    let set = manifest.set.id.as_ref().unwrap_or(&manifest.set.name);
    format!(
        "{set} {} {} {}",
        base.number, base.from, base.catalog.sha256
    )
}

impl Note {
    pub fn document(&self) -> Document {
        let (stage, done) = self.stage.parts();
        let sums = self.sums.iter().map(|(uuid, sum)| {
            doc! { "c": binary(*uuid), "n": sum.documents, "sum": sum.text() }
        });
        doc! {
            "_id": 1, "backup": &self.backup, "arguments": &self.arguments,
            "until": Timestamp::from(self.until), "drop": self.drop,
            "everything": self.is_everything, "stage": stage,
            "done": i64::try_from(done).unwrap_or(i64::MAX), "after": &self.after,
            "sums": sums.collect::<Vec<_>>(),
        }
    }

    fn read(document: &Document) -> Option<Self> {
        let done = usize::try_from(document.get_i64("done").ok()?).ok()?;
        let sums = document.get_array("sums").ok()?.iter().map(|sum| {
            let sum = sum.as_document()?;
            let uuid = match sum.get("c")? {
                Bson::Binary(uuid) => uuid.bytes.as_slice().try_into().ok()?,
                _ => return None,
            };
            let read = Sum::read(sum.get_i64("n").ok()?, sum.get_str("sum").ok()?)?;
            Some((uuid, read))
        });
        Some(Self {
            backup: document.get_str("backup").ok()?.to_owned(),
            arguments: document.get_str("arguments").ok()?.to_owned(),
            until: document.get_timestamp("until").ok()?.into(),
            drop: document.get_bool("drop").ok()?,
            is_everything: document.get_bool("everything").ok()?,
            stage: Stage::of(document.get_str("stage").ok()?, done)?,
            after: document.get_str("after").ok()?.to_owned(),
            sums: sums.collect::<Option<_>>()?,
        })
    }

    /// The note in a replica set, if a restore into it is not at its end.
    pub async fn of(target: &Source) -> Result<Option<Self>, Error> {
        let Some(noted) = target.noted().await? else {
            return Ok(None);
        };
        Self::read(&noted).map(Some).ok_or_else(|| {
            Error::Target(
                "a restore by another version of drumline into the replica set is not at its end: \
                 let that version go on, or drop the collection drumline.restore and begin anew \
                 with --drop"
                    .into(),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let mut sum = Sum::default();
        sum.add(b"one");
        for stage in [
            Stage::Begun,
            Stage::Documents(3),
            Stage::Events(7),
            Stage::Indexes,
            Stage::Spoiled,
        ] {
            let note = Note {
                backup: "a 1 5.1 00".into(),
                arguments: "to the end".into(),
                until: Time(7, 3),
                drop: true,
                is_everything: stage == Stage::Begun,
                stage,
                after: "ab12".into(),
                sums: [([3; 16], sum)].into(),
            };
            let mut document = note.document();
            assert_eq!(Note::read(&document), Some(note));
            document.insert("stage", "of a later version");
            assert_eq!(Note::read(&document), None);
        }
    }
}
