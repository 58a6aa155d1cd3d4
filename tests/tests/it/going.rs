//! Runs that are disturbed while they are under way.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use tidemill::client::Client;
use tidemill::oracle::compare;
use tidemill_core::{Result, RunId};
use tidemill_tests::harness::{ProcessCluster, create_tpch, logged, tpch_oracle, value};
use tokio::task::JoinHandle;

use crate::durable::{SCALE, at_least, durable_tasks, in_store};

/// The same rows, of which a text column is hashed millions of times: whoever works behind the first stages has time.
pub(crate) fn with_a_slow_end(sql: &str, text: &str) -> String {
    format!(
        "SELECT count(*) AS n, max(md5(concat({text}, CAST(s.value * 2000 + t.value AS VARCHAR)))) AS m FROM ({sql}) AS w
        CROSS JOIN generate_series(1, 2000) AS s(value) CROSS JOIN generate_series(1, 2000) AS t(value)"
    )
}

/// A run that is under way.
pub(crate) struct Going {
    pub(crate) run: RunId,
    pub(crate) reading: JoinHandle<Result<Vec<RecordBatch>>>,
}

impl Going {
    pub(crate) async fn start(cluster: &ProcessCluster, sql: &str) -> Self {
        Self::of(cluster.client().await, sql).await
    }

    pub(crate) async fn of(client: Client, sql: &str) -> Self {
        Self::in_partitions(client, sql, "8").await
    }

    pub(crate) async fn in_partitions(mut client: Client, sql: &str, partitions: &str) -> Self {
        client.set("datafusion.execution.target_partitions", partitions).expect("a setting");
        let result = client.query(sql).await.expect("a run");
        let run = result.run.clone().expect("a run");
        Self { run, reading: tokio::spawn(result.collect()) }
    }

    /// Waits until so many of its tasks are in the store.
    pub(crate) async fn until_durable(&self, client: &mut Client, tasks: u64) {
        assert!(at_least(client, &durable_tasks(&self.run.0), tasks).await, "no packs were written");
        assert!(!self.reading.is_finished(), "the run was over too early");
    }

    /// Waits until its first stage is in the store, and for the log. Gives back what is in the store.
    pub(crate) async fn until_stored(&self, client: &mut Client) -> BTreeSet<String> {
        let first = format!("FROM system.tasks WHERE run_id = '{}' AND stage_id = 0", self.run);
        let stored = format!("SELECT count(*) > 0 AND count(*) = count(pack) {first}");
        let start = Instant::now();
        while value(client, &stored).await != "true" {
            assert!(start.elapsed() < Duration::from_secs(120), "its first stage is not in the store");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let durable = in_store(client, &self.run.0).await;
        logged(client).await;
        assert!(!self.reading.is_finished(), "the run was over too early");
        durable
    }

    /// Its answer, which is right.
    pub(crate) async fn answers(self, sql: &str) {
        let ours = self.reading.await.expect("no panic").expect("an answer");
        let expected = tpch_oracle(SCALE).await.answer(sql).await.expect("an answer");
        let difference = compare(&expected, &ours).expect("a comparison");
        assert!(difference.is_none(), "{difference:?}");
    }

    pub(crate) async fn sum(&self, client: &mut Client, what: &str) -> u64 {
        let sum = format!("SELECT sum({what}) FROM system.tasks WHERE run_id = '{}'", self.run);
        value(client, &sum).await.parse().expect("a number")
    }
}

/// Two executors of one slot, and tables.
pub(crate) async fn cluster(state: &str, environment: &[(&'static str, String)]) -> (ProcessCluster, Client) {
    let cluster = ProcessCluster::with(2, 1, state, environment).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, SCALE).await;
    (cluster, client)
}
