//! Ten times the clicks take the memory that a tenth takes.

use std::time::Instant;

use tidemill_tests::harness::{Process, ProcessCluster, is_full, rows, value};

use super::{complete, create, data, text};

/// Hours of a run.
const HOURS: u64 = 24;

/// What the pipeline over so many clicks took: the highest peak of an executor, in bytes.
async fn peak(clicks: u64) -> u64 {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display().to_string();
    let per_hour = clicks / HOURS;
    let start = Instant::now();
    for hour in 0..HOURS {
        data::write_hour(folder.path(), hour, per_hour).expect("files of an hour");
    }
    let made = start.elapsed();
    let memory = [("TIDEMILL_MEMORY", "1GiB".to_owned())];
    let cluster = ProcessCluster::with(2, 1, "memory://", &memory).await;
    let client = &mut cluster.client().await;
    create(client, &place, &place).await;
    let start = Instant::now();
    for job in ["join_hours", "clean_spend", "clean_clicks"] {
        rows(client, &format!("BACKFILL JOB {job} {} MAX RUNS 2", super::span(0, HOURS))).await;
    }
    for table in ["raw_clicks", "raw_spend"] {
        complete(client, table, 0, HOURS).await;
    }
    let done = "SELECT count(*) FROM system.intervals WHERE state = 'published' AND job IN ('join_hours', 'sum_days')";
    while value(client, done).await != (HOURS + HOURS / 24).to_string() {
        let failed = "SELECT count(*) FROM system.intervals WHERE state IN ('failed', 'retrying')";
        let stopped = value(client, failed).await != "0" || start.elapsed().as_secs() > 3_000;
        assert!(!stopped, "{clicks} clicks: it does not go on\n{}", text(&rows(client, super::STOPPED).await));
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    // Every click that the days count was read: the others were left out, one of twenty.
    let counted: u64 = value(client, "SELECT sum(clicks) FROM ad_days").await.parse().expect("a number");
    let all = per_hour * HOURS;
    assert!(counted < all && counted > all / 100 * 94, "{counted} of {all} clicks are counted");
    let peak = cluster.executors.iter().map(Process::peak_memory).max().expect("an executor");
    println!("{all} clicks: made in {made:.0?}, published in {:.0?}, peak {} MiB", start.elapsed(), peak >> 20);
    peak
}

#[tokio::test(flavor = "multi_thread")]
async fn as3_al14_ten_times_the_clicks_take_the_same_memory() {
    let clicks = if is_full() { 5_000_000 } else { 24_000 };
    let (few, many) = (peak(clicks).await, peak(clicks * 10).await);
    assert!(many * 5 <= few * 6, "{} MiB instead of {} MiB", many >> 20, few >> 20);
}
