//! Where loading stopped, and why, is one query: the one that the pages show.

use tidemill_tests::harness::{ProcessCluster, rows, value};

use super::{asked, tables, until};

const PAGE: &str = include_str!("../../../../docs/jobs.md");
const OF_PIPELINE: &str = include_str!("../../../../examples/pipeline/stopped.sql");

/// The query as `docs/jobs.md` shows it.
fn shown() -> &'static str {
    let (_, rest) = PAGE.split_once("Where did it stop, and why?\n\n```sql\n").expect("the page has the query");
    rest.split_once(";\n```").expect("the query ends").0
}

#[tokio::test(flavor = "multi_thread")]
async fn al9_where_loading_stopped_and_why_is_one_query() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = ProcessCluster::start(1, 2).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    // In the third of five hours is a click on nothing.
    let clicks = "SELECT to_timestamp(1772323200 + v * 60) AS ts, CASE v WHEN 150 THEN -1 ELSE v END AS ad \
                  FROM generate_series(0, 299) AS t(v)";
    rows(client, &format!("COPY ({clicks}) TO '{}'", folder.path().join("clicks/all.parquet").display())).await;
    let check = "CONSTRAINT of_an_ad EXPECT (n >= 0) WITH";
    let counts = asked("counts", "").replacen("WITH", check, 1).replace("count(*)", "min(ad)");
    let rolls = "CREATE JOB rolls INTO rolled SCHEDULE CRON '@yearly' INTERVAL '1 hour' START '2026-03-01' \
                 DEPENDS ON sums COMPLETE WITH (interval_column = 'hour') \
                 AS SELECT hour, n FROM sums WHERE hour >= $interval_start AND hour < $interval_end";
    for job in [counts.as_str(), rolls] {
        rows(client, job).await;
    }
    for job in ["rolls", "counts"] {
        rows(client, &format!("BACKFILL JOB {job} FROM '2026-03-01' TO '2026-03-01 05:00'")).await;
    }
    let went = "SELECT count(*) FROM system.intervals WHERE state = 'published'";
    until(client, went, "8").await;
    let failed = "SELECT count(*) FROM system.intervals WHERE state = 'failed'";
    until(client, failed, "1").await;
    let (query, columns) = (shown(), "concat_ws(' ', job, interval_start, state, why, run_id)");
    let answer = value(client, &format!("SELECT string_agg({columns}, '; ' ORDER BY job) FROM ({query})")).await;
    assert_eq!(
        answer,
        "counts 2026-03-01T02:00:00Z failed the check `of_an_ad` does not hold for 1 of 1 rows, so nothing is published; for \
         example (hour = 2026-03-01T02:00:00, n = -1) job-counts-1-2-1-1; rolls 2026-03-01T02:00:00Z waiting counts 2026-03-01 02:00 UTC: failed"
    );
    assert!(OF_PIPELINE.contains(query), "the pages show two queries:\n{query}\n{OF_PIPELINE}");
}
