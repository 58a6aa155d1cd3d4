//! Other engines: Python's `deltalake` and `polars` read what is written here, and what they write is read here.
//! DX3 of the rows that datasets must satisfy.

use tidemill::client::Client;
use tidemill_core::ErrorKind;
use tidemill_tests::harness::s3::S3Server;
use tidemill_tests::harness::{Process, delta, rows, value};

use super::{cluster, count, refused, text, version};

type Environment = Vec<(&'static str, String)>;

#[tokio::test(flavor = "multi_thread")]
async fn dx3_other_engines_read_and_write_the_same_tables_in_a_folder() {
    let (_cluster, mut client, folder) = cluster().await;
    ours(&mut client, &folder.path().join("ours").display().to_string(), &Environment::new()).await;
    theirs(&mut client, &folder.path().join("theirs").display().to_string(), &Environment::new()).await;
    together(&mut client, &folder.path().join("both").display().to_string(), &Environment::new()).await;
    back(&mut client, &folder.path().join("wide").display().to_string(), &Environment::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dx3_other_engines_read_and_write_the_same_tables_on_s3() {
    let server = tokio::task::spawn_blocking(S3Server::start).await.expect("a server");
    server.create_bucket("lake");
    let environment = server.environment().to_vec();
    let coordinator = Process::start_with(&["coordinator", "--bind", "127.0.0.1:0"], &environment);
    let url = coordinator.url();
    let executor = ["executor", "--connect", &url, "--slots", "2", "--memory", "256MiB"];
    let _executor = Process::start_with(&executor, &environment);
    let mut client = Client::connect(&url).await.expect("a client");
    ours(&mut client, "s3://lake/ours", &environment).await;
    theirs(&mut client, "s3://lake/theirs", &environment).await;
    together(&mut client, "s3://lake/both", &environment).await;
    back(&mut client, "s3://lake/wide", &environment).await;
}

/// Runs a check beside the test's own cluster.
async fn check(name: &'static str, location: &str, arguments: &[&str], environment: &Environment) {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let (location, environment) = (location.to_owned(), environment.clone());
    let checked = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        delta::check(name, &location, &arguments, &environment);
    });
    checked.await.unwrap_or_else(|_| panic!("the check {name} failed"));
}

/// All types, names and values that are hard, read by others.
async fn ours(client: &mut Client, location: &str, environment: &Environment) {
    let create = format!(
        "CREATE EXTERNAL TABLE ours (id BIGINT NOT NULL, day DATE, name VARCHAR, amount DECIMAL(10, 2), at TIMESTAMP, \
         ratio DOUBLE, small SMALLINT, flag BOOLEAN) STORED AS DELTA PARTITIONED BY (day, name) LOCATION '{location}'"
    );
    rows(client, &create).await;
    let insert = "INSERT INTO ours VALUES \
        (1, DATE '2026-01-01', 'a b/c=%20', 1.25, TIMESTAMP '2026-01-01 12:30:00.123456', 0.5, 1, true), \
        (2, NULL, 'ü', NULL, NULL, NULL, NULL, NULL), \
        (3, DATE '2026-01-02', NULL, -3.5, TIMESTAMP '1969-12-31 23:59:59.999999', -0.25, -3, false), \
        (4, DATE '2026-01-02', 'x:y', 0, TIMESTAMP '2026-01-04 00:00:00', 1e300, 4, NULL)";
    let result = client.execute(insert).await.expect("a run");
    let run = result.run.clone().expect("a run has a name");
    result.collect().await.expect("rows");
    let columns = r#"["id", "day", "name", "amount", "at", "ratio", "small", "flag"]"#;
    let expected = r#"[[1, "2026-01-01", "a b/c=%20", "1.25", "2026-01-01T12:30:00.123456", 0.5, 1, true],
        [2, null, "ü", null, null, null, null, null],
        [3, "2026-01-02", null, "-3.50", "1969-12-31T23:59:59.999999", -0.25, -3, false],
        [4, "2026-01-02", "x:y", "0.00", "2026-01-04T00:00:00", 1e300, 4, null]]"#;
    check("read", location, &[columns, expected], environment).await;
    check("history", location, &["1", "WRITE", &run.0], environment).await;
    for (column, value, count) in
        [("id", "3", "1"), ("id", "7", "0"), ("name", "\"x:y\"", "1"), ("amount", "1.25", "1")]
    {
        check("filtered", location, &[column, value, count], environment).await;
    }
    value(client, "INSERT OVERWRITE ours SELECT * FROM ours WHERE id > 2").await;
    check("versions", location, &["2", "1", "4"], environment).await;
    check("versions", location, &["2", "2", "2"], environment).await;
}

/// What others write, with a checkpoint in between.
async fn theirs(client: &mut Client, location: &str, environment: &Environment) {
    check("write", location, &[], environment).await;
    rows(client, &format!("CREATE EXTERNAL TABLE theirs STORED AS DELTA LOCATION '{location}'")).await;
    assert_eq!(
        text(client, "SELECT id, day, name, amount, at, ratio, more FROM theirs ORDER BY id").await,
        "1 2026-01-01 a b/c=%20 1.25 2026-01-01T12:30:00.123456Z 0.5 ; 2  ü  2026-01-02T12:30:00.123456Z NaN ; \
         3 2026-01-02  -3.50 2026-01-03T12:30:00.123456Z  ; 4 2026-01-02 x:y 0.00 2026-01-04T12:30:00.123456Z 2.0 ; \
         5 2026-01-03 later    new; 7 2026-01-03 later    new"
    );
    assert_eq!(text(client, "SELECT tags FROM theirs WHERE id = 1").await, "[a, ]");
    for (filter, expected) in [
        ("name = 'a b/c=%20'", 1),
        ("day IS NULL", 1),
        ("day >= '2026-01-02'", 4),
        ("at < '2026-01-02T12:30:00.123456Z'", 1),
        ("at <= '2026-01-02T12:30:00.123456Z'", 2),
        ("ratio > 1", 2),
        ("id IN (5, 6, 7)", 2),
        ("more = 'new'", 2),
    ] {
        assert_eq!(count(client, &format!("SELECT count(*) FROM theirs WHERE {filter}")).await, expected, "{filter}");
    }
    // They see what is added and taken away here.
    let day = "INSERT INTO theirs (id, day, name) REPLACE WHERE day = '2026-01-02' SELECT 8, DATE '2026-01-02', 'mine'";
    assert_eq!(value(client, day).await, "1");
    let expected = r#"[[1, "2026-01-01"], [2, null], [5, "2026-01-03"], [7, "2026-01-03"], [8, "2026-01-02"]]"#;
    check("read", location, &[r#"["id", "day"]"#, expected], environment).await;
}

/// Both append to one table, one after the other and beside each other.
async fn together(client: &mut Client, location: &str, environment: &Environment) {
    let create = format!("CREATE EXTERNAL TABLE both (id BIGINT, v VARCHAR) STORED AS DELTA LOCATION '{location}'");
    rows(client, &create).await;
    let theirs = check("append", location, &["8"], environment);
    let ours = async {
        for id in 0..8 {
            assert_eq!(value(client, &format!("INSERT INTO both VALUES ({id}, 'ours')")).await, "1");
        }
    };
    tokio::join!(theirs, ours);
    assert_eq!(text(client, "SELECT v, count(*) FROM both GROUP BY v ORDER BY v").await, "ours 8; theirs 8");
    assert_eq!(version(client, "both").await, "16");
}

/// Columns that others added are taken back, and brought back again.
async fn back(client: &mut Client, location: &str, environment: &Environment) {
    let create = format!("CREATE EXTERNAL TABLE wide (id BIGINT, v VARCHAR) STORED AS DELTA LOCATION '{location}'");
    rows(client, &create).await;
    assert_eq!(value(client, "INSERT INTO wide VALUES (1, 'a')").await, "1");
    check("widen", location, &[], environment).await;
    let all = "SELECT * FROM wide ORDER BY id";
    assert_eq!(text(client, all).await, "1 a  ; 2 b 20 2026-01-01T12:30:00");
    assert_eq!(text(client, "RESTORE TABLE wide TO VERSION AS OF 1").await, "4 1 0 1");
    assert_eq!(value(client, "INSERT INTO wide VALUES (3, 'c')").await, "1");
    assert_eq!(text(client, all).await, "1 a; 3 c");
    check("exactly", location, &[r#"["id", "v"]"#, r#"[[1, "a"], [3, "c"]]"#], environment).await;
    assert_eq!(text(client, "RESTORE TABLE wide TO VERSION AS OF 3").await, "6 3 1 1");
    assert_eq!(text(client, all).await, "1 a  ; 2 b 20 2026-01-01T12:30:00");
    let rows = r#"[[1, "a", null, null], [2, "b", 20, "2026-01-01T12:30:00"]]"#;
    check("exactly", location, &[r#"["id", "v", "more", "at"]"#, rows], environment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_see_instants_where_a_column_has_a_zone() {
    let (_cluster, mut client, folder) = cluster().await;
    let at = folder.path().join("zoned").display().to_string();
    let create = format!("CREATE EXTERNAL TABLE zoned (id BIGINT, h TIMESTAMPTZ) STORED AS DELTA LOCATION '{at}'");
    rows(&mut client, &create).await;
    let insert = "INSERT INTO zoned VALUES (1, '2026-01-01T12:00:00+02:00'), (2, NULL)";
    assert_eq!(value(&mut client, insert).await, "2");
    // Microseconds at 10:00 in UTC.
    check("instants", &at, &["h", "[1767261600000000, null]"], &Environment::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_outside_of_the_profile_is_refused_by_name() {
    let (_cluster, mut client, folder) = cluster().await;
    let constrained = folder.path().join("constrained").display().to_string();
    check("constrained", &constrained, &[], &Environment::new()).await;
    rows(&mut client, &format!("CREATE EXTERNAL TABLE constrained STORED AS DELTA LOCATION '{constrained}'")).await;
    assert_eq!(text(&mut client, "SELECT * FROM constrained").await, "1");
    refused(&mut client, "INSERT INTO constrained VALUES (-1)", ErrorKind::Invalid, &["`checkConstraints`"]).await;
    let log = |readers: &str, writers: &str, properties: &str, add: &str| {
        format!(
            "{{\"protocol\":{{\"minReaderVersion\":3,\"minWriterVersion\":7,\"readerFeatures\":[{readers}],\"writerFeatures\":[{writers}]}}}}\n\
             {{\"metaData\":{{\"id\":\"x\",\"format\":{{\"provider\":\"parquet\",\"options\":{{}}}},\"schemaString\":\"{{\\\"type\\\":\\\"struct\\\",\
             \\\"fields\\\":[{{\\\"name\\\":\\\"x\\\",\\\"type\\\":\\\"long\\\",\\\"nullable\\\":true,\\\"metadata\\\":{{}}}}]}}\",\
             \"partitionColumns\":[],\"configuration\":{{{properties}}},\"createdTime\":0}}}}\n{add}"
        )
    };
    let vector = "{\"add\":{\"path\":\"a.parquet\",\"partitionValues\":{},\"size\":1,\"modificationTime\":0,\"dataChange\":true,\
                  \"deletionVector\":{\"storageType\":\"u\",\"pathOrInlineDv\":\"ab^-aqEH.-t@S}K{vb[*k^\",\"offset\":1,\"sizeInBytes\":36,\"cardinality\":1}}}";
    for (name, log) in [
        (
            "deletionVectors",
            log("\"deletionVectors\"", "\"deletionVectors\"", "\"delta.enableDeletionVectors\":\"true\"", vector),
        ),
        ("catalogManaged", log("\"catalogManaged\"", "\"catalogManaged\",\"inCommitTimestamp\"", "", "")),
        ("notYetKnown", log("\"notYetKnown\"", "\"notYetKnown\"", "", "")),
    ] {
        let at = folder.path().join(name);
        std::fs::create_dir_all(at.join("_delta_log")).expect("a folder");
        std::fs::write(at.join("_delta_log/00000000000000000000.json"), log).expect("a log");
        let create = format!("CREATE EXTERNAL TABLE x STORED AS DELTA LOCATION '{}'", at.display());
        refused(&mut client, &create, ErrorKind::Invalid, &[name]).await;
    }
    for (name, feature) in [
        ("rowTracking", "\"rowTracking\",\"domainMetadata\""),
        ("inCommitTimestamp", "\"inCommitTimestamp\""),
        ("clustering", "\"clustering\",\"domainMetadata\""),
    ] {
        let at = folder.path().join(name);
        std::fs::create_dir_all(at.join("_delta_log")).expect("a folder");
        std::fs::write(at.join("_delta_log/00000000000000000000.json"), log("", feature, "", "")).expect("a log");
        rows(&mut client, &format!("CREATE OR REPLACE EXTERNAL TABLE x STORED AS DELTA LOCATION '{}'", at.display()))
            .await;
        assert_eq!(count(&mut client, "SELECT count(*) FROM x").await, 0);
        refused(&mut client, "INSERT INTO x VALUES (1)", ErrorKind::Invalid, &[&format!("`{name}`")]).await;
    }
}
