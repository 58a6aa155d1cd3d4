//! What is told of a run while it goes.

use std::time::{Duration, Instant};

use tidemill_core::schedule::Progress;
use tidemill_tests::harness::{ProcessCluster, create_tpch};

use crate::durable::SCALE;

/// One task, which reads for seconds before it writes anything.
const SLOW_SCAN: &str = "SELECT count(*) AS n FROM lineitem WHERE md5(repeat(l_comment, 40)) > 'f'";

#[tokio::test(flavor = "multi_thread")]
async fn rows_flow_while_the_only_task_of_a_run_is_not_done() {
    let cluster = ProcessCluster::start(1, 1).await;
    let mut client = cluster.client().await;
    create_tpch(&mut client, SCALE).await;
    client.set("datafusion.execution.target_partitions", "1").expect("a setting");
    let observer = client.observer();
    let result = client.query(SLOW_SCAN).await.expect("a run");
    let run = result.run.clone().expect("a run");
    let reading = tokio::spawn(result.collect());
    let (start, mut seen) = (Instant::now(), Vec::<Progress>::new());
    while seen.len() < 3 {
        assert!(start.elapsed() < Duration::from_secs(120) && !reading.is_finished(), "no rows flow: {seen:?}");
        if let Ok(Some(now)) = observer.progress(&run).await {
            let is_news = now.rows > seen.last().map_or(0, |before| before.rows);
            if is_news && (now.tasks_running, now.tasks_done) == (1, 0) {
                seen.push(now);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    reading.await.expect("no panic").expect("an answer");
    let end = observer.progress(&run).await.expect("an answer").expect("the run");
    assert_eq!((end.tasks_running, end.tasks_done), (0, end.tasks));
    assert!(end.rows >= seen[2].rows, "what was told was more than there is: {seen:?}, and in the end {end:?}");
}
