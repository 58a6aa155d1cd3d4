//! TPC-H through the engine equals in-process DataFusion, over partitions × executors × slots, embedded and over
//! sockets, by reference and through encoded frames.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemill::client::Client;
use tidemill::compose::{Embedded, EmbeddedConfig};
use tidemill::generate::TPCH_TABLES;
use tidemill::oracle::{Answer, Oracle};
use tidemill::session::FORCE_ENCODE;
use tidemill::tpch::{QUERIES, create_tables};
use tidemill_tests::harness::{LocalCluster, Shape, assert_answer, rows, tpch, value};

const PARTITIONS: [usize; 4] = [1, 2, 3, 8];

fn statement(sql: &str) -> &str {
    sql.trim().trim_end_matches(';')
}

async fn answers() -> BTreeMap<&'static str, Answer> {
    let oracle = Oracle::new(2, 1 << 30).expect("an oracle");
    oracle.register(&tpch(), &TPCH_TABLES).await.expect("tables");
    let mut answers = BTreeMap::new();
    for (name, sql) in QUERIES {
        answers.insert(name, oracle.answer(statement(sql)).await.expect(name));
    }
    answers
}

async fn check_all(client: &mut Client, answers: &BTreeMap<&'static str, Answer>, context: &str) {
    for partitions in PARTITIONS {
        client.set("datafusion.execution.target_partitions", &partitions.to_string()).expect("a setting");
        for (name, sql) in QUERIES {
            let context = format!("{name}, {partitions} partitions, {context}");
            assert_answer(client, statement(sql), &answers[name], &context).await;
        }
    }
}

async fn register(client: &mut Client) {
    for create in create_tables(&tpch()) {
        rows(client, &create).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_answers_are_datafusions() {
    let answers = answers().await;
    for slots in [1, 2] {
        let work = tempfile::tempdir().expect("a folder");
        let config =
            EmbeddedConfig { slots, memory: 512 << 20, work_dir: work.path().to_owned(), ..EmbeddedConfig::default() };
        let embedded = Arc::new(Embedded::start(config).expect("an embedded cluster"));
        let mut client = Client::of(Arc::clone(&embedded));
        register(&mut client).await;
        for force in ["false", "true"] {
            client.set(FORCE_ENCODE, force).expect("a setting");
            check_all(&mut client, &answers, &format!("embedded, {slots} slots, force_encode {force}")).await;
        }
        // Nothing stays behind: the release of the last run may still be on its way, and so may the end of an attempt that
        // was stopped while it read.
        let store = embedded.executor().store();
        let left = || (store.outputs(), store.memory_bytes(), embedded.coordinator().kept_blobs());
        let start = Instant::now();
        while left() != (0, 0, 0) && start.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let held = store.runs();
        let state = embedded.coordinator().state().await.expect("a state");
        let held: Vec<_> = held.iter().map(|run| (run, state.runs.get(run).map(|r| r.state))).collect();
        assert_eq!(left(), (0, 0, 0), "outputs, bytes and blobs of finished runs: {held:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_over_sockets_are_datafusions() {
    let answers = answers().await;
    for executors in [1, 2, 3] {
        for slots in [1, 2] {
            let cluster = LocalCluster::start(Shape { executors, slots }).await;
            let mut client = cluster.client().await;
            register(&mut client).await;
            let context = format!("{executors} executors, {slots} slots");
            check_all(&mut client, &answers, &context).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_crosses_the_network_wherever_datafusion_repartitions() {
    let answers = answers().await;
    let cluster = LocalCluster::start(Shape { executors: 2, slots: 1 }).await;
    let mut client = cluster.client().await;
    register(&mut client).await;
    client.set("datafusion.execution.target_partitions", "8").expect("a setting");
    let mut crossed = 0;
    for (name, sql) in QUERIES {
        let result = client.execute(statement(sql)).await.expect(name);
        let run = result.run.clone().expect("a run");
        result.collect().await.expect(name);
        let remote = format!("SELECT remote_bytes FROM system.runs WHERE run_id = '{run}'");
        let remote: u64 = value(&mut client, &remote).await.parse().expect("a number");
        if answers[name].repartitions {
            assert!(remote > 0, "{name} exchanged nothing between executors");
            crossed += 1;
        }
    }
    assert!(crossed >= 15, "only {crossed} queries repartition: does the test still see DataFusion's plans?");
}
