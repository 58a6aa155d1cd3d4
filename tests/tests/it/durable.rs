//! Coordinators killed, stopped and started again on the same state: what they knew is known, runs go on, executors keep
//! what they did, and clients get their answers.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use arrow::array::AsArray;
use tidemill::client::Client;
use tidemill::oracle::compare;
use tidemill::tpch::QUERIES;
use tidemill_core::ErrorKind;
use tidemill_engine::wire::BUILD;
use tidemill_tests::harness::s3::S3Server;
use tidemill_tests::harness::{
    Process, ProcessCluster, SMALL_SCALE, create_tpch, logged, repeated_after_success, rows, started_after,
    tpch_oracle, value,
};

/// Large enough that a run has a middle.
pub(crate) const SCALE: f64 = 0.5;
/// When the coordinator dies: when so many tasks have succeeded; at 0 even before the log has the run.
const MOMENTS: [u64; 6] = [0, 1, 6, 12, 20, 30];

pub(crate) fn state_in(folder: &Path) -> String {
    format!("file://{}", folder.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_survives_every_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = state_in(folder.path());
    let mut server = Process::start(&["server", "--bind", "127.0.0.1:0", "--state", &state, "--slots", "1"]);
    let mut client = Client::connect(&server.url()).await.expect("a client");
    create_tpch(&mut client, SMALL_SCALE).await;
    rows(&mut client, "CREATE TABLE kept AS SELECT n_name FROM nation WHERE n_nationkey < 3").await;
    rows(&mut client, "CREATE VIEW names AS SELECT n_name FROM nation").await;
    rows(&mut client, "CREATE TABLE dropped AS SELECT 1 AS x").await;
    rows(&mut client, "DROP TABLE dropped").await;
    for signal in ["KILL", "TERM", "KILL"] {
        server.signal(signal);
        server.wait();
        server = Process::start(&["server", "--bind", "127.0.0.1:0", "--state", &state, "--slots", "1"]);
        let mut client = Client::connect(&server.url()).await.expect("a client");
        assert_eq!(value(&mut client, "SELECT count(*) FROM kept").await, "3", "after {signal}");
        assert_eq!(value(&mut client, "SELECT count(*) FROM names").await, "25", "after {signal}");
        let gone = client.query("SELECT * FROM dropped").await.err().expect("it was dropped");
        assert_eq!(gone.kind, ErrorKind::NotFound, "{gone}");
        let runs = value(&mut client, "SELECT count(*) FROM system.runs WHERE statement LIKE 'CREATE VIEW%'").await;
        assert_eq!(runs, "1", "the history is kept too");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_coordinator_costs_no_answer_and_no_finished_task() {
    let oracle = tpch_oracle(SCALE).await;
    let mut survived = 0;
    let chosen = [20, 8, 17, 4, 20, 8].map(|index| QUERIES[index]);
    for (moment, (name, sql)) in MOMENTS.into_iter().zip(chosen) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cluster = ProcessCluster::durable(2, 1, &state_in(folder.path())).await;
        let mut client = cluster.client().await;
        create_tpch(&mut client, SCALE).await;
        client.set("datafusion.execution.target_partitions", "8").expect("a setting");
        let sql = sql.trim().trim_end_matches(';');
        let result = client.query(sql).await.expect("a run");
        let run = result.run.clone().expect("a run");
        let reading = tokio::spawn(result.collect());
        let mut watcher = cluster.client().await;
        if moment > 0 {
            logged(&mut watcher).await;
        }
        let state = |state: &str| format!("SELECT count(*) FROM system.{state}");
        let done = state(&format!("tasks WHERE run_id = '{run}' AND state = 'succeeded'"));
        let ended = state(&format!("runs WHERE run_id = '{run}' AND finished_at IS NOT NULL"));
        let start = Instant::now();
        while value(&mut watcher, &done).await.parse::<u64>().expect("a number") < moment
            && value(&mut watcher, &ended).await == "0"
        {
            assert!(start.elapsed() < Duration::from_secs(60), "{name} does not get on");
        }
        let killed = cluster.restart_coordinator();
        let ours = reading.await.expect("no panic");
        let ours = ours.unwrap_or_else(|e| panic!("{name} killed after {moment} tasks: {e}"));
        let expected = oracle.answer(sql).await.expect("an answer");
        let difference = compare(&expected, &ours).expect("a comparison");
        assert!(difference.is_none(), "{name} killed after {moment} tasks: {difference:?}");
        let mut client = cluster.client().await;
        // One whose end was not written yet goes on for a client that has its answer; one whose beginning was not is in
        // no history.
        let failed = format!("SELECT count(*) FROM system.runs WHERE run_id = '{run}' AND error IS NOT NULL");
        assert_eq!(value(&mut client, &failed).await, "0");
        let epochs =
            format!("SELECT count(DISTINCT split_part(attempt, '-', 1)) FROM system.tasks WHERE run_id = '{run}'");
        survived += i64::from(value(&mut client, &epochs).await == "2");
        // The executors' own word: no attempt of a task began after one of it had ended well, but for a run that nobody had
        // written down.
        let journals = cluster.journals();
        let mut repeated = repeated_after_success(&journals, killed);
        repeated.retain(|task| moment > 0 || !task.starts_with(&run.0));
        assert!(repeated.is_empty(), "{name} killed after {moment} tasks repeated {repeated:?}\n{journals:#?}");
    }
    // Without this the test would pass if every coordinator died too early or too late to matter.
    assert!(survived >= 2, "only {survived} runs had tasks under both leaders");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_process_is_killed_runs_resume_and_effects_happen_once() {
    for moment in [30, 150, 400] {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("out");
        let mut cluster = ProcessCluster::durable(2, 1, &state_in(&folder.path().join("state"))).await;
        let mut client = cluster.client().await;
        create_tpch(&mut client, SCALE).await;
        let copy = format!(
            "COPY (SELECT l_orderkey, sum(l_quantity) AS q FROM lineitem GROUP BY l_orderkey) TO '{}/' STORED AS PARQUET",
            out.display()
        );
        let expected = value(&mut client, "SELECT count(DISTINCT l_orderkey) FROM lineitem").await;
        let result = client.query(&copy).await.expect("a run");
        let run = result.run.clone().expect("a run");
        let reading = tokio::spawn(result.collect());
        tokio::time::sleep(Duration::from_millis(moment)).await;
        for executor in &mut cluster.executors {
            executor.kill();
        }
        cluster.restart_coordinator();
        cluster.executors.clear();
        cluster.add_executor(1);
        cluster.add_executor(1);
        reading.await.expect("no panic").unwrap_or_else(|e| panic!("killed after {moment} ms: {e}"));
        let mut client = cluster.client().await;
        assert_eq!(
            value(&mut client, &format!("SELECT state FROM system.runs WHERE run_id = '{run}'")).await,
            "succeeded"
        );
        let create = format!("CREATE EXTERNAL TABLE written STORED AS PARQUET LOCATION '{}/'", out.display());
        rows(&mut client, &create).await;
        assert_eq!(value(&mut client, "SELECT count(*) FROM written").await, expected, "after {moment} ms");
        assert_eq!(value(&mut client, "SELECT count(DISTINCT l_orderkey) FROM written").await, expected);
        assert!(out.join("_SUCCESS").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn state_lives_in_s3_too() {
    let s3 = tokio::task::spawn_blocking(S3Server::start).await.expect("a server");
    s3.create_bucket("tide");
    let environment = s3.environment();
    let args = ["server", "--bind", "127.0.0.1:0", "--state", "s3://tide/cluster", "--slots", "1"];
    let mut server = Process::start_with(&args, &environment);
    let mut client = Client::connect(&server.url()).await.expect("a client");
    rows(&mut client, "CREATE VIEW answer AS SELECT 42 AS a").await;
    server.kill();
    let server = Process::start_with(&args, &environment);
    let mut client = Client::connect(&server.url()).await.expect("a client");
    assert_eq!(value(&mut client, "SELECT a FROM answer").await, "42");
}

/// Tasks whose output is in the store.
pub(crate) fn durable_tasks(run: &str) -> String {
    format!("SELECT count(*) FROM system.tasks WHERE run_id = '{run}' AND pack IS NOT NULL")
}

pub(crate) async fn at_least(client: &mut Client, query: &str, least: u64) -> bool {
    let start = Instant::now();
    while value(client, query).await.parse::<u64>().expect("a number") < least {
        // Long enough for a machine that does much else.
        if start.elapsed() > Duration::from_secs(120) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

pub(crate) fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.flat_map(|e| if e.path().is_dir() { files_below(&e.path()) } else { vec![e.path()] }).collect()
}

/// A run that cannot end by itself before it is killed: its last stage waits for rows that take long.
pub(crate) const SLOW: &str = "SELECT l_returnflag, count(*) AS n, sum(x) AS s FROM (
        SELECT l_returnflag, l_orderkey % 1000 AS k, sum(l_quantity) AS x FROM lineitem GROUP BY 1, 2
    ) AS a JOIN (SELECT l_orderkey % 1000 AS k2, max(l_comment) AS c FROM lineitem GROUP BY 1) AS b ON k = k2
    CROSS JOIN (SELECT 1 AS one FROM generate_series(1, 20000)) AS g
    WHERE length(c) + k % 7 + one > 0 GROUP BY 1 ORDER BY 1";

/// Who dies when some of the run is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victims {
    Everybody,
    OneExecutor,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_store_is_never_done_again_after_everybody_died() {
    let folder = tempfile::tempdir().expect("a folder");
    never_again(&state_in(folder.path()), &[], Victims::Everybody).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_store_is_never_done_again_after_an_executor_died() {
    let folder = tempfile::tempdir().expect("a folder");
    never_again(&state_in(folder.path()), &[], Victims::OneExecutor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_s3_is_never_done_again_after_everybody_died() {
    let s3 = tokio::task::spawn_blocking(S3Server::start).await.expect("a server");
    s3.create_bucket("tide");
    never_again("s3://tide/cluster", &s3.environment(), Victims::Everybody).await;
}

/// The run's tasks whose output is in the store.
pub(crate) async fn in_store(client: &mut Client, run: &str) -> BTreeSet<String> {
    let sql = "SELECT concat(stage_id, '.', task_id) FROM system.tasks WHERE pack IS NOT NULL AND run_id = ";
    let batches = rows(client, &format!("{sql} '{run}'")).await;
    let names = batches.iter().flat_map(|b| b.column(0).as_string::<i32>().iter().flatten().map(str::to_owned));
    names.collect()
}

async fn never_again(state: &str, environment: &[(&'static str, String)], victims: Victims) {
    let oracle = tpch_oracle(SCALE).await;
    let expected = oracle.answer(SLOW).await.expect("an answer");
    let environment = [environment, &[("TIDEMILL_SWEEP_INTERVAL", "1".to_owned())]].concat();
    let mut cluster = ProcessCluster::with(2, 1, state, &environment).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, SCALE).await;
    client.set("datafusion.execution.target_partitions", "8").expect("a setting");
    let result = client.query(SLOW).await.expect("a run");
    let run = result.run.clone().expect("a run");
    let reading = tokio::spawn(result.collect());
    let mut watcher = cluster.client().await;
    assert!(at_least(&mut watcher, &durable_tasks(&run.0), 8).await, "no packs were written");
    let durable = in_store(&mut watcher, &run.0).await;
    assert!(durable.len() >= 8, "{durable:?}");
    logged(&mut watcher).await;
    assert!(!reading.is_finished(), "the run was over before it could be killed");
    let killed = SystemTime::now();
    cluster.executors[0].kill();
    if victims == Victims::Everybody {
        cluster.executors[1].kill();
        cluster.restart_coordinator();
        cluster.executors.clear();
        cluster.add_executor(1);
        cluster.add_executor(1);
    }
    let ours = reading.await.expect("no panic").expect("an answer");
    let difference = compare(&expected, &ours).expect("a comparison");
    assert!(difference.is_none(), "{difference:?}");
    let again = started_after(&cluster.journals(), &run.0, killed);
    assert!(again.is_disjoint(&durable), "repeated: {:?}", again.intersection(&durable).collect::<Vec<_>>());
    assert!(!again.is_empty(), "nothing was left to do: the kill came too late");
    // Nothing stays: the run is over.
    if let Some(folder) = state.strip_prefix("file://") {
        let pond = Path::new(folder).join("pond");
        let start = Instant::now();
        while !files_below(&pond).is_empty() {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?} are left", files_below(&pond));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Lets every part of the log say that another build wrote it.
pub(crate) fn written_by_another_build(state: &Path) {
    let (ours, theirs) = (BUILD.to_owned(), BUILD.replacen('0', "9", 1));
    let mut changed = 0;
    for file in files_below(&state.join("ctl")) {
        let bytes = std::fs::read(&file).expect("an object of the log");
        let Some(content) = bytes.len().checked_sub(4).map(|end| &bytes[..end]) else { continue };
        let positions: Vec<usize> = (0..content.len().saturating_sub(ours.len()))
            .filter(|at| content[*at..].starts_with(ours.as_bytes()))
            .collect();
        let mut content = content.to_vec();
        for at in &positions {
            content[*at..at + theirs.len()].copy_from_slice(theirs.as_bytes());
        }
        if !positions.is_empty() {
            changed += 1;
            let crc = crc32c::crc32c(&content).to_le_bytes();
            std::fs::write(&file, [content, crc.to_vec()].concat()).expect("the object, changed");
        }
    }
    assert!(changed > 0, "the log names no build");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_another_build_planned_begins_again_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = ProcessCluster::durable(2, 1, &state_in(folder.path())).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, SCALE).await;
    let result = client.query(SLOW).await.expect("a run");
    let run = result.run.clone().expect("a run");
    let reading = tokio::spawn(result.collect());
    assert!(at_least(&mut client, &durable_tasks(&run.0), 2).await, "no packs were written");
    cluster.kill_coordinator();
    cluster.executors.iter_mut().for_each(Process::kill);
    assert!(!reading.is_finished(), "the run was over too early");
    written_by_another_build(folder.path());
    cluster.restart_coordinator();
    cluster.executors.clear();
    cluster.add_executor(1);
    let ours = reading.await.expect("no panic").expect("an answer");
    let expected = tpch_oracle(SCALE).await.answer(SLOW).await.expect("an answer");
    let difference = compare(&expected, &ours).expect("a comparison");
    assert!(difference.is_none(), "{difference:?}");
    let mut client = cluster.client().await;
    assert_eq!(value(&mut client, &format!("SELECT restarts FROM system.runs WHERE run_id = '{run}'")).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_stores_what_takes_longer_to_make_than_to_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = ProcessCluster::durable(1, 1, &state_in(folder.path())).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, SCALE).await;
    client.set("tidemill.durability", "auto").expect("a setting");
    client.set("datafusion.execution.target_partitions", "4").expect("a setting");
    // Two of its rows take long, and millions of its rows take no time.
    let sql = "SELECT count(*) FROM (
        SELECT l_linestatus, max(md5(repeat(l_comment, 60))) AS m FROM lineitem GROUP BY 1) AS a,
        (SELECT l_comment, l_orderkey, l_linenumber FROM lineitem GROUP BY 1, 2, 3) AS b
        WHERE a.m > 'b' AND l_comment > 'c'";
    let result = client.query(sql).await.expect("a run");
    let run = result.run.clone().expect("a run");
    let reading = tokio::spawn(result.collect());
    assert!(at_least(&mut client, &durable_tasks(&run.0), 1).await, "nothing was stored");
    reading.await.expect("no panic").expect("an answer");
    // By its own time: on a busy machine what is cheap may take long.
    let cheap = "pack IS NOT NULL AND bytes_out > 4000000 AND task_seconds < bytes_out / 104857600.0 * 2";
    let stored = format!("SELECT count(*) FROM system.tasks WHERE run_id = '{run}' AND {cheap}");
    assert_eq!(value(&mut client, &stored).await, "0", "what is cheap to make was stored");
    let large = format!("SELECT count(*) FROM system.tasks WHERE bytes_out > 4000000 AND run_id = '{run}'");
    assert_ne!(value(&mut client, &large).await, "0");
}
