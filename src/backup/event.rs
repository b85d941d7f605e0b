//! A change as the stream tells it, read no further than a backup needs.

use super::error::Error;
use super::manifest::Time;
use super::raw::{self, Element};

/// Collections of Drumline's own that are of no use elsewhere or later: who serves, who waits, how
/// far the log had come. Whoever needs them makes them anew.
const OWN: &str = "drumline";
const OWN_KEPT: &str = "log";

/// What a change is, for a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A new document.
    Insert,
    /// The document is this, in the place of the one before.
    Replace,
    Update,
    Delete,
    Create,
    CreateIndexes,
    DropIndexes,
    Modify,
    Rename,
    Drop,
    DropDatabase,
    /// The change has no effect of its own.
    Nothing,
}

/// A document of the log: its position, and the counters of its first and last stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEntry {
    pub position: i64,
    pub first: i64,
    pub last: i64,
}

/// One change.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    pub kind: Kind,
    /// Changes of one transaction have the same.
    pub time: Time,
    /// In milliseconds since 1970.
    pub wall: i64,
    pub database: &'a str,
    /// Empty for a whole database.
    pub collection: &'a str,
    pub uuid: Option<[u8; 16]>,
    bytes: &'a [u8],
}

impl<'a> Event<'a> {
    /// Reads a change. The error names what is not understood.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let text = |element: Option<Element<'a>>| element.and_then(|element| element.text());
        let kind = text(raw::find(bytes, "operationType")).unwrap_or_default();
        let time = raw::find(bytes, "clusterTime").and_then(|time| time.timestamp());
        let kind = match kind {
            "insert" => Kind::Insert,
            "replace" => Kind::Replace,
            "update" => Kind::Update,
            "delete" => Kind::Delete,
            "create" => Kind::Create,
            "createIndexes" => Kind::CreateIndexes,
            "dropIndexes" => Kind::DropIndexes,
            "modify" => Kind::Modify,
            "rename" => Kind::Rename,
            "drop" => Kind::Drop,
            "dropDatabase" => Kind::DropDatabase,
            // A build counts when it ends, which is `createIndexes`.
            "startIndexBuild" | "abortIndexBuild" | "commitIndexBuild" | "endOfTransaction" => {
                Kind::Nothing
            }
            other => {
                return Err(Error::Lost(format!(
                    "MongoDB tells of a change of the kind '{other}', which this version does not \
                     know and so cannot restore: --new-base begins a base after it"
                )));
            }
        };
        let time = time.ok_or_else(|| Error::damaged("an event", "it has no clusterTime"))?;
        Ok(Self {
            kind,
            time: time.into(),
            wall: raw::find(bytes, "wallTime")
                .and_then(|wall| wall.date())
                .unwrap_or(0),
            database: text(raw::find_in(bytes, "ns", "db")).unwrap_or_default(),
            collection: text(raw::find_in(bytes, "ns", "coll")).unwrap_or_default(),
            uuid: raw::find(bytes, "collectionUUID").and_then(|uuid| uuid.uuid()),
            bytes,
        })
    }

    /// Whether the change is to a document.
    pub const fn is_of_document(&self) -> bool {
        matches!(
            self.kind,
            Kind::Insert | Kind::Replace | Kind::Update | Kind::Delete
        )
    }

    /// The document's `_id`.
    pub fn id(&self) -> Result<Element<'a>, Error> {
        self.part(raw::find_in(self.bytes, "documentKey", "_id"))
    }

    /// The whole document.
    pub fn document(&self) -> Result<&'a [u8], Error> {
        let document = raw::find(self.bytes, "fullDocument").and_then(|found| found.document());
        self.part(document)
    }

    /// What an update changed.
    pub fn diff(&self) -> Result<&'a [u8], Error> {
        let update = raw::find(self.bytes, "rawUpdateDescription");
        let diff = update.and_then(|update| raw::find(update.document()?, "diff"));
        self.part(diff.and_then(|diff| diff.document()))
    }

    /// What happened to a collection, as the stream describes it.
    pub fn description(&self) -> Option<&'a [u8]> {
        raw::find(self.bytes, "operationDescription")?.document()
    }

    /// Where it stands, if this is the log's next document.
    pub fn log_entry(&self) -> Option<LogEntry> {
        if self.kind != Kind::Insert || self.database != OWN || self.collection != OWN_KEPT {
            return None;
        }
        let document = self.document().ok()?;
        raw::find(document, "kind")?;
        let number = |name| raw::find(document, name)?.integer();
        Some(LogEntry {
            position: number("_id")?,
            first: number("first")?,
            last: number("last")?,
        })
    }

    fn part<T>(&self, part: Option<T>) -> Result<T, Error> {
        let name = format!(
            "the {:?} in {}.{}",
            self.kind, self.database, self.collection
        );
        part.ok_or_else(|| Error::damaged(&name, "it lacks a part"))
    }
}

/// Whether a backup takes no notice of a collection.
pub fn is_left_out(database: &str, collection: &str) -> bool {
    matches!(database, "admin" | "config" | "local")
        || (database == OWN && collection != OWN_KEPT && !collection.is_empty())
        || collection == "system.views"
        || collection == "system.profile"
}

/// The change as a backup keeps it: without what serves to go on after it.
pub fn kept(bytes: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>, Error> {
    Ok(raw::without(bytes, &["_id", "lsid", "txnNumber"])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Document, Timestamp, doc};

    fn event(more: Document) -> Vec<u8> {
        let mut event = doc! {
            "_id": {"_data": "82"}, "clusterTime": Timestamp { time: 5, increment: 2 },
            "wallTime": bson::DateTime::from_millis(5_000), "ns": {"db": "drumline", "coll": "log"},
        };
        event.extend(more);
        event.to_vec().unwrap()
    }

    #[test]
    fn a_change_is_read() {
        let log = doc! {"_id": 12_i64, "first": 28_i64, "last": 30_i64, "kind": "batch"};
        let bytes = event(doc! {"operationType": "insert", "fullDocument": log});
        let kept = kept(&bytes).unwrap();
        let read = Event::read(&kept).unwrap();
        assert_eq!(
            (read.kind, read.time, read.wall),
            (Kind::Insert, Time(5, 2), 5_000)
        );
        let entry = LogEntry {
            position: 12,
            first: 28,
            last: 30,
        };
        assert_eq!(read.log_entry(), Some(entry));
        assert!(raw::find(&kept, "_id").is_none());
        let diff = doc! {"$v": 2, "diff": {"u": {"a": 1}}};
        let bytes = event(doc! {
            "operationType": "update", "documentKey": {"_id": 7}, "rawUpdateDescription": diff,
        });
        let read = Event::read(&bytes).unwrap();
        assert_eq!(read.id().unwrap().integer(), Some(7));
        assert_eq!(read.diff().unwrap(), doc! {"u": {"a": 1}}.to_vec().unwrap());
        assert_eq!(read.log_entry(), None);
        assert!(read.document().is_err());
    }

    #[test]
    fn an_unknown_change_is_named() {
        let told = Event::read(&event(doc! {"operationType": "shardCollection"})).unwrap_err();
        assert!(told.to_string().contains("'shardCollection'"), "{told}");
    }

    #[test]
    fn what_is_left_out() {
        for (database, collection, left_out) in [
            ("shop", "orders", false),
            ("drumline", "log", false),
            ("drumline", "marks", true),
            ("drumline", "", false),
            ("config", "transactions", true),
            ("shop", "system.views", true),
            ("shop", "system.buckets.t", false),
        ] {
            assert_eq!(
                is_left_out(database, collection),
                left_out,
                "{database}.{collection}"
            );
        }
    }
}
