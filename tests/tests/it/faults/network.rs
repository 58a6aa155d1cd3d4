//! Networks between an executor and its coordinator, and between executors.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tidemill::client::Client;
use tidemill::oracle::compare;
use tidemill_tests::harness::{ProcessCluster, Proxy, Wire, create_tpch, lasting_port, rows, tpch_oracle, value};

use super::WIDE;
use crate::durable::{SCALE, SLOW, at_least, state_in};
use crate::going::Going;

/// An executor whose blocks are reached, and who reaches its coordinator, over wires.
struct Wired {
    control: Proxy,
    data: Proxy,
}

async fn add_wired(cluster: &mut ProcessCluster, slots: u32) -> Wired {
    let coordinator: SocketAddr = cluster.coordinator.url().trim_start_matches("http://").parse().expect("an address");
    let control = Proxy::start(coordinator).await;
    let port = lasting_port();
    let data = Proxy::start(SocketAddr::from(([127, 0, 0, 1], port))).await;
    let environment =
        [("TIDEMILL_BIND", format!("127.0.0.1:{port}")), ("TIDEMILL_ADVERTISE", data.address.to_string())];
    cluster.add_executor_through(slots, &format!("http://{}", control.address), &environment);
    Wired { control, data }
}

/// A cluster of two executors on wires. An executor that is silent for some seconds is dead.
async fn wired(folder: &Path, executor_timeout: u32) -> (ProcessCluster, Client, [Wired; 2]) {
    let environment = [("TIDEMILL_EXECUTOR_TIMEOUT", executor_timeout.to_string())];
    let mut cluster = ProcessCluster::with(0, 1, &state_in(folder), &environment).await;
    let wires = [add_wired(&mut cluster, 1).await, add_wired(&mut cluster, 1).await];
    cluster.wait_for_executors(2).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, SCALE).await;
    (cluster, client, wires)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_blip_repeats_no_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cluster, mut client, wires) = wired(folder.path(), 15).await;
    let going = Going::start(&cluster, SLOW).await;
    going.until_durable(&mut client, 2).await;
    for wire in [Wire::Frozen, Wire::Cut] {
        wires[0].control.set(wire);
        tokio::time::sleep(Duration::from_secs(3)).await;
        wires[0].control.set(Wire::Whole);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let lost = "SELECT count(*) FROM system.executors WHERE state = 'lost'";
    assert_eq!(value(&mut client, lost).await, "0");
    assert_eq!(going.sum(&mut client, "repeats").await, 0);
    going.answers(SLOW).await;
    let again = cluster.journals().concat();
    let started = again.iter().filter(|line| line.contains(" started ")).map(|line| line.split(' ').nth(3));
    let (all, tasks) = (started.clone().count(), started.collect::<std::collections::BTreeSet<_>>().len());
    assert_eq!(all, tasks, "an attempt was repeated: {again:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_cannot_be_heard_is_given_up_and_its_late_word_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cluster, mut client, wires) = wired(folder.path(), 4).await;
    let out = folder.path().join("out");
    let going = Going::start(&cluster, &format!("COPY ({SLOW}) TO '{}/' STORED AS PARQUET", out.display())).await;
    going.until_durable(&mut client, 2).await;
    wires[0].control.set(Wire::Frozen);
    let lost = "SELECT count(*) FROM system.executors WHERE state = 'lost'";
    assert!(at_least(&mut client, lost, 1).await, "it was not given up");
    wires[0].control.set(Wire::Whole);
    let rows_written = going.reading.await.expect("no panic").expect("an answer");
    assert_eq!(rows_written.len(), 1);
    rows(&mut client, &format!("CREATE EXTERNAL TABLE out STORED AS PARQUET LOCATION '{}/'", out.display())).await;
    let expected = tpch_oracle(SCALE).await.answer(SLOW).await.expect("an answer");
    let ours = rows(&mut client, "SELECT * FROM out ORDER BY 1").await;
    assert!(compare(&expected, &ours).expect("a comparison").is_none(), "published once and whole");
    // It comes back under a new name.
    let alive = "SELECT count(*) FROM system.executors WHERE state = 'alive'";
    assert!(at_least(&mut client, alive, 2).await, "it did not join again");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_cannot_reach_a_peer_go_on_in_the_store_and_the_peer_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cluster, mut client, wires) = wired(folder.path(), 15).await;
    let going = Going::start(&cluster, SLOW).await;
    going.until_durable(&mut client, 4).await;
    wires[0].data.set(Wire::Cut);
    wires[1].data.set(Wire::Cut);
    let run = going.run.clone();
    going.answers(SLOW).await;
    let gone = "SELECT count(*) FROM system.executors WHERE state = 'lost'";
    assert_eq!(value(&mut client, gone).await, "0", "a healthy peer was given up");
    let read = format!("SELECT get_requests FROM system.runs WHERE run_id = '{run}'");
    assert_ne!(value(&mut client, &read).await, "0", "nothing was read from the store: the cut came too late");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_change_on_the_network_are_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cluster, mut client, wires) = wired(folder.path(), 15).await;
    for wire in &wires {
        wire.data.set(Wire::Flipping);
    }
    let going = Going::start(&cluster, WIDE).await;
    going.answers(WIDE).await;
    assert!(wires.iter().any(|wire| wire.data.refused() > 0), "nothing was changed");
    assert_eq!(value(&mut client, "SELECT count(*) FROM system.executors WHERE state = 'lost'").await, "0");
}
