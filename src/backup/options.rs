//! What a collection is made with, and what is set when its documents are there.

use bson::{Bson, Document};

use super::catalog::Collection;

/// What a collection is made with. The rest comes when the documents are there, which it might
/// refuse or delete.
pub fn first_options(options: &Document) -> Document {
    const LATER: [&str; 7] = [
        "validator",
        "validationLevel",
        "validationAction",
        "expireAfterSeconds",
        "recordPreImages",
        "autoIndexId",
        "temp",
    ];
    let first = options
        .iter()
        .filter(|(name, _)| !LATER.contains(&name.as_str()));
    let first = first.map(|(name, value)| (name.clone(), value.clone()));
    let mut first: Document = first.collect();
    if options.get_bool("capped").unwrap_or(false) {
        // What is put in before the deletes are done must not push out what is to stay.
        let size = whole(options.get("size"));
        first.insert("size", size.saturating_mul(2).saturating_add(CAPPED_ROOM));
        first.remove("max");
    }
    first
}

/// More than is put in at a time.
const CAPPED_ROOM: i64 = 32 << 20;

fn whole(number: Option<&Bson>) -> i64 {
    match number {
        Some(Bson::Int32(number)) => i64::from(*number),
        Some(Bson::Int64(number)) => *number,
        #[allow(clippy::cast_possible_truncation, reason = "a size is whole")]
        Some(Bson::Double(number)) => *number as i64,
        _ => 0,
    }
}

/// What is set when the documents are there.
pub fn last_options(collection: &Collection) -> Document {
    const LAST: [&str; 4] = [
        "validator",
        "validationLevel",
        "validationAction",
        "expireAfterSeconds",
    ];
    let buckets = collection.time_series().is_some();
    let last = LAST.iter().filter_map(|name| {
        // The buckets have a validator of MongoDB's own.
        let value = collection
            .options
            .get(name)
            .filter(|_| !buckets || *name == LAST[3]);
        Some(((*name).to_owned(), value?.clone()))
    });
    let mut last: Document = last.collect();
    if collection.is_capped() {
        last.insert("cappedSize", whole(collection.options.get("size")));
        if let Some(most) = collection.options.get("max") {
            last.insert("cappedMax", whole(Some(most)));
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    #[test]
    fn what_could_refuse_or_delete_documents_comes_last() {
        let options = doc! {
            "capped": true, "size": 4096, "validator": {"n": 1}, "validationLevel": "strict",
            "expireAfterSeconds": 5, "autoIndexId": true,
        };
        let first = doc! {"capped": true, "size": 8192 + CAPPED_ROOM};
        assert_eq!(first_options(&options), first);
        let collection = |name: &str| Collection {
            database: "a".into(),
            name: name.into(),
            options: options.clone(),
            indexes: Vec::new(),
        };
        let last = doc! {
            "validator": {"n": 1}, "validationLevel": "strict", "expireAfterSeconds": 5,
            "cappedSize": 4096_i64,
        };
        assert_eq!(last_options(&collection("x")), last);
        let mut buckets = collection("system.buckets.x");
        buckets.options.remove("capped");
        assert_eq!(last_options(&buckets), doc! {"expireAfterSeconds": 5});
    }
}
