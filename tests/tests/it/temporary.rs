//! Temporary views and tables: they belong to their session, end with it, and nobody else sees them.

use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use arrow_flight::Action;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandGetTables, CommandStatementIngest};
use arrow_flight::sql::{TableDefinitionOptions, TableExistsOption, TableNotExistOption};
use futures::TryStreamExt;
use std::sync::Arc;
use tidemill::client::Client;
use tidemill::compose::{Embedded, EmbeddedConfig};
use tidemill_core::Settings;
use tidemill_tests::harness::{LocalCluster, Process, Shape, lasting_port, rows, value};
use tonic::transport::Channel;

use crate::durable::{state_in, written_by_another_build};
use crate::going::{self, Going, with_a_slow_end};

type SqlClient = FlightSqlServiceClient<Channel>;

const PATIENCE: Duration = Duration::from_secs(60);

async fn sql_client(url: &str) -> SqlClient {
    let endpoint = Channel::from_shared(url.to_owned()).expect("a URL");
    SqlClient::new(endpoint.connect().await.expect("a connection"))
}

async fn query(client: &mut SqlClient, sql: &str) -> Result<Vec<RecordBatch>, String> {
    let info = client.execute(sql.to_owned(), None).await.map_err(|e| e.to_string())?;
    let ticket = info.endpoint[0].ticket.clone().expect("a ticket");
    let batches = client.do_get(ticket).await.map_err(|e| e.to_string())?;
    batches.try_collect().await.map_err(|e| e.to_string())
}

async fn number(client: &mut SqlClient, sql: &str) -> i64 {
    let batches = query(client, sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
    let batch = batches.iter().find(|batch| batch.num_rows() == 1).expect("one row");
    batch.column(0).as_primitive::<Int64Type>().value(0)
}

async fn fails(client: &mut Client, sql: &str) -> String {
    let failed = match client.execute(sql).await {
        Ok(result) => result.collect().await.map(drop),
        Err(error) => Err(error),
    };
    failed.expect_err(sql).message
}

/// Waits until a coordinator keeps no rows, of tables or runs.
async fn until_nothing_is_kept(kept: impl Fn() -> usize) {
    let start = Instant::now();
    while kept() > 0 {
        assert!(start.elapsed() < PATIENCE, "{} blobs are kept", kept());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn make(client: &mut Client) {
    rows(client, "CREATE TEMPORARY TABLE ducks AS SELECT * FROM (VALUES (1), (2)) AS t(n)").await;
    rows(client, "CREATE TEMPORARY VIEW drakes AS SELECT n FROM ducks WHERE n > 1").await;
    assert_eq!(value(client, "SELECT n FROM drakes").await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_see_their_own_and_take_it_along() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let coordinator = cluster.coordinator.coordinator().clone();
    let (mut first, mut second) = (cluster.client().await, cluster.client().await);
    make(&mut first).await;
    assert!(fails(&mut second, "SELECT * FROM ducks").await.contains("there is no table `ducks`"));
    assert!(fails(&mut second, "SELECT * FROM temporary.ducks").await.contains("there is no table"));
    assert!(fails(&mut second, "DROP TABLE ducks").await.contains("there is no table `ducks`"));
    assert_eq!(
        value(&mut second, "SELECT count(*) FROM information_schema.tables WHERE table_name = 'ducks'").await,
        "0"
    );
    // Both may have one of that name.
    rows(&mut second, "CREATE TEMP TABLE ducks AS SELECT 7 AS n").await;
    assert_eq!(value(&mut first, "SELECT sum(n) FROM ducks").await, "3");
    assert_eq!(value(&mut second, "SELECT sum(n) FROM ducks").await, "7");
    let state = coordinator.state().await.expect("a state");
    assert!(state.catalogue.entries.is_empty(), "{:?}", state.catalogue);
    assert_eq!(state.sessions.len(), 2);
    // One session closes, and of one the client is only dropped.
    first.close().await;
    assert_eq!(value(&mut second, "SELECT sum(n) FROM ducks").await, "7");
    drop(second);
    until_nothing_is_kept(|| coordinator.kept_blobs()).await;
    assert!(coordinator.state().await.expect("a state").sessions.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_and_replaced_rows_go_at_once() {
    let work = tempfile::tempdir().expect("a folder");
    let config =
        EmbeddedConfig { slots: 2, memory: 256 << 20, work_dir: work.path().to_owned(), ..EmbeddedConfig::default() };
    let embedded = Arc::new(Embedded::start(config).expect("an embedded cluster"));
    let mut client = Client::of(Arc::clone(&embedded));
    make(&mut client).await;
    let kept = || embedded.coordinator().kept_blobs();
    let start = Instant::now();
    while kept() != 1 {
        assert!(start.elapsed() < PATIENCE, "{} blobs are kept", kept());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rows(&mut client, "CREATE OR REPLACE TEMPORARY TABLE ducks AS SELECT n + 1 AS n FROM ducks").await;
    assert_eq!(value(&mut client, "SELECT sum(n) FROM ducks").await, "5");
    let start = Instant::now();
    while kept() != 1 {
        assert!(start.elapsed() < PATIENCE, "{} blobs are kept", kept());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rows(&mut client, "DROP TABLE ducks").await;
    until_nothing_is_kept(kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_not_heard_of_loses_its_rows_and_says_so() {
    let settings = Settings { session_timeout_ms: 5_000, ..Settings::default() };
    let cluster = LocalCluster::with_settings(Shape { executors: 1, slots: 1 }, settings).await;
    let mut client = cluster.client().await;
    make(&mut client).await;
    let coordinator = cluster.coordinator.coordinator().clone();
    until_nothing_is_kept(|| coordinator.kept_blobs()).await;
    let gone = fails(&mut client, "SELECT * FROM drakes").await;
    assert!(gone.contains("the rows of the temporary table `ducks` are gone"), "{gone}");
    rows(&mut client, "DROP TABLE ducks").await;
    rows(&mut client, "CREATE TEMPORARY TABLE ducks AS SELECT 9 AS n").await;
    assert_eq!(value(&mut client, "SELECT n FROM drakes").await, "9");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_have_so_much_room() {
    let settings = Settings { session_bytes: 1 << 20, ..Settings::default() };
    let cluster = LocalCluster::with_settings(Shape { executors: 1, slots: 2 }, settings).await;
    let mut client = cluster.client().await;
    let large = "SELECT x, x + 1 AS y FROM generate_series(1, 50000) AS t(x)";
    rows(&mut client, &format!("CREATE TEMPORARY TABLE one AS {large}")).await;
    let full = fails(&mut client, &format!("CREATE TEMPORARY TABLE two AS {large}")).await;
    assert!(full.contains("of this session would have more than 1 MiB"), "{full}");
    assert!(fails(&mut client, "SELECT * FROM two").await.contains("there is no table"));
    rows(&mut client, &format!("CREATE OR REPLACE TEMPORARY TABLE one AS {large}")).await;
    assert_eq!(value(&mut client, "SELECT count(*) FROM one").await, "50000");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_become_temporary_tables_wherever_the_client_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    let file = folder.path().join("geese.parquet");
    rows(&mut client, &format!("COPY (SELECT 4 AS n) TO '{}'", file.display())).await;
    client.set("tidemill.client_directory", &folder.path().display().to_string()).expect("a setting");
    rows(&mut client, "CREATE TEMPORARY EXTERNAL TABLE geese STORED AS PARQUET LOCATION 'geese.parquet'").await;
    client.set("tidemill.client_directory", "/").expect("a setting");
    assert_eq!(value(&mut client, "SELECT n FROM geese").await, "4");
    let shown = value(&mut client, "SELECT table_type FROM information_schema.tables WHERE table_name = 'geese'").await;
    assert_eq!(shown, "LOCAL TEMPORARY");
    let mut other = cluster.client().await;
    assert!(fails(&mut other, "SELECT * FROM geese").await.contains("there is no table"));
    rows(&mut client, "DROP TABLE geese").await;
    assert!(file.exists(), "its files stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn flight_sql_sessions_have_them_too() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let coordinator = cluster.coordinator.coordinator().clone();
    let (mut first, mut second) = (sql_client(&cluster.url()).await, sql_client(&cluster.url()).await);
    let table = "CREATE TEMPORARY TABLE swans AS SELECT * FROM (VALUES (1), (2)) AS t(n)";
    assert_eq!(first.execute_update(table.to_owned(), None).await.ok(), Some(0));
    // Drivers ask for a flight of any statement.
    query(&mut first, "CREATE TEMPORARY VIEW cygnets AS SELECT n FROM swans WHERE n > 1").await.expect("a view");
    assert_eq!(number(&mut first, "SELECT sum(n) FROM swans").await, 3);
    assert_eq!(number(&mut first, "SELECT n FROM cygnets").await, 2);
    let unknown = query(&mut second, "SELECT * FROM cygnets").await.expect_err("an error");
    assert!(unknown.contains("there is no table `cygnets`"), "{unknown}");
    let mut prepared = first.prepare("SELECT count(*) FROM swans".to_owned(), None).await.expect("a statement");
    let info = prepared.execute().await.expect("a flight");
    let ticket = info.endpoint[0].ticket.clone().expect("a ticket");
    let counted: Vec<RecordBatch> = first.do_get(ticket).await.expect("rows").try_collect().await.expect("rows");
    assert_eq!(counted[0].column(0).as_primitive::<Int64Type>().value(0), 2);
    assert_eq!(listed(&mut first).await, ["cygnets VIEW", "swans LOCAL TEMPORARY"]);
    assert_eq!(listed(&mut second).await, Vec::<String>::new());
    // What the session is called nobody is told.
    let options = first.do_action(Action::new("GetSessionOptions", "")).await.expect("an answer");
    let options: Vec<arrow_flight::Result> = options.try_collect().await.expect("options");
    let told = options.iter().map(|option| String::from_utf8_lossy(&option.body).into_owned()).collect::<String>();
    assert!(!told.contains("tidemill.session") && !told.contains("cygnets"), "{told}");
    first.do_action(Action::new("CloseSession", "")).await.expect("an end").message().await.expect("an end");
    until_nothing_is_kept(|| coordinator.kept_blobs()).await;
    let ended = query(&mut first, "SELECT * FROM swans").await.expect_err("an error");
    assert!(ended.contains("there is no table `swans`"), "{ended}");
}

/// Names and kinds of the tables in the session's own schema.
async fn listed(client: &mut SqlClient) -> Vec<String> {
    let command = CommandGetTables {
        catalog: None,
        db_schema_filter_pattern: Some("temporary".to_owned()),
        table_name_filter_pattern: None,
        table_types: Vec::new(),
        include_schema: false,
    };
    let info = client.get_tables(command).await.expect("an answer");
    let ticket = info.endpoint[0].ticket.clone().expect("a ticket");
    let batches: Vec<RecordBatch> = client.do_get(ticket).await.expect("rows").try_collect().await.expect("rows");
    let text =
        |batch: &RecordBatch, column: usize, row: usize| batch.column(column).as_string::<i32>().value(row).to_owned();
    let names = batches.iter().flat_map(|batch| {
        (0..batch.num_rows()).map(move |row| format!("{} {}", text(batch, 2, row), text(batch, 3, row)))
    });
    names.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_along_become_temporary_tables() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let (mut first, mut second) = (sql_client(&cluster.url()).await, sql_client(&cluster.url()).await);
    let column: ArrayRef = Arc::new(Int64Array::from(vec![3, 4]));
    let batch = RecordBatch::try_from_iter([("n", column)]).expect("a batch");
    let ingest = |if_exists: TableExistsOption, schema: Option<&str>| CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Create.into(),
            if_exists: if_exists.into(),
        }),
        table: "coots".to_owned(),
        schema: schema.map(str::to_owned),
        catalog: None,
        temporary: true,
        transaction_id: None,
        options: Default::default(),
    };
    let sent = || futures::stream::iter([Ok(batch.clone())]);
    for (option, sum) in
        [(TableExistsOption::Fail, 7), (TableExistsOption::Append, 14), (TableExistsOption::Replace, 7)]
    {
        first.execute_ingest(ingest(option, None), sent()).await.expect("rows");
        assert_eq!(number(&mut first, "SELECT sum(n) FROM coots").await, sum);
    }
    let refused = first.execute_ingest(ingest(TableExistsOption::Fail, Some("public")), sent()).await;
    assert!(refused.expect_err("an error").to_string().contains("belongs to no schema"));
    let shown = query(&mut first, "SHOW CREATE TABLE coots").await.expect("a definition");
    let shown = shown[0].column(3).as_string::<i32>().value(0).to_owned();
    assert!(shown.ends_with("\nCREATE TEMPORARY TABLE coots (n BIGINT NOT NULL)"), "{shown}");
    assert!(query(&mut second, "SELECT * FROM coots").await.is_err());
    let state = cluster.coordinator.coordinator().state().await.expect("a state");
    assert!(state.catalogue.entries.is_empty() && state.sessions.len() == 1);
}

/// The client has the definitions, the log the rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_with_the_next_coordinator() {
    let folder = tempfile::tempdir().expect("a folder");
    let (state, port) = (state_in(folder.path()), lasting_port());
    let address = format!("127.0.0.1:{port}");
    let args = ["server", "--bind", &address, "--slots", "2", "--state", &state];
    let mut server = Process::start(&args);
    let mut client = Client::connect(&server.url()).await.expect("a client");
    make(&mut client).await;
    server.kill();
    let server = Process::start(&args);
    assert_eq!(value(&mut client, "SELECT n FROM drakes").await, "2");
    let mut other = Client::connect(&server.url()).await.expect("a client");
    assert_eq!(
        value(&mut other, "SELECT count(*) FROM information_schema.tables WHERE table_name = 'ducks'").await,
        "0"
    );
    client.close().await;
}

/// A run knows what it was planned with, whoever leads and has to plan it again: that comes with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_over_temporary_names_is_planned_again_by_the_next_coordinator() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut cluster, mut watcher) = going::cluster(&state_in(folder.path()), &[]).await;
    let mut client = cluster.client().await;
    rows(&mut client, "CREATE TEMPORARY TABLE flags AS SELECT DISTINCT l_returnflag AS flag FROM lineitem").await;
    rows(
        &mut client,
        "CREATE TEMPORARY VIEW items AS SELECT * FROM lineitem WHERE l_returnflag IN (SELECT flag FROM flags)",
    )
    .await;
    let slow = |items: &str| {
        let grouped = format!("SELECT l_returnflag, sum(l_quantity) AS q FROM {items} GROUP BY l_returnflag");
        with_a_slow_end(&grouped, "w.q")
    };
    client.set("datafusion.execution.target_partitions", "8").expect("a setting");
    let result = client.query(&slow("items")).await.expect("a run");
    let going = Going { run: result.run.clone().expect("a run"), reading: tokio::spawn(result.collect()) };
    going.until_stored(&mut watcher).await;
    cluster.kill_coordinator();
    cluster.executors.iter_mut().for_each(Process::kill);
    written_by_another_build(folder.path());
    cluster.restart_coordinator();
    cluster.executors.clear();
    cluster.add_executor(2);
    let run = going.run.clone();
    going.answers(&slow("lineitem")).await;
    let restarts = format!("SELECT restarts FROM system.runs WHERE run_id = '{run}'");
    assert_eq!(value(&mut cluster.client().await, &restarts).await, "1");
    // The session goes on, too.
    assert_eq!(value(&mut client, "SELECT count(*) FROM flags").await, "3");
}
