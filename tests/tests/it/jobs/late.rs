//! Deadlines and timeouts: what is late is told, and what takes too long is ended.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidemill_tests::harness::{LocalCluster, ProcessCluster, Shape, rows, value};
use tokio::net::TcpListener;

use super::webhooks::served;
use super::{asked, click, tables, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_interval_that_is_late_is_told_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let cluster = ProcessCluster::start(1, 1).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    // Of the hour that ended one to two hours ago, the deadline is ten seconds away: those before are no business of a new job.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let end = now - now % 3_600 - 3_600;
    let told = format!(", deadline = '{}s', on_late = 'http://{address}/late'", now - end + 10);
    let job = asked("counts", &told).replacen("WITH", "DEPENDS ON clicks COMPLETE WITH", 1);
    rows(client, &job).await;
    let request = served(&listener, "200 OK").await;
    assert!(request.starts_with("POST /late HTTP/1.1"), "{request}");
    let body = request.split("\r\n\r\n").nth(1).expect("a body");
    let notice: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let mut expected = serde_json::json!({ "event": "late", "job": "counts", "intervals": 1 });
    for (field, at) in [("interval_start", end - 3_600), ("interval_end", end)] {
        let shown = format!("SELECT to_char(to_timestamp({at}), '%Y-%m-%dT%H:%M:%SZ')");
        expected[field] = value(client, &shown).await.into();
    }
    assert_eq!(notice, expected);
    let again = tokio::time::timeout(Duration::from_secs(2), listener.accept()).await;
    assert!(again.is_err(), "it is told twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_longer_than_its_timeout_is_ended_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    click(client, folder.path()).await;
    let endless = "FROM clicks CROSS JOIN generate_series(1, 2000) AS a(x) CROSS JOIN generate_series(1, 4000) AS b(x)";
    let job = asked("counts", ", retries = 1, retry_backoff = '1s', timeout = '1s'").replace("FROM clicks", endless);
    rows(client, &job.replace("count(*)", "count(md5(concat(ad, a.x, b.x)))")).await;
    rows(client, "EXECUTE JOB counts FOR INTERVAL '2026-03-01 07:00'").await;
    until(client, "SELECT count(*) FROM system.intervals WHERE state = 'failed'", "1").await;
    let error = value(client, "SELECT error FROM system.intervals WHERE state = 'failed'").await;
    assert!(error.contains("took longer than the timeout of its job, 1 second"), "{error}");
    // It may pass, and so it was tried again.
    let runs =
        "SELECT count(*) || ' ' || max(attempt) || ' ' || count(finished_at) FROM system.runs WHERE job = 'counts'";
    assert_eq!(value(client, runs).await, "2 2 2");
    assert_eq!(value(client, "SELECT count(*) FROM sums").await, "0");
}
