//! Nobody but who does it pays for what a client, a document or another program does: clients that
//! leave, long requests, locks.

use std::future::poll_fn;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bson::{Bson, Document, RawDocumentBuf, doc};
use drumline::budget::Budget;
use drumline::model::limits::IN_FLIGHT_BYTES_MAX;
use drumline::model::{Answer, Failure, Namespace, Outcome, Position, Read, Update, Write};
use drumline::store::Question;
use futures_util::future::{join, join_all};
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, watch};

use crate::support::inside::Inside;
use crate::support::{Cluster, SMALL, bar, eventually, kill};

/// The coordinator of these tests. They take turns.
struct Shared {
    inside: Mutex<Inside>,
    runtime: Runtime,
    cluster: Cluster,
}

fn alone(test: impl AsyncFnOnce(&Inside, &Cluster)) {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let cluster = Cluster::start(&SMALL);
        let runtime = Runtime::new().unwrap();
        let inside = runtime.block_on(Inside::start(&cluster.info.mongodb_uri));
        Shared {
            inside: Mutex::new(inside),
            runtime,
            cluster,
        }
    });
    shared.runtime.block_on(async {
        let inside = shared.inside.lock().await;
        test(&inside, &shared.cluster).await;
    });
}

fn ns(text: &str) -> Namespace {
    Namespace::parse(text).unwrap()
}

fn insert(document: Document) -> Write {
    Write::Insert {
        documents: vec![document],
    }
}

fn update(filter: Document) -> Write {
    Write::Update {
        filter,
        update: Update::Operators(doc! {"$inc": {"n": 1}}),
        many: false,
        upsert: false,
    }
}

async fn fill(inside: &Inside, namespace: &Namespace, documents: i32) {
    let all = (0..documents).map(|number| doc! {"_id": number, "n": 1});
    let collection = inside.collection(namespace);
    collection.insert_many(all).await.unwrap();
}

/// A filter that takes long within one expression, where MongoDB does not look at the clock.
fn one_long_expression(rounds: i32) -> Document {
    let over = |name: &str, value: Bson| {
        doc! {"$sum": {"$map": {"input": {"$range": [0, rounds]}, "as": name, "in": value}}}
    };
    let product = Bson::Document(doc! {"$multiply": ["$$a", "$$b", "$n"]});
    let sum = over("a", Bson::Document(over("b", product)));
    doc! {"n": 1, "$expr": {"$eq": [sum, -1]}}
}

/// The others: four clients that write to another collection until the work has ended. Gives the
/// longest time in which none of them was answered, and what the work gave.
async fn beside_others<T>(inside: &Inside, work: impl Future<Output = T>) -> (Duration, T) {
    let others = ns("beside.others");
    let (end, ended) = watch::channel(false);
    let answered = Mutex::new(vec![Instant::now()]);
    let client = async || {
        while !*ended.borrow() {
            let written = inside.write(&others, insert(doc! {})).await;
            assert!(written.is_ok(), "{written:?}");
            answered.lock().await.push(Instant::now());
        }
    };
    let work = async {
        let result = work.await;
        end.send_replace(true);
        result
    };
    let (_, result) = join(join_all((0..4).map(|_| client())), work).await;
    let times = answered.into_inner();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    (gaps.max().unwrap_or_default(), result)
}

fn refused(end: &Result<Outcome, Failure>) -> Option<i32> {
    Some(end.as_ref().ok()?.result.as_ref().err()?.code)
}

/// Lets a future take so many steps at most and drops it, or when all are told to leave.
async fn leave_after<T>(
    steps: usize,
    work: impl Future<Output = T>,
    mut all: watch::Receiver<bool>,
) {
    let mut work = Box::pin(work);
    let mut left = steps;
    let stepping = poll_fn(|context| {
        if left == 0 || work.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        left -= 1;
        Poll::Pending
    });
    tokio::select! {
        () = stepping => {}
        _ = all.wait_for(|leave| *leave) => {}
    }
}

#[test]
fn readers_that_leave_at_any_step_stop_nobody() {
    const READERS: usize = 256;
    alone(async |inside, cluster| {
        let namespace = ns("leave.read");
        fill(inside, &namespace, 10).await;
        let by_id = doc! {"_id": 1};
        let reads = [by_id, doc! {"n": 1}].map(|filter| Read::FindOne {
            filter,
            projection: None,
            sort: None,
        });
        for round in 0..4 {
            let (leave, left) = watch::channel(false);
            let begun = AtomicUsize::new(0);
            let reader = async |number: usize| {
                let mut memory = Budget::new(IN_FLIGHT_BYTES_MAX).open();
                let question = Question {
                    namespace: &namespace,
                    read: &reads[number % 2],
                };
                begun.fetch_add(1, Ordering::Relaxed);
                let read = inside
                    .store()
                    .read_primary(question, Position(1), &mut memory);
                leave_after(1 + (number + round) % 12, read, left.clone()).await;
            };
            kill(cluster.member_pid(0), Signal::STOP);
            let readers = join_all((0..READERS).map(reader));
            let leaving = async {
                eventually("all readers have begun", async || {
                    (begun.load(Ordering::Relaxed) == READERS).then_some(())
                })
                .await;
                leave.send_replace(true);
            };
            join(readers, leaving).await;
            kill(cluster.member_pid(0), Signal::CONT);

            let thawed = Instant::now();
            let written = inside.write(&namespace, insert(doc! {})).await;
            assert!(written.is_ok(), "{written:?}");
            let mut memory = Budget::new(IN_FLIGHT_BYTES_MAX).open();
            for read in &reads {
                let namespace = &namespace;
                let question = Question { namespace, read };
                let store = inside.store();
                let found = store.read_primary(question, Position(1), &mut memory).await;
                assert_eq!(found.unwrap().documents.len(), 1);
            }
            let waited = thawed.elapsed();
            println!("{READERS} readers left, round {round}: the next answers after {waited:?}");
            assert!(waited < bar(1), "round {round}: {waited:?}");
        }
    });
}

#[test]
fn a_request_that_mongodb_does_not_interrupt_is_left_and_the_others_go_on() {
    alone(async |inside, _| {
        let namespace = ns("long.expression");
        fill(inside, &namespace, 1).await;
        // Some seconds of one core, three times.
        let slow = update(one_long_expression(5_000));
        let work = inside.write(&namespace, slow);
        let (longest, end) = beside_others(inside, work).await;
        println!("one long expression: nobody else was answered for {longest:?} at most");
        assert_eq!(refused(&end), Some(50), "{end:?}");
        assert!(longest < bar(2), "{longest:?}");
    });
}

#[test]
fn a_pipeline_that_computes_for_long_at_one_document_is_left_too() {
    alone(async |inside, _| {
        let namespace = ns("long.pipeline");
        let collection = inside.collection(&namespace);
        collection
            .insert_one(doc! {"_id": "one", "n": 1})
            .await
            .unwrap();
        let Some(Bson::Document(expression)) = one_long_expression(5_000).remove("$expr") else {
            panic!("it is one expression");
        };
        let slow = Write::Update {
            filter: doc! {"_id": "one"},
            update: Update::Pipeline(vec![doc! {"$set": {"sum": expression}}]),
            many: false,
            upsert: false,
        };
        let work = inside.write(&namespace, slow);
        let (longest, end) = beside_others(inside, work).await;
        println!("one long pipeline: nobody else was answered for {longest:?} at most");
        assert_eq!(refused(&end), Some(50), "{end:?}");
        assert!(longest < bar(2), "{longest:?}");
    });
}

#[test]
fn another_programs_lock_on_a_collection_stops_nobody_elsewhere() {
    alone(async |inside, _| {
        let namespace = ns("lock.collection");
        fill(inside, &namespace, 1).await;
        let collection = inside.collection(&namespace);
        let mut session = inside.driver.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        let other = collection.insert_one(doc! {"_id": "other"});
        other.session(&mut session).await.unwrap();
        let index = mongodb::IndexModel::builder().keys(doc! {"n": 1}).build();
        let indexing = collection.create_index(index);
        let waiting = async {
            let admin = inside.driver.database("admin");
            eventually("the index waits for the transaction", async || {
                let ops = doc! {"currentOp": 1, "command.createIndexes": {"$exists": true}};
                let ops = admin.run_command(ops).await.unwrap();
                let ops = ops.get_array("inprog").unwrap();
                let waits = |op: &Bson| op.as_document()?.get_bool("waitingForLock").ok();
                ops.iter()
                    .filter_map(waits)
                    .any(|waits| waits)
                    .then_some(())
            })
            .await;
            let work = inside.write(&namespace, update(doc! {"n": 1}));
            let beside = beside_others(inside, work).await;
            session.abort_transaction().await.unwrap();
            beside
        };
        let (built, (longest, end)) = join(indexing.into_future(), waiting).await;
        built.unwrap();
        println!("a locked collection: nobody elsewhere was answered for {longest:?} at most");
        assert!(matches!(end, Err(Failure::Unavailable(_))), "{end:?}");
        assert!(longest < bar(2), "{longest:?}");
        let again = inside.write(&namespace, update(doc! {"n": 1})).await;
        assert!(again.is_ok(), "{again:?}");
    });
}

#[test]
fn sixty_documents_of_another_programs_transaction_stop_nobody_elsewhere() {
    alone(async |inside, _| {
        let namespace = ns("lock.documents");
        let ids = (0..60).map(|number| format!("d{number}"));
        let all = ids.clone().map(|id| doc! {"_id": id, "n": 1});
        let collection = inside.collection(&namespace);
        collection.insert_many(all).await.unwrap();
        let mut session = inside.driver.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        let held = collection.update_many(doc! {}, doc! {"$set": {"held": true}});
        held.session(&mut session).await.unwrap();
        let writes = ids.map(|id| inside.write(&namespace, update(doc! {"_id": id})));
        let (longest, ends) = beside_others(inside, join_all(writes)).await;
        session.abort_transaction().await.unwrap();
        println!("60 locked documents: nobody elsewhere was answered for {longest:?} at most");
        // On a machine that stalls, MongoDB ends the transaction before all have been sent back.
        let told = |end: &Result<Outcome, Failure>| match end {
            Ok(outcome) => outcome.result.is_ok(),
            Err(failure) => matches!(failure, Failure::Unavailable(_)),
        };
        assert!(ends.iter().all(told), "{ends:?}");
        assert!(longest < bar(2), "{longest:?}");
    });
}

async fn read_all(inside: &Inside, namespace: &Namespace) -> Result<Vec<Document>, Failure> {
    let read = &Read::Aggregate { pipeline: vec![] };
    let question = Question { namespace, read };
    let mut memory = Budget::new(IN_FLIGHT_BYTES_MAX).open();
    let found = inside
        .store()
        .read_primary(question, Position(1), &mut memory);
    Ok(found.await?.documents)
}

#[test]
fn a_stored_document_that_looks_like_extended_json_is_read_as_it_is() {
    alone(async |inside, _| {
        let namespace = ns("odd.keys");
        let mut documents = Vec::new();
        for (number, key) in ["$oid", "$date", "$scope", "$binary", "$numberLong"]
            .iter()
            .enumerate()
        {
            let inner = doc! { *key: "x", "more": 1 };
            documents.push(doc! {"_id": i32::try_from(number).unwrap(), "v": inner});
        }
        let collection = inside.collection(&namespace);
        collection.insert_many(&documents).await.unwrap();
        assert_eq!(read_all(inside, &namespace).await, Ok(documents));
    });
}

#[test]
fn a_stored_document_that_is_not_utf8_is_replaced_like_any_other() {
    alone(async |inside, _| {
        let namespace = ns("odd.text");
        let mut bytes = doc! {"_id": "legacy", "name": "caf\u{e9}"}
            .to_vec()
            .unwrap();
        let at = bytes.windows(2).position(|two| two == "\u{e9}".as_bytes());
        bytes[at.unwrap()] = 0xe9;
        bytes[at.unwrap() + 1] = b' ';
        let odd = RawDocumentBuf::from_bytes(bytes).unwrap();
        let database = inside.driver.database("odd");
        let raw = database.collection::<RawDocumentBuf>("text");
        raw.insert_one(&odd).await.unwrap();
        let Err(Failure::ReadRefused { message, .. }) = read_all(inside, &namespace).await else {
            panic!("it cannot be shown");
        };
        assert!(message.contains("legacy"), "{message}");
        let replace = |filter: Document| Write::Replace {
            filter,
            replacement: doc! {"name": "plain"},
            upsert: false,
        };
        // MongoDB compares a replacement as it was sent: without an `_id` it modifies any document.
        for filter in [doc! {"_id": "legacy"}, doc! {"name": "plain"}] {
            let work = inside.write(&namespace, replace(filter));
            let (longest, end) = beside_others(inside, work).await;
            let expected = Answer::Updated {
                matched: 1,
                modified: 1,
                upserted: None,
            };
            assert_eq!(end.unwrap().result, Ok(expected));
            assert!(longest < bar(2), "{longest:?}");
        }
    });
}
