//! The same from Rust.

use arrow::array::RecordBatch;
use tidemill::ErrorKind;

use super::{PATIENCE, creates};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_built_in_rust() {
    let folder = tempfile::tempdir().expect("a folder");
    let session = tidemill::local().start().await.expect("a session");
    for create in creates(folder.path()) {
        session.sql(&create).await.expect("a table");
    }
    let job = session
        .job("counts")
        .publishes_into("sums")
        .schedule("5 * * * *")
        .time_zone("Europe/Berlin")
        .interval("1 hour")
        .start("2026-03-01")
        .set("interval_column", "hour")
        .set("retries", 1)
        .set("allowed_lateness", "7d")
        .expect("n > 0 -- never less")
        .unique(["hour"])
        .constraint("one row an hour")
        .warn("count(*) > 0")
        .query("SELECT ts AS hour, 1 AS n FROM clicks WHERE ts >= $interval_start AND ts < $interval_end");
    assert!(
        job.statement()
            .starts_with("CREATE JOB counts INTO sums\n  SCHEDULE CRON '5 * * * *' AT TIME ZONE 'Europe/Berlin'")
    );
    let nameless = session.job("counts").publishes_into("sums").constraint("early").expect("n > 0").query("SELECT 1");
    let nameless = nameless.create().await.expect_err("there was no check to be named");
    assert!(nameless.message.contains("`early` names no check"), "{nameless}");
    let job = job.create().await.expect("a job");
    let listed = job.backfill("2026-03-01", "2026-03-02").reverse().dry_run().await.expect("a list");
    assert_eq!(listed.iter().map(RecordBatch::num_rows).sum::<usize>(), 24);
    let shown = job.definition().await.expect("a definition");
    let shown = arrow::util::pretty::pretty_format_batches(&shown).expect("a table").to_string();
    assert!(shown.contains("CONSTRAINT \"one row an hour\" EXPECT (UNIQUE (\"hour\")) ON VIOLATION FAIL"), "{shown}");
    assert!(shown.contains("EXPECT (count(*) > 0) ON VIOLATION WARN"), "{shown}");
    assert!(shown.contains("allowed_lateness = '7d'"), "{shown}");
    let strip = job.intervals("2026-03-01", "2026-03-02").await.expect("a strip");
    assert_eq!(strip.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    assert_eq!(job.cancel_backfill(1).await.expect_err("there is none").kind, ErrorKind::NotFound);
    job.set([("retries", "3")]).await.expect("a setting");
    job.suspend().await.expect("suspended");
    assert_eq!(job.backfill("2026-03-01", "2026-03-02").run().await.expect("a backfill"), Some(1));
    assert_eq!(job.backfill("2026-02-01", "2026-03-01").run().await.expect("an answer"), None);
    let waits = "SELECT DISTINCT state || ': ' || waits_for AS told FROM system.intervals WHERE state = 'queued'";
    let waits = session.sql(waits).await.expect("a statement").collect().await.expect("rows");
    let waits = arrow::util::pretty::pretty_format_batches(&waits).expect("a table").to_string();
    assert!(waits.contains("| queued: the job to be resumed |"), "{waits}");
    job.cancel_backfill(1).await.expect("it waits for its job");
    let shown = session.sql("SHOW JOBS").await.expect("a statement").collect().await.expect("rows");
    let shown = arrow::util::pretty::pretty_format_batches(&shown).expect("a table").to_string();
    assert!(shown.contains("counts") && shown.contains("suspended"), "{shown}");
    job.resume().await.expect("resumed");
    let started = std::time::Instant::now();
    assert_eq!(job.execute("2026-03-01 07:00").await.expect("a run"), "job-counts-1-7-1-1");
    let twice = session
        .job("counts")
        .publishes_into("sums")
        .schedule("@daily")
        .interval("1 day")
        .set("interval_column", "hour");
    let twice = twice.query("SELECT ts AS hour, 1 AS n FROM clicks").create().await.expect_err("it is there");
    assert_eq!(twice.kind, ErrorKind::Conflict, "{twice}");
    // What is being published cannot be taken back.
    while let Err(error) = job.drop_job().await {
        assert!(error.kind == ErrorKind::Conflict && started.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(job.execute("2026-03-01 07:00").await.expect_err("it is gone").kind, ErrorKind::NotFound);
}
