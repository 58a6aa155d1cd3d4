//! The system tables tell what happened, on any connection, even while no executor is there.

use tidemill::tpch::create_tables;
use tidemill_tests::harness::{LocalCluster, Shape, rows, tpch, value};

#[tokio::test(flavor = "multi_thread")]
async fn runs_stages_and_tasks_tell_what_happened() {
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 1 }).await;
    let mut client = cluster.client().await;
    for create in create_tables(&tpch()) {
        rows(&mut client, &create).await;
    }
    client.set("datafusion.execution.target_partitions", "3").expect("a setting");
    let result = client.query("SELECT l_returnflag, sum(l_quantity) FROM lineitem GROUP BY 1").await.expect("a run");
    let run = result.run.clone().expect("a run");
    result.collect().await.expect("rows");
    let of_run = |column: &str, table: &str| format!("SELECT {column} FROM system.{table} WHERE run_id = '{run}'");
    assert_eq!(value(&mut client, &of_run("state", "runs")).await, "succeeded");
    assert_eq!(value(&mut client, &of_run("rows", "runs")).await, "3");
    assert_eq!(value(&mut client, &of_run("stages", "runs")).await, "2");
    assert_eq!(value(&mut client, &of_run("tasks", "runs")).await, "5");
    assert_eq!(
        value(&mut client, &of_run("submitted_at <= started_at AND started_at <= finished_at", "runs")).await,
        "true"
    );
    assert_eq!(value(&mut client, &of_run("exchanged_bytes > 0 AND remote_bytes > 0", "runs")).await, "true");
    assert_eq!(value(&mut client, &of_run("encoded_bytes", "runs")).await, "0", "nothing was short of memory");
    assert_eq!(value(&mut client, &of_run("count(*)", "stages")).await, "2");
    assert_eq!(value(&mut client, &of_run("sum(tasks_succeeded)", "stages")).await, "5");
    assert_eq!(value(&mut client, &of_run("count(*)", "tasks")).await, "5");
    assert_eq!(value(&mut client, &of_run("count(DISTINCT executor_id)", "tasks")).await, "2");
    assert_eq!(
        value(&mut client, &of_run("bool_and(state = 'succeeded' AND waiting_for IS NULL)", "tasks")).await,
        "true"
    );
    let scanned = format!("SELECT sum(rows_in) FROM system.tasks WHERE run_id = '{run}' AND stage_id = 0");
    let lineitems = value(&mut client, "SELECT count(*) FROM lineitem").await;
    assert_eq!(value(&mut client, &scanned).await, lineitems);
    let failed = client.query("SELECT CAST(n_name AS INT) FROM nation").await.expect("a run");
    let run = failed.run.clone().expect("a run");
    failed.collect().await.expect_err("a name is no number");
    let error = format!("SELECT state || ': ' || error FROM system.runs WHERE run_id = '{run}'");
    let error = value(&mut client, &error).await;
    assert!(error.starts_with("failed: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn encoded_bytes_are_all_that_was_exchanged_where_a_test_wants_it() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    for create in create_tables(&tpch()) {
        rows(&mut client, &create).await;
    }
    let mut encoded = Vec::new();
    for forced in ["false", "true"] {
        client.set("tidemill.test.force_encode", forced).expect("a setting");
        // Of each row there is an incompressible part.
        let result = client.query("SELECT l_orderkey, md5(l_comment) FROM lineitem").await.expect("a run");
        let run = result.run.clone().expect("a run");
        let rows = result.collect().await.expect("rows").iter().map(|b| b.num_rows() as u64).sum::<u64>();
        let bytes = format!("SELECT encoded_bytes FROM system.runs WHERE run_id = '{run}'");
        encoded.push((rows, value(&mut client, &bytes).await.parse::<u64>().expect("a number")));
    }
    let [(_, none), (rows, all)] = encoded[..] else { panic!("{encoded:?}") };
    assert_eq!(none, 0, "nothing was short of memory");
    // Half of the bits of a hash in hexadecimal are its own.
    assert!((rows * 16..rows * 80).contains(&all), "{all} bytes of {rows} rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_about_the_cluster_need_no_executor() {
    let cluster = LocalCluster::start(Shape { executors: 0, slots: 1 }).await;
    let mut client = cluster.client().await;
    rows(&mut client, &create_tables(&tpch())[0]).await;
    assert_eq!(value(&mut client, "SELECT count(*) FROM system.executors").await, "0");
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
    assert_eq!(value(&mut client, tables).await, "1");
    rows(&mut client, "SHOW TABLES").await;
    rows(&mut client, "SHOW ALL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_and_show_answer() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    for create in create_tables(&tpch()) {
        rows(&mut client, &create).await;
    }
    let described: usize = rows(&mut client, "DESCRIBE nation").await.iter().map(|b| b.num_rows()).sum();
    assert_eq!(described, 4);
    let columns: usize = rows(&mut client, "SHOW COLUMNS FROM nation").await.iter().map(|b| b.num_rows()).sum();
    assert_eq!(columns, 4);
    let plan = rows(&mut client, "EXPLAIN SELECT count(*) FROM nation, region").await;
    let text = arrow::util::pretty::pretty_format_batches(&plan).expect("text").to_string();
    assert!(text.contains("stage 0"), "{text}");
}
