use super::*;
use bson::{Timestamp, doc};

/// What a test's batch does to its documents, and the log document after it.
struct Batch {
    events: Vec<Vec<u8>>,
    entries: Vec<Document>,
}

fn change(id: i32, more: Document) -> Vec<u8> {
    let mut event = doc! {
        "clusterTime": Timestamp { time: 5, increment: 1 }, "ns": {"db": "a", "coll": "b"},
        "documentKey": {"_id": id},
    };
    event.extend(more);
    event.to_vec().unwrap()
}

fn stamped(t: i64) -> Document {
    doc! {"t": t, "n": "n1"}
}

impl Batch {
    fn new() -> Self {
        Self {
            events: Vec::new(),
            entries: Vec::new(),
        }
    }

    fn entry(mut self, t: i64, op: &str, keys: &[i32], result: Document) -> Self {
        let keys: Vec<_> = keys.iter().map(|key| Bson::from(*key)).collect();
        let id = format!("id-{t}");
        self.entries.push(doc! {
            "t": t, "n": "n1", "id": id, "ns": "a.b", "op": op, "keys": keys, "result": result,
        });
        self
    }

    fn insert(mut self, id: i32, t: i64) -> Self {
        let document = doc! {"_id": id, "_stamp": stamped(t)};
        let event = doc! {"operationType": "insert", "fullDocument": document};
        self.events.push(change(id, event));
        self
    }

    /// What an upsert makes has no stamp before its mark.
    fn upsert(mut self, id: i32) -> Self {
        let event = doc! {"operationType": "insert", "fullDocument": {"_id": id}};
        self.events.push(change(id, event));
        self
    }

    fn replace(mut self, id: i32, t: i64) -> Self {
        let document = doc! {"_id": id, "_stamp": stamped(t)};
        let event = doc! {"operationType": "replace", "fullDocument": document};
        self.events.push(change(id, event));
        self
    }

    fn diff(mut self, id: i32, diff: Document) -> Self {
        let raw = doc! {"$v": 2, "diff": diff};
        let event = doc! {"operationType": "update", "rawUpdateDescription": raw};
        self.events.push(change(id, event));
        self
    }

    fn user(self, id: i32) -> Self {
        self.diff(id, doc! {"u": {"n": 1}})
    }

    fn mark(self, id: i32, t: i64) -> Self {
        match t % 3 {
            0 => self.diff(id, doc! {"s_stamp": {"u": {"t": t}}}),
            1 => self.diff(id, doc! {"u": {"_stamp": stamped(t)}}),
            _ => self.diff(id, doc! {"i": {"_stamp": stamped(t)}}),
        }
    }

    fn delete(mut self, id: i32) -> Self {
        self.events
            .push(change(id, doc! {"operationType": "delete"}));
        self
    }

    fn transaction(&self) -> Vec<Vec<u8>> {
        let (first, last) = (&self.entries[0], self.entries.last().unwrap());
        let ids: Vec<_> = self.entries.iter().map(|one| one.get("id")).collect();
        let log = doc! {
            "_id": 7_i64, "kind": "batch", "first": first.get("t"), "last": last.get("t"),
            "entries": &self.entries, "ids": ids,
        };
        let mut events = self.events.clone();
        events.push(change(
            7,
            doc! {
                "operationType": "insert", "fullDocument": log,
                "ns": {"db": "drumline", "coll": "log"},
            },
        ));
        events
    }

    /// Which changes belong to a stamp; the log's document is looked at by the way.
    #[track_caller]
    fn kept(&self, stamp: i64) -> Vec<usize> {
        let transaction = self.transaction();
        let cut = Cut::make(&transaction, stamp).unwrap();
        let log = cut.at(self.events.len(), &[]).unwrap().to_vec();
        let log = Event::read(&log).unwrap().document().unwrap().to_vec();
        let log = Document::from_reader(log.as_slice()).unwrap();
        let until = |one: &&Document| one.get_i64("t").unwrap() <= stamp;
        let count = self.entries.iter().filter(until).count();
        assert_eq!(log.get_array("entries").unwrap().len(), count);
        assert_eq!(log.get_array("ids").unwrap().len(), count);
        assert_eq!(log.get("last"), self.entries[count - 1].get("t"));
        let kept = (0..self.events.len()).filter(|at| cut.at(*at, &[]).is_some());
        kept.collect()
    }
}

fn updated(modified: i64) -> Document {
    doc! {"matched": 1_i64, "modified": modified}
}

fn deleted() -> Document {
    doc! {"deleted": 1_i64}
}

#[test]
fn stamps_and_tombstones_tell_whose_a_change_is() {
    let batch = Batch::new()
        .insert(1, 10)
        .delete(1)
        .insert(1, 12)
        .delete(1)
        .replace(2, 15)
        .entry(10, "insertOne", &[1], doc! {"inserted": 1_i64})
        .entry(11, "deleteOne", &[1], deleted())
        .entry(12, "insertOne", &[1], doc! {"inserted": 1_i64})
        .entry(14, "deleteMany", &[1], deleted())
        .entry(15, "replaceOne", &[2], updated(1));
    let expected = [
        (10, vec![0]),
        (11, vec![0, 1]),
        (12, vec![0, 1, 2]),
        (13, vec![0, 1, 2]),
        (14, vec![0, 1, 2, 3]),
    ];
    for (stamp, kept) in expected {
        assert_eq!(batch.kept(stamp), kept, "at {stamp}");
    }
}

#[test]
fn the_clients_change_goes_with_its_mark_before_it_or_after() {
    // Two that share a command: the clients' changes, then the marks; then the same document again.
    let batch = Batch::new()
        .user(1)
        .user(2)
        .mark(1, 10)
        .mark(2, 11)
        .user(1)
        .mark(1, 12)
        .entry(10, "updateOne", &[1], updated(1))
        .entry(11, "updateOne", &[2], updated(1))
        .entry(12, "updateOne", &[1], updated(1))
        .entry(13, "deleteOne", &[9], doc! {"deleted": 0_i64});
    assert_eq!(batch.kept(10), [0, 2]);
    assert_eq!(batch.kept(11), [0, 1, 2, 3]);
    assert_eq!(batch.kept(12), [0, 1, 2, 3, 4, 5]);
    // One that makes the document anew has the mark first; the next has changed nothing.
    let batch = Batch::new()
        .mark(1, 10)
        .user(1)
        .mark(1, 11)
        .entry(10, "updateOne", &[1], updated(1))
        .entry(11, "updateOne", &[1], updated(0));
    assert_eq!(batch.kept(10), [0, 1]);
    // Both orders, one after the other.
    let batch = Batch::new()
        .mark(1, 10)
        .user(1)
        .user(1)
        .mark(1, 11)
        .entry(10, "updateOne", &[1], updated(1))
        .entry(11, "updateOne", &[1], updated(1));
    assert_eq!(batch.kept(10), [0, 1]);
    // A change that comes as a whole document carries the stamp from before.
    let batch = Batch::new()
        .mark(1, 10)
        .replace(1, 10)
        .mark(1, 11)
        .entry(10, "updateOne", &[1], updated(0))
        .entry(11, "updateOne", &[1], updated(1));
    assert_eq!(batch.kept(10), [0]);
}

#[test]
fn an_upsert_after_a_deletion_is_not_the_deletions() {
    let upserted = doc! {"matched": 0_i64, "modified": 0_i64, "upserted": 1};
    let batch = Batch::new()
        .delete(1)
        .upsert(1)
        .mark(1, 12)
        .user(1)
        .mark(1, 13)
        .entry(11, "deleteOne", &[1], deleted())
        .entry(12, "updateOne", &[1], upserted)
        .entry(13, "updateOne", &[1], updated(1));
    assert_eq!(batch.kept(11), [0]);
    assert_eq!(batch.kept(12), [0, 1, 2]);
}

#[test]
fn each_of_two_that_make_a_document_anew_has_its_own_change() {
    let batch = Batch::new()
        .mark(1, 10)
        .user(1)
        .mark(1, 11)
        .user(1)
        .mark(1, 12)
        .entry(10, "updateOne", &[1], updated(1))
        .entry(11, "updateOne", &[1], updated(1))
        .entry(12, "updateOne", &[1], updated(0));
    assert_eq!(batch.kept(10), [0, 1]);
    assert_eq!(batch.kept(11), [0, 1, 2, 3]);
}

#[test]
fn a_doubt_is_refused_with_the_nearest_stamps() {
    let some = doc! {"matched": 2_i64, "modified": 1_i64};
    let batch = Batch::new()
        .insert(3, 9)
        .mark(1, 10)
        .mark(2, 10)
        .user(1)
        .mark(1, 11)
        .mark(2, 11)
        .insert(4, 12)
        .insert(5, 13)
        .entry(9, "insertOne", &[3], doc! {"inserted": 1_i64})
        .entry(10, "updateMany", &[1, 2], some.clone())
        .entry(11, "updateMany", &[1, 2], some)
        .entry(12, "insertOne", &[4], doc! {"inserted": 1_i64})
        .entry(13, "insertOne", &[5], doc! {"inserted": 1_i64});
    let told = Cut::make(&batch.transaction(), 10).unwrap_err().to_string();
    assert!(
        told.contains("stamp 10 lies within the batch at position 7"),
        "{told}"
    );
    assert!(told.ends_with("are 9 and 11"), "{told}");
    assert_eq!(batch.kept(9), [0]);
    assert_eq!(batch.kept(11), [0, 1, 2, 3, 4, 5]);
    // A deletion that no tombstone names.
    let batch = Batch::new()
        .insert(1, 10)
        .delete(2)
        .insert(3, 12)
        .entry(10, "insertOne", &[1], doc! {"inserted": 1_i64})
        .entry(11, "deleteOne", &[8], deleted())
        .entry(12, "insertOne", &[3], doc! {"inserted": 1_i64});
    assert!(Cut::make(&batch.transaction(), 11).is_err());
}
