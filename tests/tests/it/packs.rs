//! Packs of large outputs, which are written while their tasks run.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use tidemill_tests::harness::s3::S3Server;
use tidemill_tests::harness::{Proxy, Wire, started_after, value};

use crate::durable::{files_below, in_store, state_in};
use crate::going::{self, Going};

/// Its first stage has tasks with one large output each, in blocks of which none is in one piece in its pack.
const WIDE: &str = "SELECT k % 7 AS g, count(*) AS n, max(c) AS c, sum(q) AS q, min(i) AS i FROM (
        SELECT l_orderkey AS k, l_linenumber, max(l_comment) AS c, sum(l_quantity) AS q, min(l_shipinstruct) AS i
        FROM lineitem GROUP BY 1, 2) AS x
    GROUP BY 1 ORDER BY 1";
/// What the log may not know yet of what the tables show.
const UNWRITTEN: Duration = Duration::from_millis(400);

/// These runs are short: they store from the beginning.
fn from_the_beginning(more: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    [more, &[("TIDEMILL_YOUNG_MILLIS", "0".to_owned())]].concat()
}

fn partial_packs(folder: &Path) -> usize {
    let is_partial = |path: &&std::path::PathBuf| path.extension().is_some_and(|extension| extension == "partial");
    files_below(&folder.join("pond")).iter().filter(is_partial).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_output_is_written_while_its_task_runs_and_read_by_those_that_come_after() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut cluster, mut client) = going::cluster(&state_in(folder.path()), &from_the_beginning(&[])).await;
    let going = Going::in_partitions(cluster.client().await, WIDE, "2").await;
    until_partial(folder.path(), &going).await;
    let ended = cluster.journals().concat().iter().filter(|line| line.contains("succeeded")).count();
    assert_eq!(ended, 0, "its task had ended before");
    let durable = until_stored(&mut client, &going).await;
    let known = SystemTime::now();
    for mut executor in cluster.executors.drain(..) {
        executor.kill();
    }
    cluster.restart_coordinator();
    cluster.add_executor(1);
    cluster.add_executor(1);
    let run = going.run.0.clone();
    going.answers(WIDE).await;
    let journals = cluster.journals();
    let again: Vec<_> = started_after(&journals, &run, known).intersection(&durable).cloned().collect();
    assert!(again.is_empty(), "{again:?} were done again");
    assert_eq!(partial_packs(folder.path()), 0, "nothing is left half written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_leaves_no_half_a_pack() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cluster, mut client) = going::cluster(&state_in(folder.path()), &from_the_beginning(&[])).await;
    let going = Going::in_partitions(cluster.client().await, WIDE, "2").await;
    until_partial(folder.path(), &going).await;
    going.reading.abort();
    let start = Instant::now();
    let state = format!("SELECT state FROM system.runs WHERE run_id = '{}'", going.run);
    while value(&mut client, &state).await != "cancelled" || !files_below(&folder.path().join("pond")).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?} are left", files_below(&folder.path().join("pond")));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_outputs_go_to_s3_in_parts() {
    let s3 = tokio::task::spawn_blocking(S3Server::start).await.expect("a server");
    s3.create_bucket("tide");
    let environment = from_the_beginning(&s3.environment());
    let (mut cluster, mut client) = going::cluster("s3://tide/cluster", &environment).await;
    let going = Going::in_partitions(cluster.client().await, WIDE, "2").await;
    until_stored(&mut client, &going).await;
    for mut executor in cluster.executors.drain(..) {
        executor.kill();
    }
    cluster.add_executor(1);
    cluster.add_executor(1);
    let run = going.run.0.clone();
    going.answers(WIDE).await;
    let column = |name: &str| format!("SELECT CAST({name} AS BIGINT) FROM system.runs WHERE run_id = '{run}'");
    assert_eq!(value(&mut client, &column("repeated_task_seconds * 1000")).await, "0");
    let mut number = async |name: &str| value(&mut client, &column(name)).await.parse::<u64>().expect("a number");
    let (packs, bytes) = (number("packs").await, number("durable_bytes").await);
    let (puts, gets) = (number("put_requests").await, number("get_requests").await);
    assert!(bytes > 32 << 20 && gets > 0, "{bytes} bytes, {gets} GETs");
    assert!(puts > packs, "{puts} requests for {packs} packs: none was written in parts");
    assert!(puts <= bytes / (16 << 20) + 2 * packs, "{puts} requests for {packs} packs of {bytes} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_the_store_refuses_is_written_after_its_task() {
    let s3 = tokio::task::spawn_blocking(S3Server::start).await.expect("a server");
    s3.create_bucket("tide");
    let wire = Proxy::start(s3.address()).await;
    let mut environment = from_the_beginning(&s3.environment());
    environment[0].1 = format!("http://{}", wire.address);
    let (cluster, mut client) = going::cluster("s3://tide/cluster", &environment).await;
    // Its end takes so long that whoever tries again has time.
    let sql = format!(
        "SELECT count(*) AS n, max(md5(concat(c, CAST(s.value * 2000 + t.value AS VARCHAR)))) AS m FROM ({WIDE}) AS w
        CROSS JOIN generate_series(1, 2000) AS s(value) CROSS JOIN generate_series(1, 2000) AS t(value)"
    );
    let going = Going::in_partitions(cluster.client().await, &sql, "2").await;
    let start = Instant::now();
    // The beginning of an upload in parts.
    while !wire.requests("/pond/").contains_key("POST") {
        assert!(start.elapsed() < Duration::from_secs(60) && !going.reading.is_finished(), "no pack is being written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = wire.refused();
    wire.set(Wire::Refusing(403));
    tokio::time::sleep(Duration::from_secs(1)).await;
    wire.set(Wire::Whole);
    assert!(wire.refused() > before, "nobody asked the store");
    until_stored(&mut client, &going).await;
    going.answers(&sql).await;
    let lost = "SELECT count(*) FROM system.executors WHERE state <> 'alive'";
    assert_eq!(value(&mut client, lost).await, "0", "nobody was given up for it");
    let repeats = "SELECT CAST(coalesce(sum(repeats), 0) AS BIGINT) FROM system.tasks";
    assert_eq!(value(&mut client, repeats).await, "0");
}

/// Waits until a pack is being written.
async fn until_partial(folder: &Path, going: &Going) {
    let start = Instant::now();
    while partial_packs(folder) == 0 {
        assert!(start.elapsed() < Duration::from_secs(60) && !going.reading.is_finished(), "no pack is being written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the first stage is in the store, and for the log. Gives back its tasks.
async fn until_stored(client: &mut tidemill::client::Client, going: &Going) -> std::collections::BTreeSet<String> {
    let run = &going.run.0;
    let left = format!("SELECT count(*) FROM system.tasks WHERE run_id = '{run}' AND stage_id = 0 AND pack IS NULL");
    let any = format!("SELECT count(*) FROM system.tasks WHERE run_id = '{run}' AND stage_id = 0");
    let start = Instant::now();
    while value(client, &any).await == "0" || value(client, &left).await != "0" {
        assert!(start.elapsed() < Duration::from_secs(120), "its first stage is not in the store");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let durable = in_store(client, run).await;
    tokio::time::sleep(UNWRITTEN).await;
    assert!(!going.reading.is_finished(), "the run was over too early");
    durable
}
