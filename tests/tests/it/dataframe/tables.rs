//! Tables of the cluster and of the session, and what is refused, in which words.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::prelude::{CsvReadOptions, ParquetReadOptions, SessionContext, col, lit};
use tidemill::ErrorKind;
use tidemill::client::Client;
use tidemill_engine::error::from_datafusion;
use tidemill_tests::harness::{LocalCluster, Shape, create_tpch, rows, tpch, value};

use super::{client_of, collected, embedded, session_of, single};

/// Waits until a statement's only value is the expected one.
pub(crate) async fn until(client: &mut Client, sql: &str, expected: &str) {
    let start = Instant::now();
    while value(client, sql).await != expected {
        assert!(start.elapsed() < Duration::from_secs(60), "{sql} does not become {expected}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The kind and message of an error that must come, whether when planned or when run.
async fn refused(context: &SessionContext, sql: &str) -> (ErrorKind, String) {
    let error = match context.sql(sql).await {
        Ok(planned) => planned.collect().await.expect_err(sql),
        Err(error) => error,
    };
    told(&error)
}

fn told(error: &DataFusionError) -> (ErrorKind, String) {
    let error = from_datafusion(error);
    (error.kind, error.message)
}

fn numbers(from: i64, to: i64) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    RecordBatch::try_new(schema, vec![Arc::new((from..to).collect::<Int64Array>())]).expect("a batch")
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_the_cluster_are_read_by_name() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, tidemill_tests::harness::SMALL_SCALE).await;
    rows(&mut client, "CREATE VIEW europe AS SELECT n_name FROM nation WHERE n_regionkey = 3").await;
    rows(&mut client, "CREATE TABLE small AS SELECT 7 AS seven").await;
    let session = tidemill::connect(cluster.url()).start().await.expect("a session");
    let europe = session.table("europe").await.expect("a view");
    assert_eq!(europe.filter(col("n_name").lt(lit("H"))).expect("a filter").count().await.expect("a count"), 2);
    assert_eq!(single(&session, "SELECT seven FROM tidemill.public.small").await, "7");
    assert_eq!(single(&session, "SELECT count(*) FROM system.executors").await, "1");
    let joined = "SELECT count(*) FROM nation JOIN region ON n_regionkey = r_regionkey WHERE r_name = 'ASIA'";
    assert_eq!(single(&session, joined).await, "5");
    // What the session makes with SQL, all clients have.
    session.sql("CREATE VIEW twelve AS SELECT 12 AS n").await.expect("a view").collect().await.expect("done");
    session.sql("CREATE TABLE twice AS SELECT 2 * n AS n FROM twelve").await.expect("a table");
    assert_eq!(value(&mut client, "SELECT n FROM twice").await, "24");
    let taken = refused_by(&session, "CREATE VIEW twelve AS SELECT 1").await;
    assert_eq!(taken.0, ErrorKind::Conflict, "{}", taken.1);
    session.sql("DROP VIEW twelve").await.expect("dropped");
    assert_eq!(client.execute("SELECT n FROM twelve").await.err().expect("it is gone").kind, ErrorKind::NotFound);
    let shown = session.sql("SHOW TABLES").await.expect("tables").to_string().await.expect("a text");
    assert!(shown.contains("lineitem") && shown.contains("twice") && !shown.contains("twelve"), "{shown}");
    session.sql("CREATE SCHEMA shop").await.expect("a schema");
    session.sql("CREATE TABLE shop.kept AS SELECT 5 AS n").await.expect("a table");
    assert_eq!(single(&session, "SELECT n FROM shop.kept").await, "5");
    assert_eq!(value(&mut client, "SELECT n FROM shop.kept").await, "5");
    // Others change what the session looked at before.
    let before = session.table("small").await.expect("a table");
    rows(&mut client, "CREATE OR REPLACE TABLE small AS SELECT 'seven' AS seven").await;
    let changed = told(&before.collect().await.expect_err("other columns"));
    assert_eq!(changed.0, ErrorKind::Conflict, "{}", changed.1);
    assert!(changed.1.contains("small"), "{}", changed.1);
    assert_eq!(single(&session, "SELECT seven FROM small").await, "seven");
}

async fn refused_by(session: &tidemill::Session, sql: &str) -> (ErrorKind, String) {
    told(&session.sql(sql).await.expect_err(sql))
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_the_session_hide_the_clusters_and_stay_in_it() {
    let (cluster, _work) = embedded();
    let mut client = client_of(&cluster);
    rows(&mut client, "CREATE TABLE t AS SELECT 1 AS of_cluster").await;
    let session = session_of(&cluster).await;
    session.register_batch("t", numbers(0, 10)).expect("a table");
    assert_eq!(single(&session, "SELECT count(n) FROM t").await, "10");
    // A view over it can only be the session's.
    session.sql("CREATE VIEW v AS SELECT max(n) AS m FROM t").await.expect("a view");
    assert_eq!(single(&session, "SELECT m FROM v").await, "9");
    assert_eq!(client.execute("SELECT m FROM v").await.err().expect("it is the session's").kind, ErrorKind::NotFound);
    // Rows go into a table in memory from queries of the cluster.
    session.sql("CREATE TABLE kept (n BIGINT NOT NULL)").await.expect("a table").collect().await.expect("done");
    collected(&session, "INSERT INTO kept SELECT n + 1 FROM t WHERE n > 6").await;
    assert_eq!(single(&session, "SELECT sum(n) FROM kept").await, "27");
    session.sql("DROP TABLE t").await.expect("dropped");
    assert_eq!(single(&session, "SELECT of_cluster FROM t").await, "1");
    // The other session does not know it.
    let other = session_of(&cluster).await;
    assert_eq!(single(&other, "SELECT of_cluster FROM t").await, "1");
    let denied = told(&session.deregister_table("t").expect_err("it is the cluster's"));
    assert!(denied.1.contains("DROP TABLE"), "{}", denied.1);
    let insert = refused(&session, "INSERT INTO t SELECT 2").await;
    assert!(insert.1.contains("write_parquet"), "{}", insert.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_travel_is_refused_by_name() {
    let (cluster, _work) = embedded();
    let session = session_of(&cluster).await;
    let schema = numbers(0, 1).schema();
    let foreign = StreamingTable::try_new(schema, Vec::new()).expect("a table");
    session.register_table("foreign_rows", Arc::new(foreign)).expect("a table");
    let (kind, message) = refused(&session, "SELECT * FROM foreign_rows").await;
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(message.contains("foreign_rows") && message.contains("table provider"), "{message}");
    // More rows than travel.
    let text = "x".repeat(1 << 20);
    let schema = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, false)]));
    let batch = || {
        let texts: StringArray = std::iter::repeat_n(Some(text.as_str()), 8).collect();
        RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(texts)]).expect("a batch")
    };
    let large = MemTable::try_new(Arc::clone(&schema), vec![(0..9).map(|_| batch()).collect()]).expect("a table");
    session.register_table("large", Arc::new(large)).expect("a table");
    let (kind, message) = refused(&session, "SELECT count(*) FROM large").await;
    assert_eq!(kind, ErrorKind::ResourcesExhausted);
    assert!(message.contains("large") && message.contains("64 MiB"), "{message}");
    // Its columns would be read as those of a table in a schema.
    let (kind, message) =
        refused(&session, "SELECT \"a.b\".n FROM (VALUES (1)) AS \"a.b\"(n) WHERE n > random()").await;
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(message.contains("`a.b`") && message.contains("alias"), "{message}");
    let (kind, message) = refused(&session, "SELECT * FROM nowhere").await;
    assert!(message.contains("nowhere"), "{kind:?} {message}");
    session.sql("SET datafusion.optimizer.enable_physical_uncorrelated_scalar_subquery = false").await.expect("set");
    let (_, message) = refused(&session, "SELECT 1").await;
    assert!(message.contains("leave it true"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_files_of_the_session_are_read_as_datafusion_reads_them() {
    let (cluster, _work) = embedded();
    let session = session_of(&cluster).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rows.txt");
    std::fs::write(&file, "# no row\n1|'a|b'\n2|NA\n3|'it\\'s'\n").expect("a file");
    let text = Field::new("t", DataType::Utf8, true);
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, false), text]);
    let read = async |context: &SessionContext| {
        let options = CsvReadOptions::new()
            .has_header(false)
            .delimiter(b'|')
            .quote(b'\'')
            .escape(b'\\')
            .comment(b'#')
            .null_regex(Some("^NA$".to_owned()))
            .file_extension(".txt")
            .schema(&schema);
        let frame = context.read_csv(file.display().to_string(), options).await.expect("a table");
        frame.sort(vec![col("n").sort(true, true)]).expect("a plan").to_string().await.expect("rows")
    };
    let plain = read(&SessionContext::new()).await;
    assert!(plain.contains("it's"), "{plain}");
    assert_eq!(read(&session).await, plain);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_session_are_the_runs() {
    let (cluster, _work) = embedded();
    let session = session_of(&cluster).await;
    let folder = tpch().join("lineitem").display().to_string();
    session.register_parquet("lineitem", folder, ParquetReadOptions::default()).await.expect("a table");
    session.sql("SET datafusion.execution.target_partitions = 5").await.expect("a setting");
    session.sql("SET tidemill.durability = 'off'").await.expect("a setting");
    collected(&session, "SELECT l_partkey, count(*) FROM lineitem GROUP BY l_partkey").await;
    let tasks = "SELECT max(tasks) FROM system.runs WHERE statement LIKE 'DataFrame: Aggregate%'";
    let tasks: u64 = single(&session, tasks).await.parse().expect("a number");
    assert!(tasks >= 5, "{tasks}");
    let wrong = session.sql("SET tidemill.durability = 'sometimes'").await.expect_err("no such value");
    assert!(wrong.to_string().contains("always, auto or off"), "{wrong}");
    assert!(session.sql("SET tidemill.nothing = 1").await.is_err());
    let unknown = tidemill::local().set("tidemill.nothing", "1").start().await.expect_err("no such setting");
    assert!(unknown.message.contains("tidemill.nothing"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_cancels_its_run() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let mut watcher = cluster.client().await;
    create_tpch(&mut watcher, tidemill_tests::harness::SMALL_SCALE).await;
    let session = tidemill::connect(cluster.url()).start().await.expect("a session");
    let long =
        "SELECT count(*) FROM lineitem a, lineitem b, orders c WHERE a.l_partkey + b.l_partkey + c.o_custkey = 77";
    let stream = session.sql(long).await.expect("a plan").execute_stream().await.expect("a stream");
    let reading = tokio::spawn(async move { futures::StreamExt::into_future(stream).await.0 });
    let runs = |state: &str| {
        format!("SELECT count(*) FROM system.runs WHERE statement LIKE 'DataFrame: A%' AND state = '{state}'")
    };
    until(&mut watcher, &runs("running"), "1").await;
    reading.abort();
    until(&mut watcher, &runs("cancelled"), "1").await;
}

/// Literals of a plan are shown nowhere, and what sounds like a secret is written nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_shown_in_one_line_without_its_values() {
    let (cluster, _work) = embedded();
    let session = session_of(&cluster).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("people.csv");
    std::fs::write(&file, "name,password\nann,hush\nbob,shh\n").expect("a file");
    session.register_csv("people", file.display().to_string(), CsvReadOptions::default()).await.expect("a table");
    assert_eq!(single(&session, "SELECT name FROM people WHERE password = 'hush'").await, "ann");
    let state = cluster.coordinator().state().await.expect("a state");
    let run = state.runs.values().find(|run| run.spec.statement.contains("people")).expect("the run");
    assert_eq!(run.spec.statement, "DataFrame: Filter(people)");
    assert_eq!(run.spec.request, None, "it would be written");
    assert_eq!(single(&session, "SELECT count(*) FROM people WHERE name = 'ann'").await, "1");
    let state = cluster.coordinator().state().await.expect("a state");
    assert!(state.runs.values().any(|run| run.spec.statement.contains("Aggregate") && run.spec.request.is_some()));
}
