//! What tests are made of.

pub mod adbc;
mod cluster;
mod data;
pub mod delta;
mod functions;
mod journals;
pub mod mysql;
pub mod postgres;
mod process;
mod process_cluster;
mod proxy;
pub mod s3;
mod tables;
mod terminal;

pub use cluster::{LocalCluster, Shape};
pub use data::{SMALL_SCALE, tpch, tpch_of};
pub use functions::{AWAY, UNSTEADY, away, folded, functions, twice, unsteady, weighed};
pub use journals::{repeated_after_success, started_after};
pub use process::{Output, Process};
pub use process_cluster::{ProcessCluster, lasting_port};
pub use proxy::{Proxy, Wire};
pub use tables::{create_small_tables, small_tables, statements_of};
pub use terminal::Terminal;

use arrow::record_batch::RecordBatch;
use tidemill::client::Client;
use tidemill::generate::TPCH_TABLES;
use tidemill::oracle::{Answer, Oracle, compare};
use tidemill::tpch::create_tables;

/// Whether everything runs, and not only the bounded part of CI: `cargo run -p tidemill-tests -- full`.
#[must_use]
pub fn is_full() -> bool {
    std::env::var_os(FULL).is_some()
}

/// Set in the full run.
pub const FULL: &str = "TIDEMILL_FULL";

/// Runs a statement and answers its rows.
///
/// # Panics
/// The statement fails.
pub async fn rows(client: &mut Client, sql: &str) -> Vec<RecordBatch> {
    let result = client.execute(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
    result.collect().await.unwrap_or_else(|e| panic!("{sql}\n{e}"))
}

/// Waits until the log has everything that this coordinator showed before: it is ordered, and this is acknowledged only when
/// it is durable.
///
/// # Panics
/// The statement fails.
pub async fn logged(client: &mut Client) {
    rows(client, "CREATE OR REPLACE VIEW logged AS SELECT 1 AS x").await;
}

/// What DataFusion answers on TPC-H at some scale.
///
/// # Panics
/// The tables cannot be read.
pub async fn tpch_oracle(scale: f64) -> Oracle {
    let oracle = Oracle::new(2, 1 << 30).expect("an oracle");
    oracle.register(&tpch_of(scale), &TPCH_TABLES).await.expect("tables");
    oracle
}

/// Creates TPC-H's tables at some scale.
///
/// # Panics
/// They cannot be created.
pub async fn create_tpch(client: &mut Client, scale: f64) {
    for create in create_tables(&tpch_of(scale)) {
        rows(client, &create).await;
    }
}

/// Checks that a statement's rows are the oracle's.
///
/// # Panics
/// They are not; `context` tells where.
pub async fn assert_answer(client: &mut Client, sql: &str, expected: &Answer, context: &str) {
    let ours = rows(client, sql).await;
    let difference = compare(expected, &ours).expect("answers can be compared");
    assert!(difference.is_none(), "{context}: {}\n{sql}", difference.map(|d| d.to_string()).unwrap_or_default());
}

/// The only value of a result, as text.
///
/// # Panics
/// It has not one row.
pub async fn value(client: &mut Client, sql: &str) -> String {
    let batches = rows(client, sql).await;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 1, "{sql}");
    let batch = batches.iter().find(|b| b.num_rows() == 1).expect("one row");
    arrow::util::display::array_value_to_string(batch.column(0), 0).expect("a value can be shown")
}
