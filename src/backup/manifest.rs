//! The manifest: what a backup holds. It is the only file that is ever replaced, in one step.

use bson::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::frame::FileEntry;
use super::list::List;
use crate::model::hex;

/// The form of the folder that this version writes and reads.
pub const FORMAT: u32 = 2;
/// The manifest's name in the folder.
pub const NAME: &str = "manifest.json";

/// What leads to everything that a backup holds. It is small, however much that is: every run
/// reads and replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    pub set: Set,
    /// How many files of older bases there have been.
    pub olders: usize,
    /// The bases that do not grow any more, in a file of their own; absent if there are none.
    pub older: Option<FileEntry>,
    /// The last base, which grows; absent before the first.
    pub base: Option<Base>,
    /// Bases that were taken out, and whose files may still be there.
    pub gone: Vec<u32>,
    /// SHA-256 of this file as it is with an empty text here.
    pub sha256: String,
}

/// The replica set that is backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    pub name: String,
    /// Its `replicaSetId`; absent if the user may not read it.
    pub id: Option<String>,
}

impl Set {
    /// Whether both are one replica set, as far as is known.
    pub fn is(&self, other: &Self) -> bool {
        let ids = self.id.as_ref().zip(other.id.as_ref());
        ids.map_or(self.name == other.name, |(own, other)| own == other)
    }
}

/// A base and the segments after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    pub number: u32,
    /// The cluster time at which the events begin. No document was read before it.
    pub from: Time,
    /// How far the scan has come; `None` when it is done.
    pub scan: Option<Scan>,
    /// The first point that can be restored: when the scan was done. Not before events up to it are
    /// there.
    pub window: Option<Mark>,
    /// Collections, options, indexes and views as they were found.
    pub catalog: FileEntry,
    /// The files of documents.
    pub files: List<FileEntry>,
    pub segments: List<Segment>,
    /// What is not in the base, and why.
    pub left_out: Vec<LeftOut>,
    /// The stream goes on after this token; `None` before its first event.
    pub token: Option<String>,
    /// The last point that can be restored.
    pub end: Mark,
}

impl Base {
    /// Whether it can be restored.
    pub fn is_whole(&self) -> bool {
        self.window
            .as_ref()
            .is_some_and(|window| self.end.time >= window.time)
    }

    /// The last point that can be restored, if any can. Where no batch came after the base was read,
    /// the log ends where it ended then.
    pub fn last(&self) -> Mark {
        let window = self.window.filter(|_| self.is_whole());
        match window.filter(|window| window.position > self.end.position) {
            Some(window) => Mark {
                position: window.position,
                stamp: window.stamp,
                ..self.end
            },
            None => self.end,
        }
    }
}

/// A collection that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    pub namespace: String,
    /// In hexadecimal.
    pub uuid: String,
    pub why: String,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.namespace, self.why)
    }
}

/// Where a scan goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scan {
    /// How many collections of the catalog are done.
    pub collections: usize,
    /// The last document of the next one that is in the files, as `{_id: ...}` in hexadecimal BSON.
    pub last: Option<String>,
    /// Part of the next one is in the files, and it must be read again from its beginning.
    pub again: bool,
}

/// A point of the serial order and in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    pub time: Time,
    /// The last position of the log, and the counter of its last stamp; 0 without a log.
    pub position: i64,
    pub stamp: i64,
    /// In milliseconds since 1970, by MongoDB's clock.
    pub wall: i64,
}

/// A file of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    pub file: FileEntry,
    /// The times of its first and its last event.
    pub first: Time,
    pub last: Time,
    /// The point that its end is.
    pub end: Mark,
}

/// A cluster time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct Time(pub u32, pub u32);

impl From<(u32, u32)> for Time {
    fn from((time, increment): (u32, u32)) -> Self {
        Self(time, increment)
    }
}

impl From<Time> for (u32, u32) {
    fn from(time: Time) -> Self {
        (time.0, time.1)
    }
}

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(at.time, at.increment)
    }
}

impl From<Time> for Timestamp {
    fn from(Time(time, increment): Time) -> Self {
        Self { time, increment }
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// What every format has, so that a newer one is told as one.
#[derive(Debug, Deserialize)]
struct AnyFormat {
    format: u32,
}

impl Manifest {
    /// The form in the folder.
    pub fn to_text(&self) -> Result<String, Error> {
        let mut sealed = self.clone();
        sealed.sha256 = self.sum()?;
        text(&sealed)
    }

    pub fn from_text(bytes: &[u8]) -> Result<Self, Error> {
        let damaged = |why: &str| Error::damaged(NAME, why);
        let read = serde_json::from_slice::<Self>(bytes);
        if let Ok(AnyFormat { format }) = serde_json::from_slice(bytes)
            && format != FORMAT
            && read.is_err()
        {
            let what = match format > FORMAT {
                true => "use the version that wrote it, or a newer one",
                false => "use the version that wrote it, or begin a backup in another folder",
            };
            return Err(Error::Folder(format!(
                "the backup has the format {format}, and this version of drumline knows the format \
                 {FORMAT}: {what}"
            )));
        }
        let manifest = read.map_err(|_| damaged("it is not what was written"))?;
        // Whatever a reader of JSON passes over makes another text.
        if text(&manifest)?.as_bytes() != bytes || manifest.sum()? != manifest.sha256 {
            return Err(damaged("its SHA-256 is another"));
        }
        match manifest.format == FORMAT {
            true => Ok(manifest),
            false => Err(damaged("no version of drumline wrote that format")),
        }
    }

    fn sum(&self) -> Result<String, Error> {
        let mut open = self.clone();
        open.sha256.clear();
        Ok(hex(&Sha256::digest(text(&open)?.as_bytes())))
    }
}

fn text(manifest: &Manifest) -> Result<String, Error> {
    let text = serde_json::to_string(manifest);
    let text = text.map_err(|error| Error::damaged(NAME, error.to_string()))?;
    Ok(text + "\n")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::backup::list::RECENT_MAX;

    pub fn file(name: &str) -> FileEntry {
        FileEntry {
            name: name.into(),
            bytes: 8,
            raw_bytes: 0,
            documents: 0,
            sha256: "00".into(),
        }
    }

    fn list<T>(item: T) -> List<T> {
        List {
            count: 1,
            chapter: None,
            recent: vec![item],
        }
    }

    pub fn manifest() -> Manifest {
        let mark = |seconds| Mark {
            time: Time(seconds, 1),
            position: 7,
            stamp: 9,
            wall: i64::from(seconds) * 1_000,
        };
        Manifest {
            format: FORMAT,
            set: Set {
                name: "rs".into(),
                id: Some("0a".into()),
            },
            olders: 0,
            older: None,
            base: Some(Base {
                number: 1,
                from: Time(5, 1),
                scan: None,
                window: Some(mark(6)),
                catalog: file("b0001-catalog.dlb"),
                files: list(file("b0001-f000001.dlb")),
                segments: list(Segment {
                    file: file("b0001-s000001.dlb"),
                    first: Time(6, 2),
                    last: Time(8, 1),
                    end: mark(8),
                }),
                left_out: vec![LeftOut {
                    namespace: "a.b".into(),
                    uuid: "00".into(),
                    why: "why".into(),
                }],
                token: Some("82".into()),
                end: mark(8),
            }),
            gone: Vec::new(),
            sha256: String::new(),
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let text = manifest().to_text().unwrap();
        let read = Manifest::from_text(text.as_bytes()).unwrap();
        assert_eq!(read.base, manifest().base);
        assert_eq!(read.to_text().unwrap(), text, "and written as it was read");
    }

    #[test]
    fn every_byte_that_is_changed_is_found_and_every_cut() {
        let text = manifest().to_text().unwrap().into_bytes();
        for at in 0..text.len() {
            for flip in [1_u8, 0x20, 0xFF] {
                let mut changed = text.clone();
                changed[at] ^= flip;
                assert!(Manifest::from_text(&changed).is_err(), "byte {at} ^ {flip}");
            }
            assert!(Manifest::from_text(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_manifest_is_small_however_much_it_leads_to() {
        let mut all = manifest();
        all.older = Some(file("b0099-o000099.dlb"));
        let long = |entry: &mut FileEntry| {
            (entry.bytes, entry.raw_bytes, entry.documents) = (1 << 50, 1 << 50, 1 << 40);
            entry.sha256 = "0".repeat(64);
        };
        all.older.iter_mut().for_each(long);
        let base = all.base.as_mut().unwrap();
        long(&mut base.catalog);
        base.left_out.clear();
        base.token = Some("0".repeat(400));
        let mark = Mark {
            time: Time(u32::MAX, u32::MAX),
            position: 1 << 50,
            stamp: 1 << 52,
            wall: 1 << 41,
        };
        (base.end, base.window) = (mark, Some(mark));
        let segment = base.segments.recent.first_mut().unwrap();
        long(&mut segment.file);
        (segment.end, segment.first, segment.last) = (mark, mark.time, mark.time);
        base.files.recent.iter_mut().for_each(long);
        base.segments.recent = vec![base.segments.recent[0].clone(); RECENT_MAX];
        base.files.recent = vec![base.files.recent[0].clone(); RECENT_MAX];
        base.segments.chapter = Some(base.catalog.clone());
        base.files.chapter = Some(base.catalog.clone());
        let text = all.to_text().unwrap();
        assert!(text.len() < 4096, "{} bytes: {text}", text.len());
    }

    #[test]
    fn a_newer_format_is_told_as_one() {
        let newer = br#"{"format": 3, "volumes": []}"#;
        let told = Manifest::from_text(newer).unwrap_err().to_string();
        assert!(told.contains("the format 3"), "{told}");
        let older = br#"{"format": 1, "bases": []}"#;
        let told = Manifest::from_text(older).unwrap_err().to_string();
        assert!(
            told.contains("the format 1") && told.contains("another folder"),
            "{told}"
        );
        let other = Manifest::from_text(br#"{"name": "package"}"#).unwrap_err();
        assert!(matches!(other, Error::Damaged { .. }), "{other}");
    }

    #[test]
    fn a_set_is_known_by_its_id_and_without_one_by_its_name() {
        let set = |name: &str, id: Option<&str>| Set {
            name: name.into(),
            id: id.map(Into::into),
        };
        assert!(set("a", Some("1")).is(&set("b", Some("1"))));
        assert!(!set("a", Some("1")).is(&set("a", Some("2"))));
        assert!(set("a", None).is(&set("a", Some("2"))));
        assert!(!set("a", None).is(&set("b", None)));
    }
}
