//! RESTORE over changes of columns, partitions and properties that other engines made.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_core::ErrorKind;
use tidemill_engine::crash::VARIABLE;
use tidemill_tests::harness::delta::{add_column, alter, entry};
use tidemill_tests::harness::{ProcessCluster, logged, rows, value};

use super::{cluster, create_numbers, files, refused, text, version};
use crate::durable::state_in;

const COLUMNS: &str = "SELECT string_agg(column_name, ' ' ORDER BY ordinal_position) FROM information_schema.columns \
                       WHERE table_name = 't'";

/// The lines of a kind in an entry.
fn lines(table: &Path, version: u64, kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(entry(table, version)).expect("an entry");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line"));
    lines.filter_map(|line| line.get(kind).cloned()).collect()
}

/// Adds a line to an entry.
fn add_line(table: &Path, version: u64, line: &Value) {
    let text = std::fs::read_to_string(entry(table, version)).unwrap_or_default();
    std::fs::write(entry(table, version), format!("{text}{line}\n")).expect("an entry");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_comes_back_with_its_columns_and_properties() {
    let (_cluster, mut client, folder) = cluster().await;
    let table = folder.path().join("t");
    create_numbers(&mut client, &table.display().to_string()).await;
    value(&mut client, "INSERT INTO t VALUES (1, 'a')").await;
    assert_eq!(add_column(&table, "more", "long"), 2);
    let set = |metadata: &mut Value| metadata["configuration"] = json!({ "delta.targetFileSize": "1000" });
    assert_eq!(alter(&table, set), 3);
    value(&mut client, "INSERT INTO t VALUES (2, 'b', 20)").await;
    rows(&mut client, "CREATE VIEW wide AS SELECT id, more FROM t").await;
    assert_eq!(value(&mut client, COLUMNS).await, "id v more");
    assert_eq!(text(&mut client, "RESTORE TABLE t TO VERSION AS OF 1").await, "5 1 0 1");
    assert_eq!(text(&mut client, "SELECT * FROM t").await, "1 a");
    assert_eq!(lines(&table, 5, "metaData"), lines(&table, 0, "metaData"));
    assert_eq!((lines(&table, 5, "txn").len(), lines(&table, 5, "protocol").len()), (1, 0));
    // Who asks for what is not there any more is told so.
    refused(&mut client, "SELECT * FROM wide", ErrorKind::Invalid, &["the view `wide`", "more"]).await;
    rows(&mut client, "DROP VIEW wide").await;
    assert_eq!(value(&mut client, COLUMNS).await, "id v");
    refused(&mut client, "INSERT INTO t (id, v, more) VALUES (3, 'c', 30)", ErrorKind::Invalid, &["more"]).await;
    assert_eq!(text(&mut client, "SELECT more FROM t VERSION AS OF 4 WHERE id = 2").await, "20");
    // And back again, over what was written meanwhile.
    value(&mut client, "INSERT INTO t VALUES (4, 'd')").await;
    assert_eq!(text(&mut client, "RESTORE TABLE t TO VERSION AS OF 4").await, "7 4 1 1");
    assert_eq!(text(&mut client, "SELECT * FROM t ORDER BY id").await, "1 a ; 2 b 20");
    assert_eq!(lines(&table, 7, "metaData"), lines(&table, 3, "metaData"));
    assert_eq!(value(&mut client, COLUMNS).await, "id v more");
    // The table's definition declares what the table has now, and can be typed.
    let shown = text(&mut client, "SHOW CREATE TABLE t").await;
    let typed = shown.find("CREATE EXTERNAL").and_then(|from| shown.get(from..)).expect("a statement");
    rows(&mut client, "DROP TABLE t").await;
    rows(&mut client, typed).await;
    assert!(typed.contains("VARCHAR, ") && typed.contains("more"), "{typed}");
    // Where nothing of them changed, nothing is said of them.
    assert_eq!(text(&mut client, "RESTORE TABLE t TO VERSION AS OF 3").await, "8 3 0 1");
    assert!(lines(&table, 8, "metaData").is_empty());
    // By time, too: the newest of then.
    value(&mut client, "INSERT INTO t VALUES (5, 'e', 50)").await;
    let newest = "RESTORE TABLE t TO TIMESTAMP AS OF '2999-01-01T00:00:00Z'";
    assert_eq!(text(&mut client, newest).await, "10 9 0 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_comes_back_with_its_partitions_and_the_newer_protocol_stays() {
    let (_cluster, mut client, folder) = cluster().await;
    let table = folder.path().join("t");
    let create = format!(
        "CREATE EXTERNAL TABLE t (k BIGINT, v BIGINT) STORED AS DELTA PARTITIONED BY (k) LOCATION '{}'",
        table.display()
    );
    rows(&mut client, &create).await;
    value(&mut client, "INSERT INTO t VALUES (1, 10), (2, 20)").await;
    value(&mut client, "INSERT OVERWRITE t SELECT k, v FROM t WHERE v > 100").await;
    // Nothing divides it any more, and readers must know times without a zone.
    assert_eq!(alter(&table, |metadata| metadata["partitionColumns"] = json!([])), 3);
    assert_eq!(add_column(&table, "at", "timestamp_ntz"), 4);
    let features = json!(["timestampNtz"]);
    let protocol = json!({ "protocol": {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features,
    } });
    add_line(&table, 4, &protocol);
    value(&mut client, "INSERT INTO t VALUES (3, 30, '2026-01-01 12:00:00')").await;
    assert_eq!(text(&mut client, "SELECT * FROM t").await, "3 30 2026-01-01T12:00:00");
    assert_eq!(text(&mut client, "RESTORE TABLE t TO VERSION AS OF 1").await, "6 1 2 1");
    assert_eq!(lines(&table, 6, "metaData"), lines(&table, 0, "metaData"));
    assert!(lines(&table, 6, "protocol").is_empty(), "the newer protocol was not kept");
    value(&mut client, "INSERT INTO t VALUES (2, 21)").await;
    assert_eq!(text(&mut client, "SELECT * FROM t ORDER BY v").await, "1 10; 2 20; 2 21");
    assert_eq!(files(&table.join("k=2"), ".parquet").len(), 2);
    // A protocol that was lowered meanwhile is raised again to what the version needs.
    let lower = json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 2 } });
    add_line(&table, 8, &lower);
    assert_eq!(text(&mut client, "RESTORE TABLE t TO VERSION AS OF 5").await, "9 5 1 3");
    let raised = json!({
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features,
        "writerFeatures": ["appendOnly", "invariants", "timestampNtz"],
    });
    assert_eq!(lines(&table, 9, "protocol"), [raised]);
    assert_eq!(text(&mut client, "SELECT * FROM t").await, "3 30 2026-01-01T12:00:00");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_come_back_is_refused_by_name_and_nothing_is_changed() {
    let (_cluster, mut client, folder) = cluster().await;
    let table = folder.path().join("t");
    create_numbers(&mut client, &table.display().to_string()).await;
    value(&mut client, "INSERT INTO t VALUES (1, 'a')").await;
    // Version 2 asks its writers for what is not written here, and version 3 does not any more.
    let feed = |set: &'static str| {
        move |metadata: &mut Value| metadata["configuration"] = json!({ "delta.enableChangeDataFeed": set })
    };
    assert_eq!(alter(&table, feed("true")), 2);
    let protocol = json!({ "protocol": { "minReaderVersion": 1, "minWriterVersion": 4 } });
    add_line(&table, 2, &protocol);
    assert_eq!(alter(&table, feed("false")), 3);
    assert_eq!(add_column(&table, "more", "long"), 4);
    value(&mut client, "INSERT OVERWRITE t VALUES (9, 'z', 90)").await;
    let told = ["`changeDataFeed`", "at version 2,"];
    refused(&mut client, "RESTORE TABLE t TO VERSION AS OF 2", ErrorKind::Invalid, &told).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    rows(&mut client, "VACUUM t RETAIN 0 HOURS").await;
    refused(&mut client, "RESTORE TABLE t TO VERSION AS OF 1", ErrorKind::NotFound, &["VACUUM deleted"]).await;
    assert_eq!(version(&mut client, "t").await, "5");
    assert_eq!(text(&mut client, "SELECT * FROM t").await, "9 z 90");
    // A version without files needs none.
    assert_eq!(text(&mut client, "RESTORE TABLE t TO VERSION AS OF 0").await, "6 0 0 1");
    assert_eq!(value(&mut client, COLUMNS).await, "id v");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_is_read_where_the_newest_needs_what_is_not_known() {
    let (_cluster, mut client, folder) = cluster().await;
    let table = folder.path().join("t");
    create_numbers(&mut client, &table.display().to_string()).await;
    value(&mut client, "INSERT INTO t VALUES (1, 'a')").await;
    // Nobody has read it under this name yet.
    rows(&mut client, &format!("CREATE EXTERNAL TABLE again STORED AS DELTA LOCATION '{}'", table.display())).await;
    let features = json!(["variantType"]);
    let protocol = json!({ "protocol": {
        "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features,
    } });
    add_line(&table, 2, &protocol);
    for name in ["t", "again"] {
        assert_eq!(text(&mut client, &format!("SELECT * FROM {name} VERSION AS OF 1")).await, "1 a", "{name}");
        refused(&mut client, &format!("SELECT * FROM {name}"), ErrorKind::Invalid, &["`variantType`"]).await;
    }
    refused(&mut client, "RESTORE TABLE t TO VERSION AS OF 1", ErrorKind::Invalid, &["`variantType`"]).await;
    assert!(!entry(&table, 3).exists());
    // Its history says who did that.
    assert_eq!(version(&mut client, "t").await, "2");
    refused(&mut client, "DESCRIBE HISTORY nothing", ErrorKind::NotFound, &["nothing"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_whose_coordinator_dies_is_done_once_also_over_what_came_meanwhile() {
    for side in ["before", "after"] {
        let folder = tempfile::tempdir().expect("a folder");
        let table = folder.path().join("t");
        let mut cluster = ProcessCluster::durable(1, 1, &state_in(&folder.path().join("state"))).await;
        let mut client = cluster.client().await;
        create_numbers(&mut client, &table.display().to_string()).await;
        value(&mut client, "INSERT INTO t VALUES (1, 'a')").await;
        assert_eq!(add_column(&table, "more", "long"), 2);
        value(&mut client, "INSERT INTO t VALUES (2, 'b', 20)").await;
        logged(&mut client).await;
        cluster.restart_coordinator_with(&[(VARIABLE, format!("dataset.commit:{side}:1"))]);
        cluster.wait_for_executors(1).await;
        let client = cluster.client().await;
        let work =
            tokio::spawn(async move { client.query("RESTORE TABLE t TO VERSION AS OF 1").await?.collect().await });
        let start = std::time::Instant::now();
        while !cluster.coordinator.was_killed() {
            assert!(start.elapsed() < Duration::from_secs(40), "{side}: the point was not reached");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // What came before it is restored over; what came behind it stays.
        let (theirs, expected) = if side == "before" { (4, "id v") } else { (5, "id v other") };
        assert_eq!(add_column(&table, "other", "long"), theirs, "{side}");
        cluster.restart_coordinator();
        cluster.wait_for_executors(1).await;
        work.await.expect("no panic").unwrap_or_else(|e| panic!("{side}: {e}"));
        let mut client = cluster.client().await;
        assert_eq!(value(&mut client, COLUMNS).await, expected, "{side}");
        assert_eq!(version(&mut client, "t").await, "5", "{side}: not one version");
        assert_eq!(text(&mut client, "SELECT id, v FROM t").await, "1 a", "{side}");
    }
}
