use bson::doc;
use drumline::model::*;
use drumline::*;
use std::time::Instant;

fn req(id: &str, keyed: bool, ns: &str, write: Write) -> WriteRequest {
    let ns = Namespace::parse(ns).unwrap();
    WriteRequest {
        id: RequestId::parse(id).unwrap(),
        digest: keyed.then(|| write.digest(&ns)),
        clock: 0,
        namespace: ns,
        write: write.with_ids(),
        bytes: 100,
    }
}
#[tokio::test(flavor = "multi_thread")]
async fn scratch() {
    tracing_subscriber::fmt()
        .with_env_filter("drumline=debug")
        .init();
    let node = NodeName::parse("n1").unwrap();
    let store = store::Store::connect(
        "mongodb://127.0.0.1:28011,127.0.0.1:28012,127.0.0.1:28013/?replicaSet=rs",
        node.clone(),
    )
    .await
    .unwrap();
    store.prepare().await.unwrap();
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    let handle = sequencer::spawn(store.clone(), node.clone(), rx);
    let t = Instant::now();
    let claim = store.claim().await.unwrap();
    println!("claim {:?}", t.elapsed());
    tx.send(claim).await.unwrap();
    let mut w = handle.watch();
    w.wait_for(|p| p.epoch.is_some()).await.unwrap();
    let gw = gateway::Gateway::new(store.clone(), handle, "n1".into());
    let ns = format!("t.c{}", std::process::id());
    let ins = |d| Write::Insert { documents: vec![d] };
    for i in 0..5 {
        let t = Instant::now();
        println!(
            "{:?}",
            gw.write(req(&format!("a{i}-{ns}"), true, &ns, ins(doc! {"_id": i})))
                .await
        );
        println!("insert {:?}", t.elapsed());
    }
    println!(
        "replay {:?}",
        gw.write(req(&format!("a1-{ns}"), true, &ns, ins(doc! {"_id": 1})))
            .await
    );
    println!(
        "reused {:?}",
        gw.write(req(&format!("a1-{ns}"), true, &ns, ins(doc! {"_id": 2})))
            .await
    );
    println!(
        "dup {:?}",
        gw.write(req("b", false, &ns, ins(doc! {"_id": 1}))).await
    );
    for (f, u, many, upsert) in [
        (doc! {"_id": 1}, doc! {"$set": {"a": 1}}, false, false),
        (doc! {"_id": 1}, doc! {"$set": {"a": 1}}, false, false),
        (doc! {}, doc! {"$set": {"a": 1}}, true, false),
        (doc! {"_id": "x"}, doc! {"$inc": {"a": 1}}, false, true),
        (doc! {"_id": "x"}, doc! {"$inc": {"a": 1}}, false, true),
        (doc! {"zz": "x"}, doc! {"$inc": {"a": 1}}, false, true),
        (doc! {"_id": 1}, doc! {"$inc": {"a.b": 1}}, false, false),
    ] {
        println!(
            "upd {:?}",
            gw.write(req(
                "b",
                false,
                &ns,
                Write::Update {
                    filter: f,
                    update: Update::Operators(u),
                    many,
                    upsert
                }
            ))
            .await
        );
    }
    println!(
        "del {:?}",
        gw.write(req(
            "b",
            false,
            &ns,
            Write::Delete {
                filter: doc! {"_id": "x"},
                many: false
            }
        ))
        .await
    );
    for c in [Consistency::Linearizable, Consistency::Causal] {
        let t = Instant::now();
        println!(
            "read {:?}",
            gw.read(
                Namespace::parse(&ns).unwrap(),
                Read::Find {
                    filter: doc! {},
                    projection: None,
                    sort: None,
                    limit: 10,
                    skip: 0
                },
                c,
                0
            )
            .await
        );
        println!("read {:?}", t.elapsed());
    }
    println!(
        "one {:?}",
        gw.read(
            Namespace::parse(&ns).unwrap(),
            Read::FindOne {
                filter: doc! {"_id": 3},
                projection: None,
                sort: None
            },
            Consistency::Linearizable,
            0
        )
        .await
    );
    println!(
        "colstats {:?}",
        gw.read(
            Namespace::parse(&ns).unwrap(),
            Read::Aggregate {
                pipeline: vec![doc! {"$collStats": {"count": {}}}]
            },
            Consistency::Linearizable,
            0
        )
        .await
    );
    // 500 with 250 refused
    let t = Instant::now();
    let mut js = vec![];
    for i in 0..500 {
        let gw = gw.clone();
        let ns = ns.clone();
        js.push(tokio::spawn(async move {
            gw.write(req(
                "b",
                false,
                &ns,
                ins(doc! {"_id": if i % 2 == 0 { 1000 + i } else { 1 }}),
            ))
            .await
        }));
    }
    let mut ok = 0;
    for j in js {
        if j.await.unwrap().unwrap().result.is_ok() {
            ok += 1
        }
    }
    println!("500/250: {ok} {:?}", t.elapsed());
    for clients in [1, 64, 256] {
        let t = Instant::now();
        let n = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let js: Vec<_> = (0..clients)
            .map(|_| {
                let gw = gw.clone();
                let ns = ns.clone();
                let n = n.clone();
                tokio::spawn(async move {
                    while t.elapsed().as_secs() < 3 {
                        gw.write(req("b", false, &ns, ins(doc! {"a": 1})))
                            .await
                            .unwrap();
                        n.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for j in js {
            j.await.unwrap();
        }
        println!(
            "{clients} clients: {:.0}/s",
            n.load(std::sync::atomic::Ordering::Relaxed) as f64 / t.elapsed().as_secs_f64()
        );
    }
}
