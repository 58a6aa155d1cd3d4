//! What is read of a log: its last checkpoint and the entries behind it, and nothing before.

use std::time::{Duration, Instant};

use tidemill_tests::harness::{LocalCluster, Shape, rows, value};

use super::{cluster, count, create_numbers, files, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_read_and_written_though_entries_before_its_last_checkpoint_are_gone() {
    let (_cluster, mut client, folder) = cluster().await;
    let table = folder.path().join("t");
    create_numbers(&mut client, &table.display().to_string()).await;
    let entry = |version: u64| table.join(format!("_delta_log/{version:020}.json"));
    // Another engine sets that every fifth version has one.
    let first = std::fs::read_to_string(entry(0)).expect("the first entry");
    let set = first.replace("\"configuration\":{}", "\"configuration\":{\"delta.checkpointInterval\":\"5\"}");
    let metadata = set.lines().find(|line| line.contains("checkpointInterval")).expect("the table's metadata");
    std::fs::write(entry(1), format!("{metadata}\n")).expect("an entry");
    for id in 2..=7 {
        assert_eq!(value(&mut client, &format!("INSERT INTO t VALUES ({id}, 'v')")).await, "1");
    }
    // One that is made late is followed by others.
    let first = format!("_delta_log/{:020}.checkpoint.parquet", 5);
    let start = Instant::now();
    while !files(&table, ".checkpoint.parquet").contains(&first) {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", files(&table, ".checkpoint.parquet"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // And cleans the log up.
    (0..5).for_each(|version| std::fs::remove_file(entry(version)).expect("an entry"));
    // Who has never seen the table, and who has seen all of it.
    let other = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let mut fresh = other.client().await;
    rows(&mut fresh, &format!("CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION '{}'", table.display())).await;
    for (client, id) in [(&mut fresh, 8), (&mut client, 9)] {
        assert_eq!(text(client, "SELECT count(*), max(id) FROM t").await, format!("{} {}", id - 2, id - 1));
        assert_eq!(count(client, "SELECT count(*) FROM t VERSION AS OF 6").await, 5);
        assert_eq!(value(client, &format!("INSERT INTO t VALUES ({id}, 'v')")).await, "1");
    }
    assert_eq!(text(&mut fresh, "SELECT count(*), sum(id) FROM t").await, "8 44");
}
