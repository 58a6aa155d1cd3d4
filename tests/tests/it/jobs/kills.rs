//! Coordinators and executors killed while jobs run: no interval is left out, and none is published twice.

use std::path::Path;
use std::time::{Duration, Instant};

use tidemill_tests::harness::s3::S3Server;
use tidemill_tests::harness::{ProcessCluster, is_full, rows, value};

use super::{click, creates, hourly, tables, until};
use crate::durable::state_in;

/// Intervals of a day.
const INTERVALS: u64 = 24;

#[tokio::test(flavor = "multi_thread")]
async fn dx5_a_backfill_whose_processes_are_killed_publishes_each_interval_once_in_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let cluster = ProcessCluster::durable(1, 2, &state_in(&state)).await;
    backfill(cluster, folder.path(), &creates(folder.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dx5_a_backfill_whose_processes_are_killed_publishes_each_interval_once_on_s3() {
    let folder = tempfile::tempdir().expect("a folder");
    let s3 = tokio::task::spawn_blocking(S3Server::start).await.expect("a server");
    s3.create_bucket("tide");
    let cluster = ProcessCluster::with(1, 2, "s3://tide/cluster", &s3.environment()).await;
    let root = folder.path().display().to_string();
    let creates = creates(folder.path()).map(|sql| match sql.contains("DELTA") {
        true => sql.replace(&root, "s3://tide/lake"),
        false => sql,
    });
    backfill(cluster, folder.path(), &creates).await;
}

/// A backfill during which everybody is killed several times.
async fn backfill(mut cluster: ProcessCluster, folder: &Path, creates: &[String]) {
    let client = &mut cluster.client().await;
    for create in creates {
        rows(client, create).await;
    }
    click(client, folder).await;
    rows(client, &hourly("counts", "")).await;
    let kills = if is_full() { 10 } else { 3 };
    let days = if is_full() { 9 } else { 1 };
    rows(client, &format!("BACKFILL JOB counts FROM '2026-03-01' TO '2026-03-{:02}' MAX RUNS 3", days + 1)).await;
    let published = "SELECT count(*) FROM system.intervals WHERE state = 'published'";
    let mut before = 0;
    for kill in 0..kills {
        let start = Instant::now();
        let client = &mut cluster.client().await;
        loop {
            let done: u64 = value(client, published).await.parse().expect("a number");
            if done > before || done == days * INTERVALS {
                before = done;
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "kill {kill}: the backfill does not go on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(before < days * INTERVALS, "kill {kill} comes too late");
        cluster.executors.iter_mut().for_each(tidemill_tests::harness::Process::kill);
        cluster.executors.clear();
        cluster.restart_coordinator();
        cluster.add_executor(2);
    }
    let client = &mut cluster.client().await;
    until(client, published, &(days * INTERVALS).to_string()).await;
    // The table has the rows of a day, and one version for each interval behind that which made it.
    assert_eq!(
        value(client, "SELECT count(*) || ' ' || count(DISTINCT hour) || ' ' || sum(n) FROM sums").await,
        "24 24 1440"
    );
    let history = rows(client, "DESCRIBE HISTORY sums LIMIT 1000").await;
    let versions: usize = history.iter().map(arrow::array::RecordBatch::num_rows).sum();
    assert_eq!(versions as u64, days * INTERVALS + 1);
    let names = "SELECT count(*) - count(DISTINCT run_id) FROM system.runs WHERE job = 'counts'";
    assert_eq!(value(client, names).await, "0");
    let versions = "SELECT count(DISTINCT published_version) FROM system.intervals WHERE state = 'published'";
    assert_eq!(value(client, versions).await, (days * INTERVALS).to_string());
    assert_eq!(value(client, "SELECT backfilled FROM system.jobs").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_fires_by_itself_and_under_the_next_coordinator() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let mut cluster = ProcessCluster::durable(1, 1, &state_in(&state)).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    let minutely = hourly("minutes", ", retries = 0").replace("'5 * * * *'", "'* * * * *'");
    let minutely = minutely
        .replace("'1 hour' START '2026-03-01'", "'1 minute'")
        .replace("date_trunc('hour'", "date_trunc('minute'");
    rows(client, &minutely).await;
    // What was over before it was there is due at its first fire.
    let start = "SELECT to_char(date_trunc('hour', now()) - INTERVAL '3 hours', '%Y-%m-%d %H:%M')";
    let start = format!("START '{}' CATCHUP TRUE", value(client, start).await);
    let hours =
        hourly("hours", ", retries = 0").replace("'5 * * * *'", "'* * * * *'").replace("INTO sums", "INTO rolled");
    rows(client, &hours.replace("START '2026-03-01'", &start)).await;
    cluster.restart_coordinator();
    let client = &mut cluster.client().await;
    let fired = "SELECT count(*) > 0 FROM system.runs WHERE job = 'minutes' AND cause = 'schedule'";
    until(client, fired, "true").await;
    let drift = "SELECT max(date_part('epoch', submitted_at) - date_part('epoch', interval_end)) < 5 FROM system.runs \
                 WHERE job = 'minutes'";
    assert_eq!(value(client, drift).await, "true", "it runs when its minute is over");
    let due = "SELECT next_fire > now() FROM system.jobs WHERE job = 'minutes'";
    assert_eq!(value(client, due).await, "true");
    let caught_up = "SELECT count(*) >= 3 FROM system.intervals WHERE job = 'hours' AND state = 'published'";
    until(client, caught_up, "true").await;
}
