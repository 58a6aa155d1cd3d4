//! A store that is late with the log, while executors die: what waits for the log goes out with what it named when it was
//! decided, and says itself what is lost.

use std::time::{Duration, Instant};

use tidemill_tests::harness::s3::S3Server;
use tidemill_tests::harness::{ProcessCluster, Wire, value};

use crate::going::{Going, cluster};

/// Its first stage takes a second or two, and may give other rows when it is repeated, as far as anybody can tell: that its
/// tasks succeeded must be in the log before anybody reads them.
const COLLECTED: &str = "SELECT k, sum(cardinality(numbers)) AS numbers, max(digest) AS digest FROM (
        SELECT l_orderkey % 100 AS k, array_agg(l_linenumber) AS numbers, max(md5(repeat(l_comment, 80))) AS digest
        FROM lineitem WHERE random() >= 0 GROUP BY 1) GROUP BY 1";
const PATIENCE: Duration = Duration::from_secs(120);

/// Lines of the executors' journals that say `what` of a run.
fn noted(cluster: &ProcessCluster, run: &str, what: &str) -> Vec<String> {
    let lines = cluster.journals().into_iter().flatten();
    lines.filter(|line| line.contains(run) && line.split(' ').nth(1) == Some(what)).collect()
}

async fn until(cluster: &ProcessCluster, run: &str, what: &str, times: usize) {
    let start = Instant::now();
    while noted(cluster, run, what).len() < times {
        assert!(start.elapsed() < PATIENCE, "not {times} tasks have {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_is_lost_while_a_launch_waits_for_the_log_is_made_again() {
    let (_s3, wire, environment) = S3Server::behind_a_wire("tide").await;
    let (mut cluster, mut client) = cluster("s3://tide/cluster", &environment).await;
    let mut submitter = cluster.client().await;
    submitter.set("tidemill.durability", "off").expect("a setting");
    let going = Going::in_partitions(submitter, COLLECTED, "2").await;
    let run = going.run.0.clone();
    until(&cluster, &run, "started", 2).await;
    wire.set(Wire::Frozen);
    assert!(noted(&cluster, &run, "succeeded").is_empty(), "the log was not late enough");
    until(&cluster, &run, "succeeded", 2).await;
    // Their readers are decided on, and wait.
    cluster.executors[1].kill();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(noted(&cluster, &run, "started").len(), 2, "a reader was launched ahead of the log");
    wire.set(Wire::Whole);
    going.answers(COLLECTED).await;
    let repeats = format!("SELECT sum(repeats) > 0 FROM system.tasks WHERE run_id = '{run}'");
    assert_eq!(value(&mut client, &repeats).await, "true", "nothing was lost");
}
