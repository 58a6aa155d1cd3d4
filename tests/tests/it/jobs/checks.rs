//! What must hold of all rows of an interval holds before they are published, or nothing is: AL12 of the rows that jobs must
//! satisfy.

use std::path::Path;
use std::time::{Duration, Instant};

use tidemill::client::Client;
use tidemill_engine::crash::VARIABLE;
use tidemill_tests::harness::{LocalCluster, ProcessCluster, Shape, rows, value};

use super::{PATIENCE, click, hourly, tables, until};
use crate::durable::state_in;

/// Of a run of the job `counts`.
const CHECKS: &str = "FROM system.run_checks WHERE job = 'counts'";

/// An hourly job with expectations, which is not tried again.
fn expecting(clauses: &str) -> String {
    hourly("counts", ", retries = 0").replacen("WITH", &format!("{clauses} WITH"), 1)
}

/// The same, which publishes rows of single clicks, some of them twice an hour.
fn of_clicks(columns: &str, clauses: &str) -> String {
    expecting(clauses).replace("date_trunc('hour', ts) AS hour, count(*) AS n", columns).replace(" GROUP BY 1", "")
}

async fn cluster(folder: &Path) -> (LocalCluster, Client) {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let mut client = cluster.client().await;
    tables(&mut client, folder).await;
    click(&mut client, folder).await;
    (cluster, client)
}

/// Runs an hour of the first of March, and waits for its end.
async fn run(client: &mut Client, hour: u32, state: &str) {
    rows(client, &format!("EXECUTE JOB counts FOR INTERVAL '2026-03-01 {hour:02}:00'")).await;
    until(client, &of(hour, "max(state)"), state).await;
}

fn of(hour: u32, column: &str) -> String {
    format!(
        "SELECT {column} FROM system.intervals WHERE job = 'counts' AND interval_start = TIMESTAMP '2026-03-01T{hour:02}:00:00Z'"
    )
}

/// How many versions a dataset has, besides the first.
async fn versions(client: &mut Client) -> usize {
    rows(client, "DESCRIBE HISTORY sums LIMIT 100").await.iter().map(|batch| batch.num_rows()).sum::<usize>() - 1
}

/// Files with rows, and lists of such, below a dataset's folder.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.file_name().and_then(|name| name.to_str()) {
            Some("_delta_log") => {}
            _ if path.is_dir() => found.extend(files(&path)),
            _ => found.push(path.display().to_string()),
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn al12_an_aggregate_that_does_not_hold_publishes_nothing_and_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_cluster, client) = &mut cluster(folder.path()).await;
    rows(client, &expecting("CONSTRAINT enough EXPECT (sum(n) > 60 AND count(*) = 1)")).await;
    run(client, 7, "failed").await;
    let error = value(client, &of(7, "error")).await;
    assert_eq!(error, "the check `enough` does not hold: sum(n) is 60, count(*) is 1, so nothing is published");
    assert_eq!(value(client, &of(7, "attempt")).await, "1", "it would not hold the next time");
    assert_eq!(value(client, "SELECT count(*) FROM sums").await, "0");
    assert_eq!(versions(client).await, 0);
    // What was written goes when the log says that the run failed.
    let start = Instant::now();
    while !files(&folder.path().join("sums")).is_empty() {
        assert!(start.elapsed() < PATIENCE, "{:?} stay", files(&folder.path().join("sums")));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = "SELECT \"check\" || ': ' || state || ', ' || value || ', ' || condition || ', ' || run_id";
    assert_eq!(
        value(client, &format!("{told} {CHECKS} AND interval_start = TIMESTAMP '2026-03-01T07:00:00Z'")).await,
        "enough: failed, sum(n) is 60, count(*) is 1, sum(n) > 60 AND count(*) = 1, job-counts-1-7-1-1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_warns_is_published_and_listed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_cluster, client) = &mut cluster(folder.path()).await;
    let clauses = "EXPECT (n < 60) ON VIOLATION WARN EXPECT (sum(n) > 60) ON VIOLATION WARN EXPECT (n > 0) \
                   EXPECT (count(*) = count(DISTINCT hour))";
    rows(client, &expecting(clauses)).await;
    run(client, 7, "published").await;
    assert_eq!(value(client, "SELECT hour || ' ' || n FROM sums").await, "2026-03-01T07:00:00 60");
    let states = "SELECT string_agg(condition || ' ' || state, ', ' ORDER BY condition)";
    assert_eq!(
        value(client, &format!("{states} {CHECKS}")).await,
        "count(*) = count(DISTINCT hour) passed, n < 60 warned, n > 0 passed, sum(n) > 60 warned"
    );
    let row = format!("SELECT violations || ': ' || sample {CHECKS} AND condition = 'n < 60'");
    assert_eq!(value(client, &row).await, "1: (hour = 2026-03-01T07:00:00, n = 60)");
    let counted = "SELECT rows_read || ' ' || rows_written FROM system.runs WHERE job = 'counts'";
    assert_eq!(value(client, counted).await, "1440 1", "the file's rows are read, and one is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_comes_twice_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_cluster, client) = &mut cluster(folder.path()).await;
    let columns = "date_trunc('hour', ts) AS hour, CASE WHEN ad = 421 THEN 420 ELSE ad END AS n";
    rows(client, &of_clicks(columns, "EXPECT UNIQUE (hour, n) ON VIOLATION FAIL")).await;
    run(client, 7, "failed").await;
    let error = value(client, &of(7, "error")).await;
    let expected = "the check `UNIQUE (hour, n)` does not hold: one key comes more than once, in 2 rows, so nothing is published; for \
                    example (hour = 2026-03-01T07:00:00, n = 420) 2 times";
    assert_eq!(error, expected);
    run(client, 8, "published").await;
    assert_eq!(value(client, "SELECT count(*) FROM sums").await, "60");
    let told = format!("SELECT string_agg(state || ' ' || violations, ', ' ORDER BY interval_start) {CHECKS}");
    assert_eq!(value(client, &told).await, "failed 2, passed 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn al12_an_interval_with_far_fewer_rows_than_those_before_is_not_published() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_cluster, client) = &mut cluster(folder.path()).await;
    let clauses = "CONSTRAINT volume EXPECT (count(*) >= 0.5 * rows_before(3))";
    let job = of_clicks("ts AS hour, ad AS n", clauses).replace("WHERE", "WHERE (ad < 500 OR ad % 10 = 0) AND");
    rows(client, &job).await;
    for hour in [6, 7] {
        run(client, hour, "published").await;
    }
    run(client, 8, "failed").await;
    let error = value(client, &of(8, "error")).await;
    assert_eq!(
        error,
        "the check `volume` does not hold: count(*) is 24, rows_before(3) is 60, so nothing is published"
    );
    let told = format!("SELECT string_agg(state || ' ' || value, '; ' ORDER BY interval_start) {CHECKS}");
    assert_eq!(
        value(client, &told).await,
        "passed count(*) is 60, rows_before(3) is not known, as no interval before has rows; \
         passed count(*) is 60, rows_before(3) is 60; failed count(*) is 24, rows_before(3) is 60"
    );
    let known = "SELECT string_agg(published_rows || '', ' ' ORDER BY interval_start) FROM system.intervals";
    assert_eq!(value(client, known).await, "60 60");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_fails_its_run_is_among_the_checks() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_cluster, client) = &mut cluster(folder.path()).await;
    rows(client, &expecting("CONSTRAINT few EXPECT (n < 60)")).await;
    run(client, 7, "failed").await;
    let told = "SELECT \"check\" || ' ' || condition || ' ' || state || ' ' || violations || ' ' || sample";
    assert_eq!(
        value(client, &format!("{told} {CHECKS}")).await,
        "few n < 60 failed 1 (hour = 2026-03-01T07:00:00, n = 60)"
    );
    assert_eq!(value(client, "SELECT count(*) FROM sums").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_dies_around_the_checks_publishes_once_or_not_at_all() {
    for side in ["before", "after"] {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        let mut cluster = ProcessCluster::durable(1, 2, &state_in(&state)).await;
        let client = &mut cluster.client().await;
        tables(client, folder.path()).await;
        click(client, folder.path()).await;
        rows(client, &expecting("CONSTRAINT early EXPECT (max(hour) < TIMESTAMP '2026-03-01 08:00:00')")).await;
        for (hour, ends, published) in [(7, "published", 1), (8, "failed", 1)] {
            cluster.restart_coordinator_with(&[(VARIABLE, format!("dataset.check:{side}:1"))]);
            cluster.wait_for_executors(1).await;
            let client = &mut cluster.client().await;
            rows(client, &format!("EXECUTE JOB counts FOR INTERVAL '2026-03-01 {hour:02}:00'")).await;
            let start = Instant::now();
            while !cluster.coordinator.was_killed() {
                assert!(start.elapsed() < Duration::from_secs(60), "{side}: nothing was checked");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cluster.restart_coordinator();
            let client = &mut cluster.client().await;
            until(client, &of(hour, "max(state)"), ends).await;
            assert_eq!(versions(client).await, published, "{side}");
            assert_eq!(value(client, "SELECT count(*) || ' ' || sum(n) FROM sums").await, "1 60", "{side}");
        }
        let client = &mut cluster.client().await;
        let told = format!("SELECT string_agg(state, ', ' ORDER BY interval_start) {CHECKS}");
        assert_eq!(value(client, &told).await, "passed, failed", "{side}: each run is told once");
    }
}
