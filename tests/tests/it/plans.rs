//! How each TPC-H query is divided: stages, tasks and exchanges, as inline snapshots.

use std::fmt::Write as _;

use tidemill::tpch::{QUERIES, create_tables};
use tidemill_tests::harness::{LocalCluster, Shape, rows, tpch};

/// One line per query and partition count.
#[tokio::test(flavor = "multi_thread")]
async fn tpch_queries_are_divided_as_the_rules_say() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    for create in create_tables(&tpch()) {
        rows(&mut client, &create).await;
    }
    let mut text = String::new();
    client.set("datafusion.execution.target_partitions", "3").expect("a setting");
    client.set("datafusion.optimizer.repartition_file_min_size", "1").expect("a setting");
    for (name, sql) in QUERIES {
        let plan = rows(&mut client, &format!("EXPLAIN {}", sql.trim().trim_end_matches(';'))).await;
        let lines = plan.iter().flat_map(|b| {
            let column = b.column(0);
            (0..b.num_rows())
                .map(|i| arrow::util::display::array_value_to_string(column, i).expect("text"))
                .collect::<Vec<_>>()
        });
        writeln!(text, "{name}").expect("a line");
        for line in lines.filter(|l| l.starts_with("stage ") || l.contains("─ reads ")) {
            writeln!(text, "  {line}").expect("a line");
        }
    }
    insta::assert_snapshot!(text, @"");
}
