//! How each TPC-H query is divided: stages, tasks and exchanges, at three partitions.
//!
//! A change here is a change of plans: look at it line by line before taking over what the failing test prints.

use tidemill::tpch::{QUERIES, create_tables};
use tidemill_tests::harness::{LocalCluster, Shape, rows, tpch};

/// By query, the stages from the root down, each with the exchanges it reads.
const DIVISIONS: [(&str, &str); 22] = [
    (
        "q01",
        "\
stage 2 · 1 task · result
└─ reads stage 1 (sorted gather)
stage 1 · 3 tasks · 1 partition
└─ reads stage 0 (hash)
stage 0 · 3 tasks · Hash([l_returnflag@0, l_linestatus@1], 3)",
    ),
    (
        "q02",
        "\
stage 7 · 1 task · result · rows may differ when repeated
└─ reads stage 6 (sorted gather)
stage 6 · 3 tasks · 1 partition · rows may differ when repeated
├─ reads stage 2 (hash)
└─ reads stage 5 (hash)
stage 5 · 3 tasks · Hash([ps_partkey@1, min(partsupp.ps_supplycost)@0], 3)
└─ reads stage 4 (hash)
stage 4 · 1 task · Hash([ps_partkey@0], 3)
└─ reads stage 3 (gather)
stage 3 · 3 tasks · 1 partition
stage 2 · 1 task · Hash([p_partkey@0, ps_supplycost@7], 3)
├─ reads stage 0 (gather)
└─ reads stage 1 (gather)
stage 1 · 3 tasks · 1 partition
stage 0 · 3 tasks · 1 partition",
    ),
    (
        "q03",
        "\
stage 4 · 1 task · result · rows may differ when repeated
└─ reads stage 3 (sorted gather)
stage 3 · 3 tasks · 1 partition · rows may differ when repeated
└─ reads stage 2 (hash)
stage 2 · 3 tasks · Hash([l_orderkey@0, o_orderdate@1, o_shippriority@2], 3)
└─ reads stage 1 (broadcast)
stage 1 · 3 tasks · 1 partition
└─ reads stage 0 (broadcast)
stage 0 · 3 tasks · 1 partition",
    ),
    (
        "q04",
        "\
stage 4 · 1 task · result
└─ reads stage 3 (sorted gather)
stage 3 · 3 tasks · 1 partition
└─ reads stage 2 (hash)
stage 2 · 3 tasks · Hash([o_orderpriority@0], 3)
├─ reads stage 0 (hash)
└─ reads stage 1 (hash)
stage 1 · 3 tasks · Hash([l_orderkey@0], 3)
stage 0 · 3 tasks · Hash([o_orderkey@0], 3)",
    ),
    (
        "q05",
        "\
stage 7 · 1 task · result
└─ reads stage 6 (sorted gather)
stage 6 · 3 tasks · 1 partition
└─ reads stage 5 (hash)
stage 5 · 3 tasks · Hash([n_name@0], 3)
├─ reads stage 0 (broadcast)
├─ reads stage 1 (broadcast)
├─ reads stage 2 (broadcast)
└─ reads stage 4 (broadcast)
stage 4 · 3 tasks · 1 partition
└─ reads stage 3 (broadcast)
stage 3 · 1 task · 1 partition
stage 2 · 1 task · 1 partition
stage 1 · 1 task · 1 partition
stage 0 · 3 tasks · 1 partition",
    ),
    (
        "q06",
        "\
stage 1 · 1 task · result
└─ reads stage 0 (gather)
stage 0 · 3 tasks · 1 partition",
    ),
    (
        "q07",
        "\
stage 7 · 1 task · result
└─ reads stage 6 (sorted gather)
stage 6 · 3 tasks · 1 partition
└─ reads stage 5 (hash)
stage 5 · 3 tasks · Hash([supp_nation@0, cust_nation@1, l_year@2], 3)
├─ reads stage 0 (broadcast)
├─ reads stage 1 (broadcast)
├─ reads stage 2 (broadcast)
├─ reads stage 3 (broadcast)
└─ reads stage 4 (broadcast)
stage 4 · 1 task · 1 partition
stage 3 · 3 tasks · 1 partition
stage 2 · 1 task · 1 partition
stage 1 · 3 tasks · 1 partition
stage 0 · 3 tasks · 1 partition",
    ),
    (
        "q08",
        "\
stage 9 · 1 task · result
└─ reads stage 8 (sorted gather)
stage 8 · 3 tasks · 1 partition
└─ reads stage 7 (hash)
stage 7 · 3 tasks · Hash([o_year@0], 3)
├─ reads stage 0 (broadcast)
├─ reads stage 1 (broadcast)
├─ reads stage 2 (broadcast)
├─ reads stage 3 (broadcast)
├─ reads stage 4 (broadcast)
├─ reads stage 5 (broadcast)
└─ reads stage 6 (broadcast)
stage 6 · 3 tasks · 1 partition
stage 5 · 1 task · 1 partition
stage 4 · 3 tasks · 1 partition
stage 3 · 1 task · 1 partition
stage 2 · 1 task · 1 partition
stage 1 · 1 task · 1 partition
stage 0 · 3 tasks · 1 partition",
    ),
    (
        "q09",
        "\
stage 7 · 1 task · result
└─ reads stage 6 (sorted gather)
stage 6 · 3 tasks · 1 partition
└─ reads stage 5 (hash)
stage 5 · 3 tasks · Hash([nation@0, o_year@1], 3)
├─ reads stage 0 (broadcast)
├─ reads stage 1 (broadcast)
├─ reads stage 2 (broadcast)
├─ reads stage 3 (broadcast)
└─ reads stage 4 (broadcast)
stage 4 · 3 tasks · 1 partition
stage 3 · 1 task · 1 partition
stage 2 · 1 task · 1 partition
stage 1 · 3 tasks · 1 partition
stage 0 · 1 task · 1 partition",
    ),
    (
        "q10",
        "\
stage 5 · 1 task · result · rows may differ when repeated
└─ reads stage 4 (sorted gather)
stage 4 · 3 tasks · 1 partition · rows may differ when repeated
└─ reads stage 3 (hash)
stage 3 · 3 tasks · Hash([c_custkey@0, c_name@1, c_acctbal@2, c_phone@3, n_name@4, c_address@5, c_comment@6], 3)
├─ reads stage 0 (broadcast)
└─ reads stage 2 (broadcast)
stage 2 · 1 task · 1 partition
└─ reads stage 1 (gather)
stage 1 · 3 tasks · 1 partition
stage 0 · 1 task · 1 partition",
    ),
    (
        "q11",
        "\
stage 5 · 1 task · result
└─ reads stage 4 (sorted gather)
stage 4 · 3 tasks · 1 partition
├─ reads stage 1 (one value)
└─ reads stage 3 (hash)
stage 3 · 1 task · Hash([ps_partkey@0], 3)
└─ reads stage 2 (gather)
stage 2 · 3 tasks · 1 partition
stage 1 · 1 task · 1 partition
└─ reads stage 0 (gather)
stage 0 · 3 tasks · 1 partition",
    ),
    (
        "q12",
        "\
stage 3 · 1 task · result
└─ reads stage 2 (sorted gather)
stage 2 · 3 tasks · 1 partition
└─ reads stage 1 (hash)
stage 1 · 3 tasks · Hash([l_shipmode@0], 3)
└─ reads stage 0 (broadcast)
stage 0 · 3 tasks · 1 partition",
    ),
    (
        "q13",
        "\
stage 5 · 1 task · result
└─ reads stage 4 (sorted gather)
stage 4 · 3 tasks · 1 partition
└─ reads stage 3 (hash)
stage 3 · 3 tasks · Hash([c_count@0], 3)
└─ reads stage 2 (hash)
stage 2 · 3 tasks · Hash([c_custkey@0], 3)
├─ reads stage 0 (hash)
└─ reads stage 1 (hash)
stage 1 · 3 tasks · Hash([o_custkey@1], 3)
stage 0 · 1 task · Hash([c_custkey@0], 3)",
    ),
    (
        "q14",
        "\
stage 1 · 1 task · result
└─ reads stage 0 (gather)
stage 0 · 3 tasks · 1 partition",
    ),
    (
        "q15",
        "\
stage 6 · 1 task · result
└─ reads stage 5 (sorted gather)
stage 5 · 3 tasks · 1 partition
├─ reads stage 2 (one value)
├─ reads stage 3 (broadcast)
└─ reads stage 4 (hash)
stage 4 · 3 tasks · Hash([l_suppkey@0], 3)
stage 3 · 1 task · 1 partition
stage 2 · 1 task · 1 partition
└─ reads stage 1 (gather)
stage 1 · 3 tasks · 1 partition
└─ reads stage 0 (hash)
stage 0 · 3 tasks · Hash([l_suppkey@0], 3)",
    ),
    (
        "q16",
        "\
stage 5 · 1 task · result
└─ reads stage 4 (sorted gather)
stage 4 · 3 tasks · 1 partition
└─ reads stage 3 (hash)
stage 3 · 3 tasks · Hash([p_brand@0, p_type@1, p_size@2], 3)
└─ reads stage 2 (hash)
stage 2 · 1 task · Hash([p_brand@0, p_type@1, p_size@2, alias1@3], 3)
├─ reads stage 0 (gather)
└─ reads stage 1 (gather)
stage 1 · 3 tasks · 1 partition
stage 0 · 3 tasks · 1 partition",
    ),
    (
        "q17",
        "\
stage 5 · 1 task · result
└─ reads stage 4 (gather)
stage 4 · 3 tasks · 1 partition
├─ reads stage 1 (hash)
└─ reads stage 3 (hash)
stage 3 · 3 tasks · Hash([l_partkey@1], 3)
└─ reads stage 2 (hash)
stage 2 · 3 tasks · Hash([l_partkey@0], 3)
stage 1 · 3 tasks · Hash([p_partkey@2], 3)
└─ reads stage 0 (broadcast)
stage 0 · 3 tasks · 1 partition",
    ),
    (
        "q18",
        "\
stage 6 · 1 task · result · rows may differ when repeated
└─ reads stage 5 (sorted gather)
stage 5 · 3 tasks · 1 partition · rows may differ when repeated
└─ reads stage 4 (hash)
stage 4 · 3 tasks · Hash([c_name@0, c_custkey@1, o_orderkey@2, o_orderdate@3, o_totalprice@4], 3)
├─ reads stage 1 (broadcast)
└─ reads stage 3 (broadcast)
stage 3 · 3 tasks · 1 partition
└─ reads stage 2 (broadcast)
stage 2 · 1 task · 1 partition
stage 1 · 3 tasks · 1 partition
└─ reads stage 0 (hash)
stage 0 · 3 tasks · Hash([l_orderkey@0], 3)",
    ),
    (
        "q19",
        "\
stage 2 · 1 task · result
└─ reads stage 1 (gather)
stage 1 · 3 tasks · 1 partition
└─ reads stage 0 (broadcast)
stage 0 · 3 tasks · 1 partition",
    ),
    (
        "q20",
        "\
stage 8 · 1 task · result
└─ reads stage 7 (sorted gather)
stage 7 · 3 tasks · 1 partition
├─ reads stage 1 (hash)
└─ reads stage 6 (hash)
stage 6 · 3 tasks · Hash([ps_suppkey@0], 3)
├─ reads stage 3 (hash)
└─ reads stage 5 (hash)
stage 5 · 3 tasks · Hash([l_partkey@1, l_suppkey@2], 3)
└─ reads stage 4 (hash)
stage 4 · 3 tasks · Hash([l_partkey@0, l_suppkey@1], 3)
stage 3 · 1 task · Hash([ps_partkey@0, ps_suppkey@1], 3)
└─ reads stage 2 (gather)
stage 2 · 3 tasks · 1 partition
stage 1 · 1 task · Hash([s_suppkey@0], 3)
└─ reads stage 0 (gather)
stage 0 · 3 tasks · 1 partition",
    ),
    (
        "q21",
        "\
stage 8 · 1 task · result · rows may differ when repeated
└─ reads stage 7 (sorted gather)
stage 7 · 3 tasks · 1 partition · rows may differ when repeated
└─ reads stage 6 (hash)
stage 6 · 3 tasks · Hash([s_name@0], 3)
├─ reads stage 0 (broadcast)
├─ reads stage 4 (hash)
└─ reads stage 5 (hash)
stage 5 · 3 tasks · Hash([l_orderkey@0], 3)
stage 4 · 3 tasks · Hash([l_orderkey@1], 3)
├─ reads stage 1 (broadcast)
├─ reads stage 2 (broadcast)
└─ reads stage 3 (broadcast)
stage 3 · 1 task · 1 partition
stage 2 · 3 tasks · 1 partition
stage 1 · 3 tasks · 1 partition
stage 0 · 3 tasks · 1 partition",
    ),
    (
        "q22",
        "\
stage 6 · 1 task · result
└─ reads stage 5 (sorted gather)
stage 5 · 3 tasks · 1 partition
└─ reads stage 4 (hash)
stage 4 · 3 tasks · Hash([cntrycode@0], 3)
├─ reads stage 2 (hash)
└─ reads stage 3 (hash)
stage 3 · 3 tasks · Hash([o_custkey@0], 3)
stage 2 · 3 tasks · Hash([c_custkey@0], 3)
└─ reads stage 1 (one value)
stage 1 · 1 task · 1 partition
└─ reads stage 0 (gather)
stage 0 · 3 tasks · 1 partition",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn tpch_queries_are_divided_as_the_rules_say() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    for create in create_tables(&tpch()) {
        rows(&mut client, &create).await;
    }
    client.set("datafusion.execution.target_partitions", "3").expect("a setting");
    client.set("datafusion.optimizer.repartition_file_min_size", "1").expect("a setting");
    for ((name, sql), (expected_name, expected)) in QUERIES.into_iter().zip(DIVISIONS) {
        assert_eq!(name, expected_name);
        let plan = rows(&mut client, &format!("EXPLAIN {}", sql.trim().trim_end_matches(';'))).await;
        let lines = plan.iter().flat_map(|batch| {
            let line = |i| arrow::util::display::array_value_to_string(batch.column(0), i).expect("text");
            (0..batch.num_rows()).map(line).collect::<Vec<_>>()
        });
        let division: Vec<String> = lines.filter(|l| l.starts_with("stage ") || l.contains("─ reads ")).collect();
        let division = division.join("\n");
        assert!(division == expected, "{name} is divided differently:\n{division}");
    }
}
