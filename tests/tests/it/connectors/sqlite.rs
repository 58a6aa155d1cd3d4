//! Files of SQLite.

use rusqlite::Connection;
use tidemill::client::Client;
use tidemill_core::ErrorKind;
use tidemill_tests::harness::{Process, rows, tpch, value};

fn create(name: &str, file: &std::path::Path, table: &str) -> String {
    let file = file.display();
    format!("CREATE EXTERNAL TABLE {name} STORED AS SQLITE LOCATION '{file}' OPTIONS (table '{table}')")
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_sqlite_join_with_others_and_are_left_as_they_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("notes.db");
    let connection = Connection::open(&file).expect("a database");
    let setup = "CREATE TABLE Notes (id INTEGER PRIMARY KEY, \"by\" VARCHAR(20), score REAL, total NUMERIC, ok BOOLEAN, raw BLOB,
            day DATE, at DATETIME);
        INSERT INTO Notes VALUES (1, 'it''s', 1.5, 10, 1, x'00ff', '1969-12-31', '1969-12-31 23:59:59.5'),
            (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (3, '', 2, 0.25, 0, x'', '2024-02-29', '2024-02-29T12:00:00');
        CREATE TABLE many (k INTEGER, t TEXT);
        WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 50000)
            INSERT INTO many SELECT i, 'text ' || i FROM s;
        CREATE TABLE loose (n INTEGER, s STRING); CREATE TABLE mixed (n INTEGER); INSERT INTO mixed VALUES (1), ('one')";
    connection.execute_batch(setup).expect("tables");
    let server = Process::start(&["server", "--bind", "127.0.0.1:0", "--slots", "2", "--memory", "512MiB"]);
    let mut client = Client::connect(&server.url()).await.expect("a client");
    let before = std::fs::read(&file).expect("the file");
    rows(&mut client, &create("notes", &file, "Notes")).await;
    rows(&mut client, &create("many", &file, "many")).await;
    let first = "SELECT concat_ws('|', \"by\", score, total, ok, encode(raw, 'hex'), day, at) FROM notes WHERE id = 1";
    assert_eq!(value(&mut client, first).await, "it's|1.5|10.0|true|00ff|1969-12-31|1969-12-31T23:59:59.500");
    let nulls = "SELECT count(*) FROM notes WHERE \"by\" IS NULL AND score IS NULL AND at IS NULL AND ok IS NULL";
    assert_eq!(value(&mut client, nulls).await, "1");
    assert_eq!(value(&mut client, "SELECT count(*) FROM notes").await, "3");
    assert_eq!(value(&mut client, "SELECT sum(k) FROM many").await, "1250025000");
    let drawn = rows(&mut client, "EXPLAIN SELECT t FROM many WHERE k = 7 LIMIT 1").await;
    let drawn = arrow::util::pretty::pretty_format_batches(&drawn).expect("text").to_string();
    assert!(drawn.contains("SELECT `many`.`t` FROM `many` WHERE (`many`.`k` = 7) LIMIT 1"), "{drawn}");
    let orders = tpch().join("orders");
    rows(&mut client, &format!("CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION '{}/'", orders.display()))
        .await;
    let joined = value(&mut client, "SELECT count(*) FROM orders JOIN many ON o_orderkey = k WHERE k < 1000").await;
    assert_eq!(joined, value(&mut client, "SELECT count(*) FROM orders WHERE o_orderkey < 1000").await);
    // Neither another journal nor another byte.
    assert!(std::fs::read(&file).expect("the file") == before, "the file was changed");
    assert!(!folder.path().join("notes.db-wal").exists(), "the file has another journal");
    let cases = [
        (create("x", &folder.path().join("none.db"), "t"), ErrorKind::NotFound, "there is no file"),
        (create("x", &file, "none"), ErrorKind::NotFound, "there is no table none in SQLite"),
        (create("x", &file, "loose"), ErrorKind::Invalid, "the column `s` of loose"),
        (create("x", &tpch().join("orders/part-000.parquet"), "t"), ErrorKind::Invalid, "is no file of SQLite"),
    ];
    for (sql, kind, says) in cases {
        let error = client.execute(&sql).await.err().expect("it is wrong");
        assert!(error.message.contains(says) && error.kind == kind, "{sql}: {error}");
    }
    assert!(!folder.path().join("none.db").exists(), "a missing file was made");
    rows(&mut client, &create("mixed", &file, "mixed")).await;
    let mixed = client.query("SELECT sum(n) FROM mixed").await.expect("a run").collect().await.expect_err("a text");
    assert!(mixed.message.contains("the column `n` of mixed") && mixed.message.contains("holds a text"), "{mixed}");
    connection.execute_batch("ALTER TABLE many DROP COLUMN t").expect("a change");
    let gone = client.query("SELECT t FROM many").await.expect("a run").collect().await.expect_err("it is gone");
    assert!(gone.message.contains("the column `t` of many") && gone.message.contains("is gone"), "{gone}");
}
