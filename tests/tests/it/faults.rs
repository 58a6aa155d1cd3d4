//! What stores, disks and networks do to a run that is under way. Each test checks that its fault happened.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use arrow::record_batch::RecordBatch;
use tidemill::client::Client;
use tidemill::oracle::compare;
use tidemill_core::{Error, ErrorKind};
use tidemill_engine::crash::VARIABLE;
use tidemill_tests::harness::s3::S3Server;
use tidemill_tests::harness::{
    Process, ProcessCluster, Proxy, Wire, create_tpch, is_full, lasting_port, rows, started_after, tpch_oracle, value,
};

use crate::durable::{SCALE, SLOW, at_least, files_below, in_store, state_in};
use crate::going::{Going, cluster, with_a_slow_end};
use crate::kept::no_files_below;

/// Changes a byte in the middle of a file.
fn flip(file: &Path) {
    let mut bytes = std::fs::read(file).expect("the file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(file, bytes).expect("the file, damaged");
}

/// Changes bytes all over a file: what is in its middle may be needed no more.
fn flip_everywhere(file: &Path) {
    let mut bytes = std::fs::read(file).expect("the file");
    let step = bytes.len() / 64;
    (0..64).for_each(|n| bytes[n * step] ^= 0x40);
    std::fs::write(file, bytes).expect("the file, damaged");
}

/// What happens to every pack before its holders are gone: then it cannot be read, and its tasks run again.
async fn packs_are_harmed(harm: impl Fn(&Path)) {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut cluster, mut client) = cluster(&state_in(folder.path()), &[]).await;
    let going = Going::start(&cluster, SLOW).await;
    going.until_durable(&mut client, 8).await;
    let all = files_below(&folder.path().join("pond")).into_iter();
    let packs: Vec<PathBuf> = all.filter(|file| file.extension().is_some_and(|e| e == "pack")).collect();
    packs.iter().for_each(|pack| harm(pack));
    assert!(!packs.is_empty());
    for executor in &mut cluster.executors {
        executor.kill();
    }
    cluster.add_executor(1);
    cluster.add_executor(1);
    let run = going.run.clone();
    going.answers(SLOW).await;
    let repeats = format!("SELECT sum(repeats) FROM system.tasks WHERE run_id = '{run}'");
    assert_ne!(value(&mut client, &repeats).await, "0", "the harm was not noticed in {packs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_pack_is_noticed_and_its_tasks_run_again() {
    packs_are_harmed(flip_everywhere).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_somebody_deleted_is_computed_again() {
    packs_are_harmed(|pack| std::fs::remove_file(pack).expect("no pack")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_spilled_block_is_read_from_its_pack() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = [("TIDEMILL_MEMORY", "64MiB".to_owned())];
    let (cluster, mut client) = cluster(&state_in(folder.path()), &environment).await;
    // Its first stage writes more than stays in memory; the readers begin when all of it is there.
    let sql = with_a_slow_end(WIDE, "m");
    let going = Going::start(&cluster, &sql).await;
    let spilled = || {
        let all = files_below(cluster.work_dir()).into_iter();
        all.filter(|file| file.extension().is_some_and(|e| e == "frames")).collect::<Vec<PathBuf>>()
    };
    going.until_stored(&mut client).await;
    let files = spilled();
    assert!(!files.is_empty(), "nothing was spilled");
    let mut flipped = 0;
    for file in &files {
        // It may be gone meanwhile.
        if std::fs::metadata(file).is_ok_and(|m| m.len() > 1_000) {
            flip(file);
            flipped += 1;
        }
    }
    assert!(flipped > 0);
    let repeats = format!("SELECT sum(repeats) FROM system.tasks WHERE run_id = '{}'", going.run);
    going.answers(&sql).await;
    assert_eq!(value(&mut client, &repeats).await, "0", "all of it was in the store");
}

/// Exchanges more than 64 MiB hold.
const WIDE: &str = "SELECT count(*) AS n, sum(n) AS s, max(m) AS m FROM (
    SELECT l_comment, l_orderkey, count(*) AS n, max(md5(repeat(l_comment, 60))) AS m FROM lineitem GROUP BY 1, 2) AS x";

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

#[tokio::test(flavor = "multi_thread")]
async fn five_successors_that_die_while_they_take_over_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut cluster, mut client) = cluster(&state_in(folder.path()), &[]).await;
    let going = Going::start(&cluster, SLOW).await;
    going.until_durable(&mut client, 8).await;
    cluster.kill_coordinator();
    for point in
        ["epoch.claim:after", "epoch.seal:before", "epoch.seal:after", "snapshot.write:before", "log.collect:after"]
    {
        cluster.succeed_and_die(&[(VARIABLE, format!("{point}:1"))], point);
    }
    cluster.restart_coordinator();
    let run = going.run.clone();
    going.answers(SLOW).await;
    let column = |name: &str| format!("SELECT {name} FROM system.runs WHERE run_id = '{run}'");
    let mut client = cluster.client().await;
    assert_eq!(value(&mut client, &column("repeated_task_seconds")).await, "0.0");
    let attempts = "SELECT max(split_part(attempt, '-', 1)) FROM system.tasks";
    assert_eq!(value(&mut client, attempts).await, "7", "five epochs were claimed between");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_the_run_and_not_the_executor() {
    let mut cluster = ProcessCluster::start(0, 1).await;
    cluster.add_executor_with_small_files(1);
    cluster.wait_for_executors(1).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, SCALE).await;
    let sort = "SELECT * FROM lineitem ORDER BY l_comment, l_shipinstruct, l_orderkey";
    let error = failure(&client, sort).await;
    assert_eq!(error.kind, ErrorKind::ResourcesExhausted, "{error}");
    assert!(error.message.contains("too large") || error.message.contains("space"), "{error}");
    assert_eq!(value(&mut client, "SELECT count(*) FROM nation").await, "25");
    assert_eq!(value(&mut client, "SELECT count(*) FROM system.executors WHERE state = 'alive'").await, "1");
}

async fn failure(client: &Client, sql: &str) -> Error {
    match client.query(sql).await {
        Err(error) => error,
        Ok(result) => result.collect().await.err().unwrap_or_else(|| panic!("{sql} succeeded")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_panics_fails_its_run_and_not_its_executor() {
    let mut cluster = ProcessCluster::start(0, 1).await;
    cluster.add_executor_with(1, &[(VARIABLE, "output.insert:panic:1".to_owned())]);
    cluster.wait_for_executors(1).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, SCALE).await;
    let error = failure(&client, "SELECT l_returnflag, count(*) FROM lineitem GROUP BY 1").await;
    assert_eq!(error.kind, ErrorKind::Internal, "{error}");
    assert!(error.message.contains("panicked"), "{error}");
    assert_eq!(value(&mut client, "SELECT count(*) FROM nation").await, "25");
}

/// An executor whose blocks are reached, and who reaches its coordinator, over wires.
struct Wired {
    control: Proxy,
    data: Proxy,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_stalls_is_done_by_another_executor() {
    let mut cluster = ProcessCluster::start(1, 1).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, SCALE).await;
    cluster.add_executor_with(1, &[(VARIABLE, "output.insert:stall:1".to_owned())]);
    cluster.wait_for_executors(2).await;
    let sql = "SELECT l_returnflag, count(*) AS n FROM lineitem GROUP BY 1";
    let start = Instant::now();
    let going = Going::of(client, sql).await;
    let run = going.run.0.clone();
    going.answers(sql).await;
    assert!(start.elapsed() < Duration::from_secs(50), "nobody helped: it took {:?}", start.elapsed());
    // The one that stalled has begun a task that the other one has ended.
    let journals = cluster.journals();
    let of = |what: &str, executor: usize| -> Vec<String> {
        let lines = journals[executor].iter().map(|line| line.split(' ').collect::<Vec<_>>());
        let found = lines.filter(|fields| fields[1] == what && fields[2] == run);
        found.map(|fields| fields[3].to_owned()).collect()
    };
    let stalled = of("started", 1)[0].clone();
    assert!(!of("succeeded", 1).contains(&stalled), "it did not stall: {journals:#?}");
    assert!(of("succeeded", 0).contains(&stalled), "{journals:#?}");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_executor_is_given_up_and_comes_back_as_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = [("TIDEMILL_EXECUTOR_TIMEOUT", "4".to_owned())];
    let (cluster, mut client) = cluster(&state_in(folder.path()), &environment).await;
    let going = Going::start(&cluster, SLOW).await;
    going.until_durable(&mut client, 8).await;
    let durable = in_store(&mut client, &going.run.0).await;
    let stopped = SystemTime::now();
    cluster.executors[0].signal("STOP");
    let lost = "SELECT count(*) FROM system.executors WHERE state = 'lost'";
    assert!(at_least(&mut client, lost, 1).await, "it was not given up");
    let run = going.run.0.clone();
    going.answers(SLOW).await;
    let again = started_after(&cluster.journals(), &run, stopped);
    assert!(again.is_disjoint(&durable), "what is in the store was done again: {again:?} of {durable:?}");
    cluster.executors[0].signal("CONT");
    let alive = "SELECT count(*) FROM system.executors WHERE state = 'alive'";
    assert!(at_least(&mut client, alive, 2).await, "it did not join again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_of_a_result_that_expires_gets_all_of_it_or_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = [("TIDEMILL_RESULT_RETENTION", "10".to_owned())];
    let (_cluster, client) = cluster(&state_in(folder.path()), &environment).await;
    let sql = "SELECT l_orderkey, l_linenumber, l_comment FROM lineitem";
    let first = client.query(sql).await.expect("a run");
    let run = first.run.clone().expect("a run");
    let all: usize = first.collect().await.expect("rows").iter().map(RecordBatch::num_rows).sum();
    let mut again = client.fetch(&run).await.expect("it is kept");
    let mut rows = again.next().await.expect("rows").expect("rows").num_rows();
    no_files_below(&folder.path().join("runs")).await;
    let ended = loop {
        match again.next().await {
            Some(Ok(batch)) => rows += batch.num_rows(),
            ended => break ended,
        }
    };
    match ended {
        Some(Err(error)) => assert_eq!(error.kind, ErrorKind::NotFound, "{error}"),
        _ => assert_eq!(rows, all, "a part of a result is never all of it"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_in_another_order_are_not_taken_for_other_rows() {
    let (mut cluster, mut client) = cluster("memory://", &[]).await;
    let sql = "SELECT l_returnflag, CAST(sum(x) / 1000 AS BIGINT) AS x, max(m) AS m FROM (
        SELECT l_orderkey, l_returnflag, sum(CAST(l_extendedprice AS DOUBLE) / 3) AS x, max(md5(repeat(l_comment, 30))) AS m
        FROM lineitem GROUP BY 1, 2) AS s GROUP BY 1 ORDER BY 1";
    let going = Going::start(&cluster, sql).await;
    let done = format!("SELECT count(*) FROM system.tasks WHERE run_id = '{}' AND state = 'succeeded'", going.run);
    assert!(at_least(&mut client, &done, 9).await, "it does not get on");
    cluster.executors[0].kill();
    cluster.add_executor(1);
    let run = going.run.clone();
    going.answers(sql).await;
    let repeats = format!("SELECT sum(repeats) FROM system.tasks WHERE run_id = '{run}'");
    assert_ne!(value(&mut client, &repeats).await, "0", "nothing was repeated");
    let kinds = format!("SELECT count(*) FROM system.stages WHERE run_id = '{run}' AND determinism = ");
    assert_eq!(value(&mut client, &format!("{kinds} 'row-indeterminate'")).await, "0", "a healthy stage was doubted");
    assert_ne!(value(&mut client, &format!("{kinds} 'value-indeterminate'")).await, "0");
}
