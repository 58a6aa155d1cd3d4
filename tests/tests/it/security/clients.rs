//! Clients: who they are, and what they may do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array};
use arrow::record_batch::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption};
use arrow_flight::{Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo, Ticket};
use datafusion::prelude::ParquetReadOptions;
use futures::TryStreamExt;
use prost::Message;
use tidemill::client::{Client, new_run};
use tidemill_core::ErrorKind;
use tidemill_engine::wire::{BUILD, StatementTicket};
use tidemill_tests::harness::value;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::secured::{PASSWORD, Secured};

/// Runs for hours, and nothing of it is spilled.
const LONG: &str = "SELECT count(*) FROM generate_series(1, 200000) AS a(x), generate_series(1, 200000) AS b(y) \
                    WHERE md5(concat(x, '-', y)) = 'never'";

async fn run(client: &Client, sql: &str) -> Result<Vec<RecordBatch>, tidemill::Error> {
    client.query(sql).await?.collect().await
}

fn code(error: &FlightError) -> Code {
    match error {
        FlightError::Tonic(status) => status.code(),
        other => panic!("{other}"),
    }
}

async fn query(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> Result<Vec<RecordBatch>, FlightError> {
    let info = client.execute(sql.to_owned(), None).await?;
    let ticket = info.endpoint[0].ticket.clone().expect("a ticket");
    client.do_get(ticket).await?.try_collect().await
}

fn rows() -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    RecordBatch::try_from_iter([("x", column)]).expect("a batch")
}

async fn ingest(client: &mut FlightSqlServiceClient<Channel>, table: &str) -> Result<i64, FlightError> {
    let options = TableDefinitionOptions {
        if_not_exist: TableNotExistOption::Create.into(),
        if_exists: TableExistsOption::Fail.into(),
    };
    let command = CommandStatementIngest {
        table_definition_options: Some(options),
        table: table.to_owned(),
        schema: None,
        catalog: None,
        temporary: false,
        transaction_id: None,
        options: Default::default(),
    };
    let stream = futures::stream::iter([Ok(rows())]);
    client.execute_ingest(command, stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_say_who_may_read_and_who_may_write() {
    let cluster = Secured::start(1).await;
    let (ann, mut bob) = (cluster.client("ann").await, cluster.client("bob").await);
    let file = format!("{}/t.parquet", cluster.path("data"));
    let changes = |name: &str| {
        [
            format!("COPY (SELECT 1 AS x) TO '{}/{name}.csv'", cluster.path("data")),
            format!("CREATE TABLE {name}_kept AS SELECT 1 AS x"),
            format!("CREATE VIEW {name}_view AS SELECT 1 AS x"),
            format!("CREATE EXTERNAL TABLE {name}_files STORED AS PARQUET LOCATION '{file}'"),
            format!("CREATE SCHEMA {name}_schema"),
            format!("DROP VIEW IF EXISTS {name}_view"),
            format!("DROP TABLE IF EXISTS {name}_kept"),
        ]
    };
    run(&ann, &format!("COPY (SELECT 40 + 2 AS x) TO '{file}'")).await.expect("a file");
    for sql in changes("ann") {
        run(&ann, &sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    for sql in changes("bob") {
        let refused = run(&bob, &sql).await.expect_err(&sql);
        assert_eq!(refused.kind, ErrorKind::Denied, "{sql}: {refused}");
        assert!(refused.message.contains("needs the role write") && refused.message.contains("`bob`"), "{refused}");
    }
    run(&ann, "CREATE VIEW answers AS SELECT 42 AS x").await.expect("a view");
    assert_eq!(value(&mut bob, "SELECT x FROM answers").await, "42");
    assert_eq!(value(&mut bob, "SELECT x FROM ann_files").await, "42");
    for asks in ["EXPLAIN SELECT x FROM ann_files", "SHOW TABLES", "SELECT * FROM system.runs", "DESCRIBE ann_files"] {
        run(&bob, asks).await.unwrap_or_else(|e| panic!("{asks}: {e}"));
    }
    run(&bob, &format!("EXPLAIN {}", changes("bob")[0])).await.expect("what is explained is not done");
    // The same through Flight SQL: statements, prepared ones, and rows that come along.
    let (mut ann, mut bob) = (cluster.flight_sql_of("ann").await, cluster.flight_sql_of("bob").await);
    let create = "CREATE TABLE flown AS SELECT 1 AS x";
    let refused = bob.execute_update(create.to_owned(), None).await.expect_err("a refusal");
    assert_eq!(code(&refused), Code::PermissionDenied);
    let mut prepared = bob.prepare(create.to_owned(), None).await.expect("a statement");
    assert_eq!(code(&prepared.execute_update().await.expect_err("a refusal")), Code::PermissionDenied);
    assert_eq!(code(&ingest(&mut bob, "ingested").await.expect_err("a refusal")), Code::PermissionDenied);
    assert_eq!(ingest(&mut ann, "ingested").await.ok(), Some(3));
    assert_eq!(query(&mut bob, "SELECT sum(x) FROM ingested").await.expect("rows").len(), 1);
    // And with plans of their own.
    for (user, may) in [("ann", true), ("bob", false)] {
        let session = tidemill::connect(cluster.url()).tls_ca(&cluster.authority.pem).token(cluster.token(user));
        let session = session.start().await.expect("a session");
        let frame = session.read_parquet(&file, ParquetReadOptions::default()).await.expect("a frame");
        assert_eq!(frame.clone().count().await.ok(), Some(1), "{user}");
        let to = format!("{}/of-{user}/", cluster.path("data"));
        let written = frame.write_parquet(&to, Default::default(), None).await;
        assert_eq!(written.is_ok(), may, "{user}: {written:?}");
        assert_eq!(std::path::Path::new(&to).exists(), may, "{user}");
    }
}

/// Definitions of temporary tables come with statements, from whoever writes these.
#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_came_along_needs_the_role_that_would_have_made_it() {
    let cluster = Secured::start(1).await;
    let ann = cluster.client("ann").await;
    let file = format!("{}/t.parquet", cluster.path("data"));
    run(&ann, &format!("COPY (SELECT 40 + 2 AS x) TO '{file}'")).await.expect("a file");
    let definition = format!("CREATE TEMPORARY EXTERNAL TABLE forged STORED AS PARQUET LOCATION '{file}'");
    let forged = serde_json::json!({ "kind": "external_table", "definition": definition }).to_string();
    let settings = [("tidemill.temporary.forged", forged), ("tidemill.session", "forged".repeat(8))];
    let settings = settings.map(|(key, value)| (key.to_owned(), value)).into();
    let (sql, build) = ("SELECT x FROM forged".to_owned(), BUILD.to_owned());
    let mut ticket = StatementTicket { sql, settings, build, ..Default::default() };
    for (user, may) in [("ann", true), ("bob", false)] {
        let mut client = cluster.flight_sql_of(user).await;
        ticket.run = new_run().0;
        let rows = match client.do_get(Ticket::new(ticket.encode_to_vec())).await {
            Ok(rows) => rows.try_collect::<Vec<_>>().await,
            Err(error) => Err(error),
        };
        match rows {
            Ok(rows) => assert!(may && rows.iter().map(RecordBatch::num_rows).sum::<usize>() == 1, "{user}: {rows:?}"),
            Err(error) => {
                assert!(!may && code(&error) == Code::PermissionDenied, "{user}: {error}");
                assert!(error.to_string().contains("needs the role write"), "{error}");
            }
        }
    }
}

async fn cancel(client: &mut FlightSqlServiceClient<Channel>, info: &FlightInfo) -> Result<CancelStatus, Status> {
    let request = CancelFlightInfoRequest::new(info.clone()).encode_to_vec();
    let cancelled = client.do_action(Action::new("CancelFlightInfo", request)).await;
    let mut results = cancelled.map_err(|e| match e {
        FlightError::Tonic(status) => *status,
        other => panic!("{other}"),
    })?;
    let result = results.message().await?.expect("a result");
    Ok(CancelFlightInfoResult::decode(result.body).expect("a result").status())
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_and_their_results_are_of_who_submitted_them() {
    let cluster = Secured::start(1).await;
    let (mut ann, mut bob) = (cluster.flight_sql_of("ann").await, cluster.flight_sql_of("bob").await);
    let mut root = cluster.flight_sql_of("root").await;
    for who_may in ["ann", "root"] {
        let info = ann.execute(LONG.to_owned(), None).await.expect("a run");
        assert_eq!(cancel(&mut bob, &info).await.expect_err("a refusal").code(), Code::PermissionDenied);
        let ticket = info.endpoint[0].ticket.clone().expect("a ticket");
        let taken = match bob.do_get(ticket).await {
            Ok(rows) => rows.try_collect::<Vec<_>>().await,
            Err(error) => Err(error),
        };
        assert_eq!(code(&taken.expect_err("a refusal")), Code::PermissionDenied);
        let who = if who_may == "ann" { &mut ann } else { &mut root };
        assert_eq!(cancel(who, &info).await.expect("an answer"), CancelStatus::Cancelled, "{who_may}");
    }
    // Results that are kept, by the name of their run.
    let (mut ann, bob, root) = (cluster.client("ann").await, cluster.client("bob").await, cluster.client("root").await);
    let named = new_run();
    ann.execute_as(named.clone(), "SELECT 40 + 2 AS x").await.expect("a run").collect().await.expect("rows");
    let fetched = async |client: &Client| match client.fetch(&named).await {
        Ok(result) => result.collect().await.map(|batches| batches.iter().map(RecordBatch::num_rows).sum::<usize>()),
        Err(error) => Err(error),
    };
    let start = Instant::now();
    while fetched(&ann).await != Ok(1) {
        assert!(start.elapsed() < Duration::from_secs(60), "the result is not kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fetched(&root).await, Ok(1));
    assert!(fetched(&bob).await.is_err_and(|e| e.kind == ErrorKind::Denied));
    // Submitting it again does not tell its rows, either.
    let mut bob = bob;
    let again = bob.execute_as(named.clone(), "SELECT 1").await;
    assert!(again.err().is_some_and(|e| e.kind == ErrorKind::Denied));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_nothing_or_what_is_wrong_is_not_let_in_and_guessing_ends() {
    let cluster = Secured::start(1).await;
    let ask = async |token: Option<&str>| match Client::connect_with(&cluster.url(), &cluster.access(token)).await {
        Ok(client) => run(&client, "SELECT 1").await,
        Err(error) => Err(error),
    };
    let refused = ask(None).await.expect_err("a refusal");
    assert_eq!(refused.kind, ErrorKind::Denied);
    assert!(refused.message.contains("asks who you are") && refused.message.contains("--token-file"), "{refused}");
    let guess = "tmu_a-guess-that-is-wrong";
    let refused = ask(Some(guess)).await.expect_err("a refusal");
    assert_eq!(refused.kind, ErrorKind::Denied);
    assert!(!refused.message.contains(guess), "{refused}");
    // With a password, through the handshake of Flight.
    let mut carl = cluster.flight_sql().await;
    let pass = carl.handshake("carl", PASSWORD).await.expect("a pass");
    assert!(!pass.is_empty());
    assert_eq!(query(&mut carl, "SELECT 42 AS x").await.expect("rows").len(), 1);
    let wrong = cluster.flight_sql().await.handshake("carl", "wrong horse battery").await;
    // The client has the status in its words only.
    assert!(wrong.is_err_and(|e| e.to_string().contains("are not right")));
    // Whoever goes on guessing is not listened to; who has a token or a pass is.
    let mut ended = false;
    for _ in 0..30 {
        let refused = ask(Some(guess)).await.expect_err("a refusal");
        ended |= refused.message.contains("too many attempts failed");
    }
    assert!(ended, "guessing never ends");
    let limited = cluster.flight_sql().await.handshake("carl", PASSWORD).await;
    assert!(limited.is_ok(), "what is remembered is not guessed");
    let limited = cluster.flight_sql().await.handshake("carl", "another wrong one").await;
    assert!(limited.is_err_and(|e| e.to_string().contains("too many attempts failed")));
    assert!(ask(Some(cluster.token("ann"))).await.is_ok());
    assert_eq!(query(&mut carl, "SELECT 42 AS x").await.expect("rows").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_taken_out_of_the_file_is_out_and_a_pass_outlives_the_coordinator() {
    let mut cluster = Secured::start(1).await;
    let mut carl = cluster.flight_sql().await;
    carl.handshake("carl", PASSWORD).await.expect("a pass");
    let pass = carl.token().expect("a pass").clone();
    cluster.restart_coordinator();
    cluster.wait_for_executors(1).await;
    let mut carl = cluster.flight_sql().await;
    carl.set_token(pass);
    assert_eq!(query(&mut carl, "SELECT 42 AS x").await.expect("rows").len(), 1);
    let ann = cluster.client("ann").await;
    run(&ann, "SELECT 1").await.expect("rows");
    // Only root is left.
    let users = std::fs::read_to_string(cluster.path("users.toml")).expect("a file");
    let root = users.find("[\"root\"]").expect("root");
    let rest = users[root..].split("\n\n").next().expect("root");
    std::fs::write(cluster.path("users.toml"), rest).expect("a file");
    let start = Instant::now();
    while run(&ann, "SELECT 1").await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(30), "ann is still let in");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(run(&ann, "SELECT 1").await.is_err_and(|e| e.kind == ErrorKind::Denied));
    assert_eq!(code(&query(&mut carl, "SELECT 42 AS x").await.expect_err("a refusal")), Code::Unauthenticated);
    run(&cluster.client("root").await, "SELECT 1").await.expect("root stays");
}
