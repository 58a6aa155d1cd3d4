//! A database is asked once per run, whoever dies: its rows are in an exchange, like any others. Whose connection is cut asks
//! again.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use tidemill::client::Client;
use tidemill_tests::harness::postgres::Postgres;
use tidemill_tests::harness::{Process, ProcessCluster, Proxy, Wire, logged, rows, started_after, value};

use super::create;
use crate::durable::{in_store, state_in};
use crate::faults::until;
use crate::going::{Going, with_a_slow_end};

/// Rows of the table, which take a while behind it.
const SETUP: &str = "CREATE TABLE grain (id bigint, kind text);
    INSERT INTO grain SELECT i, 'kind ' || i % 10 FROM generate_series(1, 20000) AS i";

#[tokio::test(flavor = "multi_thread")]
async fn as4_a_kill_in_the_last_stage_asks_no_database_and_repeats_no_stage_before_it() {
    let postgres = tokio::task::spawn_blocking(Postgres::start).await.expect("a server");
    postgres.execute(SETUP);
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = ProcessCluster::with(2, 1, &state_in(folder.path()), &postgres.environment()).await;
    let mut client = cluster.client().await;
    rows(&mut client, &create("grain", "grain")).await;
    let counts = "SELECT kind, count(*) AS c FROM grain WHERE id > 10000 GROUP BY kind";
    let expected = rows(&mut client, &format!("SELECT sum(c) FROM ({counts}) AS w")).await;
    assert_eq!(total(&expected), 10_000);
    let before = postgres.reads("\"grain\"");
    assert_eq!(before, 1, "{}", postgres.log());
    let sql = with_a_slow_end(counts, "w.kind");
    let going = Going::of(cluster.client().await, &sql).await;
    going.until_stored(&mut client).await;
    // What is read, what is grouped where it was read, and groups of all: behind these is the slow end.
    let stages = format!(
        "SELECT count(DISTINCT stage_id) FROM system.tasks WHERE pack IS NOT NULL AND stage_id < 3 AND run_id = '{}'",
        going.run
    );
    until("three stages in the store", async || value(&mut client, &stages).await == "3").await;
    let stored = in_store(&mut client, &going.run.0).await;
    logged(&mut client).await;
    // Whoever reads them is killed, and then whoever reads them instead.
    let first = SystemTime::now();
    for _ in 0..2 {
        let victim = reader(&cluster, &mut client, &going).await;
        let killed = SystemTime::now();
        cluster.executors[victim].kill();
        cluster.add_executor(1);
        let start = Instant::now();
        while started_after(&cluster.journals(), &going.run.0, killed).is_empty() {
            assert!(!going.reading.is_finished(), "the run was over too early");
            assert!(start.elapsed() < Duration::from_secs(60), "nothing was repeated");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let run = going.run.clone();
    let answer = going.reading.await.expect("no panic").expect("an answer");
    // Ten kinds, each with 2,000 times 2,000 rows.
    let n = arrow::util::display::array_value_to_string(answer[0].column(0), 0).expect("a value");
    assert_eq!(n, "40000000");
    assert_eq!(postgres.reads("\"grain\""), before + 1, "run {run} asked again:\n{}", postgres.log());
    let again = started_after(&cluster.journals(), &run.0, first);
    assert!(again.is_disjoint(&stored), "of {stored:?} was done again: {again:?}");
    assert!(again.iter().any(|task| task.starts_with("3.")), "the end was not repeated: {again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn as5_a_connection_that_is_cut_in_the_middle_of_a_task_changes_no_answer() {
    let postgres = tokio::task::spawn_blocking(Postgres::start).await.expect("a server");
    postgres.execute(SETUP);
    // Sends its rows over some seconds.
    postgres
        .execute("CREATE VIEW slowly AS SELECT id, kind, pg_sleep(0.001)::text AS nothing FROM grain WHERE id <= 3000");
    let wire = Proxy::start(SocketAddr::from(([127, 0, 0, 1], postgres.port))).await;
    let mut environment = postgres.environment();
    let (port, through) = (format!("port = {}", postgres.port), format!("port = {}", wire.address.port()));
    environment.iter_mut().for_each(|(_, text)| *text = text.replace(&port, &through));
    let cluster = ProcessCluster::with(1, 1, "memory://", &environment).await;
    let mut client = cluster.client().await;
    rows(&mut client, &create("slowly", "slowly")).await;
    let sql = "SELECT count(*) || ' ' || count(DISTINCT kind) || ' ' || sum(id) AS a FROM slowly WHERE nothing = ''";
    let result = client.query(sql).await.expect("a run");
    let reading = tokio::spawn(result.collect());
    let active = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tidemill' AND state = 'active'";
    until("the task", async || postgres.execute(active) == "1").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(postgres.execute(active), "1", "the rows came too fast");
    wire.set(Wire::Cut);
    tokio::time::sleep(Duration::from_millis(300)).await;
    wire.set(Wire::Whole);
    let answer = reading.await.expect("no panic").expect("an answer");
    let answer = answer.iter().find(|batch| batch.num_rows() == 1).expect("one row");
    let answer = arrow::util::display::array_value_to_string(answer.column(0), 0).expect("a value");
    assert_eq!(answer, "3000 10 4501500");
    let log = postgres.log();
    let asked = log.lines().filter(|line| line.contains("execute") && line.contains("FROM \"slowly\"")).count();
    assert_eq!((asked, wire.refused() > 0), (2, true), "it was not asked again:\n{log}");
}

/// The executor that runs a task of a run.
async fn reader(cluster: &ProcessCluster, client: &mut Client, going: &Going) -> usize {
    let running = format!(
        "SELECT coalesce(max(executor_id), '') FROM system.tasks WHERE run_id = '{}' AND state = 'running'",
        going.run
    );
    let start = Instant::now();
    loop {
        let name = value(client, &running).await;
        // Its name begins with its port.
        let port = name.split('-').next().filter(|port| !port.is_empty()).map(|port| format!(":{port}"));
        let found = port.and_then(|port| cluster.executors.iter().position(|e| e.url().ends_with(&port)));
        if let Some(found) = found {
            return found;
        }
        assert!(!going.reading.is_finished() && start.elapsed() < Duration::from_secs(60), "nobody reads");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn total(batches: &[arrow::record_batch::RecordBatch]) -> u64 {
    let batch = batches.iter().find(|b| b.num_rows() == 1).expect("one row");
    arrow::util::display::array_value_to_string(batch.column(0), 0).expect("a value").parse().expect("a number")
}

/// Whoever has had enough does not leave the database working.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_stopped_there_when_its_run_is() {
    let mut shop = super::Shop::open(SETUP).await;
    // Sends its rows over half a minute.
    shop.postgres.execute("CREATE VIEW slow AS SELECT id, pg_sleep(0.01)::text AS nothing FROM grain");
    shop.create("slow", "slow").await;
    let result = shop.client.query("SELECT count(*) FROM slow WHERE nothing = ''").await.expect("a run");
    let active = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tidemill' AND state = 'active'";
    let becomes = |count: &'static str| {
        let postgres = &shop.postgres;
        async move {
            let start = Instant::now();
            while postgres.execute(active) != count {
                assert!(start.elapsed() < Duration::from_secs(20), "{count} sessions are not active");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    becomes("1").await;
    drop(result);
    becomes("0").await;
}

/// Scans that wait for each other's connection go on, and each gives all its rows.
#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_many_scans() {
    let postgres = tokio::task::spawn_blocking(Postgres::start).await.expect("a server");
    postgres.execute(SETUP);
    let mut environment = postgres.environment();
    let more = |secret: &str| {
        secret
            .replace("type =", "connections = 1, options = \"-c timezone=Asia/Tokyo -c extra_float_digits=3\", type =")
    };
    environment.iter_mut().filter(|(key, _)| key.contains("SECRET_PG")).for_each(|(_, secret)| *secret = more(secret));
    let server = ["server", "--bind", "127.0.0.1:0", "--slots", "4", "--memory", "512MiB"];
    let server = Process::start_with(&server, &environment);
    let mut client = Client::connect(&server.url()).await.expect("a client");
    rows(&mut client, &create("grain", "grain")).await;
    let scans: Vec<String> = (0..8).map(|i| format!("SELECT id + {i} AS id FROM grain WHERE id > {i}")).collect();
    let all = format!("SELECT sum(id) FROM ({}) AS a", scans.join(" UNION ALL "));
    let expected: i64 = (0..8).map(|i| (i + 1..=20_000).map(|id| id + i).sum::<i64>()).sum();
    assert_eq!(value(&mut client, &all).await, expected.to_string());
    let joined = "SELECT count(*) FROM grain a JOIN grain b ON a.id = b.id JOIN grain c ON b.id = c.id JOIN grain d ON c.id = d.id";
    assert_eq!(value(&mut client, joined).await, "20000");
    // What a secret adds for sessions does not take away what they must be.
    postgres.execute("CREATE TABLE moments AS SELECT TIMESTAMPTZ '1970-01-01 00:00:00Z' AS at");
    rows(&mut client, &create("moments", "moments")).await;
    let at = "SELECT CAST(at AS VARCHAR) FROM moments WHERE at <= TIMESTAMP '1970-01-01T00:00:00Z'";
    assert_eq!(value(&mut client, at).await, "1970-01-01T00:00:00Z");
}
