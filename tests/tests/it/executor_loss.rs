//! Executors killed while runs are going: what they were running and what only they held is done again elsewhere, and
//! the answer is right.

use std::time::{Duration, Instant, SystemTime};

use tidemill::client::Client;
use tidemill::generate::TPCH_TABLES;
use tidemill::oracle::{Oracle, compare};
use tidemill::tpch::{QUERIES, create_tables};
use tidemill_core::ErrorKind;
use tidemill_core::Settings;
use tidemill_tests::harness::{LocalCluster, Process, ProcessCluster, Shape, rows, started_after, tpch, value};

use crate::durable::{SLOW, state_in};
use crate::going::{self, Going};

/// When the victim dies, in milliseconds after the run began.
const MOMENTS: [u64; 6] = [0, 20, 60, 120, 250, 500];

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_executor_changes_no_answer() {
    let oracle = Oracle::new(2, 1 << 30).expect("an oracle");
    oracle.register(&tpch(), &TPCH_TABLES).await.expect("tables");
    let mut repeated = 0;
    for (moment, (name, sql)) in
        MOMENTS.into_iter().zip([QUERIES[20], QUERIES[8], QUERIES[17], QUERIES[4], QUERIES[20], QUERIES[8]])
    {
        let mut cluster = ProcessCluster::start(3, 1).await;
        let mut client = cluster.client().await;
        for create in create_tables(&tpch()) {
            rows(&mut client, &create).await;
        }
        client.set("datafusion.execution.target_partitions", "8").expect("a setting");
        let sql = sql.trim().trim_end_matches(';');
        let result = client.query(sql).await.expect("a run");
        let run = result.run.clone().expect("a run");
        let reading = tokio::spawn(result.collect());
        tokio::time::sleep(Duration::from_millis(moment)).await;
        cluster.executors[0].kill();
        let ours = reading.await.expect("no panic");
        let ours = ours.unwrap_or_else(|e| panic!("{name} killed after {moment} ms: {e}"));
        let expected = oracle.answer(sql).await.expect("an answer");
        let difference = compare(&expected, &ours).expect("a comparison");
        assert!(difference.is_none(), "{name} killed after {moment} ms: {difference:?}");
        let lost = "SELECT count(*) FROM system.executors WHERE state <> 'alive'";
        until(&mut client, lost, "1").await;
        let counters = format!(
            "SELECT max(CAST(split_part(attempt, '-', 2) AS BIGINT)) - count(*) FROM system.tasks WHERE run_id = '{run}'"
        );
        let again: i64 = value(&mut client, &counters).await.parse().expect("a number");
        repeated += i64::from(again > 0);
    }
    // Without this the test would pass if every victim died too late to matter.
    assert!(repeated >= 1, "no kill hit a running run");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_executors_a_run_waits_says_so_and_fails_after_the_deadline() {
    let settings = Settings { no_executor_timeout_ms: 5_000, ..Settings::default() };
    let cluster = LocalCluster::with_settings(Shape { executors: 0, slots: 1 }, settings).await;
    let client = cluster.client().await;
    let mut watcher = cluster.client().await;
    let start = Instant::now();
    let result = client.query("SELECT 1").await.expect("a run");
    let run = result.run.clone().expect("a run");
    let waiting = format!("SELECT waiting_for FROM system.tasks WHERE run_id = '{run}'");
    assert_eq!(value(&mut watcher, &waiting).await, "an executor: none is connected");
    let error = result.collect().await.expect_err("nobody can run it");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("waited 5 s for an executor"), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(4_900), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_goes_on_when_an_executor_comes() {
    let mut cluster = LocalCluster::start(Shape { executors: 0, slots: 1 }).await;
    let client = cluster.client().await;
    let result = client.query("SELECT 41 + 1").await.expect("a run");
    cluster.add_executor(1).await;
    let batches = result.collect().await.expect("an answer");
    assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_of_another_build_is_refused_by_name() {
    use futures::StreamExt;
    use tidemill_engine::control::ControlLink;
    use tidemill_engine::wire::{self, from_executor, to_executor};
    let cluster = LocalCluster::start(Shape { executors: 0, slots: 1 }).await;
    let link = tidemill_executor::GrpcLink::new(&cluster.url()).expect("a link");
    let (to, from) = tokio::sync::mpsc::channel(1);
    let register = wire::Register { executor: "old".into(), build: "0.0.1".into(), slots: 1, ..Default::default() };
    let message = wire::FromExecutor { epoch: 0, message: Some(from_executor::Message::Register(register)) };
    to.send(message).await.expect("a message");
    let answer = link.attach(from).await.expect("a stream").next().await.expect("an answer").expect("no failure");
    let Some(to_executor::Message::Refused(error)) = answer.message else { panic!("not refused: {answer:?}") };
    assert!(error.message.contains("0.0.1") && error.message.contains(wire::BUILD), "{}", error.message);
    let mut client = cluster.client().await;
    assert_eq!(value(&mut client, "SELECT count(*) FROM system.executors").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_was_silent_for_too_long_joins_again_by_itself() {
    let settings = Settings { executor_timeout_ms: 500, ..Settings::default() };
    let cluster = LocalCluster::with_settings(Shape { executors: 0, slots: 1 }, settings).await;
    let executor = Process::start(&["executor", "--connect", &cluster.url(), "--slots", "1"]);
    let mut client = cluster.client().await;
    let count = |state: &str| format!("SELECT count(*) FROM system.executors WHERE state = '{state}'");
    until(&mut client, &count("alive"), "1").await;
    executor.signal("STOP");
    until(&mut client, &count("lost"), "1").await;
    executor.signal("CONT");
    until(&mut client, &count("alive"), "1").await;
    assert_eq!(value(&mut client, "SELECT 41 + 1").await, "42");
}

async fn until(client: &mut Client, query: &str, expected: &str) {
    let start = Instant::now();
    while value(client, query).await != expected {
        assert!(start.elapsed() < Duration::from_secs(120), "{query} did not become {expected}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A task that reads what a dead executor held does not begin again, and nothing that is in a pack is made again.
#[tokio::test(flavor = "multi_thread")]
async fn no_reader_of_a_durable_block_begins_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut cluster, mut client) = going::cluster(&state_in(folder.path()), &[]).await;
    // Its fifth stage is one task that reads for a while what 8 tasks wrote.
    let sql = SLOW.replace("20000", "100000");
    let going = Going::start(&cluster, &sql).await;
    let run = going.run.clone();
    let tasks = format!("FROM system.tasks WHERE run_id = '{run}'");
    let reader = "state = 'running' AND stage_id = 4";
    let ready = format!("SELECT count(pack) >= 32 AND count(*) FILTER (WHERE {reader}) = 1 {tasks}");
    let start = Instant::now();
    while value(&mut client, &ready).await != "true" {
        assert!(!going.reading.is_finished() && start.elapsed() < Duration::from_secs(120), "no moment to kill at");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let name = value(&mut client, &format!("SELECT executor_id {tasks} AND {reader}")).await;
    let port = name.split('-').next().expect("a port");
    let victim = cluster.executors.iter().position(|e| !e.url().ends_with(port)).expect("the other executor");
    let killed = SystemTime::now();
    cluster.executors[victim].kill();
    assert!(!going.reading.is_finished(), "the run was over too early");
    going.answers(&sql).await;
    let lost = "SELECT count(*) FROM system.executors WHERE state = 'lost'";
    assert_eq!(value(&mut client, lost).await, "1");
    let journals = cluster.journals();
    let later = started_after(&journals, &run.0, killed);
    let earlier = started_after(&journals, &run.0, SystemTime::UNIX_EPOCH);
    assert!(earlier.contains("4.0") && !later.contains("4.0"), "the reader began again: {journals:#?}");
    assert!(later.iter().all(|task| task.starts_with("5.") || task.starts_with("6.")), "repeated: {later:?}");
}
