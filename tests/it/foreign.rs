//! Documents that another program wrote: without a stamp, or with a field of that name of its own.

use bson::{Document, doc};
use mongodb::{Client, Collection};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::Cluster;
use crate::support::http::{Http, Reply};

/// A collection that another program fills, and the way to it through a node.
struct Foreign {
    http: Http,
    name: &'static str,
    driver: Collection<Document>,
}

impl Foreign {
    async fn new(name: &'static str, documents: Vec<Document>) -> Self {
        let cluster = Cluster::shared();
        let client = Client::with_uri_str(&cluster.info.mongodb_uri).await;
        let driver = client.unwrap().database("foreign").collection(name);
        driver.insert_many(documents).await.unwrap();
        Self {
            http: Http::to(cluster),
            name,
            driver,
        }
    }

    async fn act(&self, action: &str, mut fields: Value) -> Reply {
        fields["database"] = json!("foreign");
        fields["collection"] = json!(self.name);
        self.http.act(action, &fields).await.expect(200)
    }

    /// The document as it is stored, and the counter of its stamp.
    async fn stored(&self, id: i32) -> (Document, Option<i64>) {
        let found = self.driver.find_one(doc! {"_id": id}).await.unwrap();
        let mut document = found.unwrap();
        let stamp = document.remove("_stamp");
        let counter = stamp.and_then(|stamp| stamp.as_document()?.get_i64("t").ok());
        (document, counter)
    }

    /// Fails the test unless the document carries the stamp of this reply.
    async fn assert_stamped(&self, id: i32, reply: &Reply, expected: Document) {
        let (document, stamp) = self.stored(id).await;
        assert_eq!(document, expected);
        let told = reply.header("drumline-stamp").unwrap();
        assert_eq!(told.split('.').next().unwrap(), stamp.unwrap().to_string());
    }
}

const COUNTS: &str = r#"{"matchedCount":{"$numberInt":"1"},"modifiedCount":{"$numberInt":"1"}}"#;

/// Reads, changes, replaces and deletes documents `0..5`, each of which has an `a`.
async fn everything_works_on(foreign: &Foreign) {
    let found = foreign.act("findOne", json!({"filter": {"_id": 0}})).await;
    assert_eq!(found.json()["document"]["a"]["$numberInt"], "0");
    let found = foreign.act("find", json!({"filter": {}})).await;
    assert_eq!(found.json()["documents"].as_array().unwrap().len(), 5);

    let updates = [
        (0, json!({"$inc": {"a": 10}}), doc! {"_id": 0, "a": 10}),
        (
            1,
            json!([{"$set": {"a": {"$add": ["$a", 10]}}}]),
            doc! {"_id": 1, "a": 11},
        ),
    ];
    for (id, update, expected) in updates {
        let fields = json!({"filter": {"_id": id}, "update": update});
        let reply = foreign.act("updateOne", fields).await;
        assert_eq!(reply.text, COUNTS);
        foreign.assert_stamped(id, &reply, expected).await;
    }

    let fields = json!({"filter": {"_id": 2}, "replacement": {"b": "new"}});
    let reply = foreign.act("replaceOne", fields).await;
    assert_eq!(reply.text, COUNTS);
    let expected = doc! {"_id": 2, "b": "new"};
    foreign.assert_stamped(2, &reply, expected).await;

    let fields = json!({"filter": {"a": {"$in": [3, 4]}}, "update": {"$set": {"b": 1}}});
    let reply = foreign.act("updateMany", fields).await;
    for id in [3, 4] {
        let expected = doc! {"_id": id, "a": id, "b": 1};
        foreign.assert_stamped(id, &reply, expected).await;
    }

    let reply = foreign.act("deleteMany", json!({"filter": {}})).await;
    assert_eq!(reply.json()["deletedCount"]["$numberInt"], "5");
    assert_eq!(foreign.driver.count_documents(doc! {}).await.unwrap(), 0);
}

#[test]
fn documents_of_another_program_are_read_and_changed_and_carry_a_stamp_from_then_on() {
    Runtime::new().unwrap().block_on(async {
        let plain = (0..5).map(|id| doc! {"_id": id, "a": id}).collect();
        let foreign = Foreign::new("plain", plain).await;
        everything_works_on(&foreign).await;
    });
}

#[test]
fn a_stamp_field_of_any_other_shape_is_taken_over() {
    Runtime::new().unwrap().block_on(async {
        let shapes: [bson::Bson; 5] = [
            "text".into(),
            vec![1, 2].into(),
            doc! {"t": "not a number", "n": 5}.into(),
            bson::Bson::Null,
            doc! {"t": i64::MAX, "n": "someone"}.into(),
        ];
        let odd = (0..5).zip(shapes);
        let odd = odd.map(|(id, shape)| doc! {"_id": id, "_stamp": shape, "a": id});
        let foreign = Foreign::new("odd", odd.collect()).await;
        everything_works_on(&foreign).await;
    });
}

#[test]
fn where_a_collation_rules_a_filter_by_id_means_what_mongodb_takes_it_for() {
    Runtime::new().unwrap().block_on(async {
        let cluster = Cluster::shared();
        let client = Client::with_uri_str(&cluster.info.mongodb_uri)
            .await
            .unwrap();
        let database = client.database("foreign");
        let collation = doc! {"locale": "en", "strength": 2};
        let create = doc! {"create": "collated", "collation": collation};
        database.run_command(create).await.unwrap();
        let documents: Vec<_> = (0..40).map(|n| doc! {"_id": format!("a{n}")}).collect();
        let collection = database.collection::<Document>("collated");
        collection.insert_many(documents).await.unwrap();
        // Many at once share a batch, and would share commands.
        let deletions: Vec<_> = (0..40)
            .map(|n| {
                tokio::spawn(async move {
                    let filter = json!({"_id": format!("A{n}")});
                    let body =
                        json!({"database": "foreign", "collection": "collated", "filter": filter});
                    Http::to(cluster)
                        .act("deleteOne", &body)
                        .await
                        .expect(200)
                        .text
                })
            })
            .collect();
        for deletion in deletions {
            let text = deletion.await.unwrap();
            assert_eq!(text, r#"{"deletedCount":{"$numberInt":"1"}}"#);
        }
        assert_eq!(collection.count_documents(doc! {}).await.unwrap(), 0);
    });
}
