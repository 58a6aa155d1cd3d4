//! `--memory` is kept: data several times its size is sorted, grouped and exchanged by spilling, in bounded memory; what
//! cannot spill fails by name, and the executor lives on.

use std::path::Path;

use arrow::util::display::array_value_to_string;
use tidemill::client::Client;
use tidemill_core::ErrorKind;
use tidemill_tests::harness::{Process, is_full, rows, tpch_of, value};

/// What a process needs beside `--memory`: code, stacks, Parquet readers, frames in flight.
const OVERHEAD: u64 = 300 << 20;

/// How large the test is: small in CI, in proportion to the full one.
struct Scale {
    /// TPC-H's.
    data: f64,
    /// Of each executor, in MiB.
    memory: u64,
}

fn scale() -> Scale {
    if is_full() { Scale { data: 10.0, memory: 512 } } else { Scale { data: 0.5, memory: 32 } }
}

/// Data of at least five times the memory of both executors, whichever operator holds it.
const QUERIES: [(&str, &str); 4] = [
    ("sort numbers", "SELECT l_orderkey, l_partkey, l_suppkey, l_linenumber FROM lineitem ORDER BY 2, 3, 1, 4"),
    ("sort", "SELECT l_comment, l_orderkey, l_linenumber, l_shipinstruct FROM lineitem ORDER BY 1, 2, 3"),
    (
        "group",
        "SELECT sum(n), count(*) FROM (SELECT l_orderkey, l_linenumber, l_comment, l_shipinstruct, count(*) AS n \
         FROM lineitem GROUP BY 1, 2, 3, 4)",
    ),
    (
        "exchange",
        "SELECT count(*), count(o_comment) FROM lineitem JOIN orders ON l_orderkey = o_orderkey \
         WHERE length(l_comment) + length(o_comment) + length(l_shipinstruct) > 0",
    ),
];

async fn cluster(memory: u64, work: &Path) -> (Process, Vec<Process>) {
    let coordinator = Process::start(&["coordinator", "--bind", "127.0.0.1:0"]);
    let (url, memory, work) = (coordinator.url(), format!("{memory}MiB"), work.display().to_string());
    let args = ["executor", "--connect", &url, "--slots", "1", "--memory", &memory, "--work-dir", &work];
    let executors = vec![Process::start(&args), Process::start(&args)];
    (coordinator, executors)
}

async fn register(client: &mut Client, folder: &Path) {
    for table in ["lineitem", "orders"] {
        let location = folder.join(table).display().to_string();
        rows(client, &format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{location}/'")).await;
    }
}

/// The rows of a result, or the count that is its only row.
async fn count_rows(mut result: tidemill::client::QueryResult) -> tidemill::Result<String> {
    let (mut rows, mut last) = (0, None);
    while let Some(batch) = result.next().await {
        let batch = batch?;
        rows += batch.num_rows();
        last = Some(batch).filter(|b| b.num_rows() > 0).or(last);
    }
    match last {
        Some(batch) if rows == 1 => Ok(array_value_to_string(batch.column(0), 0).expect("a value can be shown")),
        _ => Ok(rows.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_beyond_memory_is_sorted_grouped_and_exchanged_in_bounded_memory() {
    let scale = scale();
    let folder = tpch_of(scale.data);
    let work = tempfile::tempdir().expect("a folder");
    let (coordinator, executors) = cluster(scale.memory, work.path()).await;
    let mut client = Client::connect(&coordinator.url()).await.expect("a client");
    register(&mut client, &folder).await;
    // A hash join's build side does not spill; a sort-merge join does.
    client.set("datafusion.optimizer.prefer_hash_join", "false").expect("a setting");
    let count = value(&mut client, "SELECT count(*) FROM lineitem").await;
    for (what, query) in QUERIES {
        let result = client.query(query).await.expect("a run");
        let run = result.run.clone().expect("a run");
        let answer = count_rows(result).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(answer, count, "{what}");
        let spilled = format!("SELECT spilled_bytes FROM system.runs WHERE run_id = '{run}'");
        let spilled: u64 = value(&mut client, &spilled).await.parse().expect("a number");
        assert!(spilled > scale.memory << 20, "{what} spilled only {spilled} bytes: is the data large enough?");
        for executor in &executors {
            let (peak, limit) = (executor.peak_memory(), (scale.memory << 20) * 3 / 2 + OVERHEAD);
            println!("{what}: peak {} MiB of {} MiB", peak >> 20, limit >> 20);
            assert!(peak < limit, "{what}: an executor held {} MiB, more than {} MiB", peak >> 20, limit >> 20);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_spill_fails_by_name_and_the_executor_lives_on() {
    let folder = tpch_of(scale().data);
    let work = tempfile::tempdir().expect("a folder");
    let (coordinator, _executors) = cluster(32, work.path()).await;
    let mut client = Client::connect(&coordinator.url()).await.expect("a client");
    register(&mut client, &folder).await;
    let join =
        "SELECT count(*) FROM lineitem a JOIN lineitem b ON a.l_orderkey = b.l_orderkey AND a.l_comment = b.l_comment";
    let window = "SELECT max(n) FROM (SELECT l_comment, count(*) OVER (PARTITION BY l_partkey) AS n FROM lineitem) \
                  WHERE length(l_comment) > 0";
    for (query, operator) in [(join, "HashJoinInput"), (window, "WindowAggExec")] {
        let failed = match client.execute(query).await {
            Ok(result) => result.collect().await.expect_err("32 MiB cannot hold it"),
            Err(error) => error,
        };
        assert_eq!(failed.kind, ErrorKind::ResourcesExhausted, "{failed}");
        for part in [operator, "MB", "--memory", "--slots"] {
            assert!(failed.message.contains(part) && failed.message.lines().count() == 1, "{failed}");
        }
    }
    assert_eq!(value(&mut client, "SELECT count(*) > 0 FROM orders").await, "true");
    assert_eq!(value(&mut client, "SELECT count(*) FROM system.executors WHERE state = 'alive'").await, "2");
}
