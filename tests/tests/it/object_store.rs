//! Tables on a real S3 server, and results written to it.

use object_store::{ObjectStoreExt, PutPayload};
use tidemill::client::Client;
use tidemill_tests::harness::s3::{S3Server, SECRET_KEY};
use tidemill_tests::harness::{Process, rows, tpch, value};

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_results_live_on_s3() {
    let server = tokio::task::spawn_blocking(S3Server::start).await.expect("a server");
    server.create_bucket("pond");
    let store = server.store("pond");
    for part in ["part-000.parquet", "part-001.parquet"] {
        let bytes = std::fs::read(tpch().join("orders").join(part)).expect("a file");
        let path = format!("orders/{part}").into();
        store.put(&path, PutPayload::from(bytes)).await.expect("an upload");
    }
    let environment = server.environment();
    let coordinator = Process::start_with(&["coordinator", "--bind", "127.0.0.1:0"], &environment);
    let url = coordinator.url();
    let executor = ["executor", "--connect", &url, "--slots", "1", "--memory", "256MiB"];
    let _executors = [Process::start_with(&executor, &environment), Process::start_with(&executor, &environment)];
    let mut client = Client::connect(&url).await.expect("a client");
    rows(&mut client, "CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION 's3://pond/orders/'").await;
    assert_eq!(value(&mut client, "SELECT count(DISTINCT o_orderkey) FROM orders").await, "15000");
    let copy = "COPY (SELECT o_custkey, count(*) AS n FROM orders GROUP BY 1) TO 's3://pond/out/' STORED AS PARQUET";
    let customers = value(&mut client, "SELECT count(DISTINCT o_custkey) FROM orders").await;
    assert_eq!(value(&mut client, copy).await, customers);
    assert!(store.head(&"out/_SUCCESS".into()).await.is_ok(), "_SUCCESS is missing");
    rows(&mut client, "CREATE EXTERNAL TABLE back STORED AS PARQUET LOCATION 's3://pond/out/'").await;
    assert_eq!(value(&mut client, "SELECT sum(n) FROM back").await, "15000");
    let missing = client.execute("CREATE EXTERNAL TABLE m STORED AS PARQUET LOCATION 's3://no-such-bucket/x/'").await;
    let error = missing.err().expect("there is no such bucket");
    assert!(error.message.contains("no-such-bucket"), "{error}");
    let shown = rows(&mut client, "SELECT * FROM system.runs").await;
    let text = arrow::util::pretty::pretty_format_batches(&shown).expect("text").to_string();
    assert!(!text.contains(SECRET_KEY), "a secret is in system.runs");
}
