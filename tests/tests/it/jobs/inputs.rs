//! A row of `system.runs` tells all of a run of a job: which versions it read, which one it made, how many rows, and how its
//! checks ended.

use tidemill::client::Client;
use tidemill_tests::harness::{ProcessCluster, rows, value};

use super::{click, hourly, tables, until};
use crate::durable::state_in;

/// Computes the hour from seven, and waits until it is published so often.
async fn publish(client: &mut Client, job: &str, generation: u32) {
    rows(client, &format!("EXECUTE JOB {job} FOR INTERVAL '2026-03-01 07:00'")).await;
    let published = format!(
        "SELECT max(published_generation) FROM system.intervals WHERE job = '{job}' AND interval_start = \
         TIMESTAMP '2026-03-01T07:00:00Z'"
    );
    until(client, &published, &generation.to_string()).await;
}

/// What is told of the runs of a job, in their order.
async fn told(client: &mut Client, job: &str) -> String {
    let text = |column: &str| format!("coalesce(CAST({column} AS VARCHAR), '-')");
    let columns = [
        "date_part('hour', interval_start)",
        "date_part('hour', interval_end)",
        "generation",
        "attempt",
        "cause",
        "input_versions",
        "output_version",
        "rows_read",
        "rows_written",
        "checks_passed",
        "checks_warned",
        "checks_failed",
    ];
    let row = columns.map(text).join(" || ' ' || ");
    value(client, &format!("SELECT string_agg({row}, '; ' ORDER BY generation) FROM system.runs WHERE job = '{job}'"))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_a_job_is_told_in_one_row_by_every_later_coordinator() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = ProcessCluster::durable(1, 2, &state_in(&folder.path().join("state"))).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    click(client, folder.path()).await;
    // Once a year, which no run of this test meets but by what it asks for.
    let counts = hourly("counts", ", retries = 0").replace("'5 * * * *'", "'5 5 1 1 *'");
    rows(client, &counts).await;
    let rolls = "CREATE JOB rolls INTO rolled SCHEDULE CRON '5 5 1 1 *' INTERVAL '1 hour' START '2026-03-01' \
                 EXPECT (n > 0) EXPECT UNIQUE (hour) EXPECT (sum(n) > 1000) ON VIOLATION WARN \
                 WITH (interval_column = 'hour', retries = 0) \
                 AS SELECT hour, n FROM sums WHERE hour >= $interval_start AND hour < $interval_end";
    rows(client, rolls).await;
    publish(client, "counts", 1).await;
    publish(client, "rolls", 1).await;
    // Files have no versions, and a job reads its own dataset no more than an INSERT does.
    assert_eq!(told(client, "counts").await, "7 8 1 1 manual - 1 1440 1 0 0 0");
    let first = "7 8 1 1 manual sums@1 1 1 1 2 1 0";
    assert_eq!(told(client, "rolls").await, first);
    cluster.restart_coordinator();
    let client = &mut cluster.client().await;
    assert_eq!(told(client, "rolls").await, first, "it is in the log");
    publish(client, "counts", 2).await;
    publish(client, "rolls", 2).await;
    let second = "7 8 2 1 manual sums@2 2 1 1 2 1 0";
    assert_eq!(told(client, "rolls").await, format!("{first}; {second}"));
    // The dataset says the same of its versions.
    let history = rows(client, "DESCRIBE HISTORY rolled LIMIT 1").await;
    let newest = history.iter().find(|batch| batch.num_rows() == 1).expect("a version");
    let info = arrow::util::display::array_value_to_string(newest.column(5), 0).expect("a text");
    let inputs = format!("\"inputs\":\"{{\\\"file://{}/\\\":2}}\"", folder.path().join("sums").display());
    assert!(info.contains(&inputs), "{inputs} is not in {info}");
    let refused = rolls
        .replace("rolls", "refused")
        .replace("INTO rolled", "INTO other")
        .replace("> 1000) ON VIOLATION WARN", "> 1000)");
    let other = format!(
        "CREATE EXTERNAL TABLE other (hour TIMESTAMP, n BIGINT) STORED AS DELTA LOCATION '{}'",
        folder.path().join("other").display()
    );
    rows(client, &other).await;
    rows(client, &refused).await;
    rows(client, "EXECUTE JOB refused FOR INTERVAL '2026-03-01 07:00'").await;
    until(client, "SELECT count(*) FROM system.intervals WHERE job = 'refused' AND state = 'failed'", "1").await;
    assert_eq!(told(client, "refused").await, "7 8 1 1 manual sums@2 - 1 - 2 0 1");
}
