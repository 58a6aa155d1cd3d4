//! Several writers of one table, and many versions.

use std::time::{Duration, Instant};

use tidemill_core::ErrorKind;
use tidemill_tests::harness::{LocalCluster, Shape, rows, value};

use super::{cluster, count, create_numbers, files, text, version};

#[tokio::test(flavor = "multi_thread")]
async fn appends_of_many_writers_all_come_in() {
    let (first, mut client, folder) = cluster().await;
    // Another cluster, which knows nothing of the first.
    let second = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let at = folder.path().join("t").display().to_string();
    create_numbers(&mut client, &at).await;
    let mut writers = Vec::new();
    for writer in 0..4 {
        let mut client = if writer % 2 == 0 { first.client().await } else { second.client().await };
        if writer % 2 == 1 {
            let create = format!("CREATE EXTERNAL TABLE IF NOT EXISTS t STORED AS DELTA LOCATION '{at}'");
            rows(&mut client, &create).await;
        }
        writers.push(tokio::spawn(async move {
            for row in 0..10 {
                let id = writer * 100 + row;
                assert_eq!(value(&mut client, &format!("INSERT INTO t VALUES ({id}, 'x')")).await, "1");
            }
        }));
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    assert_eq!(text(&mut client, "SELECT count(*), count(DISTINCT id) FROM t").await, "40 40");
    assert_eq!(version(&mut client, "t").await, "40");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_replace_the_same_rows_one_wins_or_both_come_one_after_the_other() {
    let (cluster, mut client, folder) = cluster().await;
    create_numbers(&mut client, &folder.path().join("t").display().to_string()).await;
    let mut conflicts = 0;
    for round in 0..5 {
        let before: u64 = version(&mut client, "t").await.parse().expect("a number");
        let mut writers = Vec::new();
        for writer in 0..2 {
            let mut client = cluster.client().await;
            writers.push(tokio::spawn(async move {
                let sql =
                    format!("INSERT OVERWRITE t SELECT x, '{round}-{writer}' FROM generate_series(1, 100) AS g(x)");
                client.execute(&sql).await?.collect().await.map(|_| writer)
            }));
        }
        let mut won = Vec::new();
        for writer in writers {
            match writer.await.expect("no panic") {
                Ok(writer) => won.push(writer),
                Err(error) => {
                    assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
                    assert!(error.message.contains("another writer made meanwhile"), "{error}");
                    conflicts += 1;
                }
            }
        }
        assert!(!won.is_empty(), "somebody wins");
        // Whole: of one of those who won.
        let seen = text(&mut client, "SELECT v, count(*) FROM t GROUP BY v").await;
        assert!(won.iter().any(|writer| seen == format!("{round}-{writer} 100")), "{seen}");
        let after: u64 = version(&mut client, "t").await.parse().expect("a number");
        assert_eq!(after - before, won.len() as u64);
    }
    // Files of those who were refused are nobody's, and gone.
    let start = Instant::now();
    let named = rows(&mut client, "DESCRIBE HISTORY t").await.iter().map(|b| b.num_rows()).sum::<usize>() - 1;
    let tasks = count(&mut client, "SELECT count(*) FROM t").await;
    assert_eq!(tasks, 100);
    while conflicts > 0 && files(folder.path(), ".parquet").len() > named * 4 {
        assert!(start.elapsed() < Duration::from_secs(20), "files of {conflicts} refused statements stay");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dx4_a_thousand_commits_stay_fast_to_read_and_each_can_be_pinned() {
    let (cluster, mut client, folder) = cluster().await;
    let commits: u64 = 1_000;
    create_numbers(&mut client, &folder.path().join("t").display().to_string()).await;
    for id in 1..=commits {
        assert_eq!(value(&mut client, &format!("INSERT INTO t VALUES ({id}, 'v')")).await, "1");
    }
    let start = Instant::now();
    while files(folder.path(), ".checkpoint.parquet").len() < 10 {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", files(folder.path(), ".checkpoint.parquet"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        text(&mut client, "SELECT count(*), sum(id) FROM t").await,
        format!("{commits} {}", commits * (commits + 1) / 2)
    );
    // A planner that has never seen the table begins at the last checkpoint.
    let other = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let mut fresh = other.client().await;
    let start = Instant::now();
    let create = format!("CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION '{}'", folder.path().join("t").display());
    rows(&mut fresh, &create).await;
    assert_eq!(count(&mut fresh, "SELECT count(*) FROM t WHERE id = 7").await, 1);
    assert!(start.elapsed() < Duration::from_secs(10), "reading took {:?}", start.elapsed());
    for old in [1, 99, 100, 101, 550, 1_000] {
        assert_eq!(count(&mut fresh, &format!("SELECT count(*) FROM t VERSION AS OF {old}")).await, old);
    }
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_somebody_else_left_out_is_made_at_the_next_version_of_ours() {
    let (_cluster, mut client, folder) = cluster().await;
    let table = folder.path().join("t");
    create_numbers(&mut client, &table.display().to_string()).await;
    let entry = |version: u64| table.join(format!("_delta_log/{version:020}.json"));
    // Another engine sets that every fifth version has one, and makes the fifth version without.
    let first = std::fs::read_to_string(entry(0)).expect("the first entry");
    let set = first.replace("\"configuration\":{}", "\"configuration\":{\"delta.checkpointInterval\":\"5\"}");
    let metadata = set.lines().find(|line| line.contains("checkpointInterval")).expect("the table's metadata");
    std::fs::write(entry(1), format!("{metadata}\n")).expect("an entry");
    for id in 2..=4 {
        value(&mut client, &format!("INSERT INTO t VALUES ({id}, 'v')")).await;
    }
    std::fs::write(entry(5), "{\"commitInfo\":{\"operation\":\"NOTHING\"}}\n").expect("an entry");
    let mut expected: Vec<String> = Vec::new();
    for (id, has_one) in [(6_u64, true), (7, false), (8, false), (9, false), (10, true)] {
        value(&mut client, &format!("INSERT INTO t VALUES ({id}, 'v')")).await;
        if has_one {
            expected.push(format!("_delta_log/{id:020}.checkpoint.parquet"));
        }
        let start = Instant::now();
        while files(&table, ".checkpoint.parquet") != expected {
            let found = files(&table, ".checkpoint.parquet");
            assert!(start.elapsed() < Duration::from_secs(20) && found.len() <= expected.len(), "{id}: {found:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(text(&mut client, "SELECT count(*), sum(id) FROM t").await, "8 49");
}

#[tokio::test(flavor = "multi_thread")]
async fn dx6_a_run_reads_one_version_whoever_commits_meanwhile() {
    let (cluster, mut client, folder) = cluster().await;
    create_numbers(&mut client, &folder.path().join("t").display().to_string()).await;
    assert_eq!(value(&mut client, "INSERT INTO t SELECT x, 'old' FROM generate_series(1, 1000) AS g(x)").await, "1000");
    let mut writer = cluster.client().await;
    let writing = tokio::spawn(async move {
        for round in 0..20 {
            let sql =
                format!("INSERT OVERWRITE t SELECT x, 'n{round}' FROM generate_series(1, {}) AS g(x)", 1000 + round);
            value(&mut writer, &sql).await;
        }
    });
    let mut seen = 0;
    while !writing.is_finished() || seen == 0 {
        // Both sides and the view of it are of one version.
        let sql = "SELECT count(*) - (SELECT count(*) FROM t), count(DISTINCT v), count(*) - max(id) FROM t";
        assert_eq!(text(&mut client, sql).await, "0 1 0");
        seen += 1;
    }
    writing.await.expect("a writer");
}
