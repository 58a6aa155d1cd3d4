//! Jobs that share what they read or what they publish into, and one whose output becomes another.

use tidemill::client::Client;
use tidemill_core::ErrorKind;
use tidemill_tests::harness::{LocalCluster, Shape, rows, value};

use super::{asked, away, click, refused, tables, until};

const PUBLISHED: &str = "SELECT count(*) FROM system.intervals WHERE state = 'published'";

/// Where the hour from seven stands.
fn stands(job: &str) -> String {
    format!(
        "SELECT max(state) FROM system.intervals WHERE job = '{job}' AND interval_start = TIMESTAMP '2026-03-01T07:00:00Z'"
    )
}

async fn execute(client: &mut Client, job: &str) {
    rows(client, &format!("EXECUTE JOB {job} FOR INTERVAL '2026-03-01 07:00'")).await;
}

/// A job that waits for the sums of its hour.
fn consumer(name: &str, output: &str, n: &str) -> String {
    format!(
        "CREATE JOB {name} INTO {output} SCHEDULE CRON '@yearly' INTERVAL '1 hour' START '2026-03-01' \
         DEPENDS ON sums COMPLETE WITH (interval_column = 'hour', retries = 0) \
         AS SELECT hour, {n} AS n FROM sums WHERE hour >= $interval_start AND hour < $interval_end"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn dx1_dx2_consumers_share_what_one_run_stored_and_one_that_failed_reads_it_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cluster, file) = away(folder.path()).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    click(client, folder.path()).await;
    let other = folder.path().join("doubled").display().to_string();
    rows(
        client,
        &format!("CREATE EXTERNAL TABLE doubled (hour TIMESTAMP, n BIGINT) STORED AS DELTA LOCATION '{other}'"),
    )
    .await;
    rows(client, &asked("counts", "")).await;
    rows(client, &consumer("fails", "rolled", "away(n)")).await;
    rows(client, &consumer("doubles", "doubled", "n * 2")).await;
    // Both wait for it, and it is asked for once.
    for job in ["fails", "doubles", "counts"] {
        execute(client, job).await;
    }
    until(client, &stands("doubles"), "published").await;
    until(client, &stands("fails"), "failed").await;
    std::fs::remove_file(&file).expect("the file");
    execute(client, "fails").await;
    until(client, &stands("fails"), "published").await;
    let ran = "SELECT string_agg(job || ' ' || generation || ' ' || coalesce(input_versions, '-') || ' ' || state, '; ' \
               ORDER BY run_id) FROM system.runs WHERE job IS NOT NULL";
    assert_eq!(
        value(client, ran).await,
        "counts 1 - succeeded; doubles 1 sums@1 succeeded; fails 1 sums@1 failed; fails 2 sums@1 succeeded"
    );
    for (table, n) in [("rolled", "60"), ("doubled", "120")] {
        assert_eq!(value(client, &format!("SELECT sum(n) FROM {table}")).await, n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ob1_an_hour_is_complete_when_every_producer_has_published_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    click(client, folder.path()).await;
    for (region, parity) in [("east", 0), ("west", 1)] {
        let half = asked(region, "").replace("interval_column = 'hour'", "mode = 'append'");
        rows(client, &half.replace("GROUP BY 1", &format!("AND ad % 2 = {parity} GROUP BY 1"))).await;
    }
    rows(client, &consumer("report", "rolled", "n")).await;
    execute(client, "report").await;
    execute(client, "east").await;
    until(client, &stands("east"), "published").await;
    assert_eq!(value(client, &stands("report")).await, "waiting");
    execute(client, "west").await;
    until(client, &stands("report"), "published").await;
    assert_eq!(value(client, "SELECT count(*) || ' ' || sum(n) FROM rolled").await, "2 60");
    // It ran once, and read the version that has both.
    let ran = "SELECT string_agg(input_versions, ' ') FROM system.runs WHERE job = 'report'";
    assert_eq!(value(client, ran).await, "sums@2");
    // What was added is not added again.
    let again = refused(client, "EXECUTE JOB east FOR INTERVAL '2026-03-01 07:00'").await;
    assert_eq!(again.kind, ErrorKind::Conflict, "{again}");
    assert!(again.message.contains("add its rows twice"), "{again}");
    assert_eq!(value(client, "SELECT sum(n) FROM sums").await, "60");
}

#[tokio::test(flavor = "multi_thread")]
async fn al5_an_output_that_is_redesigned_is_made_anew_of_the_raw_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    click(client, folder.path()).await;
    let backfill = "BACKFILL JOB counts FROM '2026-03-01' TO '2026-03-01 03:00'";
    rows(client, &asked("counts", "")).await;
    rows(client, backfill).await;
    until(client, PUBLISHED, "3").await;
    // Other rows in the same dataset: the ledger stays, and nothing runs by itself.
    let again = asked("counts", "").replacen("CREATE", "CREATE OR REPLACE", 1);
    rows(client, &again.replace("count(*)", "sum(ad)")).await;
    assert_eq!(value(client, PUBLISHED).await, "3");
    rows(client, &format!("{backfill} REPROCESS ALL MAX RUNS 2")).await;
    until(client, &format!("{PUBLISHED} AND published_generation = 2"), "3").await;
    let of_sums = "SELECT string_agg(n || '', ' ' ORDER BY hour) FROM sums";
    assert_eq!(value(client, of_sums).await, "1770 5370 8970");
    assert_eq!(value(client, &format!("{of_sums} VERSION AS OF 3")).await, "60 60 60");
    // Other columns in another dataset: the job begins anew, and what is there stays for those who read it.
    let location = folder.path().join("bounds").display().to_string();
    let columns = "hour TIMESTAMP, n BIGINT, lowest BIGINT, highest BIGINT";
    rows(client, &format!("CREATE EXTERNAL TABLE bounds ({columns}) STORED AS DELTA LOCATION '{location}'")).await;
    let bounds = again.replace("INTO sums", "INTO bounds");
    rows(client, &bounds.replace("AS n FROM", "AS n, min(ad) AS lowest, max(ad) AS highest FROM")).await;
    assert_eq!(value(client, PUBLISHED).await, "0");
    rows(client, &format!("{backfill} MAX RUNS 2")).await;
    until(client, PUBLISHED, "3").await;
    let of_bounds = "SELECT string_agg(lowest || '-' || highest, ' ' ORDER BY hour) FROM bounds";
    assert_eq!(value(client, of_bounds).await, "0-59 60-119 120-179");
    assert_eq!(value(client, of_sums).await, "1770 5370 8970");
}
