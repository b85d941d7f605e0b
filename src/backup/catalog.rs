//! Which collections there are, under which names, with which options and indexes: the base's
//! catalogue, and what events make of it. A collection is known by its UUID, which no rename
//! changes. Pure.

use std::collections::BTreeMap;

use bson::{Binary, Bson, Document, doc};

use super::error::Error;
use super::event::{Event, Kind, is_left_out};
use super::manifest::Time;
use crate::store::Listed;

/// A collection's identity.
pub type Uuid = [u8; 16];

/// The buckets of a time-series collection.
pub const BUCKETS: &str = "system.buckets.";

/// A collection.
#[derive(Debug, Clone, PartialEq)]
pub struct Collection {
    pub database: String,
    pub name: String,
    pub options: Document,
    pub indexes: Vec<Document>,
}

impl Collection {
    pub fn namespace(&self) -> String {
        format!("{}.{}", self.database, self.name)
    }

    pub fn is_capped(&self) -> bool {
        self.options.get_bool("capped").unwrap_or(false)
    }

    /// The name of the time-series collection whose buckets these are.
    pub fn time_series(&self) -> Option<&str> {
        self.name.strip_prefix(BUCKETS)
    }
}

/// All collections and views at one point.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog {
    pub collections: BTreeMap<Uuid, Collection>,
    /// By database and name.
    pub views: BTreeMap<(String, String), Document>,
}

impl Catalog {
    /// Takes in what was found at the source.
    pub fn found(listed: Vec<Listed>) -> Self {
        let mut catalog = Self::default();
        for listed in listed {
            if is_left_out(&listed.database, &listed.name) {
                continue;
            }
            let Some(uuid) = listed.uuid else {
                let name = (listed.database, listed.name);
                catalog.views.insert(name, listed.options);
                continue;
            };
            let collection = Collection {
                database: listed.database,
                name: listed.name,
                options: listed.options,
                indexes: listed.indexes,
            };
            catalog.collections.insert(uuid, collection);
        }
        catalog
    }

    /// Whether there is a collection or a view of this name; a time-series collection has two.
    pub fn has(&self, namespace: &str) -> bool {
        let mut views = self.views.keys();
        views.any(|(database, name)| namespace == format!("{database}.{name}"))
            || self.collections.values().any(|one| {
                let series = one.time_series();
                let series = series.map(|name| format!("{}.{name}", one.database));
                namespace == one.namespace() || series.is_some_and(|name| name == namespace)
            })
    }

    /// The form in a file, one document each.
    pub fn to_documents(&self) -> Vec<Document> {
        let collections = self.collections.iter().map(|(uuid, collection)| {
            doc! {
                "uuid": binary(*uuid), "db": &collection.database, "name": &collection.name,
                "options": &collection.options, "indexes": &collection.indexes,
            }
        });
        let views = self.views.iter().map(|((database, name), options)| {
            doc! { "db": database, "name": name, "options": options }
        });
        collections.chain(views).collect()
    }

    /// Takes in a document of [`Self::to_documents`].
    pub fn take(&mut self, document: &Document) -> Result<(), Error> {
        let read = || {
            let database = document.get_str("db").ok()?.to_owned();
            let name = document.get_str("name").ok()?.to_owned();
            let options = document.get_document("options").ok()?.clone();
            let Some(uuid) = document.get("uuid") else {
                self.views.insert((database, name), options);
                return Some(());
            };
            let indexes = document.get_array("indexes").ok()?.iter();
            let collection = Collection {
                database,
                name,
                options,
                indexes: indexes
                    .map(|index| index.as_document().cloned())
                    .collect::<Option<_>>()?,
            };
            self.collections.insert(uuid_of(uuid)?, collection);
            Some(())
        };
        let mut read = read;
        read().ok_or_else(|| Error::damaged("the catalogue", "it is not what was written"))
    }

    /// Follows a change. Applied again to a later catalogue, all changes up to it lead to it: a
    /// base's catalogue is found some time after its first event.
    pub fn follow(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let description = match event.description() {
            Some(bytes) => Document::from_reader(bytes)
                .map_err(|error| Error::damaged("an event", error.to_string()))?,
            None => Document::new(),
        };
        match event.kind {
            Kind::Create => self.create(event, description),
            Kind::CreateIndexes => self.each_index(event, &description, |all, index| {
                all.retain(|known| known.get("name") != index.get("name"));
                all.push(index);
            }),
            Kind::DropIndexes => self.each_index(event, &description, |all, index| {
                all.retain(|known| known.get("name") != index.get("name"));
            }),
            Kind::Modify => self.modify(event, description)?,
            Kind::Rename => self.rename(event, &description)?,
            Kind::Drop => {
                match event.uuid {
                    Some(uuid) => self.collections.remove(&uuid).map(drop),
                    None => self.views.remove(&view_of(event)).map(drop),
                };
            }
            Kind::DropDatabase => {
                let gone = event.database;
                self.collections
                    .retain(|_, collection| collection.database != gone);
                self.views.retain(|(database, _), _| database != gone);
            }
            Kind::Insert | Kind::Replace | Kind::Update | Kind::Delete | Kind::Nothing => {}
        }
        Ok(())
    }

    fn create(&mut self, event: &Event<'_>, mut options: Document) {
        if is_left_out(event.database, event.collection) {
            return;
        }
        options.remove("idIndex");
        let Some(uuid) = event.uuid else {
            let shown = options.get_str("viewOn").unwrap_or_default();
            // The view of a time-series collection comes with its buckets.
            if !shown.starts_with(BUCKETS) {
                self.views.insert(view_of(event), options);
            }
            return;
        };
        // Found with the base already: that may be later than this.
        self.collections.entry(uuid).or_insert_with(|| Collection {
            database: event.database.to_owned(),
            name: event.collection.to_owned(),
            options,
            indexes: Vec::new(),
        });
    }

    fn each_index(
        &mut self,
        event: &Event<'_>,
        description: &Document,
        mut act: impl FnMut(&mut Vec<Document>, Document),
    ) {
        let collection = event.uuid.and_then(|uuid| self.collections.get_mut(&uuid));
        let Some(collection) = collection else {
            return;
        };
        for index in description.get_array("indexes").into_iter().flatten() {
            if let Some(index) = index.as_document() {
                act(&mut collection.indexes, index.clone());
            }
        }
    }

    fn rename(&mut self, event: &Event<'_>, description: &Document) -> Result<(), Error> {
        let target = description.get("dropTarget").and_then(uuid_of);
        if let Some(target) = target {
            self.collections.remove(&target);
        }
        let Ok(to) = description.get_document("to") else {
            return Ok(());
        };
        let (database, name) = (to.get_str("db"), to.get_str("coll"));
        let (Ok(database), Ok(name), Some(uuid)) = (database, name, event.uuid) else {
            return Ok(());
        };
        if is_left_out(database, name) {
            self.collections.remove(&uuid);
        } else if let Some(collection) = self.collections.get_mut(&uuid) {
            database.clone_into(&mut collection.database);
            name.clone_into(&mut collection.name);
            // A collection that `$out` fills, say, is one for good from here on.
            collection.options.remove("temp");
        } else if is_left_out(event.database, event.collection) {
            return Err(Error::Lost(format!(
                "{}.{}, which no backup holds, was renamed to {database}.{name}: --new-base begins \
                 base that has it",
                event.database, event.collection
            )));
        }
        Ok(())
    }

    fn modify(&mut self, event: &Event<'_>, description: Document) -> Result<(), Error> {
        let Some(uuid) = event.uuid else {
            if let Some(view) = self.views.get_mut(&view_of(event)) {
                view.extend(description);
            }
            return Ok(());
        };
        let Some(collection) = self.collections.get_mut(&uuid) else {
            return Ok(());
        };
        for (field, value) in description {
            match (field.as_str(), value) {
                ("index", Bson::Document(change)) => {
                    modify_index(&mut collection.indexes, &change);
                }
                ("timeseries", Bson::Document(change)) => {
                    match collection.options.get_document_mut("timeseries") {
                        Ok(options) => options.extend(change),
                        Err(_) => drop(collection.options.insert("timeseries", change)),
                    }
                }
                ("cappedSize", value) => drop(collection.options.insert("size", value)),
                ("cappedMax", value) => drop(collection.options.insert("max", value)),
                ("expireAfterSeconds", Bson::String(off)) if off == "off" => {
                    collection.options.remove("expireAfterSeconds");
                }
                (
                    "validator"
                    | "validationLevel"
                    | "validationAction"
                    | "expireAfterSeconds"
                    | "changeStreamPreAndPostImages"
                    | "recordPreImages",
                    value,
                ) => drop(collection.options.insert(field, value)),
                (_, _) => {
                    return Err(Error::Lost(format!(
                        "{}.{} was changed in a way ('{field}') that this version does not know and \
                         so cannot restore: --new-base begins a base after it",
                        event.database, event.collection
                    )));
                }
            }
        }
        Ok(())
    }
}

fn modify_index(indexes: &mut [Document], change: &Document) {
    let is_meant = |index: &&mut Document| match change.get("name") {
        Some(name) => index.get("name") == Some(name),
        None => index.get("key") == change.get("keyPattern"),
    };
    let Some(index) = indexes.iter_mut().find(is_meant) else {
        return;
    };
    for (field, value) in change {
        match (field.as_str(), value) {
            ("name" | "keyPattern", _) => {}
            // Absent is what false means.
            ("hidden" | "unique" | "prepareUnique", Bson::Boolean(false)) => {
                drop(index.remove(field));
            }
            (_, value) => drop(index.insert(field, value.clone())),
        }
    }
}

fn view_of(event: &Event<'_>) -> (String, String) {
    (event.database.to_owned(), event.collection.to_owned())
}

/// A UUID as documents have it.
pub fn binary(uuid: Uuid) -> Bson {
    Bson::Binary(Binary {
        subtype: bson::spec::BinarySubtype::Uuid,
        bytes: uuid.to_vec(),
    })
}

fn uuid_of(value: &Bson) -> Option<Uuid> {
    match value {
        Bson::Binary(uuid) => uuid.bytes.as_slice().try_into().ok(),
        _ => None,
    }
}

/// When the documents of a collection in the base were read: the earliest and the latest cluster
/// time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub first: Time,
    pub last: Time,
}

impl Span {
    /// Whether a change is in all documents already.
    pub fn is_past(span: Option<&Self>, time: Time) -> bool {
        span.is_some_and(|span| time <= span.first)
    }

    /// Whether a change may be in some of the documents already.
    pub fn may_hold(span: Option<&Self>, time: Time) -> bool {
        span.is_some_and(|span| time <= span.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::Timestamp;

    fn follow(
        catalog: &mut Catalog,
        kind: &str,
        ns: (&str, &str),
        uuid: Option<u8>,
        more: Document,
    ) {
        let mut event = doc! {
            "operationType": kind, "clusterTime": Timestamp { time: 1, increment: 1 },
            "ns": {"db": ns.0, "coll": ns.1}, "operationDescription": more,
        };
        if let Some(uuid) = uuid {
            event.insert("collectionUUID", binary([uuid; 16]));
        }
        let bytes = event.to_vec().unwrap();
        catalog.follow(&Event::read(&bytes).unwrap()).unwrap();
    }

    fn names(catalog: &Catalog) -> Vec<String> {
        catalog
            .collections
            .values()
            .map(Collection::namespace)
            .collect()
    }

    #[test]
    fn collections_come_are_renamed_and_go() {
        let mut catalog = Catalog::default();
        let none = doc! {};
        let id_index = doc! {"idIndex": {"name": "_id_"}, "capped": true, "size": 4096};
        follow(&mut catalog, "create", ("a", "x"), Some(1), id_index);
        follow(&mut catalog, "create", ("a", "y"), Some(2), none.clone());
        assert!(catalog.collections[&[1; 16]].is_capped());
        let to = doc! {"to": {"db": "a", "coll": "y"}, "dropTarget": binary([2; 16])};
        follow(&mut catalog, "rename", ("a", "x"), Some(1), to);
        assert_eq!(names(&catalog), ["a.y"]);
        follow(&mut catalog, "create", ("b", "z"), Some(3), none.clone());
        follow(&mut catalog, "drop", ("a", "y"), Some(1), none.clone());
        assert_eq!(names(&catalog), ["b.z"]);
        follow(&mut catalog, "dropDatabase", ("b", ""), None, none);
        assert_eq!(catalog, Catalog::default());
    }

    #[test]
    fn indexes_and_options_change() {
        let mut catalog = Catalog::default();
        follow(&mut catalog, "create", ("a", "x"), Some(1), doc! {});
        let index = |name: &str| doc! {"v": 2, "key": {name: 1}, "name": name};
        let both = doc! {"indexes": [index("p"), index("q")]};
        follow(
            &mut catalog,
            "createIndexes",
            ("a", "x"),
            Some(1),
            both.clone(),
        );
        follow(&mut catalog, "createIndexes", ("a", "x"), Some(1), both);
        follow(
            &mut catalog,
            "dropIndexes",
            ("a", "x"),
            Some(1),
            doc! {"indexes": [index("p")]},
        );
        let hide = doc! {"index": {"name": "q", "hidden": true}};
        follow(&mut catalog, "modify", ("a", "x"), Some(1), hide);
        let expire = doc! {"index": {"keyPattern": {"q": 1}, "expireAfterSeconds": 5}};
        follow(&mut catalog, "modify", ("a", "x"), Some(1), expire);
        let validator = doc! {"validator": {"n": 1}, "validationLevel": "strict"};
        follow(
            &mut catalog,
            "modify",
            ("a", "x"),
            Some(1),
            validator.clone(),
        );
        let collection = &catalog.collections[&[1; 16]];
        let expected = doc! {
            "v": 2, "key": {"q": 1}, "name": "q", "hidden": true, "expireAfterSeconds": 5,
        };
        assert_eq!(collection.indexes, [expected]);
        assert_eq!(collection.options, validator);
        follow(
            &mut catalog,
            "modify",
            ("a", "x"),
            Some(1),
            doc! {"index": {"name": "q", "hidden": false}},
        );
        assert!(!catalog.collections[&[1; 16]].indexes[0].contains_key("hidden"));
    }

    #[test]
    fn views_come_change_and_go_and_those_of_buckets_are_no_views() {
        let mut catalog = Catalog::default();
        follow(
            &mut catalog,
            "create",
            ("a", "v"),
            None,
            doc! {"viewOn": "x", "pipeline": []},
        );
        follow(
            &mut catalog,
            "create",
            ("a", "t"),
            None,
            doc! {"viewOn": "system.buckets.t"},
        );
        follow(
            &mut catalog,
            "modify",
            ("a", "v"),
            None,
            doc! {"viewOn": "y", "pipeline": []},
        );
        let view = ("a".to_owned(), "v".to_owned());
        assert_eq!(catalog.views.len(), 1);
        assert_eq!(catalog.views[&view].get_str("viewOn").ok(), Some("y"));
        follow(&mut catalog, "drop", ("a", "v"), None, doc! {});
        assert_eq!(catalog, Catalog::default());
    }

    #[test]
    fn a_catalogue_is_read_as_it_was_written() {
        let mut catalog = Catalog::default();
        follow(
            &mut catalog,
            "create",
            ("a", "x"),
            Some(1),
            doc! {"collation": {"locale": "en"}},
        );
        follow(
            &mut catalog,
            "createIndexes",
            ("a", "x"),
            Some(1),
            doc! {"indexes": [{"name": "p"}]},
        );
        follow(
            &mut catalog,
            "create",
            ("a", "v"),
            None,
            doc! {"viewOn": "x"},
        );
        let mut read = Catalog::default();
        for document in catalog.to_documents() {
            read.take(&document).unwrap();
        }
        assert_eq!(read, catalog);
        assert!(read.take(&doc! {"db": "a"}).is_err());
    }
}
