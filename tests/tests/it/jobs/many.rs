//! Many jobs that fire together: none is missed, none runs twice, and none waits long. In full for ten minutes.

use std::time::Duration;

use tidemill_tests::harness::{ProcessCluster, is_full, rows, value};

use super::{hourly, tables};

/// Jobs of each minute.
const JOBS: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn ob6_sixty_jobs_of_each_minute_run_once_and_in_time() {
    let minutes: u64 = if is_full() { 10 } else { 1 };
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = ProcessCluster::start(1, 2).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    for job in 0..JOBS {
        let minutely = hourly(&format!("job{job}"), "").replace("'5 * * * *'", "'* * * * *'");
        let minutely = minutely.replace("'1 hour' START '2026-03-01'", "'1 minute'");
        let minutely = minutely.replace("interval_column = 'hour'", "mode = 'append', retries = 0");
        rows(client, &minutely).await;
    }
    tokio::time::sleep(Duration::from_secs(60 * minutes + 10)).await;
    for job in 0..JOBS {
        rows(client, &format!("ALTER JOB job{job} SUSPEND")).await;
    }
    let of_jobs = "FROM system.runs WHERE job IS NOT NULL";
    let span = "(date_part('epoch', max(interval_end)) - date_part('epoch', min(interval_end))) / 60 + 1";
    let missed = format!(
        "SELECT sum(abs(runs - expected)) FROM (SELECT count(*) AS runs, {span} AS expected {of_jobs} GROUP BY job)"
    );
    assert_eq!(value(client, &missed).await.parse::<f64>().expect("a number"), 0.0, "none is missed, none doubled");
    // From the first to the last of each job; and no job's last is early.
    let least = format!("SELECT min(runs) FROM (SELECT count(*) AS runs {of_jobs} GROUP BY job)");
    let least: u64 = value(client, &least).await.parse().expect("a number");
    assert!(least >= minutes, "a job ran {least} times in {minutes} minutes");
    let failed = format!("SELECT count(*) {of_jobs} AND state = 'failed'");
    assert_eq!(value(client, &failed).await, "0");
    let jobs = format!("SELECT count(DISTINCT job) {of_jobs}");
    assert_eq!(value(client, &jobs).await, JOBS.to_string());
    let twice = format!("SELECT count(*) - count(DISTINCT job || interval_start) {of_jobs}");
    assert_eq!(value(client, &twice).await, "0");
    let drift = format!("SELECT median(date_part('epoch', submitted_at) - date_part('epoch', interval_end)) {of_jobs}");
    let drift: f64 = value(client, &drift).await.parse().expect("seconds");
    println!("{JOBS} jobs, {minutes} minutes: they begin {drift} s after their minute, at the median");
    assert!(drift <= 1.0, "{drift} s");
}
