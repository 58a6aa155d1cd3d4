//! DataFrames on the engine equal DataFusion's: the same code runs with a plain `SessionContext`, embedded, and on a
//! cluster of two executor processes.

mod code;
mod functions;
mod tables;
mod writes;

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::prelude::SessionContext;
use tempfile::TempDir;
use tidemill::client::Client;
use tidemill::compose::{Embedded, EmbeddedConfig};
use tidemill::generate::TPCH_TABLES;
use tidemill::oracle::{Answer, Oracle, compare};
use tidemill::tpch::QUERIES;
use tidemill::{Session, SessionBuilder};
use tidemill_tests::harness::{
    LocalCluster, ProcessCluster, SMALL_SCALE, Shape, create_small_tables, logged, rows, tpch, tpch_oracle,
};

use crate::durable::{SCALE, state_in};
use crate::going::{self, with_a_slow_end};

/// An embedded cluster of two slots, and the folder that it works in.
fn embedded() -> (Arc<Embedded>, TempDir) {
    let work = tempfile::tempdir().expect("a folder");
    let config =
        EmbeddedConfig { slots: 2, memory: 512 << 20, work_dir: work.path().to_owned(), ..EmbeddedConfig::default() };
    (Arc::new(Embedded::start(config).expect("an embedded cluster")), work)
}

async fn session_of(cluster: &Arc<Embedded>) -> Session {
    SessionBuilder::of(Arc::clone(cluster)).start().await.expect("a session")
}

/// The answers of in-process DataFusion to all statements of `tests/queries`.
async fn oracle() -> Oracle {
    let oracle = Oracle::new(2, 1 << 30).expect("an oracle");
    for create in create_small_tables().await {
        let made = oracle.context().sql(&create).await.unwrap_or_else(|e| panic!("{create}\n{e}"));
        made.collect().await.unwrap_or_else(|e| panic!("{create}\n{e}"));
    }
    oracle
}

/// Why a statement that was planned in the session is not answered as expected, if so.
async fn difference(session: &Session, sql: &str, expected: &Answer) -> Option<String> {
    let planned = match session.sql(sql).await {
        Ok(planned) => planned.collect().await,
        Err(error) => Err(error),
    };
    match planned {
        Ok(batches) => compare(expected, &batches).expect("answers can be compared").map(|d| d.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

fn none(wrong: &[String], context: &str) {
    assert!(wrong.is_empty(), "{context}: {} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Every query that the planner is tested with, planned by the client: its plan travels and means the same.
#[tokio::test(flavor = "multi_thread")]
async fn every_query_planned_by_the_client_is_answered_as_datafusion_does() {
    let oracle = oracle().await;
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 1 }).await;
    let mut client = cluster.client().await;
    for create in create_small_tables().await {
        rows(&mut client, &create).await;
    }
    let session = tidemill::connect(cluster.url()).start().await.expect("a session");
    let mut wrong = Vec::new();
    for sql in crate::queries::statements() {
        let expected = oracle.answer(&sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
        if let Some(difference) = difference(&session, &sql, &expected).await {
            wrong.push(format!("{sql}\n    {difference}"));
        }
    }
    none(&wrong, "planned by the client");
}

async fn tpch_answers_through(session: &Session, context: &str) {
    let oracle = tpch_oracle(SMALL_SCALE).await;
    let mut wrong = Vec::new();
    for (name, sql) in QUERIES {
        let sql = sql.trim().trim_end_matches(';');
        let expected = oracle.answer(sql).await.expect(name);
        if let Some(difference) = difference(session, sql, &expected).await {
            wrong.push(format!("{name}: {difference}"));
        }
    }
    none(&wrong, context);
}

#[tokio::test(flavor = "multi_thread")]
async fn tpch_over_tables_of_the_session_is_datafusions_embedded() {
    let (cluster, _work) = embedded();
    let session = session_of(&cluster).await;
    register_tpch(&session).await;
    tpch_answers_through(&session, "embedded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tpch_over_tables_of_the_cluster_is_datafusions_on_processes() {
    let cluster = ProcessCluster::start(2, 1).await;
    let session = tidemill::connect(cluster.coordinator.url())
        .set("datafusion.execution.target_partitions", "3")
        .start()
        .await
        .expect("a session");
    for create in tidemill::tpch::create_tables(&tpch()) {
        session.sql(&create).await.unwrap_or_else(|e| panic!("{create}\n{e}"));
    }
    tpch_answers_through(&session, "two processes").await;
}

async fn register_tpch(context: &SessionContext) {
    for table in TPCH_TABLES {
        let folder = tpch().join(table).display().to_string();
        context.register_parquet(table, folder, Default::default()).await.expect(table);
    }
}

/// The plan is in the log, so the next leader can plan it, too; and the stages of the last one go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_survives_its_coordinator() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut cluster, mut watcher) = going::cluster(&state_in(folder.path()), &[]).await;
    let sql = with_a_slow_end("SELECT l_returnflag, sum(l_quantity) AS q FROM lineitem GROUP BY l_returnflag", "w.q");
    let session = tidemill::connect(cluster.coordinator.url())
        .set("datafusion.execution.target_partitions", "8")
        .start()
        .await
        .expect("a session");
    let planned = session.sql(&sql).await.expect("a plan");
    let reading = tokio::spawn(planned.collect());
    let running = "SELECT count(*) FROM system.runs WHERE state = 'running' AND statement LIKE 'DataFrame: %'";
    tables::until(&mut watcher, running, "1").await;
    logged(&mut watcher).await;
    cluster.restart_coordinator();
    let ours = reading.await.expect("no panic").expect("an answer");
    let expected = tpch_oracle(SCALE).await.answer(&sql).await.expect("an answer");
    let difference = compare(&expected, &ours).expect("a comparison");
    assert!(difference.is_none(), "{difference:?}");
    let mut watcher = cluster.client().await;
    let failed = "SELECT count(*) FROM system.runs WHERE statement LIKE 'DataFrame: %' AND error IS NOT NULL";
    assert_eq!(tidemill_tests::harness::value(&mut watcher, failed).await, "0");
}

/// All rows of a statement, planned by the client.
async fn collected(context: &SessionContext, sql: &str) -> Vec<RecordBatch> {
    let planned = context.sql(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
    planned.collect().await.unwrap_or_else(|e| panic!("{sql}\n{e}"))
}

/// The only value of a statement, planned by the client.
async fn single(context: &SessionContext, sql: &str) -> String {
    let batches = collected(context, sql).await;
    let batch = batches.iter().find(|batch| batch.num_rows() == 1).expect("one row");
    arrow::util::display::array_value_to_string(batch.column(0), 0).expect("a value can be shown")
}

/// A client of an embedded cluster, for statements as the terminal has them.
fn client_of(cluster: &Arc<Embedded>) -> Client {
    Client::of(Arc::clone(cluster))
}
