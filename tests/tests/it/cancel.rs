//! Whoever goes away cancels the run: tasks stop and exchange data is released, long before the run would end.

use std::time::{Duration, Instant};

use tidemill::client::Client;
use tidemill::tpch::create_tables;
use tidemill_tests::harness::{LocalCluster, ProcessCluster, Shape, rows, tpch, value};

/// Runs for minutes.
const LONG: &str =
    "SELECT count(*) FROM lineitem a, lineitem b, orders c WHERE a.l_partkey + b.l_partkey + c.o_custkey = 77";

/// Where nothing else is done, a second is enough; the runs themselves take hours.
const PROMPT: Duration = Duration::from_secs(15);

async fn register(client: &mut Client) {
    for create in create_tables(&tpch()) {
        rows(client, &create).await;
    }
}

async fn until(what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < limit, "{what} did not happen within {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_result_stops_its_tasks_and_releases_its_data() {
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 2 }).await;
    let mut client = cluster.client().await;
    register(&mut client).await;
    let mut watcher = cluster.client().await;
    let running = "SELECT count(*) FROM system.tasks WHERE state = 'running'";
    let result = client.query(LONG).await.expect("a run");
    let run = result.run.clone().expect("a run");
    until("a running task", Duration::from_secs(120), async || value(&mut watcher, running).await != "0").await;
    drop(result);
    let state = format!("SELECT state FROM system.runs WHERE run_id = '{run}'");
    until("cancellation", PROMPT, async || value(&mut watcher, &state).await == "cancelled").await;
    until("release", PROMPT, async || {
        cluster
            .executors
            .iter()
            .all(|e| e.executor().store().outputs() == 0 && e.executor().store().memory_bytes() == 0)
    })
    .await;
    assert_eq!(value(&mut watcher, running).await, "0");
    assert_eq!(value(&mut watcher, "SELECT sum(running_tasks) FROM system.executors").await, "0");
    // The slots are free again.
    assert_eq!(value(&mut client, "SELECT count(*) FROM nation").await, "25");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_client_cancels_its_run() {
    let cluster = ProcessCluster::start(1, 1).await;
    let mut watcher = cluster.client().await;
    register(&mut watcher).await;
    let url = cluster.coordinator.url();
    let mut child = std::process::Command::new(
        std::env::current_exe().expect("a path").ancestors().nth(2).expect("a folder").join("tidemill-under-test"),
    )
    .args(["sql", "--connect", &url, "-c", LONG])
    .stdout(std::process::Stdio::null())
    .spawn()
    .expect("a client starts");
    let running = "SELECT count(*) FROM system.tasks WHERE state = 'running'";
    until("a running task", Duration::from_secs(120), async || value(&mut watcher, running).await != "0").await;
    // As Ctrl-C does.
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
    let cancelled = "SELECT count(*) FROM system.runs WHERE state = 'cancelled'";
    until("cancellation", PROMPT, async || value(&mut watcher, cancelled).await == "1").await;
    assert_eq!(child.wait().expect("an end").code(), Some(130));
    until("an empty work folder", PROMPT, async || files_below(cluster.work_dir()) == 0).await;
}

fn files_below(directory: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(directory).map(|d| d.filter_map(Result::ok).collect::<Vec<_>>());
    let count = |e: &std::fs::DirEntry| if e.path().is_dir() { files_below(&e.path()) } else { 1 };
    // The lock lasts as long as the executor.
    entries.unwrap_or_default().iter().filter(|e| e.file_name() != "executor.lock").map(count).sum()
}
