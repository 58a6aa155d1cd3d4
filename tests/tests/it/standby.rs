//! Coordinators that stand by, and go on where the leader was.

use std::time::{Duration, Instant};

use tidemill::client::Client;
use tidemill_tests::harness::{Process, ProcessCluster, create_tpch, rows, value};

use crate::durable::{SCALE, SLOW, state_in};
use crate::going::Going;

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
