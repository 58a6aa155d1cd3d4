//! Stores that refuse, are silent, go away in the middle of something, or deny.

use std::time::{Duration, Instant};

use tidemill::client::Client;
use tidemill_core::ErrorKind;
use tidemill_tests::harness::s3::S3Server;
use tidemill_tests::harness::{Process, ProcessCluster, Proxy, Wire, is_full, rows, value};

use super::{WIDE, failure, until};
use crate::durable::SLOW;
use crate::going::{Going, cluster, with_a_slow_end};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_for_a_while_stops_nothing() {
    let (_s3, wire, environment) = S3Server::behind_a_wire("tide").await;
    let (cluster, mut client) = cluster("s3://tide/cluster", &environment).await;
    let folder = tempfile::tempdir().expect("a folder");
    let storm = Duration::from_secs(if is_full() { 60 } else { 6 });
    for (number, state) in [Wire::Refusing(503), Wire::Cut, Wire::Frozen].into_iter().enumerate() {
        let before = wire.refused();
        let to = folder.path().join(number.to_string());
        let going = Going::start(&cluster, SLOW).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        wire.set(state);
        // Its plan must be in the log before its first task writes.
        let copying = tokio::spawn({
            let client = cluster.client().await;
            let copy = format!("COPY (SELECT n_name FROM nation) TO '{}/' STORED AS PARQUET", to.display());
            async move { client.query(&copy).await?.collect().await }
        });
        tokio::time::sleep(storm).await;
        assert!(!copying.is_finished() && !to.exists(), "{state:?}: something was written that nobody noted");
        wire.set(Wire::Whole);
        assert!(wire.refused() > before || state == Wire::Frozen, "{state:?}: nobody asked the store");
        copying.await.expect("no panic").unwrap_or_else(|e| panic!("{state:?}: {e}"));
        assert!(to.join("_SUCCESS").exists());
        going.answers(SLOW).await;
    }
    let lost = "SELECT count(*) FROM system.executors WHERE state <> 'alive'";
    assert_eq!(value(&mut client, lost).await, "0", "nobody was given up for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_denies_is_an_error_that_says_so_within_a_minute() {
    let s3 = tokio::task::spawn_blocking(S3Server::start).await.expect("a server");
    s3.create_bucket("tide");
    let mut environment = s3.environment().to_vec();
    environment[2].1 = "not the secret".to_owned();
    let args = ["coordinator", "--bind", "127.0.0.1:0", "--state", "s3://tide/cluster"];
    let start = Instant::now();
    let ended = tokio::task::spawn_blocking(move || Process::run_with(&args, &environment)).await.expect("no panic");
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(ended.stderr.contains("denied") || ended.stderr.contains("credentials"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("not the secret"));
}

/// How long the store is away, and in which ways: in the bounded part of CI in this one.
fn storms(bounded: Wire) -> (Duration, Vec<Wire>) {
    match is_full() {
        true => (Duration::from_secs(60), vec![Wire::Refusing(503), Wire::Cut, Wire::Frozen]),
        false => (Duration::from_secs(6), vec![bounded]),
    }
}

/// Requests of a kind so far.
fn asked(wire: &Proxy, method: &str, path: &str) -> usize {
    wire.requests(path).get(method).copied().unwrap_or_default()
}

/// Two tasks that write more than one part each, and an end that takes longer than a storm.
fn large() -> String {
    let times = if is_full() { 60_000 } else { 6_000 };
    with_a_slow_end(WIDE, "m").replace("generate_series(1, 2000) AS s", &format!("generate_series(1, {times}) AS s"))
}

async fn on_s3() -> (S3Server, Proxy, ProcessCluster, Client) {
    let (s3, wire, mut environment) = S3Server::behind_a_wire("tide").await;
    environment.push(("TIDEMILL_YOUNG_MILLIS", "0".to_owned()));
    let (cluster, client) = cluster("s3://tide/cluster", &environment).await;
    (s3, wire, cluster, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_in_the_middle_of_uploads_holds_nothing_up_and_they_catch_up() {
    let (_s3, wire, cluster, mut client) = on_s3().await;
    let ((storm, states), sql) = (storms(Wire::Refusing(503)), large());
    for state in states {
        let parts = asked(&wire, "PUT", "partNumber=");
        let going = Going::in_partitions(cluster.client().await, &sql, "2").await;
        until("the first part of a pack", async || asked(&wire, "PUT", "partNumber=") > parts).await;
        let peak = || cluster.executors.iter().map(Process::peak_memory).max().unwrap_or_default();
        let (held, refused) = (peak(), wire.refused());
        wire.set(state);
        tokio::time::sleep(storm).await;
        wire.set(Wire::Whole);
        assert!(wire.refused() > refused || state == Wire::Frozen, "{state:?}: nobody asked the store");
        // What waits for the store is bounded: by what executors may hold, and by two parts of each pack.
        let grown = peak() - held;
        assert!(grown < 384 << 20, "{state:?}: an executor held {} MiB more", grown >> 20);
        going.until_stored(&mut client).await;
        let repeats = format!("SELECT sum(repeats) FROM system.tasks WHERE run_id = '{}'", going.run);
        going.answers(&sql).await;
        assert_eq!(value(&mut client, &repeats).await, "0", "{state:?}: something was done again");
    }
    let lost = "SELECT count(*) FROM system.executors WHERE state <> 'alive'";
    assert_eq!(value(&mut client, lost).await, "0", "somebody was given up for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_in_the_middle_of_reads_costs_no_finished_work() {
    let (_s3, wire, mut cluster, mut client) = on_s3().await;
    let ((storm, states), sql) = (storms(Wire::Frozen), large());
    for state in states {
        let going = Going::in_partitions(cluster.client().await, &sql, "2").await;
        let durable = going.until_stored(&mut client).await;
        let (reads, refused) = (asked(&wire, "GET", "/pond/"), wire.refused());
        cluster.executors.iter_mut().for_each(Process::kill);
        cluster.executors.clear();
        cluster.add_executor(1);
        cluster.add_executor(1);
        until("a read of a pack", async || asked(&wire, "GET", "/pond/") > reads).await;
        wire.set(state);
        tokio::time::sleep(storm).await;
        wire.set(Wire::Whole);
        assert!(wire.refused() > refused || state == Wire::Frozen, "{state:?}: nobody asked the store");
        let run = going.run.0.clone();
        going.answers(&sql).await;
        let first = format!("SELECT sum(repeats) FROM system.tasks WHERE run_id = '{run}' AND stage_id = 0");
        // Who cannot read a pack for a minute takes it for lost: that is no failure of the run.
        if !is_full() {
            assert_eq!(value(&mut client, &first).await, "0", "{state:?}: of {durable:?} some was done again");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_begins_to_deny_ends_its_coordinator_which_says_so_and_the_run_goes_on_with_the_next() {
    let (_s3, wire, environment) = S3Server::behind_a_wire("tide").await;
    let (mut cluster, mut client) = cluster("s3://tide/cluster", &environment).await;
    let going = Going::start(&cluster, SLOW).await;
    going.until_durable(&mut client, 4).await;
    let start = Instant::now();
    wire.set(Wire::Refusing(403));
    until("the coordinator's end", async || cluster.coordinator.exit_code().is_some()).await;
    assert!(start.elapsed() < Duration::from_secs(60), "it tried for {:?}", start.elapsed());
    assert_eq!(cluster.coordinator.exit_code(), Some(Some(1)));
    let said = cluster.coordinator.said();
    assert!(said.contains("is denied"), "{said}");
    wire.set(Wire::Whole);
    cluster.restart_coordinator();
    let repeated = format!("SELECT repeated_task_seconds FROM system.runs WHERE run_id = '{}'", going.run);
    going.answers(SLOW).await;
    let mut client = cluster.client().await;
    assert_eq!(value(&mut client, &repeated).await, "0.0", "finished work was done again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_denies_only_data_fails_a_query_of_it_at_once() {
    let (_s3, wire, environment) = S3Server::behind_a_wire("tide").await;
    // The state is elsewhere.
    let (_cluster, mut client) = cluster("memory://", &environment).await;
    let start = Instant::now();
    rows(&mut client, "COPY (SELECT 1 AS x) TO 's3://tide/t.parquet'").await;
    let create = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://tide/t.parquet'";
    rows(&mut client, create).await;
    wire.set(Wire::Refusing(403));
    let error = failure(&client, "SELECT * FROM t").await;
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    assert!(error.message.contains("denied") && error.message.contains("t.parquet"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(60), "it took {:?}", start.elapsed());
    wire.set(Wire::Whole);
    assert_eq!(value(&mut client, "SELECT x FROM t").await, "1");
}
