//! Ten times the clicks take the memory that a tenth takes, in executors of 1 GiB.

use std::time::{Duration, Instant};

use tidemill_tests::harness::{Process, ProcessCluster, is_full, rows, value};

use super::{STOPPED, complete, create, data, span, text};

/// How long the pipeline may take in all.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// How much there is to do.
#[derive(Clone, Copy)]
struct Size {
    hours: u64,
    /// Of each hour.
    clicks: u64,
}

/// What the pipeline took: the highest peak of an executor, in bytes.
async fn peak(size: Size) -> u64 {
    let Size { hours, clicks } = size;
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display().to_string();
    let start = Instant::now();
    (0..hours).for_each(|hour| data::write_hour(folder.path(), hour, clicks).expect("files of an hour"));
    let made = start.elapsed();
    let cluster = ProcessCluster::with(2, 1, "memory://", &[("TIDEMILL_MEMORY", "1GiB".to_owned())]).await;
    let client = &mut cluster.client().await;
    create(client, &place, &place).await;
    let start = Instant::now();
    for job in ["join_hours", "clean_spend", "clean_clicks"] {
        rows(client, &format!("BACKFILL JOB {job} {} MAX RUNS 2", span(0, hours))).await;
    }
    for table in ["raw_clicks", "raw_spend"] {
        complete(client, table, 0, hours).await;
    }
    let done = "SELECT count(*) FROM system.intervals WHERE state = 'published' AND job IN ('join_hours', 'sum_days')";
    let failed = "SELECT count(*) FROM system.intervals WHERE state IN ('failed', 'retrying')";
    while value(client, done).await != (hours + hours / 24).to_string() {
        let goes_on = value(client, failed).await == "0" && start.elapsed() < PATIENCE;
        assert!(goes_on, "{hours} hours of {clicks} clicks: it stopped\n{}", text(&rows(client, STOPPED).await));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let took = start.elapsed();
    // All are read; about one of twenty-five is left out.
    let counted: u64 = value(client, "SELECT sum(clicks) FROM ad_days").await.parse().expect("a number");
    let all = hours * clicks;
    assert!(counted < all && counted > all / 100 * 94, "{counted} of {all} clicks are counted");
    let peaks: Vec<u64> = cluster.executors.iter().map(Process::peak_memory).collect();
    let (shown, coordinators) = (peaks.iter().map(|peak| peak >> 20), cluster.coordinator.peak_memory() >> 20);
    println!(
        "{all} clicks in {hours} hours: made in {made:.0?}, published in {took:.0?}; peaks of executors {:?} MiB, of the \
         coordinator {coordinators} MiB",
        shown.collect::<Vec<_>>()
    );
    peaks.into_iter().max().expect("an executor")
}

#[tokio::test(flavor = "multi_thread")]
async fn as3_al14_ten_times_the_clicks_take_the_same_memory() {
    let (few, many) = match is_full() {
        // 5 million, and 50 million.
        true => (Size { hours: 24, clicks: 208_334 }, Size { hours: 240, clicks: 208_334 }),
        false => (Size { hours: 24, clicks: 1_000 }, Size { hours: 48, clicks: 5_000 }),
    };
    let (few, many) = (peak(few).await, peak(many).await);
    assert!(many * 5 <= few * 6, "{} MiB instead of {} MiB", many >> 20, few >> 20);
}
