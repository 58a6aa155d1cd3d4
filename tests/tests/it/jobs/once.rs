//! An interval's rows are in the dataset once: those that are added, whoever dies around the version, and those that two people
//! ask for.

use std::time::{Duration, Instant};

use tidemill_core::ErrorKind;
use tidemill_engine::crash::VARIABLE;
use tidemill_tests::harness::{LocalCluster, ProcessCluster, Shape, rows, value};

use super::{asked, click, refused, tables, until};
use crate::durable::state_in;

const EXECUTE: &str = "EXECUTE JOB counts FOR INTERVAL '2026-03-01 07:00'";
const PUBLISHED: &str = "SELECT count(*) FROM system.intervals WHERE state = 'published'";

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_added_once_though_the_coordinator_dies_around_their_version() {
    for side in ["before", "after"] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cluster = ProcessCluster::durable(1, 2, &state_in(&folder.path().join("state"))).await;
        let client = &mut cluster.client().await;
        tables(client, folder.path()).await;
        click(client, folder.path()).await;
        rows(client, &asked("counts", "").replace("interval_column = 'hour'", "mode = 'append'")).await;
        cluster.restart_coordinator_with(&[(VARIABLE, format!("dataset.commit:{side}:1"))]);
        cluster.wait_for_executors(1).await;
        let client = &mut cluster.client().await;
        rows(client, EXECUTE).await;
        let start = Instant::now();
        while !cluster.coordinator.was_killed() {
            assert!(start.elapsed() < Duration::from_secs(60), "{side}: nothing was committed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cluster.restart_coordinator();
        let client = &mut cluster.client().await;
        until(client, PUBLISHED, "1").await;
        assert_eq!(value(client, "SELECT count(*) || ' ' || sum(n) FROM sums").await, "1 60", "{side}");
        let versions: usize = rows(client, "DESCRIBE HISTORY sums").await.iter().map(|batch| batch.num_rows()).sum();
        assert_eq!(versions, 2, "{side}");
        let again = refused(client, EXECUTE).await;
        assert_eq!(again.kind, ErrorKind::Conflict, "{side}: {again}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interval_that_two_ask_for_at_once_has_its_rows_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let (mut client, mut other) = (cluster.client().await, cluster.client().await);
    tables(&mut client, folder.path()).await;
    click(&mut client, folder.path()).await;
    rows(&mut client, &asked("counts", ", max_active_runs = 4")).await;
    tokio::join!(rows(&mut client, EXECUTE), rows(&mut other, EXECUTE));
    rows(&mut other, EXECUTE).await;
    until(&mut client, "SELECT running + due FROM system.jobs", "0").await;
    assert_eq!(value(&mut client, PUBLISHED).await, "1");
    assert_eq!(value(&mut client, "SELECT count(*) || ' ' || sum(n) FROM sums").await, "1 60");
    // Never two of them beside each other.
    let beside = "SELECT count(*) FROM system.runs a JOIN system.runs b ON a.job = b.job AND a.run_id < b.run_id \
                  WHERE a.submitted_at < b.finished_at AND b.submitted_at < a.finished_at";
    assert_eq!(value(&mut client, beside).await, "0");
}
