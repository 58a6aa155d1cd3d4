//! Processes that die before and after each thing that must outlive them: the answer is the same, effects happen once, and
//! what was known to be finished is not done again.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use arrow::array::AsArray;
use arrow::record_batch::RecordBatch;
use tidemill::client::Client;
use tidemill::oracle::compare;
use tidemill_engine::crash::{POINTS, VARIABLE};
use tidemill_tests::harness::s3::S3Server;
use tidemill_tests::harness::{
    ProcessCluster, create_tpch, is_full, logged, repeated_after_success, rows, tpch_oracle, value,
};

const SCALE: f64 = 0.1;
/// Takes long enough for its first stages to be in the store before it ends.
const COPIED: &str =
    "SELECT a.l_orderkey % 5000 AS k, sum(a.l_quantity) AS q, max(md5(repeat(l_comment, 40)) || c) AS c
    FROM lineitem AS a JOIN (SELECT l_orderkey % 5000 AS k2, max(l_comment) AS c FROM lineitem GROUP BY 1) AS b
    ON a.l_orderkey % 5000 = k2 GROUP BY 1";
/// More than stands in the log.
const SELECTED: &str = "SELECT o_orderkey, o_custkey, o_orderdate FROM orders WHERE o_orderkey % 10 = 1 ORDER BY 1";

/// The log may have a run and not its plan yet: what was done meanwhile is done again.
const UNPLANNED: Duration = Duration::from_millis(1_500);

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Coordinator,
    /// A coordinator that takes over from one that was killed.
    Successor,
    Executor,
}

fn victim(point: &str) -> Victim {
    match point {
        "epoch.claim" | "epoch.seal" | "snapshot.write" | "log.collect" => Victim::Successor,
        "output.insert" | "output.release" | "pack.finish" | "pack.report" | "sink.write" | "task.report" => {
            Victim::Executor
        }
        _ => Victim::Coordinator,
    }
}

/// Passes before the kill: some points are passed before the work begins.
const fn passes(point: &str) -> u32 {
    match point.as_bytes() {
        // Renewed while it takes over, when it begins to lead, and then every second.
        b"lease.renew" => 4,
        b"log.append" => 4,
        _ => 1,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn points_of_the_first_third() {
    every_point(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_of_the_second_third() {
    every_point(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn points_of_the_last_third() {
    every_point(2).await;
}

/// Where the state lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    Folder,
    S3,
}

async fn every_point(third: usize) {
    let s3 = tokio::task::spawn_blocking(S3Server::start).await.expect("a server");
    s3.create_bucket("tide");
    let oracle = tpch_oracle(SCALE).await;
    let expected = [oracle.answer(SELECTED).await.expect("rows"), oracle.answer(COPIED).await.expect("rows")];
    for (index, point) in POINTS.into_iter().enumerate().filter(|(index, _)| index % 3 == third) {
        // All four in the full run; otherwise each point once, and neighbours differ. Both sides where these are two faults.
        let one = index / 3 % 4;
        let variants = match point {
            _ if is_full() => vec![0, 1, 2, 3],
            "log.accept" | "log.success" | "publish.marker" => vec![one, one ^ 1],
            _ => vec![one],
        };
        let stores = match index / 3 % 2 {
            _ if is_full() => vec![Store::Folder, Store::S3],
            0 => vec![Store::Folder],
            _ => vec![Store::S3],
        };
        for (variant, store) in variants.iter().flat_map(|v| stores.iter().map(|s| (*v, *s))) {
            let (side, everybody) = (["before", "after"][variant % 2], variant / 2 == 1);
            let context = format!("{point}:{side}, everybody: {everybody}, {store:?}");
            let folder = tempfile::tempdir().expect("a folder");
            let (state, environment) = match store {
                Store::Folder => (format!("file://{}", folder.path().join("state").display()), Vec::new()),
                Store::S3 => (format!("s3://tide/{point}-{variant}"), s3.environment().to_vec()),
            };
            let cluster = ProcessCluster::with(1, 1, &state, &environment).await;
            let [selected, copied] = &expected;
            die_at(cluster, point, side, everybody, &folder.path().join("out"), &context, |ours, file| {
                let answer = if file { copied } else { selected };
                let difference = compare(answer, ours).expect("a comparison");
                assert!(difference.is_none(), "{context}: {difference:?}");
            })
            .await;
        }
    }
}

async fn die_at(
    mut cluster: ProcessCluster,
    point: &str,
    side: &str,
    everybody: bool,
    out: &Path,
    context: &str,
    check: impl Fn(&[RecordBatch], bool),
) {
    let armed = [(VARIABLE, format!("{point}:{side}:{}", passes(point)))];
    create_tpch(&mut cluster.client().await, SCALE).await;
    // The log has the tables' runs, too: none is finished by the next leader.
    logged(&mut cluster.client().await).await;
    match victim(point) {
        Victim::Executor => cluster.add_executor_with(1, &armed),
        Victim::Coordinator | Victim::Successor => cluster.add_executor(1),
    }
    cluster.wait_for_executors(2).await;
    if victim(point) == Victim::Coordinator {
        cluster.restart_coordinator_with(&armed);
    }
    let (mut client, other) = (cluster.client().await, cluster.client().await);
    client.set("datafusion.execution.target_partitions", "6").expect("a setting");
    let copy = format!("COPY ({COPIED}) TO '{}/' STORED AS PARQUET", out.display());
    let work = tokio::spawn(async move {
        let copied = async {
            let result = client.query(&copy).await?;
            let run = result.run.clone();
            result.collect().await.map(|rows| (run, rows))
        };
        let created = async { other.query("CREATE VIEW seen AS SELECT 1 AS x").await?.collect().await };
        let selected = async { other.query(SELECTED).await?.collect().await };
        let ((copied, _), selected) = tokio::try_join!(async { tokio::try_join!(copied, created) }, selected)?;
        Ok::<_, tidemill_core::Error>((copied, selected))
    });
    let killed = strike(&mut cluster, point, everybody, &armed, context).await;
    let ((run, count), selected) = work.await.expect("no panic").unwrap_or_else(|e| panic!("{context}: {e}"));
    check(&selected, false);
    assert_eq!(count.iter().map(RecordBatch::num_rows).sum::<usize>(), 1, "{context}");
    // Everything is there once.
    let mut client = cluster.client().await;
    let create = format!("CREATE EXTERNAL TABLE written STORED AS PARQUET LOCATION '{}/'", out.display());
    rows(&mut client, &create).await;
    check(&rows(&mut client, "SELECT k, q, c FROM written").await, true);
    assert!(out.join("_SUCCESS").exists(), "{context}");
    assert_eq!(value(&mut client, "SELECT x FROM seen").await, "1", "{context}");
    if let Some(run) = run {
        let state = format!("SELECT state FROM system.runs WHERE run_id = '{run}'");
        assert_eq!(value(&mut client, &state).await, "succeeded", "{context}");
    }
    // Where an executor dies as well, what only it held is done again.
    if victim(point) != Victim::Executor && !everybody && point != "log.lost" {
        let anew = accepted_after(&mut client, killed).await;
        let mut repeated = repeated_after_success(&cluster.journals(), killed - UNPLANNED);
        repeated.retain(|task| !anew.iter().any(|run| task.starts_with(run)));
        assert!(repeated.is_empty(), "{context} repeated {repeated:?}\n{:#?}", cluster.journals());
    }
}

/// Runs that the log did not have: a new leader got them anew, and began from the beginning.
async fn accepted_after(client: &mut Client, killed: SystemTime) -> Vec<String> {
    let killed = killed.duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_millis();
    let runs = format!("SELECT run_id FROM system.runs WHERE CAST(submitted_at AS BIGINT) > {killed}");
    let batches = rows(client, &runs).await;
    batches.iter().flat_map(|b| b.column(0).as_string::<i32>().iter().flatten().map(str::to_owned)).collect()
}

/// Lets the victim die at its point, and whoever else has to, and starts them again. When that was.
async fn strike(
    cluster: &mut ProcessCluster,
    point: &str,
    everybody: bool,
    armed: &[(&'static str, String)],
    context: &str,
) -> SystemTime {
    if point == "log.lost" {
        tokio::time::sleep(Duration::from_millis(600)).await;
        cluster.executors[0].kill();
    }
    if victim(point) == Victim::Successor {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let killed = cluster.kill_coordinator();
        cluster.succeed_and_die(armed, context);
        if everybody {
            cluster.executors.iter_mut().for_each(tidemill_tests::harness::Process::kill);
        }
        revive(cluster, everybody);
        return killed;
    }
    let start = Instant::now();
    let died = loop {
        let victim = match victim(point) {
            Victim::Executor => cluster.executors.last_mut().expect("an executor"),
            Victim::Coordinator | Victim::Successor => &mut cluster.coordinator,
        };
        if victim.was_killed() {
            break SystemTime::now();
        }
        assert!(start.elapsed() < Duration::from_secs(40), "{context}: the point was not reached");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    if everybody {
        cluster.executors.iter_mut().for_each(tidemill_tests::harness::Process::kill);
    }
    if victim(point) == Victim::Coordinator || everybody {
        revive(cluster, everybody);
    } else {
        cluster.add_executor(1);
    }
    died
}

fn revive(cluster: &mut ProcessCluster, everybody: bool) {
    cluster.restart_coordinator();
    if everybody {
        cluster.executors.clear();
        cluster.add_executor(1);
        cluster.add_executor(1);
    }
}
