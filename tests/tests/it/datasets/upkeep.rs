//! What keeps a table in shape: OPTIMIZE, RESTORE, VACUUM and its history.

use std::time::Duration;

use tidemill_core::ErrorKind;
use tidemill_tests::harness::delta::add_column;
use tidemill_tests::harness::{ProcessCluster, logged, rows, value};

use super::{cluster, count, create_numbers, files, refused, text, version};
use crate::durable::state_in;

#[tokio::test(flavor = "multi_thread")]
async fn small_files_become_large_ones_and_the_rows_stay() {
    let (_cluster, mut client, folder) = cluster().await;
    let create = format!(
        "CREATE EXTERNAL TABLE t (k BIGINT, v BIGINT) STORED AS DELTA PARTITIONED BY (k) LOCATION '{}'",
        folder.path().join("t").display()
    );
    rows(&mut client, &create).await;
    for part in 0..6 {
        let insert = format!("INSERT INTO t SELECT x % 2, x + {part} * 100 FROM generate_series(1, 100) AS g(x)");
        assert_eq!(value(&mut client, &insert).await, "100");
    }
    let sums = "SELECT k, count(*), sum(v), count(DISTINCT v) FROM t GROUP BY k ORDER BY k";
    let before = text(&mut client, sums).await;
    let many = files(folder.path(), ".parquet").len();
    assert!(many >= 12, "{many}");
    assert_eq!(value(&mut client, "OPTIMIZE t").await, "600");
    assert_eq!(text(&mut client, sums).await, before);
    assert_eq!(version(&mut client, "t").await, "7");
    assert_eq!(files(folder.path(), ".parquet").len(), many + 2);
    // There is nothing left to do.
    assert_eq!(value(&mut client, "OPTIMIZE t").await, "0");
    assert_eq!(version(&mut client, "t").await, "7");
    // Old versions need the small files, as long as they are kept.
    assert_eq!(text(&mut client, "VACUUM t").await, "0 0");
    assert_eq!(count(&mut client, "SELECT count(*) FROM t VERSION AS OF 3").await, 300);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let swept = text(&mut client, "VACUUM t RETAIN 0 HOURS").await;
    assert!(swept.starts_with(&format!("{many} ")), "{swept}");
    assert_eq!(files(folder.path(), ".parquet").len(), 2);
    assert_eq!(text(&mut client, sums).await, before);
    let old = "SELECT count(v) FROM t VERSION AS OF 3";
    refused(&mut client, old, ErrorKind::Conflict, &["was deleted", "newer"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_from_before_a_column_came_are_divided_and_joined_like_others() {
    let (_cluster, mut client, folder) = cluster().await;
    let table = folder.path().join("t");
    create_numbers(&mut client, &table.display().to_string()).await;
    value(&mut client, "INSERT INTO t VALUES (1, 'a'), (2, 'b')").await;
    assert_eq!(add_column(&table, "more", "long"), 2);
    // The file of both rows goes, and one of them stays.
    let replace = "INSERT INTO t REPLACE WHERE id >= 2 AND id < 3 SELECT 2, 'B', 20";
    assert_eq!(value(&mut client, replace).await, "1");
    value(&mut client, "INSERT INTO t VALUES (3, 'c', 30)").await;
    let all = "SELECT * FROM t ORDER BY id";
    assert_eq!(text(&mut client, all).await, "1 a ; 2 B 20; 3 c 30");
    assert_eq!(value(&mut client, "OPTIMIZE t").await, "3");
    assert_eq!(text(&mut client, all).await, "1 a ; 2 B 20; 3 c 30");
    assert_eq!(text(&mut client, "SELECT id FROM t WHERE more IS NULL").await, "1");
    assert_eq!(text(&mut client, "SELECT * FROM t VERSION AS OF 1 ORDER BY id").await, "1 a; 2 b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_restored_as_a_new_one() {
    let (_cluster, mut client, folder) = cluster().await;
    create_numbers(&mut client, &folder.path().join("t").display().to_string()).await;
    for sql in ["INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (2, 'b')", "INSERT OVERWRITE t VALUES (9, 'z')"]
    {
        value(&mut client, sql).await;
    }
    assert_eq!(text(&mut client, "RESTORE TABLE t TO VERSION AS OF 2").await, "4 2 2 1");
    assert_eq!(text(&mut client, "SELECT * FROM t ORDER BY id").await, "1 a; 2 b");
    assert_eq!(text(&mut client, "SELECT * FROM t VERSION AS OF 3").await, "9 z");
    refused(&mut client, "RESTORE TABLE t TO VERSION AS OF 40", ErrorKind::NotFound, &["no version 40"]).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    rows(&mut client, "VACUUM t RETAIN 0 HOURS").await;
    refused(&mut client, "RESTORE TABLE t TO VERSION AS OF 3", ErrorKind::NotFound, &["VACUUM deleted"]).await;
    assert_eq!(text(&mut client, "SELECT * FROM t ORDER BY id").await, "1 a; 2 b");
}

#[tokio::test(flavor = "multi_thread")]
async fn history_says_who_did_what_with_which_inputs() {
    let (_cluster, mut client, folder) = cluster().await;
    let at = folder.path().join("t").display().to_string();
    create_numbers(&mut client, &at).await;
    let result = client.execute("INSERT INTO t VALUES (1, 'a')").await.expect("a run");
    let run = result.run.clone().expect("a run has a name");
    result.collect().await.expect("rows");
    value(&mut client, "INSERT INTO t SELECT id + 1, v FROM t").await;
    let history = text(&mut client, "DESCRIBE HISTORY t").await;
    let lines: Vec<&str> = history.split("; ").collect();
    assert_eq!(lines.len(), 3, "{history}");
    assert!(
        lines[0].starts_with("2 ") && lines[0].contains(&format!("\"inputs\":\"{{\\\"file://{at}/\\\":1}}\"")),
        "{history}"
    );
    assert!(lines[1].starts_with("1 ") && lines[1].contains("WRITE") && lines[1].contains(&run.0), "{history}");
    assert!(lines[2].starts_with("0 ") && lines[2].contains("CREATE TABLE"), "{history}");
    assert_eq!(text(&mut client, "DESCRIBE HISTORY t LIMIT 1").await, lines[0]);
    // What changed since, from two versions of one table.
    let changed = "SELECT id, v FROM t EXCEPT SELECT id, v FROM t VERSION AS OF 1";
    value(&mut client, &format!("INSERT INTO t {changed}")).await;
    let newest = text(&mut client, "DESCRIBE HISTORY t LIMIT 1").await;
    for input in [format!("file://{at}/\\\":2"), format!("file://{at}/ VERSION AS OF 1\\\":1")] {
        assert!(newest.starts_with("3 ") && newest.contains(&input), "{input}\n{newest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_folder_and_no_version_needs_is_swept_and_nothing_else() {
    let (_cluster, mut client, folder) = cluster().await;
    let at = folder.path().join("t");
    create_numbers(&mut client, &at.display().to_string()).await;
    value(&mut client, "INSERT INTO t VALUES (1, 'a')").await;
    for name in ["part-00000-DEAD-1-1-0.parquet", "_tidemill/DEAD/00000-1-1.json", "_hidden/x", "_delta_log/_note"] {
        let path = at.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, "x").expect("a file");
    }
    assert_eq!(text(&mut client, "VACUUM t").await, "0 0");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(text(&mut client, "VACUUM t RETAIN 0 HOURS DRY RUN").await, "2 2");
    assert_eq!(text(&mut client, "VACUUM t RETAIN 0 HOURS").await, "2 2");
    assert!(at.join("_hidden/x").exists() && at.join("_delta_log/_note").exists());
    assert_eq!(text(&mut client, "SELECT * FROM t").await, "1 a");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_restored_while_old_files_are_swept_can_be_read() {
    let (cluster, mut client, folder) = cluster().await;
    let mut other = cluster.client().await;
    for round in 0..4 {
        let (table, at) = (format!("t{round}"), folder.path().join(round.to_string()));
        rows(
            &mut client,
            &format!("CREATE EXTERNAL TABLE {table} (id BIGINT) STORED AS DELTA LOCATION '{}'", at.display()),
        )
        .await;
        value(&mut client, &format!("INSERT INTO {table} SELECT x FROM generate_series(1, 100) AS g(x)")).await;
        value(&mut client, &format!("INSERT OVERWRITE {table} VALUES (1)")).await;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let restore = async {
            // A little later each time, so that it meets other parts of the sweep.
            tokio::time::sleep(Duration::from_millis(round * 15)).await;
            let result = client.execute(&format!("RESTORE TABLE {table} TO VERSION AS OF 1")).await;
            match result {
                Ok(result) => result.collect().await.map(|_| ()),
                Err(error) => Err(error),
            }
        };
        let vacuum = format!("VACUUM {table} RETAIN 0 HOURS");
        let (restored, _) = tokio::join!(restore, rows(&mut other, &vacuum));
        let expected = match restored {
            Ok(()) => "100",
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
                "1"
            }
        };
        assert_eq!(value(&mut client, &format!("SELECT count(id) FROM {table}")).await, expected, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_of_a_time_are_found_by_the_times_that_entries_tell() {
    let (_cluster, mut client, folder) = cluster().await;
    let at = folder.path().join("t");
    create_numbers(&mut client, &at.display().to_string()).await;
    for id in 1..=5 {
        value(&mut client, &format!("INSERT INTO t VALUES ({id}, 'v')")).await;
    }
    let at_time = |time: &str| format!("SELECT count(*) FROM t TIMESTAMP AS OF '{time}'");
    assert_eq!(count(&mut client, &at_time("2999-01-01T00:00:00Z")).await, 5);
    // As engines write them where the table has the feature: here from version 2 on, one a day.
    let first_day = 1_577_836_800_000_u64;
    for (day, version) in (0..).zip(2..=5) {
        let entry = at.join(format!("_delta_log/{version:020}.json"));
        let told = format!("\"commitInfo\":{{\"inCommitTimestamp\":{},", first_day + day * 86_400_000);
        let text = std::fs::read_to_string(&entry).expect("an entry").replacen("\"commitInfo\":{", &told, 1);
        std::fs::write(&entry, text).expect("an entry");
    }
    for (time, rows) in [
        ("2020-01-01T00:00:00Z", 2),
        ("2020-01-01T23:59:59Z", 2),
        ("2020-01-02T00:00:00Z", 3),
        ("2020-01-03T12:00:00Z", 4),
        ("2999-01-01T00:00:00Z", 5),
    ] {
        assert_eq!(count(&mut client, &at_time(time)).await, rows, "{time}");
    }
    // The first two versions are of now, by their objects.
    refused(&mut client, &at_time("2019-12-31T00:00:00Z"), ErrorKind::NotFound, &["no version at 2019-12-31"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_an_earlier_coordinator_planned_keeps_its_version_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = ProcessCluster::durable(1, 2, &state_in(&folder.path().join("state"))).await;
    let (mut client, mut reader) = (cluster.client().await, cluster.client().await);
    let at = folder.path().join("t");
    create_numbers(&mut client, &at.display().to_string()).await;
    for insert in ["INSERT INTO t VALUES (1, 'a')", "INSERT OVERWRITE t VALUES (2, 'b')"] {
        value(&mut client, insert).await;
    }
    // It has one task, and leaves the other slot to those that write.
    reader.set("datafusion.execution.target_partitions", "1").expect("a setting");
    let endless = "SELECT max(md5(concat(t.id, a.x, b.x))) FROM t CROSS JOIN generate_series(1, 200000) AS a(x) \
                   CROSS JOIN generate_series(1, 200000) AS b(x)";
    let result = reader.query(endless).await.expect("a run");
    let run = result.run.clone().expect("a run has a name");
    let reading = tokio::spawn(result.collect());
    value(&mut client, "INSERT OVERWRITE t VALUES (3, 'c')").await;
    logged(&mut client).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    cluster.restart_coordinator();
    let mut client = cluster.client().await;
    let live = format!("SELECT count(*) FROM system.runs WHERE run_id = '{run}' AND finished_at IS NULL");
    assert_eq!(count(&mut client, &live).await, 1, "it ended before it was looked at");
    // The file of the first version goes, that of the second is read, that of the third is there.
    let first = text(&mut client, "VACUUM t RETAIN 0 HOURS").await;
    assert!(first.starts_with("1 "), "{first}");
    assert_eq!(files(&at, ".parquet").len(), 2);
    rows(&mut client, &format!("CANCEL RUN '{run}'")).await;
    assert!(reading.await.expect("no panic").is_err(), "a cancelled run has no rows");
    let second = text(&mut client, "VACUUM t RETAIN 0 HOURS").await;
    assert!(second.starts_with("1 "), "{second}");
    assert_eq!(text(&mut client, "SELECT * FROM t").await, "3 c");
}
