//! One order, whatever happens: load, kills and freezes, each followed by the full comparison.

use std::time::{Duration, Instant};

use drumline::client::Clock;
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::faults::turn;
use crate::support::audit::{Audited, audit};
use crate::support::extra_node::ExtraNode;
use crate::support::load::{End, Load, Op, Record};
use crate::support::{Cluster, PATIENCE, bar, kill, wait_until};

fn runtime() -> Runtime {
    Runtime::new().unwrap()
}

async fn audited(cluster: &Cluster, load: &Load, records: &[Record]) -> Audited {
    let audited = audit(&cluster.info.mongodb_uri, &load.namespace, records).await;
    println!("{audited:?}");
    audited
}

#[test]
fn two_hundred_clients_for_thirty_seconds_tell_one_story() {
    let _turn = turn();
    let cluster = Cluster::start(&[]);
    runtime().block_on(async {
        // Each request is to be answered, however slow the machine: how fast is for the benches.
        let load = Load::new(&cluster, "load.steady").patient(PATIENCE);
        let running = tokio::spawn({
            let load = load.clone();
            async move { load.run(200).await }
        });
        // The load's length is what this test measures, not something it waits for.
        sleep(Duration::from_secs(30)).await;
        load.stop();
        let mut records = running.await.unwrap();
        load.settle(&mut records).await;
        let audited = audited(&cluster, &load, &records).await;
        assert_eq!(audited.unknown, 0);
        assert_eq!(audited.acknowledged + audited.refused, records.len());
        assert!(audited.refused > 0, "the load must hold refusals");
        assert!(
            audited.entries > audited.log_documents,
            "requests must share batches"
        );
    });
}

#[test]
fn kill_nine_in_the_middle_of_load_loses_and_doubles_nothing() {
    let cluster = Cluster::start(&Cluster::ONE_NODE);
    runtime().block_on(async {
        let load = Load::new(&cluster, "load.killed");
        let running = tokio::spawn({
            let load = load.clone();
            async move { load.run(64).await }
        });
        let probe = load.client(Duration::from_secs(20));
        let mut probes = Vec::new();
        for round in 0..3 {
            let alive = async |name: String| {
                load.one_request(&probe, &Clock::default(), Op::Insert { key: name })
                    .await
            };
            probes.push(alive(format!("before{round}")).await);
            let node = cluster.node_pid(0);
            kill(node, Signal::KILL);
            let killed = Instant::now();
            probes.push(alive(format!("after{round}")).await);
            println!(
                "kill -9 to the next acknowledged write: {:?}",
                killed.elapsed()
            );
        }
        load.stop();
        let mut records = running.await.unwrap();
        records.extend(probes);
        load.settle(&mut records).await;
        let audited = audited(&cluster, &load, &records).await;
        assert_eq!(audited.unknown, 0, "a retry with the id gets the answer");
        let replayed = records
            .iter()
            .filter(|r| matches!(&r.end, End::Acknowledged(w) if w.replayed));
        println!("{} answers were replayed", replayed.count());
    });
}

#[test]
fn a_frozen_coordinator_acknowledges_nothing_after_its_successor_began() {
    let cluster = Cluster::start(&Cluster::ONE_NODE);
    let first = cluster.node_pid(0);
    runtime().block_on(async {
        let load = Load::new(&cluster, "load.frozen");
        let running = tokio::spawn({
            let load = load.clone();
            async move { load.run(64).await }
        });
        let probe = load.client(Duration::from_secs(20));
        let mut records = Vec::new();
        // Each waits for a batch of the load: the freeze meets a node in the middle of its work.
        for number in 0..20 {
            let before = Op::Insert {
                key: format!("before{number}"),
            };
            records.push(load.one_request(&probe, &Clock::default(), before).await);
        }

        kill(first, Signal::STOP);
        let begun = Instant::now();
        let second = ExtraNode::start(&cluster, "n2", &cluster.info.mongodb_uri);
        let through_second = load.clone().through(&second.url);
        let client = through_second.client(Duration::from_secs(20));
        let after = Op::Insert {
            key: "after".into(),
        };
        let record = through_second
            .one_request(&client, &Clock::default(), after)
            .await;
        println!(
            "start of a successor to its first acknowledged write: {:?}",
            begun.elapsed()
        );
        assert!(begun.elapsed() < bar(2));
        let End::Acknowledged(written) = &record.end else {
            panic!("the successor did not write: {record:?}")
        };
        let deposed_at = written.position.unwrap();
        records.push(record);

        let thawed = Instant::now();
        kill(first, Signal::CONT);
        let url = cluster.info.nodes[0].url.clone();
        wait_until("the old coordinator knows that it is deposed", || {
            !ready(&url)
        });
        load.stop();
        let mut old = running.await.unwrap();
        for record in &old {
            let End::Acknowledged(written) = &record.end else {
                continue;
            };
            let late = record.returned > thawed && written.position.unwrap() >= deposed_at;
            assert!(!late || written.replayed, "I8: {record:?}");
        }
        through_second.settle(&mut old).await;
        records.extend(old);
        audited(&cluster, &load, &records).await;
    });
}

#[test]
fn losing_the_primary_under_load_loses_and_doubles_nothing() {
    let cluster = Cluster::start(&[]);
    runtime().block_on(async {
        let load = Load::new(&cluster, "load.primary");
        let running = tokio::spawn({
            let load = load.clone();
            async move { load.run(64).await }
        });
        let probe = load.client(Duration::from_secs(60));
        let mut records = Vec::new();
        for number in 0..20 {
            let key = format!("before{number}");
            records.push(
                load.one_request(&probe, &Clock::default(), Op::Insert { key })
                    .await,
            );
        }
        kill(cluster.primary_pid().await, Signal::KILL);
        let killed = Instant::now();
        let key = "after".to_owned();
        records.push(
            load.one_request(&probe, &Clock::default(), Op::Insert { key })
                .await,
        );
        println!(
            "kill -9 of the primary to the next acknowledged write: {:?}",
            killed.elapsed()
        );
        assert!(matches!(records.last().unwrap().end, End::Acknowledged(_)));
        load.stop();
        records.extend(running.await.unwrap());
        load.settle(&mut records).await;
        let audited = audited(&cluster, &load, &records).await;
        assert_eq!(audited.unknown, 0, "a retry with the id gets the answer");
    });
}

/// Whether `/readyz` says yes.
fn ready(url: &str) -> bool {
    use std::io::{Read as _, Write as _};
    let address = url.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply.starts_with("HTTP/1.1 200")
}
