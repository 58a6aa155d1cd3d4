//! Tasks that are repeated, and give the rows that they gave before, or others.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use tidemill_tests::harness::{UNSTEADY, value};

use super::until;
use crate::durable::at_least;
use crate::going::{Going, cluster};

#[tokio::test(flavor = "multi_thread")]
async fn sums_in_another_order_are_not_taken_for_other_rows() {
    let (mut cluster, mut client) = cluster("memory://", &[]).await;
    let sql = "SELECT l_returnflag, CAST(sum(x) / 1000 AS BIGINT) AS x, max(m) AS m FROM (
        SELECT l_orderkey, l_returnflag, sum(CAST(l_extendedprice AS DOUBLE) / 3) AS x, max(md5(repeat(l_comment, 30))) AS m
        FROM lineitem GROUP BY 1, 2) AS s GROUP BY 1 ORDER BY 1";
    let going = Going::start(&cluster, sql).await;
    let done = format!("SELECT count(*) FROM system.tasks WHERE run_id = '{}' AND state = 'succeeded'", going.run);
    assert!(at_least(&mut client, &done, 9).await, "it does not get on");
    cluster.executors[0].kill();
    cluster.add_executor(1);
    let run = going.run.clone();
    going.answers(sql).await;
    let repeats = format!("SELECT sum(repeats) FROM system.tasks WHERE run_id = '{run}'");
    assert_ne!(value(&mut client, &repeats).await, "0", "nothing was repeated");
    let kinds = format!("SELECT count(*) FROM system.stages WHERE run_id = '{run}' AND determinism = ");
    assert_eq!(value(&mut client, &format!("{kinds} 'row-indeterminate'")).await, "0", "a healthy stage was doubted");
    assert_ne!(value(&mut client, &format!("{kinds} 'value-indeterminate'")).await, "0");
}

/// Its first stage is exact, as far as anybody can tell: `unsteady` says that it is immutable. A row that comes out otherwise
/// goes to another partition.
const UNSTEADILY: &str = "SELECT count(*) AS keys, sum(n) AS n, max(m) AS m FROM (
    SELECT unsteady(l_orderkey) AS k, count(*) AS n, max(md5(repeat(l_comment, 30))) AS m FROM lineitem GROUP BY 1) AS x";

#[tokio::test(flavor = "multi_thread")]
async fn other_rows_of_a_repeated_task_are_noticed_and_all_that_read_its_stage_starts_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let changed = folder.path().join("changed");
    let environment = [(UNSTEADY, changed.display().to_string()), ("NO_COLOR", "1".to_owned())];
    let (mut cluster, mut client) = cluster("memory://", &environment).await;
    let all = value(&mut client, "SELECT count(*) FROM lineitem").await;
    let going = Going::in_partitions(cluster.client().await, UNSTEADILY, "16").await;
    let run = going.run.clone();
    let kind = |stage| format!("SELECT determinism FROM system.stages WHERE run_id = '{run}' AND stage_id = {stage}");
    assert_eq!(value(&mut client, &kind(0)).await, "exact", "nothing would be compared");
    // Some of the second stage's tasks have read all of the first one's, and others have not begun.
    let done = format!("FROM system.tasks WHERE run_id = '{run}' AND stage_id = 1 AND state = 'succeeded'");
    assert!(at_least(&mut client, &format!("SELECT count(*) {done}"), 2).await, "it does not get on");
    let keeper = value(&mut client, &format!("SELECT min(executor_id) {done}")).await;
    let port = keeper.split('-').next().expect("a port");
    let victim = cluster.executors.iter().position(|e| !e.url().ends_with(port)).expect("the other executor");
    std::fs::write(&changed, "").expect("a file");
    cluster.executors[victim].kill();
    let left = value(&mut client, &format!("SELECT count(*) < 16 {done}")).await;
    assert_eq!(left, "true", "everything was read before the kill");
    cluster.add_executor(1);
    let rows = going.reading.await.expect("no panic").expect("an answer");
    let repeats = format!("SELECT sum(repeats) FROM system.tasks WHERE run_id = '{run}' AND stage_id = 0");
    assert_ne!(value(&mut client, &repeats).await, "0", "nothing was repeated");
    // Each row of the first stage was read once: no reader saw some tasks as they were and others as they are.
    let row = rows.iter().find(|batch| batch.num_rows() == 1).expect("a row");
    assert_eq!(row.column(1).as_primitive::<Int64Type>().value(0).to_string(), all, "rows were lost or doubled");
    assert_eq!(value(&mut client, &kind(0)).await, "row-indeterminate");
    assert_eq!(value(&mut client, &kind(1)).await, "exact", "a healthy stage was doubted");
    until("a word about it", async || {
        let said = cluster.coordinator.said();
        said.lines().any(|line| line.contains("gave other rows") && line.contains(&run.0) && line.contains("stage=0"))
    })
    .await;
}
