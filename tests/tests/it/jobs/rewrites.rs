//! Intervals whose rows share files with those of others, and datasets whose columns change between two runs.

use tidemill::client::Client;
use tidemill_tests::harness::delta::add_column;
use tidemill_tests::harness::{LocalCluster, Shape, rows, value};

use super::{asked, click, hourly, tables, until};

/// Runs an hour of the first of March, and waits until this generation of it is published.
async fn run(client: &mut Client, hour: u32, generation: u32) {
    rows(client, &format!("EXECUTE JOB counts FOR INTERVAL '2026-03-01 {hour:02}:00'")).await;
    let published = format!(
        "SELECT max(published_generation) FROM system.intervals WHERE job = 'counts' AND interval_start = TIMESTAMP \
         '2026-03-01T{hour:02}:00:00Z'"
    );
    until(client, &published, &generation.to_string()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interval_runs_again_after_optimize_joined_its_rows_with_those_of_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    click(client, folder.path()).await;
    // They would not hold of three hours.
    let checks = "EXPECT (count(*) = 1 AND sum(n) < 70) EXPECT (n >= 60 AND n < 70) EXPECT (max(n) = min(n))";
    rows(client, &hourly("counts", ", retries = 0").replacen("WITH", &format!("{checks} WITH"), 1)).await;
    for hour in [6, 7, 8] {
        run(client, hour, 1).await;
    }
    assert_eq!(value(client, "OPTIMIZE sums").await, "3");
    // Five clicks come late.
    let late = "SELECT to_timestamp(1772323200 + 7 * 3600 + v) AS ts, v AS ad FROM generate_series(1, 5) AS t(v)";
    let path = folder.path().join("clicks/late.parquet");
    rows(client, &format!("COPY ({late}) TO '{}'", path.display())).await;
    run(client, 7, 2).await;
    let all = "SELECT string_agg(hour || ' ' || n, ', ' ORDER BY hour) FROM sums";
    let expected = "2026-03-01T06:00:00 60, 2026-03-01T07:00:00 65, 2026-03-01T08:00:00 60";
    assert_eq!(value(client, all).await, expected);
    // What is told of the run is of its own row.
    let written = "SELECT rows_written FROM system.runs WHERE run_id = 'job-counts-1-7-2-1'";
    assert_eq!(value(client, written).await, "1");
    let told = "SELECT string_agg(state, ' ') FROM system.run_checks WHERE run_id = 'job-counts-1-7-2-1'";
    assert_eq!(value(client, told).await, "passed passed passed");
    let together =
        "SELECT value FROM system.run_checks WHERE run_id = 'job-counts-1-7-2-1' AND condition LIKE 'count%'";
    assert_eq!(value(client, together).await, "count(*) is 1, sum(n) is 65");
    // The others are whole again, in files of their own.
    run(client, 8, 2).await;
    assert_eq!(value(client, all).await, expected);
}

/// Runs an hour of the first of March, which fails; the error of its first attempt.
async fn fail(client: &mut Client, hour: u32) -> String {
    rows(client, &format!("EXECUTE JOB counts FOR INTERVAL '2026-03-01 {hour:02}:00'")).await;
    let failed = format!(
        "SELECT count(*) FROM system.intervals WHERE job = 'counts' AND state = 'failed' AND interval_start = TIMESTAMP \
         '2026-03-01T{hour:02}:00:00Z'"
    );
    until(client, &failed, "1").await;
    value(client, &format!("SELECT error FROM system.runs WHERE run_id = 'job-counts-1-{hour}-1-1'")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_columns_do_not_fit_a_restored_dataset_fails_by_name_and_publishes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    click(client, folder.path()).await;
    assert_eq!(add_column(&folder.path().join("sums"), "more", "long"), 1);
    let narrow = asked("counts", "");
    rows(client, &narrow.replace("count(*) AS n", "count(*) AS n, max(ad) AS more")).await;
    run(client, 6, 1).await;
    assert_eq!(value(client, "SELECT n || ' ' || more FROM sums").await, "60 419");
    rows(client, "RESTORE TABLE sums TO VERSION AS OF 0").await;
    let told = fail(client, 7).await;
    assert!(told.contains("the dataset `sums` has no column `more`"), "{told}");
    assert_eq!(value(client, "SELECT count(*) FROM sums").await, "0");
    assert_eq!(value(client, "DESCRIBE HISTORY sums LIMIT 1").await, "3");
    // As soon as the job gives what the dataset has, it goes on.
    rows(client, &narrow.replacen("CREATE JOB", "CREATE OR REPLACE JOB", 1)).await;
    run(client, 7, 2).await;
    assert_eq!(value(client, "SELECT n FROM sums").await, "60");
    // A column that comes back is asked for, and not filled with NULL.
    rows(client, "RESTORE TABLE sums TO VERSION AS OF 2").await;
    let told = fail(client, 8).await;
    assert!(told.contains("gives no column `more` of the dataset `sums`"), "{told}");
    assert_eq!(value(client, "SELECT n || ' ' || more FROM sums").await, "60 419");
}
