//! Queries whose processes are killed at moments spread over the run, with the state in a folder and on S3.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use tidemill::client::Client;
use tidemill::oracle::{Answer, compare};
use tidemill::tpch::QUERIES;
use tidemill_tests::harness::s3::S3Server;
use tidemill_tests::harness::{
    ProcessCluster, create_tpch, is_full, logged, repeated_after_success, started_after, tpch_oracle,
};

use crate::durable::{SCALE, SLOW, in_store, state_in};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victims {
    OneExecutor,
    Coordinator,
    Everybody,
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_change_no_answer_with_the_state_in_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    Chaos::new(&state_in(folder.path()), &[]).await.sweep().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_change_no_answer_with_the_state_on_s3() {
    let s3 = tokio::task::spawn_blocking(S3Server::start).await.expect("a server");
    s3.create_bucket("tide");
    Chaos::new("s3://tide/cluster", &s3.environment()).await.sweep().await;
}

struct Chaos {
    cluster: ProcessCluster,
    client: Client,
    /// How many kills found a run that was going on.
    hits: usize,
    /// How many tasks were in the store when somebody was killed.
    durable: usize,
}

impl Chaos {
    async fn new(state: &str, environment: &[(&'static str, String)]) -> Self {
        // These runs are short: they store from the beginning.
        let environment = [environment, &[("TIDEMILL_YOUNG_MILLIS", "0".to_owned())]].concat();
        let cluster = ProcessCluster::with(2, 1, state, &environment).await;
        let mut client = cluster.client().await;
        create_tpch(&mut client, SCALE).await;
        client.set("datafusion.execution.target_partitions", "8").expect("a setting");
        Self { cluster, client, hits: 0, durable: 0 }
    }

    async fn sweep(mut self) {
        // One that takes a while even here, and in full those with many stages.
        let (tpch, moments): (&[usize], u32) = if is_full() { (&[4, 8, 17, 20], 20) } else { (&[], 2) };
        let queries = [("slow", SLOW)].into_iter().chain(tpch.iter().map(|index| QUERIES[*index]));
        let oracle = tpch_oracle(SCALE).await;
        for (name, sql) in queries {
            let sql = sql.trim().trim_end_matches(';');
            let expected = oracle.answer(sql).await.expect("an answer");
            let start = Instant::now();
            self.client.query(sql).await.expect("a run").collect().await.expect("rows");
            let alone = start.elapsed();
            for victims in [Victims::OneExecutor, Victims::Coordinator, Victims::Everybody] {
                for moment in 0..moments {
                    let at = alone * (2 * moment + 1) / (2 * moments);
                    self.kill(sql, &expected, victims, at, &format!("{name}, {victims:?} killed after {at:?}")).await;
                }
            }
        }
        assert!(self.durable > 0, "no kill came when anything was in the store");
        let kills = (1 + tpch.len()) * 3 * moments as usize;
        assert!(self.hits * 2 >= kills, "only {} of {kills} kills came while a run was going on", self.hits);
    }

    async fn kill(&mut self, sql: &str, expected: &Answer, victims: Victims, at: Duration, context: &str) {
        let result = self.client.query(sql).await.expect("a run");
        let run = result.run.clone().expect("a run").0;
        let reading = tokio::spawn(result.collect());
        tokio::time::sleep(at).await;
        let durable = in_store(&mut self.client, &run).await;
        logged(&mut self.client).await;
        let known = SystemTime::now();
        self.durable += durable.len();
        self.hits += usize::from(!reading.is_finished());
        if victims != Victims::Coordinator {
            self.cluster.executors[0].kill();
        }
        if victims == Victims::Everybody {
            self.cluster.executors[1].kill();
        }
        if victims != Victims::OneExecutor {
            self.cluster.restart_coordinator();
        }
        let dead = match victims {
            Victims::OneExecutor => 1,
            Victims::Coordinator => 0,
            Victims::Everybody => 2,
        };
        for _ in 0..dead {
            self.cluster.executors.remove(0);
            self.cluster.add_executor(1);
        }
        let ours = reading.await.expect("no panic").unwrap_or_else(|e| panic!("{context}: {e}"));
        let difference = compare(expected, &ours).expect("a comparison");
        assert!(difference.is_none(), "{context}: {difference:?}");
        // The executors' own word.
        let journals = self.cluster.journals();
        let again: BTreeSet<String> = match victims {
            Victims::Coordinator => {
                let repeated = repeated_after_success(&journals, known);
                repeated.into_iter().filter(|task| task.starts_with(&run)).collect()
            }
            _ => started_after(&journals, &run, known).intersection(&durable).cloned().collect(),
        };
        assert!(again.is_empty(), "{context} repeated {again:?}");
        self.cluster.wait_for_executors(2).await;
    }
}
