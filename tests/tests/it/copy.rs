//! `COPY … TO` writes whole results, and tables made of results give them back.

use std::path::Path;

use tidemill::tpch::create_tables;
use tidemill_core::ErrorKind;
use tidemill_tests::harness::{LocalCluster, Shape, rows, tpch, value};

async fn cluster() -> (LocalCluster, tidemill::client::Client) {
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 2 }).await;
    let mut client = cluster.client().await;
    for create in create_tables(&tpch()) {
        rows(&mut client, &create).await;
    }
    (cluster, client)
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .expect("a folder")
        .map(|e| e.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_gets_one_file_per_task_and_success_last() {
    let (_cluster, mut client) = cluster().await;
    for format in ["PARQUET", "CSV", "JSON"] {
        let folder = tempfile::tempdir().expect("a folder");
        let to = folder.path().join("orders");
        let copy =
            format!("COPY (SELECT o_orderkey, o_totalprice FROM orders) TO '{}/' STORED AS {format}", to.display());
        assert_eq!(value(&mut client, &copy).await, "15000", "{format}");
        let written = names(&to);
        let parts: Vec<&String> = written.iter().filter(|n| n.starts_with("part-")).collect();
        assert!(parts.len() > 1 && written.contains(&"_SUCCESS".to_owned()), "{format}: {written:?}");
        assert_eq!(written.len(), parts.len() + 1, "{format}: {written:?}");
        let options = if format == "CSV" { "OPTIONS ('format.has_header' 'true')" } else { "" };
        let back =
            format!("CREATE OR REPLACE EXTERNAL TABLE back STORED AS {format} LOCATION '{}/' {options}", to.display());
        rows(&mut client, &back).await;
        assert_eq!(value(&mut client, "SELECT count(DISTINCT o_orderkey) FROM back").await, "15000", "{format}");
        let again = client.execute(&copy).await.err().expect("the directory is taken");
        assert_eq!(again.kind, ErrorKind::Conflict, "{again}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_is_written_whole_and_in_order() {
    let (_cluster, mut client) = cluster().await;
    let folder = tempfile::tempdir().expect("a folder");
    let to = folder.path().join("nations.csv");
    let copy = format!("COPY (SELECT n_name FROM nation ORDER BY n_name DESC) TO '{}'", to.display());
    assert_eq!(value(&mut client, &copy).await, "25");
    let text = std::fs::read_to_string(&to).expect("a file");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[1]), (26, "n_name", "VIETNAM"), "{text}");
    assert_eq!(names(folder.path()), ["nations.csv"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_copy_leaves_nothing() {
    let (_cluster, mut client) = cluster().await;
    let folder = tempfile::tempdir().expect("a folder");
    let to = folder.path().join("bad");
    // One row in the last part of the table cannot be divided.
    let copy =
        format!("COPY (SELECT 1 / (l_orderkey - 60000) AS x FROM lineitem) TO '{}/' STORED AS PARQUET", to.display());
    let failed = client.execute(&copy).await.expect("a run").collect().await;
    assert_eq!(failed.expect_err("a division by zero").kind, ErrorKind::Invalid);
    for _ in 0..500 {
        if !to.exists() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("left behind: {:?}", names(&to));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_results_give_them_back_to_every_client() {
    let (cluster, mut client) = cluster().await;
    rows(&mut client, "CREATE TABLE big AS SELECT n_name, n_regionkey FROM nation WHERE n_nationkey < 10").await;
    rows(&mut client, "CREATE TABLE v AS SELECT * FROM (VALUES (1, 'x'), (2, 'y'), (NULL, 'z')) AS t(a, b)").await;
    rows(&mut client, "CREATE VIEW regions AS SELECT n_regionkey, count(*) AS n FROM big GROUP BY 1").await;
    let mut other = cluster.client().await;
    assert_eq!(value(&mut other, "SELECT sum(n) FROM regions").await, "10");
    assert_eq!(value(&mut other, "SELECT count(*) FROM v WHERE a IS NULL").await, "1");
    assert_eq!(value(&mut other, "SELECT count(*) FROM v JOIN big ON v.a = big.n_regionkey").await, "5");
    let taken = client.execute("CREATE TABLE v AS SELECT 1").await.err().expect("the name is taken");
    assert_eq!(taken.kind, ErrorKind::Conflict);
    rows(&mut client, "CREATE OR REPLACE TABLE v AS SELECT 1 AS a").await;
    assert_eq!(value(&mut other, "SELECT count(*) FROM v").await, "1");
    let wrong = client.execute("DROP TABLE regions").await.err().expect("a view is no table");
    assert_eq!(wrong.kind, ErrorKind::Invalid);
    rows(&mut client, "DROP VIEW regions; ".trim_end_matches("; ")).await;
    rows(&mut client, "DROP TABLE big").await;
    rows(&mut client, "DROP TABLE v").await;
    rows(&mut client, "DROP TABLE IF EXISTS v").await;
    assert_eq!(client.execute("DROP TABLE v").await.err().expect("it is gone").kind, ErrorKind::NotFound);
    assert_eq!(cluster.coordinator.coordinator().kept_blobs(), 0, "blobs of dropped tables");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_copy_leaves_the_file_that_was_there() {
    let (_cluster, mut client) = cluster().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.csv");
    let copy = |query: &str| format!("COPY ({query}) TO '{}' STORED AS CSV", file.display());
    assert_eq!(value(&mut client, &copy("SELECT n_nationkey FROM nation")).await, "25");
    let before = std::fs::read(&file).expect("a file");
    // One fails in the writer, one in the query.
    for wrong in ["SELECT [n_nationkey] FROM nation", "SELECT 1 / (n_nationkey - 24) FROM nation"] {
        let run = client.execute(&copy(wrong)).await;
        let failed = match run {
            Ok(result) => result.collect().await.expect_err(wrong),
            Err(error) => error,
        };
        assert_eq!(failed.kind, ErrorKind::Invalid, "{failed}");
        assert_eq!(std::fs::read(&file).expect("a file"), before, "{wrong}");
    }
    assert_eq!(value(&mut client, &copy("SELECT r_regionkey FROM region")).await, "5");
    assert_ne!(std::fs::read(&file).expect("a file"), before);
    // Leftovers of the failed ones go in several passes.
    for _ in 0..800 {
        if names(folder.path()) == ["x.csv"] {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(names(folder.path()), ["x.csv"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_come_later_are_read() {
    let (_cluster, mut client) = cluster().await;
    let folder = tempfile::tempdir().expect("a folder");
    let source = tpch().join("nation/part-000.parquet");
    std::fs::copy(&source, folder.path().join("a.parquet")).expect("a copy");
    let create = format!("CREATE EXTERNAL TABLE growing STORED AS PARQUET LOCATION '{}/'", folder.path().display());
    rows(&mut client, &create).await;
    assert_eq!(value(&mut client, "SELECT count(n_name) FROM growing").await, "25");
    std::fs::copy(&source, folder.path().join("b.parquet")).expect("a copy");
    assert_eq!(value(&mut client, "SELECT count(n_name) FROM growing").await, "50");
    std::fs::remove_file(folder.path().join("a.parquet")).expect("a removal");
    assert_eq!(value(&mut client, "SELECT count(n_name) FROM growing").await, "25");
}
