//! Queries that bring everything together in one task beyond what the rules name. CI prints how many; the number may
//! only fall.

use std::io::Write;

use tidemill::tpch::{QUERIES, create_tables};
use tidemill_tests::harness::{LocalCluster, Shape, create_small_tables, rows, tpch};

/// One more than there are now. Lower it when there are fewer.
const CEILING: usize = 1;

#[tokio::test(flavor = "multi_thread")]
async fn no_more_queries_gather_than_before() {
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let mut client = cluster.client().await;
    for create in create_tables(&tpch()).into_iter().chain(create_small_tables().await) {
        rows(&mut client, &create).await;
    }
    client.set("datafusion.optimizer.repartition_file_min_size", "1").expect("a setting");
    let tpch = QUERIES.into_iter().map(|(_, sql)| sql.trim().trim_end_matches(';').to_owned());
    let queries: Vec<String> = tpch.chain(super::queries::statements()).collect();
    let mut beyond = Vec::new();
    for sql in &queries {
        for partitions in ["3", "8"] {
            client.set("datafusion.execution.target_partitions", partitions).expect("a setting");
            let plan = rows(&mut client, &format!("EXPLAIN {sql}")).await;
            let text = arrow::util::pretty::pretty_format_batches(&plan).expect("text").to_string();
            if text.contains("gather that no rule names") {
                beyond.push(format!("{partitions} partitions: {sql}"));
                break;
            }
        }
    }
    // Past the capture of test output, which would hide it.
    let _ = writeln!(std::io::stderr(), "queries that gather beyond the rules: {} of {}", beyond.len(), queries.len());
    assert!(
        beyond.len() < CEILING,
        "{} queries gather, fewer than {CEILING} may:\n{}",
        beyond.len(),
        beyond.join("\n")
    );
}
