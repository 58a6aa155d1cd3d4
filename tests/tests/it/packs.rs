//! Packs of large outputs, which are written while their tasks run.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use arrow::array::AsArray;
use tidemill::client::Client;
use tidemill_tests::harness::s3::S3Server;
use tidemill_tests::harness::{ProcessCluster, Wire, rows, started_after, value};
use ulid::Ulid;

use crate::durable::{files_below, state_in};
use crate::going::{self, Going, with_a_slow_end};

/// Its first stage has tasks with one large output each, in blocks of which none is in one piece in its pack. Its digests
/// cannot be compressed: what is stored has more than one part.
const WIDE: &str = "SELECT k % 7 AS g, count(*) AS n, max(c) AS c, sum(q) AS q, min(i) AS i FROM (
        SELECT l_orderkey AS k, l_linenumber, sum(l_quantity) AS q, min(l_shipinstruct) AS i,
            max(concat(l_comment, encode(sha512(CAST(l_orderkey * 8 + l_linenumber AS VARCHAR)), 'hex'))) AS c
        FROM lineitem GROUP BY 1, 2) AS x
    GROUP BY 1 ORDER BY 1";

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
    let sql = with_a_slow_end(WIDE, "c");
    let going = Going::in_partitions(cluster.client().await, &sql, "2").await;
    let durable = going.until_stored(&mut client).await;
    let known = SystemTime::now();
    let early = begun_before_their_end(&cluster, &mut client, &going).await;
    assert!(early > 0, "no pack was begun while its task ran");
    for mut executor in cluster.executors.drain(..) {
        executor.kill();
    }
    cluster.restart_coordinator();
    cluster.add_executor(1);
    cluster.add_executor(1);
    let run = going.run.0.clone();
    going.answers(&sql).await;
    let again = started_after(&cluster.journals(), &run, known);
    assert!(again.is_disjoint(&durable), "{again:?} were done again, of {durable:?}");
    assert_eq!(partial_packs(folder.path()), 0, "nothing is left half written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_leaves_no_half_a_pack() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cluster, mut client) = going::cluster(&state_in(folder.path()), &from_the_beginning(&[])).await;
    let going = Going::in_partitions(cluster.client().await, &with_a_slow_end(WIDE, "c"), "2").await;
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
    let sql = with_a_slow_end(WIDE, "c");
    let going = Going::in_partitions(cluster.client().await, &sql, "2").await;
    let durable = going.until_stored(&mut client).await;
    let killed = SystemTime::now();
    for mut executor in cluster.executors.drain(..) {
        executor.kill();
    }
    cluster.add_executor(1);
    cluster.add_executor(1);
    let run = going.run.0.clone();
    going.answers(&sql).await;
    let again = started_after(&cluster.journals(), &run, killed);
    assert!(again.is_disjoint(&durable), "{again:?} were done again, of {durable:?}");
    let column = |name: &str| format!("SELECT CAST({name} AS BIGINT) FROM system.runs WHERE run_id = '{run}'");
    let mut number = async |name: &str| value(&mut client, &column(name)).await.parse::<u64>().expect("a number");
    let (packs, bytes) = (number("packs").await, number("durable_bytes").await);
    let (puts, gets) = (number("put_requests").await, number("get_requests").await);
    assert!(bytes > 32 << 20 && gets > 0, "{bytes} bytes, {gets} GETs");
    assert!(puts > packs, "{puts} requests for {packs} packs: none was written in parts");
    assert!(puts <= bytes / (16 << 20) + 2 * packs, "{puts} requests for {packs} packs of {bytes} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_the_store_refuses_is_written_after_its_task() {
    let (_s3, wire, environment) = S3Server::behind_a_wire("tide").await;
    let environment = from_the_beginning(&environment);
    let (cluster, mut client) = going::cluster("s3://tide/cluster", &environment).await;
    // Whoever tries again has time.
    let sql = with_a_slow_end(WIDE, "c");
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
    going.until_stored(&mut client).await;
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

/// How many tasks of the first stage had a pack before they had ended: its name holds the time when it was begun.
async fn begun_before_their_end(cluster: &ProcessCluster, client: &mut Client, going: &Going) -> usize {
    let run = &going.run.0;
    let sql = "SELECT concat(stage_id, '.', task_id), pack FROM system.tasks WHERE stage_id = 0 AND pack IS NOT NULL";
    let batches = rows(client, &format!("{sql} AND run_id = '{run}'")).await;
    let column = |index: usize| batches.iter().flat_map(move |b| b.column(index).as_string::<i32>().iter().flatten());
    let journals = cluster.journals().concat();
    let ended = |task: &str| {
        let lines = journals.iter().map(|line| line.split(' ').collect::<Vec<_>>());
        let found = lines.filter(|f| f[1] == "succeeded" && f[2] == run && f[3] == task);
        found.map(|f| f[0].parse::<u64>().expect("a time")).max().expect("an end")
    };
    let begun = |pack: &str| {
        let name = pack.trim_end_matches(".pack").rsplit('-').next().expect("a name");
        Ulid::from_string(name).expect("a ULID").timestamp_ms()
    };
    column(0).zip(column(1)).filter(|(task, pack)| begun(pack) < ended(task)).count()
}
