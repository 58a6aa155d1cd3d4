//! Coordinators that stand by, and go on where the leader was.

use std::time::{Duration, Instant};

use tidemill::client::Client;
use tidemill_tests::harness::{Process, ProcessCluster, create_tpch, rows, value};

use crate::durable::{SCALE, SLOW, state_in};
use crate::going::Going;

/// What a coordinator answers without an executor.
const TABLES: &str = "SELECT count(*) AS x FROM information_schema.tables WHERE table_name = 'none'";

#[tokio::test(flavor = "multi_thread")]
async fn of_two_coordinators_one_leads_and_the_other_takes_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = state_in(folder.path());
    let first = Process::start(&["coordinator", "--bind", "127.0.0.1:0", "--state", &state]);
    let mut client = Client::connect(&first.url()).await.expect("a client");
    rows(&mut client, "CREATE VIEW kept AS SELECT 1 AS x").await;
    let second = Process::start_saying(&["coordinator", "--bind", "127.0.0.1:0", "--state", &state], &[], "stands by");
    let standby = second.url();
    assert!(second.ready.contains(&first.url().replace("http://", "")), "it says who leads: {}", second.ready);
    // Stopped, not dead: its port still accepts, only its lease stands still.
    first.signal("STOP");
    let start = Instant::now();
    let mut taken = Client::connect(&standby).await.expect("a client");
    assert_eq!(
        value(&mut taken, "SELECT count(*) FROM information_schema.tables WHERE table_name = 'kept'").await,
        "1"
    );
    assert!(start.elapsed() < Duration::from_secs(45), "{:?}", start.elapsed());
    first.signal("CONT");
    assert_eq!(first.wait(), Some(1), "it leads no more");
}

/// Everybody knows both addresses; the one that leads at first is not the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_at_another_address_goes_on_with_the_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = state_in(folder.path());
    let mut cluster = ProcessCluster::durable(0, 1, &state).await;
    let args = ["coordinator", "--bind", "127.0.0.1:0", "--state", &state];
    let second = Process::start_saying(&args, &[], "stands by");
    let urls = format!("{},{}", second.url(), cluster.coordinator.url());
    cluster.add_executor_through(1, &urls, &[]);
    cluster.add_executor_through(1, &urls, &[]);
    cluster.wait_for_executors(2).await;
    let mut client = Client::connect(&urls).await.expect("a client");
    create_tpch(&mut client, SCALE).await;
    let going = Going::of(Client::connect(&urls).await.expect("a client"), SLOW).await;
    going.until_durable(&mut client, 8).await;
    let killed = Instant::now();
    cluster.kill_coordinator();
    let repeated = format!("SELECT sum(repeats) FROM system.tasks WHERE run_id = '{}'", going.run);
    assert_eq!(value(&mut client, &repeated).await, "0", "what was finished was done again");
    assert!(killed.elapsed() < Duration::from_secs(45), "it took {:?}", killed.elapsed());
    let run = going.run.clone();
    going.answers(SLOW).await;
    assert_eq!(value(&mut client, &repeated).await, "0", "what was finished was done again");
    let recoveries = format!("SELECT recoveries FROM system.runs WHERE run_id = '{run}'");
    assert_eq!(value(&mut client, &recoveries).await, "1", "the run was over before");
}

/// An executor and a client that were told only the address that stands by.
#[tokio::test(flavor = "multi_thread")]
async fn who_knows_only_the_standby_is_told_who_leads() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = state_in(folder.path());
    let args = ["coordinator", "--bind", "127.0.0.1:0", "--state", &state];
    let mut first = Process::start(&args);
    let second = Process::start_saying(&args, &[], "stands by");
    let standby = second.url();
    let leader = first.url().replace("http://", "");
    let told = format!("{standby} stands by, and {leader} leads: give both to --connect, divided by commas");
    let work = folder.path().join("work").display().to_string();
    let executor = ["executor", "--connect", &standby, "--slots", "1", "--memory", "128MiB", "--work-dir", &work];
    let mut executor = Process::start_saying(&executor, &[], "waits for the coordinator at");
    assert!(executor.ready.contains(&standby), "{}", executor.ready);
    executor.until_said(&told).await;
    // The client waits as long as taking over takes.
    let output = Process::run(&["sql", "--connect", &standby, "-c", "SELECT 1"]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(75), ""), "{}", output.stderr);
    assert!(output.stderr.contains(&told), "{}", output.stderr);
    assert!(output.time < Duration::from_secs(25), "it took {:?}", output.time);
    // Meanwhile the executor has said it again, and goes on waiting.
    assert!(executor.said().matches(told.as_str()).count() >= 2, "{}", executor.said());
    assert_eq!(executor.exit_code(), None, "it waits: {}", executor.said());
    // Who knows both is answered at once, whichever is the first.
    let both = format!("{standby},{}", first.url());
    let output = Process::run(&["sql", "--connect", &both, "--format", "csv", "-c", TABLES]);
    assert_eq!((output.code, output.stdout.as_str()), (Some(0), "x\n0\n"), "{}", output.stderr);
    first.kill();
    until_an_executor_is_alive(&standby).await;
}

/// A leader that comes back after another followed it stands by, and tells its executor so.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_whose_coordinator_stands_by_says_what_it_waits_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = state_in(folder.path());
    let args = ["coordinator", "--bind", "127.0.0.1:0", "--state", &state];
    let mut first = Process::start(&args);
    let url = first.url();
    let mut second = Process::start_saying(&args, &[], "stands by");
    let work = folder.path().join("work").display().to_string();
    let executor = ["executor", "--connect", &url, "--slots", "1", "--memory", "128MiB", "--work-dir", &work];
    let mut executor = Process::start(&executor);
    until_an_executor_is_alive(&url).await;
    first.kill();
    let mut client = Client::connect(&second.url()).await.expect("a client");
    assert_eq!(value(&mut client, TABLES).await, "0", "the second leads");
    let address = url.replace("http://", "");
    let again = ["coordinator", "--bind", &address, "--state", &state];
    let again = Process::start_saying(&again, &[], "stands by");
    assert_eq!(again.url(), url);
    executor.until_said(&format!("{url} stands by, and {} leads", second.url().replace("http://", ""))).await;
    assert_eq!(executor.exit_code(), None, "it waits: {}", executor.said());
    second.kill();
    let mut client = Client::connect(&url).await.expect("a client");
    assert_eq!(value(&mut client, "SELECT count(*) FROM generate_series(1, 1000)").await, "1000", "it works again");
}

async fn until_an_executor_is_alive(url: &str) {
    let mut client = Client::connect(url).await.expect("a client");
    let start = Instant::now();
    let alive = "SELECT count(*) FROM system.executors WHERE state = 'alive'";
    while value(&mut client, alive).await != "1" {
        assert!(start.elapsed() < Duration::from_secs(45), "the executor does not join");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
