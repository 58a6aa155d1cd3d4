//! What others read while the writer is dead. DX5 of the rows that datasets must satisfy.

use std::time::{Duration, Instant};

use tidemill_engine::crash::VARIABLE;
use tidemill_tests::harness::{LocalCluster, ProcessCluster, Shape, logged, rows, value};

use super::{create_numbers, files, text};
use crate::durable::state_in;

#[tokio::test(flavor = "multi_thread")]
async fn dx5_who_reads_while_the_writer_is_dead_sees_the_version_before_or_the_whole_new_one() {
    let (old, new) = ("1 -1", "1000 500500");
    for (side, expected) in [("before", old), ("after", new)] {
        let folder = tempfile::tempdir().expect("a folder");
        let table = folder.path().join("t");
        let mut cluster = ProcessCluster::durable(1, 2, &state_in(&folder.path().join("state"))).await;
        let mut client = cluster.client().await;
        create_numbers(&mut client, &table.display().to_string()).await;
        assert_eq!(value(&mut client, "INSERT INTO t VALUES (-1, 'old')").await, "1");
        let first = files(&table, ".parquet").len();
        logged(&mut client).await;
        cluster.restart_coordinator_with(&[(VARIABLE, format!("dataset.commit:{side}:1"))]);
        cluster.wait_for_executors(1).await;
        let writer = cluster.client().await;
        let replace = "INSERT OVERWRITE t SELECT x, 'new' FROM generate_series(1, 1000) AS g(x)";
        let work = tokio::spawn(async move { writer.query(replace).await?.collect().await });
        let start = Instant::now();
        while !cluster.coordinator.was_killed() {
            assert!(start.elapsed() < Duration::from_secs(40), "{side}: the point was not reached");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(files(&table, ".parquet").len() > first, "{side}: nothing was written");
        let other = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
        let mut reader = other.client().await;
        let create = format!("CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION '{}'", table.display());
        rows(&mut reader, &create).await;
        let sums = "SELECT count(*), sum(id) FROM t";
        assert_eq!(text(&mut reader, sums).await, expected, "{side}");
        cluster.restart_coordinator();
        work.await.expect("no panic").unwrap_or_else(|e| panic!("{side}: {e}"));
        assert_eq!(text(&mut reader, sums).await, new, "{side}");
    }
}
