//! What a job reads, or what it publishes into, is away or full for a while: it is tried again, says why, and each interval is
//! published once when it is over. Nobody asks again.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use tidemill::client::Client;
use tidemill_tests::harness::postgres::Postgres;
use tidemill_tests::harness::s3::S3Server;
use tidemill_tests::harness::{Process, ProcessCluster, Wire, rows, value};

use super::{PATIENCE, asked, click, creates, tables, until};
use crate::durable::state_in;

/// Hours of the backfill whose store goes away.
const HOURS: u64 = 8;
/// For how long.
const STORM: Duration = Duration::from_secs(4);
const PUBLISHED: &str = "SELECT count(*) FROM system.intervals WHERE state = 'published'";

/// Whether some run of the job failed for this reason.
fn failed_with(reason: &str) -> String {
    format!("SELECT count(*) > 0 FROM system.runs WHERE job = 'counts' AND error LIKE '%{reason}%'")
}

async fn published(client: &mut Client) -> u64 {
    value(client, PUBLISHED).await.parse().expect("a number")
}

/// Checks that a dataset has a version for each of so many intervals behind that which made it, and that none was computed twice.
async fn published_once(client: &mut Client, dataset: &str, intervals: u64) {
    let history = rows(client, &format!("DESCRIBE HISTORY {dataset} LIMIT 100")).await;
    let versions: usize = history.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(versions as u64, intervals + 1, "an interval is one version");
    let of_intervals = "SELECT count(DISTINCT published_version) || ' ' || max(published_version) || ' ' || max(generation) \
                        FROM (SELECT published_version, published_generation AS generation FROM system.intervals \
                        WHERE state = 'published')";
    assert_eq!(value(client, of_intervals).await, format!("{intervals} {intervals} 1"));
}

/// Everybody is killed and started again, with these variables beside those that they always have.
fn reboot(cluster: &mut ProcessCluster, environment: &[(&'static str, String)]) {
    cluster.executors.iter_mut().for_each(Process::kill);
    cluster.executors.clear();
    cluster.restart_coordinator_with(environment);
    cluster.add_executor_with(1, environment);
}

#[tokio::test(flavor = "multi_thread")]
async fn al7_a_source_that_is_down_or_has_no_address_delays_an_hour_through_reboots() {
    let mut postgres = tokio::task::spawn_blocking(Postgres::start).await.expect("a server");
    postgres.execute(
        "CREATE TABLE clicks AS SELECT TIMESTAMP '2026-03-01' + v * INTERVAL '1 minute' AS ts, v::bigint AS ad \
         FROM generate_series(0, 1439) AS t(v)",
    );
    let folder = tempfile::tempdir().expect("a folder");
    let environment = postgres.environment();
    let mut cluster = ProcessCluster::with(1, 1, &state_in(&folder.path().join("state")), &environment).await;
    let client = &mut cluster.client().await;
    let [_, sums, _] = creates(folder.path());
    rows(client, &sums).await;
    let clicks = "CREATE EXTERNAL TABLE clicks STORED AS POSTGRES LOCATION 'clicks' OPTIONS (secret 'pg')";
    rows(client, clicks).await;
    rows(client, &asked("counts", ", retries = 50, retry_backoff = '500ms'")).await;
    postgres.stop();
    rows(client, "EXECUTE JOB counts FOR INTERVAL '2026-03-01 07:00'").await;
    until(client, &failed_with("secret `pg`"), "true").await;
    assert_eq!(value(client, PUBLISHED).await, "0");
    // The machines come back before the source does, and the name of its host is known to nobody.
    let nowhere = environment[0].1.replace("127.0.0.1", "nowhere.invalid");
    assert!(nowhere.contains("nowhere.invalid"), "the secret has no host");
    reboot(&mut cluster, &[(environment[0].0, nowhere)]);
    let client = &mut cluster.client().await;
    until(client, &failed_with("does not answer at nowhere.invalid"), "true").await;
    assert_eq!(value(client, PUBLISHED).await, "0");
    postgres.start_again();
    reboot(&mut cluster, &[]);
    let client = &mut cluster.client().await;
    until(client, PUBLISHED, "1").await;
    assert_eq!(value(client, "SELECT hour || ' ' || n FROM sums").await, "2026-03-01T07:00:00 60");
    published_once(client, "sums", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn al7_a_disk_that_is_full_delays_an_hour() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = ProcessCluster::start(0, 1).await;
    cluster.add_executor_with_small_files(1);
    cluster.wait_for_executors(1).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    click(client, folder.path()).await;
    let location = folder.path().join("texts").display().to_string();
    let texts = "CREATE EXTERNAL TABLE texts (hour TIMESTAMP, t VARCHAR) STORED AS DELTA";
    rows(client, &format!("{texts} LOCATION '{location}'")).await;
    // Some megabytes, which cannot be made small.
    let job = asked("counts", ", retries = 50, retry_backoff = '500ms'").replace("INTO sums", "INTO texts");
    let job = job.replace("count(*) AS n FROM clicks", "md5(concat(ad, '.', v)) AS t FROM clicks, many");
    rows(client, "CREATE VIEW many AS SELECT value AS v FROM generate_series(1, 6000)").await;
    rows(client, &job.replace(" GROUP BY 1", "")).await;
    rows(client, "EXECUTE JOB counts FOR INTERVAL '2026-03-01 07:00'").await;
    until(client, &failed_with("too large"), "true").await;
    assert_eq!(value(client, PUBLISHED).await, "0");
    // Somebody makes room.
    cluster.executors.iter_mut().for_each(Process::kill);
    cluster.executors.clear();
    cluster.add_executor(1);
    until(client, PUBLISHED, "1").await;
    let all = "SELECT count(*) || ' ' || count(DISTINCT t) || ' ' || min(hour) FROM texts";
    assert_eq!(value(client, all).await, "360000 360000 2026-03-01T07:00:00");
    published_once(client, "texts", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn al8_a_dataset_whose_store_is_away_for_a_while_loses_no_hour_and_repeats_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_s3, wire, environment) = S3Server::behind_a_wire("tide").await;
    // The log, and what is read, are elsewhere.
    let cluster = ProcessCluster::with(1, 2, &state_in(&folder.path().join("state")), &environment).await;
    let client = &mut cluster.client().await;
    let root = folder.path().display().to_string();
    for create in creates(folder.path()) {
        let create = if create.contains("DELTA") { create.replace(&root, "s3://tide/lake") } else { create };
        rows(client, &create).await;
    }
    click(client, folder.path()).await;
    rows(client, &asked("counts", ", retry_backoff = '500ms'")).await;
    rows(client, &format!("BACKFILL JOB counts FROM '2026-03-01' TO '2026-03-01 0{HOURS}:00' MAX RUNS 2")).await;
    let mut before = 0;
    for away in [Wire::Refusing(503), Wire::Cut] {
        let start = Instant::now();
        while published(client).await <= before {
            assert!(start.elapsed() < PATIENCE, "{away:?}: the backfill does not go on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let refused = wire.refused();
        wire.set(away);
        tokio::time::sleep(STORM).await;
        assert!(wire.refused() > refused, "{away:?}: nobody asked the store");
        before = published(client).await;
        assert!(before < HOURS, "{away:?} came too late");
        wire.set(Wire::Whole);
    }
    until(client, PUBLISHED, &HOURS.to_string()).await;
    let all = "SELECT count(*) || ' ' || count(DISTINCT hour) || ' ' || sum(n) FROM sums";
    assert_eq!(value(client, all).await, format!("{HOURS} {HOURS} {}", HOURS * 60));
    published_once(client, "sums", HOURS).await;
}
