//! What runs in progress read: their versions stay, and their scans are shared among executors.

use std::time::{Duration, Instant};

use tidemill_tests::harness::{LocalCluster, Shape, rows, value};

use super::{cluster, create_numbers, files, text};

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_leaves_the_version_that_a_live_run_reads_until_the_run_has_ended() {
    let (cluster, mut client, folder) = cluster().await;
    let mut reader = cluster.client().await;
    create_numbers(&mut client, &folder.path().display().to_string()).await;
    for insert in ["INSERT INTO t VALUES (1, 'a')", "INSERT OVERWRITE t VALUES (2, 'b')"] {
        value(&mut client, insert).await;
    }
    // It has one task, and leaves the other slots to those that write.
    reader.set("datafusion.execution.target_partitions", "1").expect("a setting");
    let endless = "SELECT max(md5(concat(t.id, a.x, b.x))) FROM t CROSS JOIN generate_series(1, 200000) AS a(x) \
                   CROSS JOIN generate_series(1, 200000) AS b(x)";
    let result = reader.query(endless).await.expect("a run");
    let run = result.run.clone().expect("a run has a name");
    let reading = tokio::spawn(result.collect());
    let pins = format!("SELECT coalesce(max(input_versions), '-') FROM system.runs WHERE run_id = '{run}'");
    let start = Instant::now();
    while value(&mut client, &pins).await != "t@2" {
        assert!(start.elapsed() < Duration::from_secs(60), "it is not planned");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    value(&mut client, "INSERT OVERWRITE t VALUES (3, 'c')").await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    // The file of the first version goes, that of the second is read, that of the third is there.
    let dry = text(&mut client, "VACUUM t RETAIN 0 HOURS DRY RUN").await;
    let first = text(&mut client, "VACUUM t RETAIN 0 HOURS").await;
    assert!(first.starts_with("1 ") && dry == first, "{dry}, {first}");
    assert_eq!(files(folder.path(), ".parquet").len(), 2);
    rows(&mut client, &format!("CANCEL RUN '{run}'")).await;
    assert!(reading.await.expect("no panic").is_err(), "a cancelled run has no rows");
    let second = text(&mut client, "VACUUM t RETAIN 0 HOURS").await;
    assert!(second.starts_with("1 "), "{second}");
    assert_eq!(text(&mut client, "SELECT * FROM t").await, "3 c");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_table_are_read_by_several_executors() {
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 1 }).await;
    let (mut client, folder) = (cluster.client().await, tempfile::tempdir().expect("a folder"));
    create_numbers(&mut client, &folder.path().display().to_string()).await;
    for part in 0..4 {
        let insert = format!("INSERT INTO t SELECT x + {part}, 'v' || (x % 7) FROM generate_series(1, 20000) AS g(x)");
        assert_eq!(value(&mut client, &insert).await, "20000");
    }
    client.set("datafusion.execution.target_partitions", "4").expect("a setting");
    let result = client.query("SELECT v, max(md5(concat(id, v))) FROM t GROUP BY v").await.expect("a run");
    let run = result.run.clone().expect("a run has a name");
    assert_eq!(result.collect().await.expect("rows").iter().map(|batch| batch.num_rows()).sum::<usize>(), 7);
    let scans = format!(
        "SELECT CAST(count(*) > 1 AS VARCHAR) || ' ' || count(DISTINCT executor_id) || ' ' || sum(rows_in) FROM system.tasks \
         WHERE stage_id = 0 AND run_id = '{run}'"
    );
    assert_eq!(value(&mut client, &scans).await, "true 2 80000");
}
