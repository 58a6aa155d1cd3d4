//! Files are what their endings say.

use tidemill_core::ErrorKind;
use tidemill_tests::harness::{LocalCluster, Shape, rows, value};

#[tokio::test(flavor = "multi_thread")]
async fn files_are_written_and_read_as_their_endings_say() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    let root = tempfile::tempdir().expect("a folder");
    for (name, format, begins) in [
        ("x.csv", "CSV", &b"a,b\n1,2\n"[..]),
        ("X.CSV", "CSV", &b"a,b\n1,2\n"[..]),
        ("x.tsv", "CSV", &b"a\tb\n1\t2\n"[..]),
        ("x.csv.gz", "CSV", &b"\x1F\x8B"[..]),
        ("x.tsv.gz", "CSV", &b"\x1F\x8B"[..]),
        ("x.ndjson", "NDJSON", &b"{\"a\":1,\"b\":2}\n"[..]),
        ("x.jsonl", "JSON", &b"{\"a\":1,\"b\":2}\n"[..]),
        ("x.json.zst", "JSON", &b"\x28\xB5\x2F\xFD"[..]),
        ("x.parquet", "PARQUET", &b"PAR1"[..]),
    ] {
        let file = root.path().join(name);
        assert_eq!(value(&mut client, &format!("COPY (SELECT 1 AS a, 2 AS b) TO '{}'", file.display())).await, "1");
        let written = std::fs::read(&file).expect("a file");
        assert!(written.starts_with(begins), "{name}: {written:?}");
        let create = format!("CREATE OR REPLACE EXTERNAL TABLE t STORED AS {format} LOCATION '{}'", file.display());
        rows(&mut client, &create).await;
        assert_eq!(value(&mut client, "SELECT 10 * a + b FROM t").await, "12", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_compressed_files_is_published_and_read() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    let root = tempfile::tempdir().expect("a folder");
    let (folder, options) = (root.path().join("many"), "OPTIONS ('format.compression' 'gzip')");
    let copy = format!("COPY (SELECT 7 AS a) TO '{}/' STORED AS CSV {options}", folder.display());
    assert_eq!(value(&mut client, &copy).await, "1");
    assert!(folder.join("_SUCCESS").exists());
    let table = |location: &str, options: &str| {
        format!("CREATE OR REPLACE EXTERNAL TABLE t STORED AS CSV LOCATION '{}/{location}' {options}", folder.display())
    };
    rows(&mut client, &table("", options)).await;
    assert_eq!(value(&mut client, "SELECT a FROM t").await, "7");
    rows(&mut client, &table("*.csv.gz", "")).await;
    assert_eq!(value(&mut client, "SELECT a FROM t").await, "7");
    let none = client.execute(&table("", "")).await.err().expect("no file ends with .csv");
    assert!(none.kind == ErrorKind::Invalid && none.message.contains("No files found at"), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_the_place_of_a_table_is_told_how_it_is_read() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    for (statement, told) in [
        ("SELECT * FROM 'lake/x.csv.gz'", "STORED AS CSV LOCATION 'lake/x.csv.gz'"),
        ("SELECT * FROM x.parquet", "STORED AS PARQUET LOCATION 'x.parquet'"),
        ("SELECT * FROM public.json", "SHOW TABLES"),
    ] {
        let refused = client.execute(statement).await.err().expect(statement);
        assert!(refused.kind == ErrorKind::NotFound && refused.message.contains(told), "{statement}: {refused}");
    }
    let unread = "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/tmp/x.parquet.gz'";
    let refused = client.execute(unread).await.err().expect("it is no Parquet");
    assert!(refused.kind == ErrorKind::Invalid && refused.message.contains("unpack it first"), "{refused}");
}
