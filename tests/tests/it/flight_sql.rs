//! Other clients than our own, over Arrow Flight SQL: arrow-flight's, and Python's ADBC driver.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo, SqlInfo,
};
use arrow_flight::{Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo};
use futures::TryStreamExt;
use prost::Message;
use tidemill::client::{Client, new_run};
use tidemill_tests::harness::{Process, ProcessCluster, adbc, is_full, rows, value};
use tonic::Code;
use tonic::transport::Channel;

type SqlClient = FlightSqlServiceClient<Channel>;

/// How long a check of Python's may take, also where other builds run.
const PYTHON: Duration = Duration::from_secs(600);
/// What happens at once, where nothing else runs.
const PROMPT: Duration = Duration::from_secs(120);
/// More than a result waits for its client.
const GIVEN_UP: Duration = Duration::from_secs(240);
/// Clients that ask at once.
const CROWD: usize = 16;
/// Runs for hours, and nothing of it is spilled.
const LONG: &str = "SELECT count(*) FROM generate_series(1, 200000) AS a(x), generate_series(1, 200000) AS b(y) \
                    WHERE md5(concat(x, '-', y)) = 'never'";

fn server() -> Process {
    Process::start(&["server", "--bind", "127.0.0.1:0", "--slots", "2", "--memory", "256MiB"])
}

async fn client(url: &str) -> SqlClient {
    let endpoint = Channel::from_shared(url.to_owned()).expect("a URL");
    SqlClient::new(endpoint.connect().await.expect("a connection"))
}

async fn fetch(client: &mut SqlClient, info: &FlightInfo) -> Result<Vec<RecordBatch>, FlightError> {
    let ticket = info.endpoint[0].ticket.clone().expect("a ticket");
    client.do_get(ticket).await?.try_collect().await
}

async fn query(client: &mut SqlClient, sql: &str) -> Result<Vec<RecordBatch>, FlightError> {
    let info = client.execute(sql.to_owned(), None).await?;
    let batches = fetch(client, &info).await?;
    let schema = info.try_decode_schema().expect("columns");
    assert!(batches.iter().all(|batch| *batch.schema() == schema), "{sql}: the columns are others than was said");
    Ok(batches)
}

fn number(batches: &[RecordBatch]) -> i64 {
    let batch = batches.iter().find(|batch| batch.num_rows() == 1).expect("one row");
    batch.column(0).as_primitive::<Int64Type>().value(0)
}

fn strings(batches: &[RecordBatch], column: usize) -> Vec<String> {
    let texts = batches.iter().flat_map(|batch| batch.column(column).as_string::<i32>().iter());
    texts.map(|text| text.unwrap_or_default().to_owned()).collect()
}

fn code(error: &FlightError) -> Code {
    match error {
        FlightError::Tonic(status) => status.code(),
        other => panic!("{other}"),
    }
}

fn said(error: &FlightError) -> &str {
    match error {
        FlightError::Tonic(status) => status.message(),
        other => panic!("{other}"),
    }
}

async fn until(what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < limit, "{what} did not happen within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How many runs of [`LONG`] are in some state.
async fn long_runs(watcher: &mut Client, state: &str) -> String {
    let count = "SELECT count(*) FROM system.runs WHERE statement LIKE '%generate_series(1, 200000)%' AND state";
    value(watcher, &format!("{count} = '{state}' AND statement NOT LIKE '%system.runs%'")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_answered_and_wrong_ones_refused() {
    let server = server();
    let mut client = client(&server.url()).await;
    assert_eq!(number(&query(&mut client, "SELECT 40 + 2 AS x;").await.expect("an answer")), 42);
    let wrong = query(&mut client, "SELECT * FROM nowhere").await.expect_err("an error");
    assert_eq!(code(&wrong), Code::NotFound, "{wrong}");
    assert!(said(&wrong).contains("there is no table `nowhere`"), "{wrong}");
    let wrong = query(&mut client, "SELEKT 1").await.expect_err("an error");
    assert_eq!(code(&wrong), Code::InvalidArgument, "{wrong}");
    // Others take details of ours for Google's, whose code must be the same.
    let FlightError::Tonic(status) = &wrong else { panic!("{wrong}") };
    assert!(status.details().is_empty(), "{status:?}");
    let many = query(&mut client, "SELECT 1; SELECT 2").await.expect_err("an error");
    assert!(said(&many).contains("one statement"), "{many}");
    // Our own client is served beside.
    let mut own = Client::connect(&server.url()).await.expect("a client");
    assert_eq!(value(&mut own, "SELECT 43").await, "43");
    // And asks how far its runs have come.
    let run = new_run();
    own.execute_as(run.clone(), "SELECT 44").await.expect("an answer");
    let observer = own.observer();
    until("an answer", PROMPT, async || observer.progress(&run).await.is_ok_and(|progress| progress.is_some())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_have_happened_when_they_are_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let mut client = client(&server.url()).await;
    let mut update = async |sql: String| client.execute_update(sql, None).await;
    let view = "CREATE VIEW five AS SELECT x FROM generate_series(1, 5) AS t(x)";
    assert_eq!(update(view.to_owned()).await.ok(), Some(0));
    let file = folder.path().join("five.parquet");
    assert_eq!(update(format!("COPY (SELECT * FROM five) TO '{}'", file.display())).await.ok(), Some(5));
    assert!(file.exists());
    assert_eq!(update("CREATE TABLE few AS SELECT * FROM five WHERE x < 3".to_owned()).await.ok(), Some(0));
    let twice = update("CREATE TABLE few AS SELECT 1 AS x".to_owned()).await.expect_err("an error");
    assert_eq!(code(&twice), Code::AlreadyExists, "{twice}");
    let mut own = Client::connect(&server.url()).await.expect("a client");
    assert_eq!(value(&mut own, "SELECT count(*) FROM few").await, "2");
    // A statement that changes something may be executed as a query, and nobody need fetch what it answers.
    client.execute("DROP TABLE few".to_owned(), None).await.expect("an answer");
    assert!(own.query("SELECT * FROM few").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_run_with_the_values_that_are_bound() {
    let server = server();
    let mut client = client(&server.url()).await;
    let sql = "SELECT a, b FROM (VALUES (1, 'x'), (2, 'y'), (3, 'y')) AS t(a, b) WHERE a > ? AND b = ?";
    let mut prepared = client.prepare(sql.to_owned(), None).await.expect("a prepared statement");
    let types = |schema: &Schema| schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
    assert_eq!(types(prepared.parameter_schema().expect("a schema")), [DataType::Int64, DataType::Utf8]);
    assert_eq!(types(prepared.dataset_schema().expect("a schema")), [DataType::Int64, DataType::Utf8]);
    let unbound = prepared.execute().await.expect_err("an error");
    assert!(said(&unbound).contains("no value is bound to $1"), "{unbound}");
    for (least, letter, expected) in [(0, "y", vec![2, 3]), (2, "y", vec![3]), (0, "x' OR 'x", vec![])] {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("least", Arc::new(Int64Array::from(vec![least]))),
            ("letter", Arc::new(StringArray::from(vec![letter]))),
        ];
        prepared.set_parameters(RecordBatch::try_from_iter(columns).expect("a batch")).expect("parameters");
        let info = prepared.execute().await.expect("an answer");
        let batches = fetch(&mut client, &info).await.expect("rows");
        let mut found: Vec<i64> =
            batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{least} {letter}");
    }
    prepared.close().await.expect("an end");
    for sql in ["CREATE VIEW v AS SELECT 1 AS x", "ALTER JOB IF EXISTS none SUSPEND"] {
        let mut change = client.prepare(sql.to_owned(), None).await.expect("a statement");
        assert_eq!(change.dataset_schema().expect("a schema").fields().len(), 0);
        assert_eq!(change.execute_update().await.ok(), Some(0), "{sql}");
    }
    assert_eq!(number(&query(&mut client, "SELECT x FROM v").await.expect("rows")), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_can_be_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let mut client = client(&server.url()).await;
    let file = folder.path().join("t.parquet");
    for sql in [
        format!("COPY (SELECT 1 AS id, 'n' AS name) TO '{}'", file.display()),
        format!("CREATE EXTERNAL TABLE files STORED AS PARQUET LOCATION '{}'", file.display()),
        "CREATE TABLE kept AS SELECT 1.5 AS price".to_owned(),
        "CREATE VIEW shown AS SELECT id FROM files".to_owned(),
    ] {
        client.execute_update(sql, None).await.expect("an update");
    }
    let catalogs = client.get_catalogs().await.expect("an answer");
    assert_eq!(strings(&fetch(&mut client, &catalogs).await.expect("rows"), 0), ["tidemill"]);
    let pattern = CommandGetDbSchemas { catalog: None, db_schema_filter_pattern: Some("p%".to_owned()) };
    let schemas = client.get_db_schemas(pattern).await.expect("an answer");
    assert_eq!(strings(&fetch(&mut client, &schemas).await.expect("rows"), 1), ["public"]);
    // A table that cannot be read is listed all the same.
    std::fs::remove_file(&file).expect("a file");
    let command = |types: &[&str]| CommandGetTables {
        db_schema_filter_pattern: Some("public".to_owned()),
        table_types: types.iter().map(|t| (*t).to_owned()).collect(),
        include_schema: true,
        ..CommandGetTables::default()
    };
    let tables = client.get_tables(command(&[])).await.expect("an answer");
    let tables = fetch(&mut client, &tables).await.expect("rows");
    assert_eq!(strings(&tables, 2), ["files", "kept", "shown"]);
    let views = client.get_tables(command(&["VIEW"])).await.expect("an answer");
    assert_eq!(strings(&fetch(&mut client, &views).await.expect("rows"), 2), ["shown"]);
    let types = client.get_table_types().await.expect("an answer");
    assert_eq!(strings(&fetch(&mut client, &types).await.expect("rows"), 0), ["LOCAL TEMPORARY", "TABLE", "VIEW"]);
    let info = client.get_sql_info(vec![SqlInfo::FlightSqlServerName, SqlInfo::FlightSqlServerTransaction]).await;
    let info = fetch(&mut client, &info.expect("an answer")).await.expect("rows");
    assert_eq!(info.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    let types = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: Some(-5) }).await.expect("an answer");
    assert_eq!(strings(&fetch(&mut client, &types).await.expect("rows"), 0), ["BIGINT"]);
    for keys in [
        client.get_primary_keys(CommandGetPrimaryKeys::default()).await,
        client.get_exported_keys(CommandGetExportedKeys::default()).await,
        client.get_imported_keys(CommandGetImportedKeys::default()).await,
        client.get_cross_reference(CommandGetCrossReference::default()).await,
    ] {
        let keys = fetch(&mut client, &keys.expect("an answer")).await.expect("rows");
        assert_eq!(keys.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    }
    let refused = client.begin_transaction().await.expect_err("an error");
    assert!(said(&refused).contains("no transactions"), "{refused}");
}

async fn cancel(client: &mut SqlClient, info: &FlightInfo) -> CancelStatus {
    let request = CancelFlightInfoRequest::new(info.clone()).encode_to_vec();
    let mut results = client.do_action(Action::new("CancelFlightInfo", request)).await.expect("an answer");
    let result = results.message().await.expect("a result").expect("a result");
    CancelFlightInfoResult::decode(result.body).expect("a result").status()
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_cancelled_by_action_and_by_hanging_up() {
    let server = server();
    let mut client = client(&server.url()).await;
    let mut watcher = Client::connect(&server.url()).await.expect("a client");
    let waits = client.execute(LONG.to_owned(), None).await.expect("an answer");
    until("a run", PROMPT, async || long_runs(&mut watcher, "running").await == "1").await;
    assert_eq!(cancel(&mut client, &waits).await, CancelStatus::Cancelled);
    assert_eq!(long_runs(&mut watcher, "cancelled").await, "1");
    let gone = fetch(&mut client, &waits).await.expect_err("an error");
    assert_eq!(code(&gone), Code::Cancelled, "{gone}");
    // One that is being fetched.
    let fetched = client.execute(LONG.to_owned(), None).await.expect("an answer");
    let mut fetching = client.clone();
    let rows = tokio::spawn({
        let info = fetched.clone();
        async move { fetch(&mut fetching, &info).await }
    });
    until("a run", PROMPT, async || long_runs(&mut watcher, "running").await == "1").await;
    assert_eq!(cancel(&mut client, &fetched).await, CancelStatus::Cancelled);
    let ended = tokio::time::timeout(PROMPT, rows).await.expect("an end").expect("no panic");
    assert_eq!(code(&ended.expect_err("an error")), Code::Cancelled);
    // One whose client goes away.
    let left = client.execute(LONG.to_owned(), None).await.expect("an answer");
    let mut leaving = client.clone();
    let rows = tokio::spawn(async move { fetch(&mut leaving, &left).await });
    until("a run", PROMPT, async || long_runs(&mut watcher, "running").await == "1").await;
    rows.abort();
    until("an end", PROMPT, async || long_runs(&mut watcher, "cancelled").await == "3").await;
    // What has ended cannot be cancelled.
    let done = client.execute("SELECT 1".to_owned(), None).await.expect("an answer");
    fetch(&mut client, &done).await.expect("rows");
    until("an end", PROMPT, async || cancel(&mut client, &done).await == CancelStatus::NotCancellable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_nobody_fetches_is_given_up_and_its_run_cancelled() {
    let server = server();
    let mut client = client(&server.url()).await;
    let mut watcher = Client::connect(&server.url()).await.expect("a client");
    let info = client.execute(LONG.to_owned(), None).await.expect("an answer");
    until("a run", PROMPT, async || long_runs(&mut watcher, "running").await == "1").await;
    until("an end", GIVEN_UP, async || long_runs(&mut watcher, "cancelled").await == "1").await;
    let late = fetch(&mut client, &info).await.expect_err("an error");
    assert_eq!(code(&late), Code::Cancelled, "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_wait_are_bounded() {
    let server = server();
    let client = client(&server.url()).await;
    // Many at once: more than are kept, before the first of them is given up.
    let crowd = (0..CROWD).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move {
            for _ in 0..2 * 256 / CROWD {
                client.execute("SELECT 1".to_owned(), None).await?;
            }
            Ok::<(), FlightError>(())
        })
    });
    let ended = futures::future::join_all(crowd).await;
    let refused = ended.into_iter().find_map(|ended| ended.expect("no panic").err());
    let refused = refused.expect("an end of what is kept");
    assert_eq!(code(&refused), Code::ResourceExhausted, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_good_with_the_next_coordinator() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = ProcessCluster::durable(1, 2, &format!("file://{}", folder.path().display())).await;
    let mut client = client(&cluster.coordinator.url()).await;
    let mut prepared =
        client.prepare("SELECT sum(x) + ? AS s FROM generate_series(1, 1000) AS t(x)".to_owned(), None).await;
    let prepared = prepared.as_mut().expect("a prepared statement");
    let columns: Vec<(&str, ArrayRef)> = vec![("a", Arc::new(Int64Array::from(vec![7])))];
    prepared.set_parameters(RecordBatch::try_from_iter(columns).expect("a batch")).expect("parameters");
    let info = prepared.execute().await.expect("an answer");
    let made = client.execute("CREATE TABLE once AS SELECT 1 AS x".to_owned(), None).await.expect("an answer");
    cluster.restart_coordinator();
    cluster.wait_for_executors(1).await;
    let mut client = self::client(&cluster.coordinator.url()).await;
    assert_eq!(number(&fetch(&mut client, &info).await.expect("rows")), 500_507);
    // A change never happens again: its answer is kept, or is not.
    client.execute_update("DROP TABLE once".to_owned(), None).await.expect("an update");
    let _ = fetch(&mut client, &made).await;
    assert!(query(&mut client, "SELECT * FROM once").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_belong_to_a_session() {
    let server = server();
    let setting = "SELECT CAST(value AS BIGINT) FROM information_schema.df_settings \
                   WHERE name = 'datafusion.execution.batch_size'";
    let mut first = client(&server.url()).await;
    let mut second = client(&server.url()).await;
    first.execute_update("SET datafusion.execution.batch_size = 77".to_owned(), None).await.expect("an update");
    assert_eq!(number(&query(&mut first, setting).await.expect("rows")), 77);
    assert_eq!(number(&query(&mut second, setting).await.expect("rows")), 8192);
    // By the token of a handshake, over another connection.
    let mut third = client(&server.url()).await;
    third.handshake("anybody", "anything").await.expect("a token");
    third.execute_update("SET datafusion.execution.batch_size = 78".to_owned(), None).await.expect("an update");
    let mut fourth = client(&server.url()).await;
    fourth.set_token(third.token().expect("a token").clone());
    assert_eq!(number(&query(&mut fourth, setting).await.expect("rows")), 78);
    // A session that is not known is named once.
    let mut lost = client(&server.url()).await;
    lost.set_header("cookie", "arrow_flight_session_id=01JD5Y7YV0T2X3Z4A5B6C7D8E9");
    let gone = query(&mut lost, setting).await.expect_err("an error");
    assert!(said(&gone).contains("settings are gone"), "{gone}");
    assert_eq!(number(&query(&mut lost, setting).await.expect("rows")), 8192);
}

#[tokio::test(flavor = "multi_thread")]
async fn adbc_speaks_to_a_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().display().to_string();
    for check in [
        vec!["queries"],
        vec!["errors"],
        vec!["changes", &folder],
        vec!["parameters"],
        vec!["ingest"],
        vec!["metadata"],
        vec!["sessions"],
        vec!["partitions"],
        vec!["cancel"],
    ] {
        let server = server();
        adbc::check(&server.url(), &check, PYTHON);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ingested_tables_survive_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = format!("file://{}", folder.path().display());
    let arguments = ["server", "--bind", "127.0.0.1:0", "--slots", "1", "--state", &state];
    let mut server = Process::start(&arguments);
    adbc::check(&server.url(), &["ingest"], PYTHON);
    server.kill();
    let server = Process::start(&arguments);
    let mut own = Client::connect(&server.url()).await.expect("a client");
    assert_eq!(value(&mut own, "SELECT count(*) FROM ingested").await, "1");
    assert_eq!(value(&mut own, "SELECT count(*) FROM \"A \"\"table\"\"\"").await, "20");
}

/// What a coordinator may take more for ten times as many rows: its allocator rounds up.
const GROWTH: u64 = 16 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_stream_through_a_coordinator_whose_memory_stays_flat() {
    // Of 24 bytes each: many times what a coordinator may take for them.
    let many = if is_full() { 10_000_000 } else { 3_000_000 };
    let cluster = ProcessCluster::start(1, 2).await;
    let [tenth, all] = [many / 10, many].map(|rows| {
        adbc::check(&cluster.coordinator.url(), &["stream", &rows.to_string()], 4 * PYTHON);
        cluster.coordinator.peak_memory()
    });
    let mib = |bytes: u64| bytes >> 20;
    println!("{} MiB at the most with {} rows, {} MiB with {many}", mib(tenth), many / 10, mib(all));
    assert!(all - tenth < GROWTH, "{many} rows took {} MiB, a tenth of them {} MiB", mib(all), mib(tenth));
    let mut own = cluster.client().await;
    assert!(!rows(&mut own, "SELECT 1").await.is_empty());
}
