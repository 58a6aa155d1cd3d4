//! The plug is pulled: every process is killed in the middle of a job and started again.

use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use tidemill_core::{Error, Result, RunId};

use super::EXECUTORS;
use super::cluster::Cluster;
use super::report::{Killed, killed, pulled};
use crate::cli::Done;
use crate::client::Client;
use crate::oracle::{Oracle, compare};
use crate::tpch::create_tables;

/// A job with a long last stage, so that there is a middle: customers' orders by segment, against every day of ten years.
const JOB: &str = "SELECT c_mktsegment, count(*) AS n, sum(price) AS price
FROM (SELECT c_custkey, c_mktsegment, sum(o_totalprice) AS price
      FROM customer JOIN orders ON c_custkey = o_custkey GROUP BY c_custkey, c_mktsegment)
JOIN (SELECT o_custkey, sum(l_quantity) AS quantity
      FROM orders JOIN lineitem ON o_orderkey = l_orderkey GROUP BY o_custkey) ON c_custkey = o_custkey
CROSS JOIN generate_series(1, 3650) AS days(day)
WHERE (quantity + day) % 7 < 6
GROUP BY c_mktsegment ORDER BY c_mktsegment";

/// How long the job may take to get some of its work into the store.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is in the store is in the log a moment later.
const LOGGED: Duration = Duration::from_millis(400);

/// Runs the job, kills everything when half of what was finished is in the store, and shows what was done again.
pub(super) async fn pull_the_plug(cluster: &mut Cluster, data: &Path, oracle: &Oracle) -> Result<Done> {
    let mut client = Client::connect(cluster.url()).await?;
    for statement in create_tables(data) {
        client.execute(&statement).await?.collect().await?;
    }
    client.set("datafusion.execution.target_partitions", "8")?;
    let expected = oracle.answer(JOB).await?;
    let start = Instant::now();
    let result = client.query(JOB).await?;
    let run = result.run.clone().ok_or_else(|| Error::internal("a query is no run"))?;
    let reading = tokio::spawn(result.collect());
    let (tasks, in_store) = half_time(&client, &run).await?;
    cluster.kill().await;
    pulled(tasks, in_store, start.elapsed());
    let down = Instant::now();
    cluster.restart(EXECUTORS).await?;
    let down = down.elapsed();
    let ours = reading.await.map_err(|e| Error::internal(format!("reading the answer panicked: {e}")))??;
    let difference = compare(&expected, &ours)?;
    let again = cluster.started_after_restart(&run)?;
    Ok(killed(&Killed { tasks, down, again, time: start.elapsed(), difference }))
}

/// Waits until at least half of the run's tasks are in the store: all its tasks, and those.
async fn half_time(client: &Client, run: &RunId) -> Result<(i64, i64)> {
    let count = format!("SELECT count(*), count(pack) FROM system.tasks WHERE run_id = '{run}'");
    let start = Instant::now();
    loop {
        let rows = client.query(&count).await?.collect().await?;
        let row = rows.iter().find(|b| b.num_rows() == 1).ok_or_else(|| Error::internal("a count has no row"))?;
        let value = |column: usize| row.column(column).as_primitive::<Int64Type>().value(0);
        let (tasks, in_store) = (value(0), value(1));
        if tasks > 0 && in_store * 2 >= tasks {
            tokio::time::sleep(LOGGED).await;
            return Ok((tasks, in_store));
        }
        if start.elapsed() > PATIENCE {
            return Err(Error::internal(format!("after {PATIENCE:?} {in_store} of {tasks} tasks were in the store")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
