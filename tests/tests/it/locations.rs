//! What locations mean: names with signs of patterns and URLs in them, and what is not served.

use tidemill_core::ErrorKind;
use tidemill_tests::harness::{LocalCluster, Process, Shape, rows, value};

/// Names of files and folders, as somebody may have them.
const NAMES: [&str; 7] = ["a?b", "a*b", "a[1]b", "a#b", "a%41b", "a~b", "a b"];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_read_and_written_whatever_it_is_called() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let mut client = cluster.client().await;
    let root = tempfile::tempdir().expect("a folder");
    for (number, name) in NAMES.iter().enumerate() {
        let folder = root.path().join(name);
        let file = folder.join(format!("{name}.parquet"));
        for to in [file.display().to_string(), format!("{}/many/", folder.display())] {
            let copy = format!("COPY (SELECT {number} AS x) TO '{to}' STORED AS PARQUET");
            assert_eq!(value(&mut client, &copy).await, "1", "{to}");
            rows(&mut client, &format!("CREATE OR REPLACE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{to}'")).await;
            assert_eq!(value(&mut client, "SELECT x FROM t").await, number.to_string(), "{to}");
        }
        assert!(file.is_file() && folder.join("many/_SUCCESS").is_file(), "{name}");
    }
    let mut found: Vec<String> = std::fs::read_dir(root.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    found.sort();
    let mut expected = NAMES.map(str::to_owned);
    expected.sort();
    assert_eq!(found, expected);
    // A pattern is one where nothing is called like that.
    let plain = root.path().join("plain");
    std::fs::create_dir(&plain).expect("a folder");
    for name in ["aXb.parquet", "aYb.parquet"] {
        std::fs::copy(root.path().join("a*b/a*b.parquet"), plain.join(name)).expect("a copy");
    }
    let pattern = plain.join("a?b.parquet").display().to_string();
    rows(&mut client, &format!("CREATE EXTERNAL TABLE some STORED AS PARQUET LOCATION '{pattern}'")).await;
    assert_eq!(value(&mut client, "SELECT count(*) FROM some").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_has_gone_is_an_error_and_not_an_empty_table() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    let root = tempfile::tempdir().expect("a folder");
    let (here, away) = (root.path().join("here"), root.path().join("away"));
    let place = here.display().to_string();
    rows(&mut client, &format!("COPY (SELECT 1 AS x) TO '{place}/' STORED AS PARQUET")).await;
    for location in ["", "*.parquet"] {
        let create = "CREATE OR REPLACE EXTERNAL TABLE t STORED AS PARQUET LOCATION";
        rows(&mut client, &format!("{create} '{place}/{location}'")).await;
        assert_eq!(value(&mut client, "SELECT count(*) FROM t").await, "1");
        std::fs::rename(&here, &away).expect("it goes");
        let gone = client.execute("SELECT count(*) FROM t").await.err().expect("an error");
        assert!(gone.kind == ErrorKind::NotFound && gone.message.contains(&place), "{gone}");
        // What it was does not hinder another, and others are still listed.
        rows(&mut client, "SELECT * FROM information_schema.columns").await;
        rows(&mut client, &format!("{create} '{}/'", away.display())).await;
        assert_eq!(value(&mut client, "SELECT count(*) FROM t").await, "1");
        std::fs::rename(&away, &here).expect("it comes back");
    }
    rows(&mut client, "DROP TABLE t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_is_a_folder_and_no_pattern() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    let root = tempfile::tempdir().expect("a folder");
    let place = root.path().join("a?b");
    let create = format!("CREATE TABLE d STORED AS DELTA LOCATION '{}' AS SELECT 7 AS x", place.display());
    rows(&mut client, &create).await;
    assert!(place.join("_delta_log").is_dir());
    rows(&mut client, &format!("CREATE EXTERNAL TABLE e STORED AS DELTA LOCATION '{}'", place.display())).await;
    rows(&mut client, "INSERT INTO e VALUES (8)").await;
    assert_eq!(value(&mut client, "SELECT sum(x) FROM d").await, "15");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_of_nothing_is_no_empty_table() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    let root = tempfile::tempdir().expect("a folder");
    std::fs::write(root.path().join("x.csv"), "a\n1\n").expect("a file");
    for below in ["y.csv", "none/"] {
        let url = format!("file://{}/{below}", root.path().display());
        let create = format!("CREATE EXTERNAL TABLE t (a INT) STORED AS CSV LOCATION '{url}'");
        let refused = client.execute(&create).await.err().expect(below);
        let is_told = refused.message.contains(&format!("/{below} does not exist"));
        assert!(refused.kind == ErrorKind::NotFound && is_told, "{url}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_said_before_anything_is_done() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    for statement in [
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'https://host/t.csv'",
        "CREATE EXTERNAL TABLE t (a INT) STORED AS CSV LOCATION 'http://host/t/'",
        "CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION 'https://host/t'",
        "CREATE TABLE t STORED AS DELTA LOCATION 'https://host/t' AS SELECT 1 AS a",
        "COPY (SELECT 1 AS a) TO 'https://host/t.csv'",
        "COPY (SELECT 1 AS a) TO 'https://host/t/' STORED AS CSV",
    ] {
        let refused = client.execute(statement).await.err().expect(statement);
        let is_told = refused.message.contains(":// is not served: download");
        assert!(refused.kind == ErrorKind::Invalid && is_told, "{statement}: {refused:?}");
    }
}

#[test]
fn a_folder_that_takes_no_files_is_an_error_and_no_hang() {
    for (statement, told) in [
        ("COPY (SELECT 1 AS x) TO '/proc/x.parquet'", "no file can be made in /proc: write to another place"),
        ("COPY (SELECT 1 AS x) TO '/proc/x/' STORED AS CSV", "no file can be made in /proc/x"),
        ("COPY (SELECT 1 AS x) TO '/proc/' STORED AS CSV", "no file can be made in /proc"),
        ("COPY (SELECT 1 AS x) TO '/dev/null/x.csv'", "/dev/null"),
        ("CREATE TABLE t STORED AS DELTA LOCATION '/proc/t' AS SELECT 1 AS x", "no file can be made in /proc/t"),
        ("CREATE EXTERNAL TABLE t (x INT) STORED AS DELTA LOCATION '/proc/t'", "no file can be made in /proc/t"),
    ] {
        let output = Process::run(&["sql", "-c", statement]);
        assert!(output.code == Some(1) && output.stderr.contains(told), "{statement}: {output:?}");
    }
    let output = Process::run(&["sql", "-c", "SELECT 1", "--work-dir", "/proc/x"]);
    assert!(output.code == Some(2) && output.stderr.contains("--work-dir /proc/x cannot be used"), "{output:?}");
    let output = Process::run(&["coordinator", "--bind", "127.0.0.1:0", "--state", "file:///proc/x"]);
    assert!(output.code == Some(2) && output.stderr.contains("--state /proc/x cannot be used"), "{output:?}");
}
