//! A part of a backup beside what is there: under other names, with what it tears told.

use std::collections::BTreeSet;

use bson::{Document, doc};
use mongodb::Client;
use tokio::runtime::Runtime;

use super::faults::refused;
use super::{Backup, Target};
use crate::support::extra_node::ExtraNode;
use crate::support::{Cluster, SMALL};

/// Orders, their stock and a time series; then transactions over several of them.
async fn fill(cluster: &Cluster, backup: &Backup<'_>) {
    let client = Client::with_uri_str(&cluster.info.mongodb_uri).await;
    let client = client.unwrap();
    let shop = client.database("shop");
    let series = doc! {"create": "heat", "timeseries": {"timeField": "t"}};
    shop.run_command(series).await.unwrap();
    let view = doc! {"create": "few", "viewOn": "orders", "pipeline": [{"$limit": 2}]};
    for name in ["orders", "stock", "other"] {
        let collection = shop.collection::<Document>(name);
        let documents = (0..20).map(|id| doc! {"_id": id, "n": 0});
        collection.insert_many(documents).await.unwrap();
    }
    shop.run_command(view).await.unwrap();
    let index = doc! {"key": {"n": 1}, "name": "by_n"};
    let index = doc! {"createIndexes": "orders", "indexes": [index]};
    shop.run_command(index).await.unwrap();
    backup.ok(&[]);
    for names in [["orders", "stock"], ["orders", "stock"], ["stock", "other"]] {
        let mut session = client.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        for name in names {
            let collection = shop.collection::<Document>(name);
            let update = collection.update_one(doc! {"_id": 3}, doc! {"$inc": {"n": 1}});
            update.session(&mut session).await.unwrap();
        }
        session.commit_transaction().await.unwrap();
    }
    let heat = shop.collection::<Document>("heat");
    let measured = doc! {"t": bson::DateTime::now(), "degrees": 21};
    heat.insert_one(measured).await.unwrap();
    backup.ok(&[]);
}

#[test]
fn a_selection_is_restored_beside_a_node_that_serves() {
    let runtime = Runtime::new().unwrap();
    let cluster = Cluster::start(&SMALL);
    let backup = Backup::of(&cluster);
    runtime.block_on(fill(&cluster, &backup));
    let target = Target::start();
    let client = runtime.block_on(target.client());
    let node = ExtraNode::start(&cluster, "n9", &target.cluster.info.mongodb_uri);
    node.until_listening();
    let kept = client.database("shop").collection::<Document>("stock");
    runtime.block_on(async { kept.insert_one(doc! {"_id": "kept"}).await.unwrap() });
    let names = || {
        let names = runtime.block_on(async {
            let names = client.database("shop").list_collection_names().await;
            names.unwrap()
        });
        names.into_iter().collect::<BTreeSet<_>>()
    };
    runtime.block_on(async {
        let series = doc! {"create": "series", "timeseries": {"timeField": "at"}};
        client.database("shop").run_command(series).await.unwrap();
    });
    let before = names();
    let folder = backup.folder();
    for (chosen, status, why) in [
        ("shop.none", 1, "shop.none is not in the backup"),
        ("drumline.log", 2, "or not at all"),
        ("shop.stock", 1, "the replica set has shop.stock already"),
        (
            "shop.orders=shop.series",
            1,
            "the replica set has shop.system.buckets.series already",
        ),
    ] {
        refused(&target.run(folder, &["--ns", chosen]), status, why);
    }
    let torn = "2 transactions since the base changed what is restored and also shop.stock";
    let chosen = [
        "--ns",
        "shop.orders=shop.orders_of_may",
        "--ns",
        "shop.heat",
        "--ns",
        "shop.few=shop.some",
    ];
    let dry = target.run(folder, &[&chosen[..], &["--dry-run"]].concat());
    refused(&dry, 0, torn);
    assert_eq!(names(), before);
    let outcome = target.run(folder, &chosen);
    refused(&outcome, 0, torn);
    assert!(
        outcome.stdout.contains("\"torn\":\"2 trans"),
        "{outcome:#?}"
    );
    let made: Vec<_> = names().difference(&before).cloned().collect();
    assert_eq!(
        made,
        ["heat", "orders_of_may", "some", "system.buckets.heat",]
    );
    let shop = client.database("shop");
    runtime.block_on(async {
        let orders = shop.collection::<Document>("orders_of_may");
        let third = orders.find_one(doc! {"_id": 3}).await.unwrap().unwrap();
        assert_eq!(third, doc! {"_id": 3, "n": 2});
        assert_eq!(orders.count_documents(doc! {}).await.unwrap(), 20);
        assert_eq!(orders.list_index_names().await.unwrap(), ["_id_", "by_n"]);
        let heat = shop.collection::<Document>("heat");
        assert_eq!(heat.count_documents(doc! {}).await.unwrap(), 1);
        assert_eq!(kept.count_documents(doc! {}).await.unwrap(), 1);
    });
    // What is dropped is what is to be restored.
    let more = ["--ns", "shop.stock", "--drop", "--yes"];
    refused(&target.run(folder, &more), 0, "and also shop.");
    let again = [&chosen[..], &["--drop", "--yes"]].concat();
    refused(&target.run(folder, &again), 0, torn);
    runtime.block_on(async {
        assert_eq!(kept.count_documents(doc! {}).await.unwrap(), 20);
    });
    let restore = client
        .database("drumline")
        .collection::<Document>("restore");
    let note = runtime.block_on(async { restore.find_one(doc! {}).await.unwrap() });
    assert_eq!(note, None);
    node.until_listening();
}
