//! The same DataFrame code with a plain `SessionContext` and with sessions of the engine.

use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::JoinType;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::{avg, count, max, sum};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::ExprFunctionExt;
use datafusion::prelude::{
    CsvReadOptions, JsonReadOptions, ParquetReadOptions, SessionConfig, SessionContext, col, lit,
};
use futures::StreamExt;
use tidemill::oracle::{Answer, compare};
use tidemill_tests::harness::{LocalCluster, ProcessCluster, Shape, create_small_tables, tpch};

use super::{embedded, none, session_of};

/// A table of rows that only the process has.
fn batch(from: i64, to: i64) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Utf8, false)]);
    let keys: Int64Array = (from..to).map(|k| (k % 5 != 0).then_some(k % 7)).collect();
    let values: StringArray = (from..to).map(|k| Some(format!("v{k}"))).collect();
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(keys), Arc::new(values)]).expect("a batch")
}

/// What is asked of each context: a name, and the rows, in order where there is one.
async fn asked(context: &SessionContext, folder: &std::path::Path) -> Result<Vec<(&'static str, DataFrame)>> {
    let path = |name: &str| folder.join(name).display().to_string();
    let parquet = ParquetReadOptions::default;
    let lineitem = context.read_parquet(tpch().join("lineitem").display().to_string(), parquet()).await?;
    let orders = context.read_parquet(tpch().join("orders").display().to_string(), parquet()).await?;
    let many = context.read_parquet(path("many"), parquet()).await?;
    let pattern = context.read_parquet(path("many/part-[01]*.parquet"), parquet()).await?;
    let zipped = CsvReadOptions::new()
        .file_extension(".csv.gz")
        .file_compression_type(datafusion::datasource::file_format::file_compression_type::FileCompressionType::GZIP);
    let csv = context.read_csv(path("csv_gz"), zipped).await?;
    let json = context.read_json(path("json_lines"), JsonReadOptions::default()).await?;
    let partitioned =
        parquet().table_partition_cols(vec![("year".into(), DataType::Int32), ("month".into(), DataType::Int32)]);
    let hive = context.read_parquet(path("hive"), partitioned).await?;
    let table = MemTable::try_new(batch(0, 1).schema(), vec![vec![batch(0, 20)], vec![batch(20, 50), batch(50, 60)]])?;
    let held = context.read_table(Arc::new(table))?;
    let other = held.clone().alias("other")?;
    let joined = lineitem.join(
        orders,
        JoinType::Inner,
        &["l_orderkey"],
        &["o_orderkey"],
        Some(col("o_totalprice").gt(lit(100_000))),
    )?;
    let place = row_number()
        .partition_by(vec![col("g")])
        .order_by(vec![col("k").sort(true, false), col("id").sort(true, true)])
        .build()?
        .alias("place");
    let grouped = joined.aggregate(
        vec![col("o_orderpriority")],
        vec![sum(col("l_quantity")).alias("q"), count(col("l_orderkey")).alias("n"), max(col("l_comment")).alias("m")],
    )?;
    let with_avg =
        many.clone().aggregate(vec![col("g")], vec![avg(col("k")).alias("a"), count(col("k")).alias("n")])?;
    Ok(vec![
        ("scan", many.clone()),
        ("pattern", pattern),
        ("gzip", csv),
        ("json", json),
        ("partition columns", hive.clone().filter(col("month").eq(lit(2)))?.select_columns(&["year", "id"])?),
        ("join and aggregate", grouped.sort(vec![col("o_orderpriority").sort(true, true)])?),
        ("average", with_avg),
        ("window", many.clone().window(vec![place])?.filter(col("place").lt_eq(lit(3)))?),
        ("distinct", many.clone().select_columns(&["g", "name"])?.distinct()?),
        ("union", many.clone().select_columns(&["id"])?.union(hive.select_columns(&["id"])?)?),
        ("semi join", many.clone().join(other.clone(), JoinType::LeftSemi, &["k"], &["k"], None)?),
        ("anti join", many.clone().join(other.clone(), JoinType::LeftAnti, &["k"], &["k"], None)?),
        ("self join", held.clone().alias("a")?.join(held.clone().alias("b")?, JoinType::Full, &["v"], &["v"], None)?),
        ("in memory", held.filter(col("k").is_not_null())?),
        ("nothing", many.clone().filter(lit(false))?.join(other, JoinType::Right, &["k"], &["k"], None)?),
        ("limit", many.clone().sort(vec![col("id").sort(false, false)])?.limit(7, Some(5))?),
        ("no end", many.clone().sort(vec![col("id").sort(true, false)])?.limit(2990, None)?),
        ("expression", many.clone().with_column("kk", col("k") * lit(2) + col("id"))?.drop_columns(&["name"])?),
        ("cached", many.select_columns(&["g"])?.distinct()?.cache().await?),
        ("scalar subquery", {
            context
                .register_table("held", Arc::new(MemTable::try_new(batch(0, 1).schema(), vec![vec![batch(0, 60)]])?))?;
            context.sql("SELECT v FROM held WHERE k = (SELECT max(k) FROM held)").await?
        }),
        ("exists", {
            context.sql("SELECT v FROM held a WHERE EXISTS (SELECT 1 FROM held b WHERE b.k = a.k + 1)").await?
        }),
    ])
}

async fn differences(context: &SessionContext, plain: &[(&'static str, Answer)]) -> Vec<String> {
    let folder = tidemill_tests::harness::small_tables();
    let mut wrong = Vec::new();
    for ((name, frame), (_, expected)) in asked(context, &folder).await.expect("plans").into_iter().zip(plain) {
        let difference = match frame.collect().await {
            Ok(batches) => compare(expected, &batches).expect("answers can be compared").map(|d| d.to_string()),
            Err(error) => Some(error.to_string()),
        };
        wrong.extend(difference.map(|difference| format!("{name}: {difference}")));
    }
    wrong
}

/// What a plain context answers, and the columns that its rows are ordered by.
async fn plain() -> Vec<(&'static str, Answer)> {
    create_small_tables().await;
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let mut answers = Vec::new();
    for (name, frame) in asked(&context, &tidemill_tests::harness::small_tables()).await.expect("plans") {
        let order = match name {
            "join and aggregate" => vec![0],
            "limit" | "no end" => vec![0],
            _ => Vec::new(),
        };
        let batches = frame.collect().await.unwrap_or_else(|e| panic!("{name}: {e}"));
        answers.push((name, Answer { batches, order, repartitions: false }));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_code_gives_the_same_rows() {
    let plain = plain().await;
    let (cluster, _work) = embedded();
    let session = session_of(&cluster).await;
    none(&differences(&session, &plain).await, "embedded");
    let processes = ProcessCluster::start(2, 1).await;
    let session = tidemill::connect(processes.coordinator.url()).start().await.expect("a session");
    none(&differences(&session, &plain).await, "two processes");
    let session = tidemill::connect(processes.coordinator.url())
        .set("datafusion.execution.target_partitions", "5")
        .set("datafusion.optimizer.hash_join_single_partition_threshold", "0")
        .start()
        .await
        .expect("a session");
    none(&differences(&session, &plain).await, "two processes, five partitions");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_counted_shown_and_streamed() {
    let (cluster, _work) = embedded();
    let session = session_of(&cluster).await;
    let frame = session.read_batch(batch(0, 60)).expect("a frame");
    assert_eq!(frame.clone().count().await.expect("a count"), 60);
    let text = frame.clone().limit(0, Some(1)).expect("a frame").to_string().await.expect("a text");
    assert!(text.contains("v0"), "{text}");
    let mut stream = frame.execute_stream().await.expect("a stream");
    let mut streamed = 0;
    while let Some(batch) = stream.next().await {
        streamed += batch.expect("a batch").num_rows();
    }
    assert_eq!(streamed, 60);
    let runs = super::single(&session, "SELECT count(*) FROM system.runs WHERE statement = 'DataFrame: ?table?'").await;
    assert_eq!(runs, "1");
}

/// `now()` is a literal when the plan leaves the client.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_is_one_in_all_tasks() {
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 1 }).await;
    let session = tidemill::connect(cluster.url()).start().await.expect("a session");
    let folder = tpch().join("lineitem").display().to_string();
    session.register_parquet("lineitem", folder, ParquetReadOptions::default()).await.expect("a table");
    let times = "SELECT count(DISTINCT t) FROM (SELECT now() AS t FROM lineitem UNION ALL SELECT now() FROM lineitem)";
    assert_eq!(super::single(&session, times).await, "1");
    let zone = "SELECT arrow_typeof(now())";
    session.sql("SET datafusion.execution.time_zone = 'Europe/Berlin'").await.expect("a setting");
    assert!(super::single(&session, zone).await.contains("Europe/Berlin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_draws_the_stages() {
    let (cluster, _work) = embedded();
    let session = session_of(&cluster).await;
    super::register_tpch(&session).await;
    let sql = "SELECT l_returnflag, count(*) FROM lineitem GROUP BY l_returnflag";
    let frame = session.sql(sql).await.expect("a plan");
    let text = frame.clone().explain(false, false).expect("a plan").to_string().await.expect("a text");
    assert!(text.contains("logical_plan") && text.contains("stage 0") && text.contains("reads stage"), "{text}");
    let text = frame.explain(false, true).expect("a plan").to_string().await.expect("a text");
    assert!(text.contains("Plan with Metrics") && text.contains("rows in") && text.contains("total ·"), "{text}");
    let described = super::collected(&session, "DESCRIBE region").await;
    assert_eq!(described.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
}
