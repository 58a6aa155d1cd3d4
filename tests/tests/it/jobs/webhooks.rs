//! Whoever asked for it is told of a job, by a secret's address.

use std::time::Duration;

use tidemill_tests::harness::{AWAY, ProcessCluster, rows, value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{click, hourly, tables};

/// One request, answered with a status.
pub(super) async fn served(listener: &TcpListener, status: &str) -> String {
    let (mut stream, _) =
        tokio::time::timeout(Duration::from_secs(60), listener.accept()).await.expect("in time").expect("a call");
    let mut request = String::new();
    while !request.trim_end().ends_with('}') {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).await.expect("a request");
        assert!(read > 0, "the request ends early: {request}");
        request.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.expect("an answer");
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_interval_is_told_until_somebody_listens_and_a_published_one_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let secret = format!("{{ type = \"webhook\", url = \"http://{address}/hook?key=hunter2\", token = \"hunter3\" }}");
    let away = folder.path().join("away");
    std::fs::write(&away, "").expect("a file");
    let environment = [("TIDEMILL_SECRET_PAGER", secret), (AWAY, away.display().to_string())];
    let cluster = ProcessCluster::with(1, 1, "memory://", &environment).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    click(client, folder.path()).await;
    let told = ", retries = 0, on_failure = 'secret:pager', on_success = 'secret:pager'";
    rows(client, &hourly("counts", told).replace("count(*)", "sum(away(1))")).await;
    rows(client, "EXECUTE JOB counts FOR INTERVAL '2026-03-01 07:00'").await;
    let first = served(&listener, "503 Service Unavailable").await;
    let second = served(&listener, "200 OK").await;
    for request in [&first, &second] {
        assert!(request.starts_with("POST /hook?key=hunter2 HTTP/1.1"), "{request}");
        assert!(request.contains("authorization: Bearer hunter3"), "{request}");
    }
    let body = second.split("\r\n\r\n").nth(1).expect("a body");
    let told: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(told["event"], "failed");
    assert_eq!((&told["job"], &told["run"]), (&"counts".into(), &"job-counts-1-7-1-1".into()));
    assert_eq!(told["interval_start"], "2026-03-01T07:00:00Z");
    assert_eq!(told["error"]["kind"], "unavailable");
    std::fs::remove_file(&away).expect("the file");
    rows(client, "EXECUTE JOB counts FOR INTERVAL '2026-03-01 07:00'").await;
    let third = served(&listener, "200 OK").await;
    let told: serde_json::Value = serde_json::from_str(third.split("\r\n\r\n").nth(1).expect("a body")).expect("JSON");
    assert_eq!((&told["event"], &told["version"]), (&"published".into(), &1.into()));
    let shown = value(client, "SELECT statement FROM system.jobs").await;
    assert!(shown.contains("on_failure = 'secret:pager'") && !shown.contains("hunter"), "{shown}");
    let unknown = client.execute(&hourly("others", ", on_late = 'secret:nobody'")).await.err().expect("a refusal");
    assert!(unknown.message.contains("no secret `nobody`"), "{unknown}");
    // An address that opens by itself is refused, and stands nowhere after that.
    let open = hourly("others", ", on_late = 'https://host/hook?key=hunter4'");
    let open = client.execute(&open).await.err().expect("a refusal");
    assert!(open.message.contains("on_late = 'secret:NAME'") && !open.message.contains("hunter"), "{open}");
    let written = "SELECT count(*) FROM system.runs WHERE strpos(statement, 'hunter' || '4') > 0";
    assert_eq!(value(client, written).await, "0");
    let hidden = "SELECT count(*) FROM system.runs WHERE strpos(statement, 'on_late = ''**' || '*''') > 0";
    assert_eq!(value(client, hidden).await, "1");
}
