//! `system.runs` tells which versions of datasets a statement read and which one it made, whoever leads by then.

use std::path::Path;

use tidemill::client::Client;
use tidemill_tests::harness::{ProcessCluster, logged, rows, value};

use super::create_numbers;
use crate::durable::state_in;

/// Runs a statement; the name of its run.
async fn ran(client: &mut Client, sql: &str) -> String {
    let result = client.execute(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
    let run = result.run.clone().expect("a run has a name");
    result.collect().await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
    run.0
}

/// What a run read, and what it made.
async fn told(client: &mut Client, run: &str) -> String {
    let told = "SELECT coalesce(input_versions, '-') || ' > ' || coalesce(CAST(output_version AS VARCHAR), '-')";
    value(client, &format!("{told} FROM system.runs WHERE run_id = '{run}'")).await
}

/// Statements of all kinds, and what is to be told of each.
fn statements(folder: &Path) -> Vec<(String, &'static str)> {
    let at = |name: &str| folder.join(name).display().to_string();
    let statement = |sql: &str, told: &'static str| (sql.to_owned(), told);
    vec![
        // Its own newest version is where it begins, and nothing that it reads.
        statement("INSERT INTO t VALUES (1, 'a')", "- > 1"),
        statement("INSERT INTO t VALUES (2, 'b')", "- > 2"),
        (format!("CREATE TABLE u STORED AS DELTA LOCATION '{}' AS SELECT id, v FROM t", at("u")), "t@2 > 0"),
        statement("INSERT INTO u SELECT id + 10, v FROM t VERSION AS OF 1", "t@1 > 1"),
        statement("INSERT OVERWRITE u SELECT id, v FROM u WHERE id < 10", "u@1 > 2"),
        statement("CREATE SCHEMA s", "- > -"),
        (format!("CREATE TABLE s.x STORED AS DELTA LOCATION '{}' AS SELECT 1 AS id", at("x")), "- > 0"),
        statement("CREATE VIEW pairs AS SELECT t.id FROM t JOIN u ON t.id = u.id", "- > -"),
        // Through a view and a subquery, two versions of one table; each once.
        statement("SELECT count(*) FROM pairs WHERE id IN (SELECT id FROM t VERSION AS OF 1)", "t@1, t@2, u@2 > -"),
        statement("SELECT count(*) FROM t AS a JOIN t AS b ON a.id = b.id CROSS JOIN s.x", "t@2, s.x@0 > -"),
        (format!("COPY (SELECT * FROM t) TO '{}'", at("t.csv")), "t@2 > -"),
        statement("OPTIMIZE t", "t@2 > 3"),
        statement("CREATE TABLE kept AS SELECT id FROM t", "t@3 > -"),
        statement("SELECT count(*) FROM kept", "- > -"),
        statement("EXPLAIN ANALYZE SELECT * FROM t", "t@3 > -"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_later_coordinator_tells_what_a_statement_read_and_what_it_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = ProcessCluster::durable(1, 2, &state_in(&folder.path().join("state"))).await;
    let client = &mut cluster.client().await;
    create_numbers(client, &folder.path().join("t").display().to_string()).await;
    let mut known = Vec::new();
    for (sql, expected) in statements(folder.path()) {
        let run = ran(client, &sql).await;
        assert_eq!(told(client, &run).await, expected, "{sql}");
        known.push((run, sql, expected));
    }
    // Planned, and failed behind that.
    let failing = client.query("SELECT CAST(v AS BIGINT) FROM t").await.expect("a run");
    let run = failing.run.clone().expect("a run has a name").0;
    failing.collect().await.expect_err("a letter is no number");
    known.push((run, "the one that failed".to_owned(), "t@3 > -"));
    logged(client).await;
    cluster.restart_coordinator();
    let client = &mut cluster.client().await;
    for (run, sql, expected) in &known {
        assert_eq!(told(client, run).await, *expected, "{sql}, in the log");
    }
    // Planned by a client, over a view of the cluster.
    let session = tidemill::connect(cluster.coordinator.url()).start().await.expect("a session");
    session.sql("SELECT id FROM pairs").await.expect("a plan").collect().await.expect("rows");
    let planned = "FROM system.runs WHERE statement LIKE 'DataFrame: %' AND input_versions IS NOT NULL";
    assert_eq!(value(client, &format!("SELECT input_versions {planned}")).await, "t@3, u@2");
    // Who read that version? The location tells it from another table of the name.
    let readers = format!(
        "SELECT count(*) FROM system.run_inputs WHERE dataset = 't' AND version = 1 AND location = 'file://{}/'",
        folder.path().join("t").display()
    );
    assert_eq!(value(client, &readers).await, "2");
    rows(client, "DROP TABLE t").await;
    assert_eq!(value(client, &readers).await, "2", "a table that is gone was read all the same");
}
