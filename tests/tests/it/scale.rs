//! What grows, and what must not: many files, many runs, slow readers, busy slots.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tidemill::client::Client;
use tidemill::tpch::create_tables;
use tidemill_tests::harness::{
    LocalCluster, Process, ProcessCluster, Shape, create_small_tables, is_full, rows, tpch, value,
};

/// Runs for minutes.
const LONG: &str =
    "SELECT count(*) FROM lineitem a, lineitem b, orders c WHERE a.l_partkey + b.l_partkey + c.o_custkey = 77";

async fn register(client: &mut Client) {
    for create in create_tables(&tpch()) {
        rows(client, &create).await;
    }
}

/// A folder of `count` files of four rows each.
fn many_files(count: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let source = tidemill_tests::harness::small_tables().join("few/part-0.parquet");
    let bytes = std::fs::read(source).expect("a file");
    for file in 0..count {
        std::fs::write(folder.path().join(format!("part-{file:05}.parquet")), &bytes).expect("a file");
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_many_small_files_plans_and_runs() {
    let files = if is_full() { 20_000 } else { 4_000 };
    create_small_tables().await;
    let folder = many_files(files);
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 1 }).await;
    let mut client = cluster.client().await;
    let create = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}/'", folder.path().display());
    rows(&mut client, &create).await;
    assert_eq!(value(&mut client, "SELECT count(*) FROM t").await, (files * 4).to_string());
    assert_eq!(value(&mut client, "SELECT sum(id) FROM t WHERE g < 9").await, (files * 10).to_string());
    assert_eq!(value(&mut client, "SELECT count(*) FROM (SELECT g FROM t GROUP BY g)").await, "3");
}

/// Bytes between coordinator and executors for one grouped query.
async fn control_bytes(files: usize, partitions: usize, executors: u32) -> u64 {
    let folder = many_files(files);
    let cluster = LocalCluster::start(Shape { executors, slots: 1 }).await;
    let mut client = cluster.client().await;
    let create = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}/'", folder.path().display());
    rows(&mut client, &create).await;
    client.set("datafusion.execution.target_partitions", &partitions.to_string()).expect("a setting");
    let coordinator = cluster.coordinator.coordinator();
    let before = coordinator.control_bytes();
    let query = "SELECT sum(n) FROM (SELECT id, g, count(*) AS n FROM t GROUP BY id, g UNION ALL SELECT 1, 1, 0)";
    assert_eq!(value(&mut client, query).await, (files * 4).to_string());
    coordinator.control_bytes() - before
}

#[tokio::test(flavor = "multi_thread")]
async fn control_bytes_grow_no_faster_than_files_tasks_and_executors() {
    create_small_tables().await;
    let base = control_bytes(200, 16, 2).await;
    for (what, doubled) in [
        ("files", control_bytes(400, 16, 2).await),
        ("tasks", control_bytes(200, 32, 2).await),
        ("executors", control_bytes(200, 16, 4).await),
    ] {
        assert!(doubled <= base * 2, "twice the {what} take {doubled} control bytes instead of {base}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_runs_queue_without_loss() {
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 2 }).await;
    let mut client = cluster.client().await;
    register(&mut client).await;
    let query = async |n: usize| {
        let mut client = cluster.client().await;
        value(&mut client, &format!("SELECT count(*) + {n} FROM (SELECT DISTINCT c_nationkey FROM customer)")).await
    };
    let answers = join_all((0..200).map(query)).await;
    assert_eq!(answers, (25..225).map(|n| n.to_string()).collect::<Vec<_>>());
    let states =
        "SELECT count(*) FROM system.runs WHERE state = 'succeeded' AND statement LIKE '%DISTINCT c_nationkey%'";
    assert_eq!(value(&mut client, states).await, "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_query_does_not_wait_for_long_ones() {
    let cluster = ProcessCluster::start(2, 1).await;
    let mut client = cluster.client().await;
    register(&mut client).await;
    let mut long = Vec::new();
    for _ in 0..7 {
        long.push(cluster.client().await.query(LONG).await.expect("a run"));
    }
    let running = "SELECT count(DISTINCT run_id) FROM system.tasks WHERE state = 'running'";
    let start = Instant::now();
    while value(&mut client, running).await != "7" {
        assert!(start.elapsed() < Duration::from_secs(120), "not all long runs have a task");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The long ones take minutes, so an answer shows that it did not wait for a slot of theirs.
    let short = "SELECT count(*) FROM (SELECT o_custkey, count(*) FROM orders GROUP BY o_custkey)";
    let answer = tokio::time::timeout(Duration::from_secs(120), value(&mut client, short)).await;
    assert_eq!(answer.expect("an answer while the long runs go on"), "1000");
    assert_eq!(value(&mut client, running).await, "7", "the long runs go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_slots_lose_no_heartbeat() {
    let seconds = if is_full() { 60 } else { 8 };
    let cluster = ProcessCluster::start(2, 2).await;
    let mut client = cluster.client().await;
    register(&mut client).await;
    client.set("datafusion.execution.target_partitions", "8").expect("a setting");
    let busy = client.query(LONG).await.expect("a run");
    let start = Instant::now();
    let mut lowest = i64::MAX;
    while start.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut watcher = cluster.client().await;
        let alive = value(&mut watcher, "SELECT count(*) FROM system.executors WHERE state = 'alive'").await;
        lowest = lowest.min(alive.parse().expect("a number"));
    }
    assert_eq!(lowest, 2, "an executor was suspected while its slots were busy");
    let retried = "SELECT count(*) FROM system.tasks WHERE state IN ('lost', 'failed')";
    assert_eq!(value(&mut client, retried).await, "0");
    drop(busy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_result_to_a_slow_reader_stays_within_its_budget() {
    let cluster = ProcessCluster::start(2, 1).await;
    let mut client = cluster.client().await;
    register(&mut client).await;
    // A million rows, some 100 MB.
    let large = "SELECT l.*, n_name FROM lineitem l, (SELECT n_name FROM nation WHERE n_nationkey < 17)";
    let before = cluster.coordinator.peak_memory();
    let mut result = client.query(large).await.expect("a run");
    let mut count = 0;
    while let Some(batch) = result.next().await {
        count += batch.expect("rows").num_rows();
        if count < 100_000 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert!(count > 1_000_000, "{count} rows");
    let grown = cluster.coordinator.peak_memory().saturating_sub(before);
    assert!(grown < 128 << 20, "the coordinator held {grown} bytes for a reader");
}

#[test]
fn the_same_run_is_planned_alike_in_every_process() {
    let tables = create_tables(&tpch()).join(";");
    let explained = |number: usize| {
        let sql = tidemill::tpch::QUERIES[number].1.trim().trim_end_matches(';');
        let explain = format!("EXPLAIN VERBOSE {sql}");
        let output = Process::run(&["sql", "--slots", "2", "-c", &tables, "-c", &explain, "--format", "csv"]);
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        assert!(output.stdout.contains("plan "), "{}", output.stdout);
        output.stdout
    };
    for number in 0..tidemill::tpch::QUERIES.len() {
        assert_eq!(explained(number), explained(number), "{}", tidemill::tpch::QUERIES[number].0);
    }
}
