//! What goes wrong in a pipeline: killed processes, input that is not as expected, hours that come late.

use std::path::Path;
use std::time::{Duration, Instant};

use tidemill_tests::harness::{Process, ProcessCluster, rows, value};

use super::{CLICKS, HOURS, PATIENCE, STOPPED, backfill, check, complete, create, data, generate, published, run_all};
use super::{span, text, wait};
use crate::durable::state_in;

#[tokio::test(flavor = "multi_thread")]
async fn dx5_a_pipeline_whose_processes_are_all_killed_publishes_each_hour_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display().to_string();
    generate(folder.path(), HOURS);
    let mut cluster = ProcessCluster::durable(2, 1, &state_in(&folder.path().join("state"))).await;
    let client = &mut cluster.client().await;
    create(client, &place, &place).await;
    for job in ["join_hours", "clean_spend", "clean_clicks"] {
        backfill(client, job, 0, HOURS).await;
    }
    for table in ["raw_clicks", "raw_spend"] {
        complete(client, table, 0, HOURS).await;
    }
    for (job, at_least) in [("clean_clicks", 5), ("join_hours", 10)] {
        let start = Instant::now();
        let client = &mut cluster.client().await;
        while published(client, job).await < at_least {
            assert!(start.elapsed() < PATIENCE, "{job} does not go on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(published(client, "join_hours").await < HOURS, "the kill comes too late");
        cluster.executors.iter_mut().for_each(Process::kill);
        cluster.executors.clear();
        cluster.restart_coordinator();
        cluster.add_executor(2);
    }
    let client = &mut cluster.client().await;
    wait(client, "join_hours", HOURS).await;
    wait(client, "sum_days", HOURS / 24).await;
    check(client, folder.path()).await;
    let versions: usize = rows(client, "DESCRIBE HISTORY ad_hours LIMIT 1000").await.iter().map(|b| b.num_rows()).sum();
    assert_eq!(versions as u64, HOURS + 1, "an hour is one version, whoever dies");
}

/// The file of an hour's spend.
fn spend_of(folder: &Path, hour: u64) -> std::path::PathBuf {
    folder.join(format!("raw/spend/hour={}/ads.csv", data::time(hour)))
}

#[tokio::test(flavor = "multi_thread")]
async fn al12_a_failing_check_publishes_nothing_and_the_backfill_after_mending_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display().to_string();
    generate(folder.path(), 3);
    // Somebody is paid for being shown.
    let file = spend_of(folder.path(), 1);
    let good = std::fs::read_to_string(&file).expect("a file");
    let bad = good.lines().map(|line| match line.strip_prefix("7,campaign 7,").and_then(|rest| rest.split_once(',')) {
        Some((impressions, _)) => format!("7,campaign 7,{impressions},-1.5000\n"),
        None => format!("{line}\n"),
    });
    std::fs::write(&file, bad.collect::<String>()).expect("a file");
    let cluster = ProcessCluster::start(1, 1).await;
    let client = &mut cluster.client().await;
    create(client, &place, &place).await;
    for job in ["join_hours", "clean_spend", "clean_clicks"] {
        backfill(client, job, 0, 3).await;
    }
    for table in ["raw_clicks", "raw_spend"] {
        complete(client, table, 0, 3).await;
    }
    wait(client, "join_hours", 2).await;
    // AL9: where it stopped, and why, is one query.
    let start = Instant::now();
    let stopped = loop {
        let stopped = text(&rows(client, STOPPED).await);
        if stopped.contains("failed") || start.elapsed() > PATIENCE {
            break stopped;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for part in [
        "| clean_spend | 2026-03-01T01:00:00Z | failed  | the check `nobody_pays_us` does not hold for 1 of",
        "spend = -1.5000",
        "| join_hours  | 2026-03-01T01:00:00Z | waiting | clean_spend 2026-03-01 01:00 UTC: failed",
    ] {
        assert!(stopped.contains(part), "{part}\nis not in\n{stopped}");
    }
    let upstream = "SELECT upstream FROM system.intervals \
                    WHERE job = 'join_hours' AND interval_start = TIMESTAMP '2026-03-01T01:00:00Z'";
    assert_eq!(value(client, upstream).await, "clean_spend 2026-03-01 01:00 UTC: failed");
    assert_eq!(value(client, "SELECT count(*) FROM spend_clean WHERE hour = '2026-03-01T01:00:00'").await, "0");
    assert_eq!(value(client, "SELECT count(DISTINCT hour) FROM ad_hours").await, "2");
    let tries = "SELECT max(attempt) FROM system.runs WHERE job = 'clean_spend' AND state = 'failed'";
    assert_eq!(value(client, tries).await, "1", "what is wrong stays so: it is not tried again");
    std::fs::write(&file, good).expect("a file");
    rows(client, &format!("BACKFILL JOB clean_spend {} REPROCESS FAILED", span(0, 3))).await;
    // The join waits for it, and needs nobody.
    wait(client, "join_hours", 3).await;
    assert_eq!(value(client, "SELECT count(DISTINCT hour) FROM ad_hours").await, "3");
    assert_eq!(published(client, "clean_spend").await, 3);
}

/// What is stale, and why.
const STALE: &str = "SELECT coalesce(string_agg(job || ' ' || interval_start || ': ' || stale, ', ' ORDER BY job), 'nothing') \
                     FROM system.intervals WHERE stale IS NOT NULL";

#[tokio::test(flavor = "multi_thread")]
async fn ob10_a_late_hour_computes_that_hour_and_its_day_anew_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display().to_string();
    generate(folder.path(), HOURS);
    // A collector was cut off for an hour, and nobody noticed.
    let file = folder.path().join(format!("raw/clicks/hour={}/collector-1.json", data::time(30)));
    let late = std::fs::read(&file).expect("a file");
    std::fs::remove_file(&file).expect("the file goes");
    let cluster = ProcessCluster::start(2, 1).await;
    let client = &mut cluster.client().await;
    create(client, &place, &place).await;
    run_all(client, HOURS).await;
    // Half of the clicks are fewer than usual, which only warns: the hour is published.
    let warned = "SELECT \"check\" || ' ' || interval_start || ' ' || count(*) OVER () FROM system.run_checks WHERE state = 'warned'";
    assert_eq!(value(client, warned).await, "as_many_as_usual 2026-03-02T06:00:00Z 1");
    let before: u64 = value(client, "SELECT sum(clicks) FROM ad_days").await.parse().expect("a number");
    std::fs::write(&file, late).expect("a file");
    // Whoever brings the file says so, and it is known what was made without it.
    assert_eq!(value(client, STALE).await, "nothing");
    complete(client, "raw_clicks", 30, 31).await;
    let stale = [
        "clean_clicks 2026-03-02T06:00:00Z: raw_clicks has other rows since",
        "join_hours 2026-03-02T06:00:00Z: clicks_clean is stale",
        "sum_days 2026-03-02T00:00:00Z: ad_hours is stale",
    ];
    assert_eq!(value(client, STALE).await, stale.join(", "));
    let strip = text(&rows(client, "SHOW INTERVALS OF join_hours FROM '2026-03-02' TO '2026-03-03'").await);
    assert!(strip.contains("| 2026-03-02 | ######*################# "), "{strip}");
    for job in ["join_hours", "clean_clicks"] {
        rows(client, &format!("BACKFILL JOB {job} {} REPROCESS STALE", span(0, HOURS))).await;
    }
    for job in ["clean_clicks", "join_hours"] {
        let again = format!(
            "SELECT count(*) FROM system.intervals WHERE job = '{job}' AND published_generation = 2 AND state = 'published'"
        );
        until(client, &again, "1").await;
    }
    let again = "SELECT string_agg(job || ' ' || interval_start, ', ' ORDER BY job) FROM system.intervals \
                 WHERE published_generation > 1 AND state = 'published'";
    let expected =
        ["clean_clicks 2026-03-02T06:00:00Z", "join_hours 2026-03-02T06:00:00Z", "sum_days 2026-03-02T00:00:00Z"];
    until(client, again, &expected.join(", ")).await;
    assert_eq!(value(client, STALE).await, "nothing");
    check(client, folder.path()).await;
    let after: u64 = value(client, "SELECT sum(clicks) FROM ad_days").await.parse().expect("a number");
    assert!(after > before && after - before <= CLICKS / 2, "{before} clicks became {after}");
}

/// Waits until a query gives a value.
async fn until(client: &mut tidemill::client::Client, sql: &str, expected: &str) {
    let start = Instant::now();
    loop {
        let found = value(client, sql).await;
        if found == expected {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{sql}\ngives {found} and not {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
