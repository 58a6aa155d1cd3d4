//! Intervals of all lengths over columns of all types of time: they compute their rows, and replace exactly these when they run
//! again.

use std::path::Path;

use tidemill::client::Client;
use tidemill_tests::harness::{LocalCluster, Shape, rows, value};

use super::{refused, until};

/// A click of each hour of February, March and April 2025, and tables to publish into.
async fn tables(client: &mut Client, folder: &Path) {
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::create_dir_all(path("clicks")).expect("a folder");
    let clicks = "SELECT to_timestamp(1738368000 + v * 3600) AS ts, v AS ad FROM generate_series(0, 2135) AS t(v)";
    rows(client, &format!("COPY ({clicks}) TO '{}'", path("clicks/all.parquet"))).await;
    for (table, columns, format) in [
        ("clicks", "ts TIMESTAMP, ad BIGINT", "PARQUET"),
        ("days", "day DATE, n BIGINT", "DELTA PARTITIONED BY (day)"),
        ("loose", "day DATE, n BIGINT", "DELTA"),
        ("instants", "at TIMESTAMPTZ, n BIGINT", "DELTA"),
        ("both", "at TIMESTAMPTZ, k VARCHAR, n BIGINT", "DELTA PARTITIONED BY (k)"),
    ] {
        let location = path(table);
        rows(client, &format!("CREATE EXTERNAL TABLE {table} ({columns}) STORED AS {format} LOCATION '{location}'"))
            .await;
    }
}

/// A job of intervals that begin with February 2025.
fn job(name: &str, into: &str, length: &str, settings: &str, query: &str) -> String {
    format!(
        "CREATE JOB {name} INTO {into} SCHEDULE CRON '@yearly' INTERVAL '{length}' START '2025-02-01' \
         WITH (retries = 0, {settings}) AS {query}"
    )
}

/// Computes an interval, and then again: the dataset has one version more each time, and the same rows.
async fn twice(client: &mut Client, job: &str, start: &str, rows_of_it: &str, expected: &str) {
    for generation in ["1", "2"] {
        rows(client, &format!("EXECUTE JOB {job} FOR INTERVAL '{start}'")).await;
        let published = format!(
            "SELECT coalesce(max(published_generation || ''), max(error)) FROM system.intervals WHERE job = '{job}' \
             AND run_id IS NOT NULL AND interval_start = TIMESTAMP '{start}T00:00:00Z'"
        );
        until(client, &published, generation).await;
        assert_eq!(value(client, rows_of_it).await, expected, "{job}, generation {generation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn months_weeks_and_days_replace_what_is_theirs_by_partition_or_interval() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    let of_clicks = "FROM clicks WHERE ts >= $interval_start AND ts < $interval_end GROUP BY 1";
    let by_day = format!("SELECT ts::date AS day, count(*) AS n {of_clicks}");
    // A month is 28 partitions, and another one stays.
    rows(client, "INSERT INTO days SELECT DATE '2025-01-31', 7").await;
    rows(client, &job("months", "days", "1 month", "partition = 'day'", &by_day)).await;
    let all =
        |table: &str| format!("SELECT count(*) || ' ' || sum(n) || ' ' || min(day) || ' ' || max(day) FROM {table}");
    twice(client, "months", "2025-02-01", &all("days"), "29 679 2025-01-31 2025-02-28").await;
    // Weeks of a DATE that divides nothing, of a table whose days are compared with.
    rows(client, "INSERT INTO loose VALUES (DATE '2025-02-07', 1), (DATE '2025-02-08', 1), (DATE '2025-02-15', 1)")
        .await;
    let of_days = "SELECT day, n FROM days WHERE day >= $interval_start AND day < $interval_end";
    rows(client, &job("weeks", "loose", "1 week", "interval_column = 'day'", of_days)).await;
    twice(client, "weeks", "2025-02-08", &all("loose"), "9 170 2025-02-07 2025-02-15").await;
    // A day and the two before it.
    let rolling = "SELECT $interval_start::date AS day, sum(n) AS n FROM days \
                   WHERE day >= $interval_start - INTERVAL '2 days' AND day < $interval_end";
    rows(client, "DROP JOB weeks").await;
    rows(client, &job("rolls", "loose", "1 day", "interval_column = 'day'", rolling)).await;
    let of_one = "SELECT string_agg(n || '', ' ') FROM loose WHERE day = DATE '2025-02-10'";
    twice(client, "rolls", "2025-02-10", of_one, "72").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn intervals_of_a_column_with_a_zone_are_instants_also_beside_a_text_that_divides() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    let hours = "SELECT ts AS at, ad AS n FROM clicks WHERE ts >= $interval_start AND ts < $interval_end";
    rows(client, &job("hours", "instants", "1 day", "interval_column = 'at'", hours)).await;
    let all = |table: &str| format!("SELECT count(*) || ' ' || min(at) || ' ' || max(at) FROM {table}");
    twice(client, "hours", "2025-02-02", &all("instants"), "24 2025-02-02T00:00:00Z 2025-02-02T23:00:00Z").await;
    // It reads a column with a zone and one without.
    let joined = "SELECT i.at, 'k' || (i.n % 2) AS k, c.ad AS n FROM instants i JOIN clicks c ON i.n = c.ad \
                  WHERE i.at >= $interval_start AND i.at < $interval_end AND c.ts >= $interval_start AND c.ts < $interval_end";
    rows(client, &job("joins", "both", "1 day", "interval_column = 'at'", joined)).await;
    twice(client, "joins", "2025-02-02", &all("both"), "24 2025-02-02T00:00:00Z 2025-02-02T23:00:00Z").await;
    // A text is in no interval of time.
    rows(client, "DROP JOB joins").await;
    let by_text = job("texts", "both", "1 day", "partition = 'k'", joined);
    let error = refused(client, &by_text).await;
    assert!(error.message.contains("a DATE or a timestamp tells which interval") && error.place.is_some(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_that_comes_twice_is_two_intervals_and_one_that_does_not_exist_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    let count = "SELECT date_trunc('hour', ts) AS at, count(*) AS n FROM clicks \
                 WHERE ts >= $interval_start AND ts < $interval_end GROUP BY 1";
    let zoned = job("hours", "instants", "1 hour", "interval_column = 'at'", count)
        .replace("SCHEDULE", "AT TIME ZONE 'Europe/Berlin' SCHEDULE");
    // Clocks go from 2:00 to 3:00 on the thirtieth of March, and went back from 3:00 to 2:00 in October before.
    rows(client, &zoned.replace("'2025-02-01'", "'2024-10-01'")).await;
    for (from, to, hours) in [("2024-10-27", "2024-10-28", 25), ("2025-03-30", "2025-03-31", 23)] {
        let listed = rows(client, &format!("BACKFILL JOB hours FROM '{from}' TO '{to}' DRY RUN")).await;
        assert_eq!(listed.iter().map(|batch| batch.num_rows()).sum::<usize>(), hours, "{from}");
    }
    rows(client, "BACKFILL JOB hours FROM '2025-03-30 01:00' TO '2025-03-30 04:00'").await;
    until(client, "SELECT count(*) FROM system.intervals WHERE state = 'published'", "2").await;
    let all = "SELECT string_agg(at || ' ' || n, ', ' ORDER BY at) FROM instants";
    assert_eq!(value(client, all).await, "2025-03-30T00:00:00Z 1, 2025-03-30T01:00:00Z 1");
}
