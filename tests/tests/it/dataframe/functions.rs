//! Functions of a binary of one's own, in all its processes.

use tidemill::{ErrorKind, Functions};
use tidemill_engine::error::from_datafusion;
use tidemill_tests::harness::{ProcessCluster, functions, rows, twice, value};

use super::{embedded, session_of, single};

const CALLS: [(&str, &str); 3] = [
    ("SELECT sum(twice(n)) FROM (VALUES (1), (2), (NULL), (4)) AS t(n)", "14"),
    ("SELECT sum(f) FROM (SELECT g, folded(n) AS f FROM (VALUES (0, 5), (0, 6), (1, 9)) AS t(g, n) GROUP BY g)", "12"),
    ("SELECT sum(w) FROM (SELECT weighed(n) OVER (ORDER BY n) AS w FROM (VALUES (3), (1), (2)) AS t(n))", "14"),
];

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_the_binary_are_known_in_all_its_processes() {
    let cluster = ProcessCluster::start(2, 1).await;
    let session = tidemill::connect(cluster.coordinator.url())
        .functions(functions())
        .set("datafusion.execution.target_partitions", "3")
        .start()
        .await
        .expect("a session");
    let mut client = cluster.client().await;
    for (sql, expected) in CALLS {
        assert_eq!(single(&session, sql).await, expected, "{sql}");
        // As SQL, which only the cluster reads.
        assert_eq!(value(&mut client, sql).await, expected, "{sql}");
    }
    // In rows that are read from files by both executors.
    let folder = tidemill_tests::harness::tpch().join("lineitem").display().to_string();
    rows(&mut client, &format!("CREATE EXTERNAL TABLE lineitem STORED AS PARQUET LOCATION '{folder}/'")).await;
    let twofold =
        "SELECT sum(twice(l_orderkey)) = 2 * sum(l_orderkey), folded(l_orderkey) = bit_xor(l_orderkey) FROM lineitem";
    assert_eq!(single(&session, twofold).await, "true");
    assert_eq!(value(&mut client, twofold).await, "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_the_cluster_lacks_is_named() {
    let (cluster, _work) = embedded();
    let session = session_of(&cluster).await;
    session.register_udf(twice());
    let refused = session.sql("SELECT twice(1 + n) FROM (VALUES (1)) AS t(n)").await.expect("a plan").collect().await;
    let error = from_datafusion(&refused.expect_err("the cluster lacks it"));
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("`twice`") && error.message.contains("does not know"), "{error}");
    // One that hides the cluster's would give other rows there.
    let hidden = datafusion::logical_expr::create_udf(
        "abs",
        vec![arrow::datatypes::DataType::Int64],
        arrow::datatypes::DataType::Int64,
        datafusion::logical_expr::Volatility::Immutable,
        std::sync::Arc::new(|arguments: &[datafusion::logical_expr::ColumnarValue]| Ok(arguments[0].clone())),
    );
    session.register_udf(hidden.clone());
    let refused = session.sql("SELECT abs(n) FROM (VALUES (1)) AS t(n)").await.expect("a plan").collect().await;
    let error = from_datafusion(&refused.expect_err("another function"));
    assert!(error.message.contains("`abs`") && error.message.contains("another name"), "{error}");
    let taken = tidemill::local().functions(Functions::new().with_scalar(hidden)).start().await;
    assert!(taken.expect_err("the name is taken").message.contains("exists already"));
}
