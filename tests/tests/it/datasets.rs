//! Datasets: tables in Delta Lake's format.

mod checkpoints;
mod crashes;
mod engines;
mod foreign;
mod inputs;
mod intervals;
mod live;
mod readers;
mod restore;
mod upkeep;
mod writers;
mod writing;
mod zones;

use std::path::Path;

use tidemill::client::Client;
use tidemill_core::{Error, ErrorKind};
use tidemill_tests::harness::{LocalCluster, Shape, rows, value};

/// A small cluster, and a folder for a table.
async fn cluster() -> (LocalCluster, Client, tempfile::TempDir) {
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 2 }).await;
    let client = cluster.client().await;
    (cluster, client, tempfile::tempdir().expect("a folder"))
}

/// All rows as one text, in order.
async fn text(client: &mut Client, sql: &str) -> String {
    let batches = rows(client, sql).await;
    let mut lines = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells = batch
                .columns()
                .iter()
                .map(|column| arrow::util::display::array_value_to_string(column, row).expect("a value can be shown"));
            lines.push(cells.collect::<Vec<_>>().join(" "));
        }
    }
    lines.join("; ")
}

/// The error that a statement must end with.
async fn refused(client: &mut Client, sql: &str, kind: ErrorKind, parts: &[&str]) -> Error {
    let answered = match client.execute(sql).await {
        Ok(result) => result.collect().await.map(|_| ()),
        Err(error) => Err(error),
    };
    let error = answered.err().unwrap_or_else(|| panic!("{sql}\nwas not refused"));
    assert_eq!(error.kind, kind, "{sql}\n{error}");
    for part in parts {
        assert!(error.message.contains(part), "{sql}\n{part:?} is not in {error}");
    }
    error
}

/// The newest version of a table.
async fn version(client: &mut Client, table: &str) -> String {
    let history = rows(client, &format!("DESCRIBE HISTORY {table} LIMIT 1")).await;
    let batch = history.iter().find(|batch| batch.num_rows() == 1).expect("a version");
    arrow::util::display::array_value_to_string(batch.column(0), 0).expect("a number")
}

/// The files below a folder whose names end so, sorted.
fn files(folder: &Path, end: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => open.push(path),
                false if path.to_string_lossy().ends_with(end) => {
                    found.push(path.strip_prefix(folder).expect("below").display().to_string());
                }
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// Makes a table of numbers and texts.
async fn create_numbers(client: &mut Client, location: &str) {
    let create = format!("CREATE EXTERNAL TABLE t (id BIGINT, v VARCHAR) STORED AS DELTA LOCATION '{location}'");
    rows(client, &create).await;
}

/// A count.
async fn count(client: &mut Client, sql: &str) -> u64 {
    value(client, sql).await.parse().expect("a number")
}
