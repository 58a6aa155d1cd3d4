//! A job that fails again and again is suspended, and goes on where it stopped.

use tidemill_tests::harness::{rows, value};

use super::{away, click, hourly, tables, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_goes_on_failing_is_suspended_and_goes_on_when_it_is_resumed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cluster, file) = away(folder.path()).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    click(client, folder.path()).await;
    let job = hourly("counts", ", retries = 0, suspend_after_failures = 2").replace("count(*)", "sum(away(1))");
    let job = job.replace("SCHEDULE CRON '5 * * * *'", "TRIGGER ON UPDATE OF clicks CATCHUP TRUE");
    rows(client, &job).await;
    // What is complete is due, without anybody's asking.
    rows(client, "ALTER DATASET clicks COMPLETE FROM '2026-03-01' TO '2026-03-01 05:00'").await;
    until(client, "SELECT state FROM system.jobs", "suspended").await;
    let stand = "SELECT string_agg(state, ' ' ORDER BY interval_start) FROM system.intervals \
                 WHERE interval_start < TIMESTAMP '2026-03-01T05:00:00Z'";
    assert_eq!(value(client, stand).await, "failed failed queued queued queued");
    let waits = "SELECT DISTINCT waits_for FROM system.intervals WHERE state = 'queued'";
    assert_eq!(value(client, waits).await, "the job to be resumed");
    std::fs::remove_file(&file).expect("the file");
    rows(client, "ALTER JOB counts RESUME").await;
    until(client, stand, "failed failed published published published").await;
    rows(client, "BACKFILL JOB counts FROM '2026-03-01' TO '2026-03-01 05:00' REPROCESS FAILED").await;
    until(client, stand, "published published published published published").await;
    let causes = "SELECT count(*) FILTER (WHERE cause = 'update') || ' ' || count(*) FILTER (WHERE cause = 'backfill') || ' ' \
                  || count(DISTINCT interval_start) FROM system.runs WHERE job = 'counts'";
    assert_eq!(value(client, causes).await, "5 2 5");
    assert_eq!(value(client, "SELECT count(*) || ' ' || sum(n) FROM sums").await, "5 300");
}
