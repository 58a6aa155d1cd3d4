//! Coordinators and executors killed while jobs run: no interval is left out, and none is tried twice under one name.

use std::time::{Duration, Instant};

use tidemill_tests::harness::{ProcessCluster, rows, value};

use super::{hourly, tables, until};
use crate::durable::state_in;

/// Intervals of the backfill.
const INTERVALS: u64 = 24;

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_whose_processes_are_killed_tries_each_interval_as_often_as_it_should() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let mut cluster = ProcessCluster::durable(1, 2, &state_in(&state)).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    rows(client, &hourly("counts", ", retries = 2, retry_backoff = '300ms', suspend_after_failures = 0")).await;
    rows(client, "BACKFILL JOB counts FROM '2026-03-01' TO '2026-03-02' MAX RUNS 3").await;
    let failed = "SELECT count(*) FROM system.intervals WHERE state = 'failed'";
    for kill in 0..3 {
        let start = Instant::now();
        let client = &mut cluster.client().await;
        while value(client, failed).await.parse::<u64>().expect("a number") < kill * 6 + 3 {
            assert!(start.elapsed() < Duration::from_secs(120), "kill {kill}: the backfill does not go on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cluster.executors.iter_mut().for_each(tidemill_tests::harness::Process::kill);
        cluster.executors.clear();
        cluster.restart_coordinator();
        cluster.add_executor(2);
    }
    let client = &mut cluster.client().await;
    until(client, failed, &INTERVALS.to_string()).await;
    let tried = "SELECT count(*) || ' ' || min(tries) || ' ' || max(tries) FROM \
                 (SELECT count(*) AS tries FROM system.runs WHERE job = 'counts' GROUP BY interval_start)";
    assert_eq!(value(client, tried).await, format!("{INTERVALS} 3 3"));
    let names = "SELECT count(*) || ' ' || count(DISTINCT run_id) FROM system.runs WHERE job = 'counts'";
    assert_eq!(value(client, names).await, format!("{0} {0}", 3 * INTERVALS));
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
    cluster.restart_coordinator();
    let client = &mut cluster.client().await;
    let fired = "SELECT count(*) > 0 FROM system.runs WHERE job = 'minutes' AND cause = 'schedule'";
    until(client, fired, "true").await;
    let drift = "SELECT max(date_part('epoch', submitted_at) - date_part('epoch', interval_end)) < 5 FROM system.runs \
                 WHERE job = 'minutes'";
    assert_eq!(value(client, drift).await, "true", "it runs when its minute is over");
    let due = "SELECT next_fire > now() FROM system.jobs";
    assert_eq!(value(client, due).await, "true");
}
