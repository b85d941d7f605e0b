//! A refusal is one request's own: its neighbours in the batch take effect, in order, in bounded
//! time.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use drumline::model::{Answer, Failure, Namespace, Outcome, Update, Write};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use crate::support::http::Http;
use crate::support::inside::Inside;
use crate::support::mix::Mix;
use crate::support::{Cluster, SMALL, bar};

/// The coordinator of these tests. They take turns: each says what its batch holds.
struct Shared {
    inside: Mutex<Inside>,
    runtime: Runtime,
    /// Its folder has the mongod processes; it lives as long as the test process.
    _cluster: Cluster,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let cluster = Cluster::start(&SMALL);
        let runtime = Runtime::new().unwrap();
        let inside = runtime.block_on(Inside::start(&cluster.info.mongodb_uri));
        Shared {
            inside: Mutex::new(inside),
            runtime,
            _cluster: cluster,
        }
    })
}

fn alone(test: impl AsyncFnOnce(&Inside)) {
    let shared = shared();
    shared.runtime.block_on(async {
        let inside = shared.inside.lock().await;
        test(&inside).await;
    });
}

fn ns(text: &str) -> Namespace {
    Namespace::parse(text).unwrap()
}

/// How long 500 requests may take. An unoptimised build shares two cores with the tests beside it.
const TIME_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 40 } else { 10 });

#[test]
fn of_five_hundred_requests_the_accepted_take_effect_in_order_whatever_the_mix() {
    let cluster = Cluster::start(&SMALL);
    Runtime::new().unwrap().block_on(async {
        let inside = &Inside::patient(&cluster.info.mongodb_uri).await;
        for (name, mix) in [
            ("250 of 500 refused, in turn", Mix::alternating(500)),
            ("all 499 but the first refused", Mix::all_refused(499)),
            ("the last 250 of 500 refused", Mix::refused_at_end(500)),
        ] {
            let namespace = ns(&format!("mix.m{}", bson::oid::ObjectId::new()));
            let cost = mix.run(inside, &namespace).await;
            println!("{name}: {cost:?}");
            assert!(cost.time < TIME_MAX, "{name}: {cost:?}");
            let bound = 3 * i64::try_from(cost.refused).unwrap();
            assert!(cost.attempts <= bound, "{name}: {cost:?}");
        }
    });
}

/// An insert of one document with this key.
fn insert(key: &str) -> Write {
    Write::Insert {
        documents: vec![doc! {"_id": key}],
    }
}

fn update(filter: Document, many: bool) -> Write {
    Write::Update {
        filter,
        update: Update::Operators(doc! {"$set": {"seen": true}}),
        many,
        upsert: false,
    }
}

async fn fill(inside: &Inside, namespace: &Namespace, documents: i32) {
    let all = (0..documents).map(|number| doc! {"_id": number, "v": number});
    let collection = inside.collection(namespace);
    collection.insert_many(all).await.unwrap();
}

fn is_insert(end: &Result<Outcome, Failure>, key: &str) -> bool {
    let ids = vec![key.into()];
    matches!(end, Ok(outcome) if outcome.result == Ok(Answer::Inserted { ids: ids.clone() }))
}

#[test]
fn a_request_that_touches_too_many_documents_is_refused_and_its_neighbours_go_on() {
    alone(async |inside| {
        let namespace = ns("bounds.many");
        fill(inside, &namespace, 10_001).await;
        let delete = Write::Delete {
            filter: doc! {},
            many: true,
        };
        let writes = vec![
            insert("before"),
            update(doc! {}, true),
            insert("between"),
            delete,
            insert("after"),
        ];
        let begun = Instant::now();
        let ends = inside.together(&namespace, writes).await;
        println!("two requests with 10,001 documents: {:?}", begun.elapsed());
        for (at, key) in [(0, "before"), (2, "between"), (4, "after")] {
            assert!(is_insert(&ends[at], key), "{:?}", ends[at]);
        }
        for at in [1, 3] {
            let refusal = ends[at].as_ref().unwrap().result.as_ref().unwrap_err();
            assert_eq!(refusal.name, "RequestTooLarge");
            assert!(refusal.message.contains("more than 10000 documents"));
            assert!(refusal.message.contains("split it"), "{refusal:?}");
        }
        let collection = inside.collection(&namespace);
        let seen = collection.count_documents(doc! {"seen": true}).await;
        assert_eq!(seen.unwrap(), 0);
        let count = collection.count_documents(doc! {}).await.unwrap();
        assert_eq!(count, 10_004);
    });
}

#[test]
fn a_slow_request_is_refused_after_its_time_and_its_neighbours_do_not_wait() {
    alone(async |inside| {
        let namespace = ns("bounds.slow");
        fill(inside, &namespace, 20_000).await;
        let sum = doc! {"$sum": {"$map": {"input": {"$range": [0, 20_000]}, "in": {"$add": ["$$this", "$v"]}}}};
        let slow = doc! {"$expr": {"$eq": [sum, -1]}};
        let writes = vec![insert("before"), update(slow, false), insert("after")];
        let begun = Instant::now();
        let ends = inside.together(&namespace, writes).await;
        let time = begun.elapsed();
        println!("a request that is stopped after its time, with neighbours: {time:?}");
        assert!(is_insert(&ends[0], "before"), "{:?}", ends[0]);
        assert!(is_insert(&ends[2], "after"), "{:?}", ends[2]);
        let refusal = ends[1].as_ref().unwrap().result.as_ref().unwrap_err();
        assert_eq!(refusal.code, 50);
        assert!(
            refusal.message.contains("ran longer than 800 ms"),
            "{refusal:?}"
        );
        assert!(time < Duration::from_secs(9));
    });
}

#[test]
fn a_document_that_another_transaction_holds_costs_only_the_request_that_needs_it() {
    alone(async |inside| {
        let namespace = ns("bounds.held");
        fill(inside, &namespace, 2).await;
        let mut session = inside.driver.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        let hold = doc! {"$set": {"held": true}};
        (inside.collection(&namespace))
            .update_one(doc! {"_id": 1}, hold)
            .session(&mut session)
            .await
            .unwrap();

        let writes = vec![
            insert("before"),
            update(doc! {"_id": 1}, false),
            update(doc! {"_id": 0}, false),
            insert("after"),
        ];
        let begun = Instant::now();
        let ends = inside.together(&namespace, writes).await;
        let time = begun.elapsed();
        println!("a request for a held document, with neighbours: {time:?}");
        session.abort_transaction().await.unwrap();

        assert!(is_insert(&ends[0], "before"), "{:?}", ends[0]);
        assert!(
            matches!(ends[1], Err(Failure::Unavailable(_))),
            "{:?}",
            ends[1]
        );
        assert!(ends[2].as_ref().unwrap().result.is_ok());
        assert!(is_insert(&ends[3], "after"), "{:?}", ends[3]);
        assert!(time < Duration::from_secs(5));
    });
}

#[test]
fn what_mongodb_cannot_write_in_a_transaction_is_refused_in_plain_words() {
    let cluster = Cluster::shared();
    Runtime::new().unwrap().block_on(async {
        let uri = &cluster.info.mongodb_uri;
        let driver = mongodb::Client::with_uri_str(uri).await.unwrap();
        let database = driver.database("special");
        let capped = doc! {"create": "capped", "capped": true, "size": 4096};
        database.run_command(capped).await.unwrap();
        let series = doc! {"create": "series", "timeseries": {"timeField": "at"}};
        database.run_command(series).await.unwrap();
        let at = json!({"$date": {"$numberLong": "0"}});
        let seed = doc! {"_id": "seed", "at": bson::DateTime::from_millis(0)};
        for collection in ["capped", "series"] {
            let collection = database.collection::<Document>(collection);
            collection.insert_one(seed.clone()).await.unwrap();
        }
        let set = json!({"filter": {}, "update": {"$set": {"a": 1}}});
        for (collection, action, fields) in [
            ("capped", "insertOne", json!({"document": {"a": 1}})),
            ("capped", "updateOne", set.clone()),
            ("capped", "deleteMany", json!({"filter": {}})),
            ("series", "insertOne", json!({"document": {"at": at}})),
            ("series", "updateOne", set.clone()),
            ("series", "deleteMany", json!({"filter": {}})),
        ] {
            let mut body = fields;
            body["database"] = json!("special");
            body["collection"] = json!(collection);
            let begun = Instant::now();
            let reply = Http::to(cluster).act(action, &body).await.expect(400);
            println!("{collection}, {action}: {}", reply.json()["error"]);
            assert!(begun.elapsed() < bar(1));
            assert_eq!(reply.json()["mongodb_code"], 263);
            assert!(reply.text.contains("capped and time-series"), "{reply:?}");
            let count = database.collection::<Document>(collection);
            let count = count.count_documents(doc! {"a": {"$exists": false}}).await;
            assert_eq!(count.unwrap(), 1);
            let read = json!({"database": "special", "collection": collection});
            let found = Http::to(cluster).act("findOne", &read).await.expect(200);
            assert_eq!(found.json()["document"]["_id"], "seed");
        }
    });
}

#[test]
fn a_write_to_a_collection_that_does_not_exist_makes_it() {
    Runtime::new().unwrap().block_on(async {
        let http = Http::to(Cluster::shared());
        for (number, fields) in [
            json!({"document": {"_id": 1}}),
            json!({"filter": {"_id": 1}, "update": {"$set": {"a": 1}}, "upsert": true}),
        ]
        .into_iter()
        .enumerate()
        {
            let place = json!({"database": "absent", "collection": format!("c{number}")});
            let mut body = fields;
            body.as_object_mut()
                .unwrap()
                .extend(place.as_object().unwrap().clone());
            let (action, status) = [("insertOne", 201), ("updateOne", 200)][number];
            http.act(action, &body).await.expect(status);
            let found = http.act("findOne", &place).await.expect(200);
            assert_eq!(found.json()["document"]["_id"]["$numberInt"], "1");
        }
        let place = json!({"database": "absent", "collection": "none", "filter": {}});
        let reply = http.act("deleteMany", &place).await.expect(200);
        assert_eq!(reply.json(), json!({"deletedCount": {"$numberInt": "0"}}));
    });
}
