//! The pipeline of `examples/pipeline/`, with its own files of statements, in real processes: raw files of hours become clean
//! datasets, one joined dataset and a summary of days. Tests are named after the rows that they show.

mod broken;
#[path = "../../../examples/pipeline/data.rs"]
mod data;
mod large;

use std::path::Path;
use std::time::{Duration, Instant};

use tidemill::client::Client;
use tidemill::oracle::Oracle;
use tidemill::session::statements;
use tidemill_tests::harness::s3::S3Server;
use tidemill_tests::harness::{ProcessCluster, rows, value};

const TABLES: &str = include_str!("../../../examples/pipeline/tables.sql");
const JOBS: &str = include_str!("../../../examples/pipeline/jobs.sql");
const STOPPED: &str = include_str!("../../../examples/pipeline/stopped.sql");

/// Two days.
const HOURS: u64 = 48;
/// Clicks of an hour.
const CLICKS: u64 = 300;
/// For what takes seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the hours must be, by one query over the raw files.
const HOURS_OF_RAW: &str = "SELECT s.hour, s.ad, campaign, impressions, spend, coalesce(clicks, 0) AS clicks, \
     CAST(coalesce(revenue, 0) AS DECIMAL(22, 4)) AS revenue \
     FROM raw_spend s LEFT JOIN (SELECT hour, ad, count(*) AS clicks, sum(TRY_CAST(revenue AS DECIMAL(12, 4))) AS revenue \
     FROM raw_clicks WHERE ad IS NOT NULL AND visitor > 0 AND revenue <> 'n/a' GROUP BY hour, ad) c \
     ON s.hour = c.hour AND s.ad = c.ad";

/// Creates tables and jobs: raw files below one place, datasets below another.
async fn create(client: &mut Client, raw: &str, lake: &str) {
    for file in [TABLES, JOBS] {
        for statement in statements::split(file).expect("statements") {
            rows(client, &data::placed(&statement, raw, lake)).await;
        }
    }
}

/// Writes the input of so many hours.
fn generate(folder: &Path, hours: u64) {
    (0..hours).for_each(|hour| data::write_hour(folder, hour, CLICKS).expect("files of an hour"));
}

/// Hours as a clause.
fn span(from: u64, to: u64) -> String {
    format!("FROM '{}' TO '{}'", data::time(from), data::time(to))
}

/// Says that hours of a raw table are complete.
async fn complete(client: &mut Client, table: &str, from: u64, to: u64) {
    rows(client, &format!("ALTER DATASET {table} COMPLETE {}", span(from, to))).await;
}

async fn backfill(client: &mut Client, job: &str, from: u64, to: u64) {
    rows(client, &format!("BACKFILL JOB {job} {} MAX RUNS 2", span(from, to))).await;
}

/// How many intervals of a job are published.
async fn published(client: &mut Client, job: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM system.intervals WHERE state = 'published' AND job = '{job}'");
    value(client, &sql).await.parse().expect("a number")
}

/// Waits until so many are, which must be all.
async fn wait(client: &mut Client, job: &str, wanted: u64) {
    let start = Instant::now();
    loop {
        let found = published(client, job).await;
        assert!(found <= wanted, "{job} published {found} intervals and not {wanted}");
        if found == wanted {
            return;
        }
        let stopped = if start.elapsed() > PATIENCE { text(&rows(client, STOPPED).await) } else { String::new() };
        assert!(stopped.is_empty(), "{job} published {found} intervals of {wanted}:\n{stopped}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Everything from the first of March on, without a fault.
async fn run_all(client: &mut Client, hours: u64) {
    for job in ["join_hours", "clean_spend", "clean_clicks"] {
        backfill(client, job, 0, hours).await;
    }
    for table in ["raw_clicks", "raw_spend"] {
        complete(client, table, 0, hours).await;
    }
    wait(client, "join_hours", hours).await;
    wait(client, "sum_days", hours / 24).await;
}

fn text(batches: &[arrow::array::RecordBatch]) -> String {
    arrow::util::pretty::pretty_format_batches(batches).expect("a table").to_string()
}

/// What is published must be what one DataFusion process makes of the raw files.
async fn check(client: &mut Client, folder: &Path) {
    let oracle = Oracle::new(2, 1 << 30).expect("an oracle");
    let raw = statements::split(TABLES).expect("statements").into_iter().filter(|sql| !sql.contains("DELTA"));
    for statement in raw {
        let place = folder.display().to_string();
        oracle.context().sql(&data::placed(&statement, &place, &place)).await.expect("a table");
    }
    let columns = "impressions, spend, clicks, revenue";
    let hours = format!("SELECT hour, ad, campaign, {columns} FROM");
    let sums = "sum(impressions) AS impressions, sum(spend) AS spend, sum(clicks) AS clicks, sum(revenue) AS revenue";
    let pairs = [
        (format!("{hours} ad_hours ORDER BY 1, 2"), format!("{hours} ({HOURS_OF_RAW}) ORDER BY 1, 2")),
        (
            format!("SELECT day, campaign, {columns} FROM ad_days ORDER BY 1, 2"),
            format!(
                "SELECT CAST(hour AS DATE) AS day, campaign, {sums} FROM ({HOURS_OF_RAW}) GROUP BY 1, 2 ORDER BY 1, 2"
            ),
        ),
    ];
    for (ours, theirs) in pairs {
        let ours = text(&rows(client, &ours).await);
        let theirs = text(&oracle.answer(&theirs).await.expect("an answer").batches);
        assert!(ours.lines().count() > 10, "there is nothing to compare:\n{ours}");
        let differs = ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs);
        assert!(ours == theirs, "{} and {} lines, {differs:?}", ours.lines().count(), theirs.lines().count());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dx9_the_pipeline_gives_what_one_query_over_the_raw_files_gives() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display().to_string();
    generate(folder.path(), HOURS);
    let cluster = ProcessCluster::start(2, 1).await;
    let client = &mut cluster.client().await;
    create(client, &place, &place).await;
    run_all(client, HOURS).await;
    check(client, folder.path()).await;
    // AL13: a click is in the joined hours or was left out for one of three reasons.
    let kept: u64 = value(client, "SELECT count(*) FROM clicks_clean").await.parse().expect("a number");
    let left = "SELECT count(*) FROM raw_clicks WHERE ad IS NULL OR visitor = 0 OR revenue = 'n/a'";
    let left: u64 = value(client, left).await.parse().expect("a number");
    assert_eq!((kept + left, left > 0), (HOURS * CLICKS, true));
    assert_eq!(value(client, "SELECT sum(clicks) FROM ad_days").await, kept.to_string());
    // DX4: an hour is a version, behind that which made the table.
    let versions = "SELECT count(DISTINCT published_version) || ' ' || max(published_version) FROM system.intervals \
                    WHERE job = 'join_hours' AND state = 'published'";
    assert_eq!(value(client, versions).await, format!("{HOURS} {HOURS}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn dx7_the_hourly_join_waits_until_both_inputs_are_complete() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display().to_string();
    generate(folder.path(), 3);
    let cluster = ProcessCluster::start(1, 1).await;
    let client = &mut cluster.client().await;
    create(client, &place, &place).await;
    backfill(client, "join_hours", 0, 3).await;
    let stands = "SELECT string_agg(state || ': ' || waits_for, '; ' ORDER BY interval_start) FROM system.intervals \
                  WHERE job = 'join_hours' AND interval_start < TIMESTAMP '2026-03-01T03:00:00Z'";
    let waits = |hours: &[&str]| {
        let hours = hours.iter().map(|inputs| format!("waiting: {inputs} to be complete"));
        hours.collect::<Vec<_>>().join("; ")
    };
    let both = "clicks_clean, spend_clean";
    assert_eq!(value(client, stands).await, waits(&[both; 3]));
    // Clicks of the first two hours are there, and then the spend of the first: one hour has both.
    backfill(client, "clean_clicks", 0, 2).await;
    complete(client, "raw_clicks", 0, 2).await;
    wait(client, "clean_clicks", 2).await;
    assert_eq!(value(client, stands).await, waits(&["spend_clean", "spend_clean", both]));
    assert_eq!(published(client, "join_hours").await, 0);
    backfill(client, "clean_spend", 0, 1).await;
    complete(client, "raw_spend", 0, 1).await;
    wait(client, "join_hours", 1).await;
    let rest = "SELECT string_agg(state || ': ' || waits_for, '; ' ORDER BY interval_start) FROM system.intervals \
                WHERE job = 'join_hours' AND state = 'waiting' AND interval_start < TIMESTAMP '2026-03-01T03:00:00Z'";
    assert_eq!(value(client, rest).await, waits(&["spend_clean", both]));
    let hours = "SELECT count(DISTINCT hour) || ' ' || max(hour) FROM ad_hours";
    assert_eq!(value(client, hours).await, "1 2026-03-01T00:00:00");
    // No run was tried in vain.
    let tried = "SELECT count(*) FROM system.runs WHERE job = 'join_hours'";
    assert_eq!(value(client, tried).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn as2_as6_the_pipeline_on_s3_gives_the_same_and_shows_no_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    generate(folder.path(), 24);
    let s3 = tokio::task::spawn_blocking(S3Server::start).await.expect("a server");
    s3.create_bucket("tide");
    let environment = s3.environment();
    let cluster = ProcessCluster::with(2, 1, "s3://tide/cluster", &environment).await;
    let client = &mut cluster.client().await;
    create(client, &folder.path().display().to_string(), "s3://tide").await;
    run_all(client, 24).await;
    check(client, folder.path()).await;
    let secret = environment.iter().find(|(name, _)| *name == "AWS_SECRET_ACCESS_KEY").expect("a secret");
    let mut said = vec![cluster.coordinator.said()];
    said.extend(cluster.executors.iter().map(tidemill_tests::harness::Process::said));
    for shown in ["system.jobs", "system.runs", "system.stages", "system.tasks", "system.intervals"] {
        said.push(text(&rows(client, &format!("SELECT * FROM {shown}")).await));
    }
    for shown in ["EXPLAIN VERBOSE SELECT * FROM ad_hours", "DESCRIBE HISTORY ad_hours", "SHOW CREATE TABLE ad_hours"] {
        said.push(text(&rows(client, shown).await));
    }
    assert!(said.iter().all(|said| !said.contains(&secret.1)), "the secret is shown");
}
