//! All that a replica set holds, to be compared.

use std::collections::BTreeMap;

use bson::{Document, RawDocument, doc};
use futures_util::TryStreamExt as _;
use mongodb::Client;

/// All collections and views of all databases but MongoDB's own, and Drumline's log.
#[derive(Debug)]
pub struct Dump {
    all: BTreeMap<String, Held>,
    /// When the last write to the log was made, in milliseconds since 1970.
    pub wall: i64,
}

/// A collection or a view.
#[derive(Debug, Default, PartialEq)]
struct Held {
    options: Document,
    indexes: Vec<Document>,
    /// As bytes. A capped collection's in the order in which they came.
    documents: Vec<Vec<u8>>,
}

impl Dump {
    /// Fails the test unless both hold the same.
    #[track_caller]
    pub fn expect(&self, expected: &Self, when: &str) {
        let names = |dump: &Self| dump.all.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(self), names(expected), "{when}");
        for (name, held) in &self.all {
            let expected = &expected.all[name];
            assert_eq!(held.options, expected.options, "{when}: options of {name}");
            assert_eq!(held.indexes, expected.indexes, "{when}: indexes of {name}");
            let (found, wanted) = (held.documents.len(), expected.documents.len());
            assert_eq!(found, wanted, "{when}: documents of {name}");
            for (found, wanted) in held.documents.iter().zip(&expected.documents) {
                let text = |bytes: &Vec<u8>| format!("{:?}", RawDocument::from_bytes(bytes));
                assert!(
                    found == wanted,
                    "{when}: {name}\n{}\n{}",
                    text(found),
                    text(wanted)
                );
            }
        }
    }
}

/// Reads everything; of the log as far as this position.
pub async fn dump(client: &Client, log_to: Option<i64>) -> Dump {
    let mut all = BTreeMap::new();
    let mut wall = 0;
    for database in client.list_database_names().await.unwrap() {
        if ["admin", "config", "local"].contains(&database.as_str()) {
            continue;
        }
        let db = client.database(&database);
        let list = db
            .run_cursor_command(doc! {"listCollections": 1})
            .await
            .unwrap();
        let found: Vec<Document> = list.try_collect().await.unwrap();
        for found in found {
            let name = found.get_str("name").unwrap();
            let own = database == "drumline";
            if name == "system.views" || (own && name != "log") {
                continue;
            }
            let mut options = found.get_document("options").unwrap().clone();
            options.remove("uuid");
            let kind = found.get_str("type").unwrap();
            let mut held = Held {
                options,
                ..Held::default()
            };
            if kind == "collection" {
                let list = db
                    .run_cursor_command(doc! {"listIndexes": name})
                    .await
                    .unwrap();
                held.indexes = list.try_collect().await.unwrap();
                held.indexes
                    .sort_by_key(|index| index.get_str("name").unwrap().to_owned());
                let filter = match (own, log_to) {
                    (true, Some(position)) => doc! {"_id": {"$lte": position}},
                    _ => doc! {},
                };
                held.documents = documents(client, &database, name, filter).await;
                if own {
                    wall = held
                        .documents
                        .iter()
                        .map(|bytes| written_at(bytes))
                        .max()
                        .unwrap_or(0);
                }
                if !held.options.get_bool("capped").unwrap_or(false) {
                    held.documents.sort();
                }
            }
            all.insert(format!("{database}.{name}"), held);
        }
    }
    Dump { all, wall }
}

fn written_at(log_document: &[u8]) -> i64 {
    let document = RawDocument::from_bytes(log_document).unwrap();
    document.get_datetime("at").unwrap().timestamp_millis()
}

async fn documents(client: &Client, database: &str, name: &str, filter: Document) -> Vec<Vec<u8>> {
    let collection = client.database(database).collection::<Document>(name);
    let mut cursor = collection
        .find(filter)
        .sort(doc! {"$natural": 1})
        .await
        .unwrap();
    let mut all = Vec::new();
    while cursor.advance().await.unwrap() {
        all.push(cursor.current().as_bytes().to_vec());
    }
    all
}

/// The documents of a collection by their ids, without their stamps.
pub async fn unstamped(client: &Client, database: &str, name: &str) -> BTreeMap<String, Document> {
    let all = documents(client, database, name, doc! {}).await;
    let all = all.iter().map(|bytes| {
        let mut document = Document::from_reader(bytes.as_slice()).unwrap();
        assert!(document.remove("_stamp").is_some(), "{document}");
        (document.get_str("_id").unwrap().to_owned(), document)
    });
    all.collect()
}
