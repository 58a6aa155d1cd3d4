//! Statements beyond TPC-H whose plans have shapes that peers got wrong, against in-process DataFusion.

use tidemill::client::Client;
use tidemill::generate::TPCH_TABLES;
use tidemill::oracle::Oracle;
use tidemill::tpch::create_tables;
use tidemill_tests::harness::{LocalCluster, Shape, assert_answer, rows, tpch};

const STATEMENTS: &[&str] = &[
    "SELECT count(*) FROM lineitem",
    "SELECT 1, 'a', NULL",
    "VALUES (1, 'a'), (2, 'b')",
    "SELECT * FROM nation ORDER BY n_nationkey LIMIT 5 OFFSET 3",
    "SELECT count(*) FROM (SELECT * FROM lineitem LIMIT 1000)",
    "SELECT o_orderkey FROM orders ORDER BY o_totalprice DESC, o_orderkey LIMIT 7",
    // Joins that emit build rows.
    "SELECT count(*), count(o_orderkey) FROM customer LEFT JOIN orders ON c_custkey = o_custkey AND o_totalprice > 300000",
    "SELECT count(*), count(n_name), count(r_name) FROM nation FULL JOIN region ON n_regionkey = r_regionkey + 2",
    "SELECT count(*), sum(c_custkey) FROM customer WHERE NOT EXISTS (SELECT 1 FROM orders WHERE o_custkey = c_custkey)",
    "SELECT count(*), sum(c_custkey) FROM customer WHERE c_custkey IN (SELECT o_custkey FROM orders)",
    "SELECT count(*) FROM customer WHERE c_custkey NOT IN (SELECT o_custkey FROM orders)",
    "SELECT count(*) FROM nation WHERE n_nationkey NOT IN (SELECT CASE WHEN r_regionkey = 1 THEN NULL ELSE r_regionkey END FROM region)",
    "SELECT count(*) FROM orders o LEFT JOIN region r ON o.o_orderkey < r.r_regionkey * 1000",
    "SELECT count(*), count(r.r_name) FROM region r LEFT JOIN orders o ON o.o_orderkey < r.r_regionkey * 10",
    "SELECT count(*) FROM region r FULL JOIN nation n ON n.n_nationkey < r.r_regionkey",
    "SELECT count(*) FROM nation, region, supplier",
    // Subqueries.
    "SELECT (SELECT max(o_totalprice) FROM orders) AS m, count(*) FROM orders WHERE o_totalprice > (SELECT avg(o_totalprice) FROM orders)",
    "SELECT count(*) FROM region WHERE r_name = (SELECT r_name FROM region WHERE r_regionkey = 99)",
    "SELECT count(*) FROM (SELECT n_nationkey FROM nation WHERE n_nationkey NOT IN (SELECT nullif(r_regionkey, 2) FROM region) UNION ALL SELECT o_orderkey FROM orders)",
    "SELECT count(*), sum(k) FROM (SELECT c_custkey AS k FROM customer WHERE c_custkey NOT IN (SELECT nullif(o_custkey, -1) FROM orders) ORDER BY 1 LIMIT 20)",
    "SELECT arrow_cast(n_name, 'Dictionary(Int32, Utf8)') AS a, arrow_cast(r_name, 'Dictionary(Int8, Utf8)') AS b, count(*) FROM nation JOIN region ON n_regionkey = r_regionkey GROUP BY 1, 2 ORDER BY 1, 2",
    "SELECT count(*) FROM part WHERE p_size > (SELECT avg(p_size) + (SELECT min(r_regionkey) FROM region) FROM part)",
    // Sets.
    "SELECT n_regionkey FROM nation UNION ALL SELECT r_regionkey FROM region UNION ALL SELECT 7",
    "SELECT n_regionkey FROM nation UNION SELECT c_nationkey FROM customer",
    "SELECT c_nationkey FROM customer INTERSECT SELECT n_nationkey FROM nation WHERE n_nationkey > 3",
    "SELECT c_nationkey FROM customer EXCEPT SELECT n_nationkey FROM nation WHERE n_nationkey > 3",
    "SELECT count(*) FROM (SELECT l_orderkey AS k FROM lineitem UNION ALL SELECT o_orderkey FROM orders UNION ALL SELECT count(*) FROM nation)",
    // Windows, grouping sets, distinct aggregates.
    "SELECT o_orderkey, rank() OVER (PARTITION BY o_custkey ORDER BY o_totalprice DESC, o_orderkey) FROM orders",
    "SELECT n_name, sum(n_nationkey) OVER (ORDER BY n_nationkey ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM nation",
    "SELECT n_regionkey, n_nationkey % 2, count(*) FROM nation GROUP BY ROLLUP (n_regionkey, n_nationkey % 2)",
    "SELECT l_returnflag, count(DISTINCT l_suppkey), count(DISTINCT l_partkey), sum(l_quantity) FROM lineitem GROUP BY 1",
    "SELECT count(DISTINCT l_orderkey) FROM lineitem",
    "SELECT DISTINCT l_linestatus, l_shipmode FROM lineitem",
    "SELECT l_shipmode, count(*) FROM lineitem GROUP BY 1 HAVING count(*) > 8500 ORDER BY 2 DESC",
    // Nothing in, something out.
    "SELECT count(*), sum(o_totalprice) FROM orders WHERE o_orderkey < 0",
    "SELECT o_custkey, count(*) FROM orders WHERE o_orderkey < 0 GROUP BY 1",
    "SELECT * FROM nation WHERE false",
    "SELECT unnest([1, 2, 3]) AS x",
    "SELECT count(*) FROM generate_series(1, 10000) AS t(x) JOIN nation ON x = n_nationkey",
    "WITH a AS (SELECT o_custkey AS k, count(*) AS n FROM orders GROUP BY 1) SELECT x.n, count(*) FROM a x JOIN a y ON x.k = y.k GROUP BY 1",
    "SELECT arrow_cast(n_name, 'Dictionary(Int32, Utf8)') AS d, count(*) FROM nation JOIN region ON n_regionkey = r_regionkey GROUP BY 1",
    "SELECT struct(n_name, n_nationkey) AS s, [n_nationkey] AS l FROM nation WHERE n_nationkey < 3",
];

async fn register(client: &mut Client) {
    for create in create_tables(&tpch()) {
        rows(client, &create).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_every_shape_are_answered_as_datafusion_does() {
    let oracle = Oracle::new(2, 1 << 30).expect("an oracle");
    oracle.register(&tpch(), &TPCH_TABLES).await.expect("tables");
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 2 }).await;
    let mut client = cluster.client().await;
    register(&mut client).await;
    for sql in STATEMENTS {
        let expected = oracle.answer(sql).await.unwrap_or_else(|e| panic!("{sql}\n{e}"));
        for partitions in ["1", "2", "3", "8"] {
            client.set("datafusion.execution.target_partitions", partitions).expect("a setting");
            assert_answer(&mut client, sql, &expected, &format!("{partitions} partitions")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subquery_of_several_rows_is_an_error_and_no_answer() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let mut client = cluster.client().await;
    register(&mut client).await;
    let run = client.execute("SELECT count(*) FROM nation WHERE n_regionkey = (SELECT r_regionkey FROM region)").await;
    let error = match run {
        Ok(result) => result.collect().await.expect_err("several rows"),
        Err(error) => error,
    };
    assert!(error.message.contains("several rows") || error.message.contains("more than one row"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_refused_in_words() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    let cases = [
        ("SELECT * FROM generate_series(1, 10) AS t(x) LIMIT 5000000000", "LIMIT or OFFSET 5000000000"),
        ("EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1", "EXPLAIN ANALYZE"),
    ];
    for (sql, words) in cases {
        let error = client.execute(sql).await.err().unwrap_or_else(|| panic!("{sql} was accepted"));
        assert!(error.message.contains(words), "{sql}: {error}");
        assert_eq!(error.kind, tidemill_core::ErrorKind::Invalid, "{sql}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_result_reaches_a_slow_reader_whole() {
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 1 }).await;
    let mut client = cluster.client().await;
    register(&mut client).await;
    let mut result = client.query("SELECT l_orderkey, l_comment FROM lineitem").await.expect("a run");
    let mut count = 0;
    while let Some(batch) = result.next().await {
        count += batch.expect("rows").num_rows();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let expected = tidemill_tests::harness::value(&mut client, "SELECT count(*) FROM lineitem").await;
    assert_eq!(count.to_string(), expected);
}
