//! More rows take more executors, and the same job.

use tidemill_tests::harness::{LocalCluster, Shape, rows, value};

use super::{asked, tables, until};

#[tokio::test(flavor = "multi_thread")]
async fn al14_ten_times_the_rows_are_shared_by_more_executors_and_the_job_stays_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    tables(&mut client, folder.path()).await;
    rows(&mut client, &asked("counts", "")).await;
    let mut expected = Vec::new();
    for (hour, files) in [(7, 1), (8, 10)] {
        for file in 0..files {
            let clicks = format!(
                "SELECT to_timestamp(1772323200 + {hour} * 3600 + v % 3600) AS ts, v AS ad FROM generate_series(1, 10000) AS t(v)"
            );
            let path = folder.path().join(format!("clicks/{hour}-{file}.parquet"));
            rows(&mut client, &format!("COPY ({clicks}) TO '{}'", path.display())).await;
        }
        if files > 1 {
            cluster.add_executor(1).await;
            cluster.add_executor(1).await;
        }
        rows(&mut client, &format!("EXECUTE JOB counts FOR INTERVAL '2026-03-01 0{hour}:00'")).await;
        expected.push((files * 10_000).to_string());
        let published = "SELECT coalesce(max(error), count(*) || '') FROM system.intervals WHERE run_id IS NOT NULL \
                         AND state IN ('published', 'failed')";
        until(&mut client, published, &expected.len().to_string()).await;
        let all = value(&mut client, "SELECT string_agg(n || '', ' ' ORDER BY hour) FROM sums").await;
        assert_eq!(all, expected.join(" "));
        let readers = format!(
            "SELECT count(DISTINCT executor_id) FROM system.tasks WHERE run_id = 'job-counts-1-{hour}-1-1' AND stage_id = 0"
        );
        let readers: usize = value(&mut client, &readers).await.parse().expect("a number");
        assert!(if files > 1 { readers > 1 } else { readers == 1 }, "{readers} executors read the hour {hour}");
    }
}
