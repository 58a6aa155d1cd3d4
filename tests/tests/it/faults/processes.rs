//! Processes that die, stop, panic, or have another clock.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use arrow::record_batch::RecordBatch;
use tidemill::client::Client;
use tidemill_core::ErrorKind;
use tidemill_engine::crash::VARIABLE;
use tidemill_tests::harness::{Process, ProcessCluster, create_tpch, logged, started_after, value};

use super::failure;
use crate::durable::{SCALE, SLOW, at_least, in_store, state_in};
use crate::going::{Going, cluster};
use crate::kept::no_files_below;

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

/// What takes so long that a run of it outlives many restarts.
fn long() -> String {
    SLOW.replace("20000", "60000")
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_whose_clocks_differ_by_hours_wait_for_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut cluster, mut client) = cluster(&state_in(folder.path()), &[]).await;
    let kept = client.query("SELECT n_name FROM nation").await.expect("a run");
    let run = kept.run.clone().expect("a run");
    kept.collect().await.expect("rows");
    let (sql, start) = (long(), Instant::now());
    let going = Going::start(&cluster, &sql).await;
    // Back and forth; each is in office while there is work to give out.
    for (hours, tasks) in [(-9, 2), (7, 6), (-3, 10), (0, 14)] {
        going.until_durable(&mut client, tasks).await;
        let skew = ("TIDEMILL_TEST_CLOCK_SKEW_MILLIS", (hours * 3_600_000).to_string());
        cluster.restart_coordinator_with(&[skew]);
        client = cluster.client().await;
        let ahead = "SELECT CAST(round((date_part('epoch', submitted_at) - date_part('epoch', now())) / 3600) AS BIGINT) \
                     FROM system.runs ORDER BY run_id DESC LIMIT 1";
        assert_eq!(value(&mut client, ahead).await, hours.to_string(), "its clock is not another");
    }
    let goes = going.run.clone();
    going.answers(&sql).await;
    assert!(start.elapsed() < Duration::from_secs(120), "something waited for a clock: {:?}", start.elapsed());
    let column = |name: &str| format!("SELECT {name} FROM system.runs WHERE run_id = '{goes}'");
    assert_eq!(value(&mut client, &column("repeated_task_seconds")).await, "0.0");
    assert_eq!(value(&mut client, &column("state")).await, "succeeded");
    // One that is hours ahead may let go of a result; nobody gives back another.
    match client.fetch(&run).await {
        Ok(again) => {
            let rows: usize = again.collect().await.expect("rows").iter().map(RecordBatch::num_rows).sum();
            assert_eq!(rows, 25);
        }
        Err(error) => assert_eq!(error.kind, ErrorKind::NotFound, "{error}"),
    }
}

/// Tasks of a stage, those of them that run, and that have succeeded.
async fn stage(client: &mut Client, run: &str, stage: u64) -> (u64, u64, u64) {
    let columns = "concat_ws(' ', tasks, tasks_running, tasks_succeeded)";
    let sql = format!("SELECT {columns} FROM system.stages WHERE run_id = '{run}' AND stage_id = {stage}");
    let text = value(client, &sql).await;
    let numbers: Vec<u64> = text.split(' ').map(|n| n.parse().expect("a number")).collect();
    (numbers[0], numbers[1], numbers[2])
}

/// Every process is killed when a stage is half done, and again when it is done, for all stages of one run. How much of what
/// was finished and not stored yet is done again, `benches/src/kills.rs` measures.
#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_killed_in_the_middle_and_at_the_end_of_each_stage() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = [("TIDEMILL_YOUNG_MILLIS", "0".to_owned())];
    let (mut cluster, mut client) = cluster(&state_in(folder.path()), &environment).await;
    let going = Going::start(&cluster, SLOW).await;
    let run = going.run.0.clone();
    let count = format!("SELECT count(*) FROM system.stages WHERE run_id = '{run}'");
    let stages: u64 = value(&mut client, &count).await.parse().expect("a number");
    let (mut kills, mut repeated) = (Vec::new(), BTreeSet::new());
    for number in 0..stages {
        for is_end in [false, true] {
            let reached = |(tasks, running, done): (u64, u64, u64)| match is_end {
                true => done == tasks,
                // A stage of one task has no other middle.
                false => done < tasks && (done > 0 || tasks == 1 && running > 0),
            };
            let (start, mut seen) = (Instant::now(), stage(&mut client, &run, number).await);
            while !reached(seen) && seen.2 < seen.0 && !going.reading.is_finished() {
                assert!(start.elapsed() < Duration::from_secs(120), "stage {number} does not get on: {seen:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
                seen = stage(&mut client, &run, number).await;
            }
            // A point that was passed too quickly, or the last one: its rows are there, and the run is over.
            if !reached(seen) || going.reading.is_finished() {
                continue;
            }
            let durable = in_store(&mut client, &run).await;
            logged(&mut client).await;
            let killed = SystemTime::now();
            cluster.executors.iter_mut().for_each(Process::kill);
            cluster.restart_coordinator();
            cluster.executors.clear();
            cluster.add_executor(1);
            cluster.add_executor(1);
            client = cluster.client().await;
            kills.push((number, is_end, killed, durable));
        }
    }
    assert!(kills.len() as u64 >= stages, "only {kills:?} of {stages} stages");
    going.answers(SLOW).await;
    let journals = cluster.journals();
    for (number, is_end, killed, durable) in &kills {
        let again = started_after(&journals, &run, *killed);
        let twice: Vec<&String> = again.intersection(durable).collect();
        assert!(twice.is_empty(), "stage {number}, end {is_end}: {twice:?} were in the store and done again");
        repeated.extend(again);
    }
    assert!(!repeated.is_empty(), "nothing was left to do after any kill");
}
