//! What a version of a dataset says of the interval that it publishes, here and to other engines.

use tidemill_tests::harness::{LocalCluster, Shape, delta, rows, value};

use super::{asked, click, tables, until};

#[tokio::test(flavor = "multi_thread")]
async fn dx3_others_see_which_run_published_which_interval_from_which_versions() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 2 }).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    click(client, folder.path()).await;
    rows(client, &asked("counts", "")).await;
    let rolls = asked("rolls", "").replace("INTO sums", "INTO rolled").replace(
        "date_trunc('hour', ts) AS hour, count(*) AS n FROM clicks WHERE ts >= $interval_start AND ts <",
        "hour, max(n) AS n FROM sums WHERE hour >= $interval_start AND hour <",
    );
    rows(client, &rolls).await;
    for (job, published) in [("counts", "1"), ("rolls", "2")] {
        rows(client, &format!("EXECUTE JOB {job} FOR INTERVAL '2026-03-01 07:00'")).await;
        until(client, "SELECT count(*) FROM system.intervals WHERE state = 'published'", published).await;
    }
    let history = rows(client, "DESCRIBE HISTORY rolled LIMIT 1").await;
    let newest = history.iter().find(|batch| batch.num_rows() == 1).expect("a version");
    let columns: Vec<_> = newest.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(columns, ["version", "timestamp", "operation", "run", "engine", "info"]);
    let cell = |column| arrow::util::display::array_value_to_string(newest.column(column), 0).expect("a text");
    assert_eq!((cell(0).as_str(), cell(3).as_str()), ("1", "job-rolls-2-7-1-1"));
    let info: serde_json::Value = serde_json::from_str(&cell(5)).expect("JSON");
    let (start, end) = ("2026-03-01T07:00:00Z", "2026-03-01T08:00:00Z");
    assert_eq!((&info["tidemill.interval_start"], &info["tidemill.interval_end"]), (&start.into(), &end.into()));
    let at = |table: &str| folder.path().join(table).display().to_string();
    let inputs = format!("{{\"file://{}/\": 1}}", at("sums"));
    let rolled = at("rolled");
    let checked = tokio::task::spawn_blocking(move || {
        let expected = ["1", "job-rolls-2-7-1-1", "rolls", start, end, inputs.as_str()];
        delta::check("published", &rolled, &expected, &[]);
        let rows = r#"[["2026-03-01T07:00:00", 60]]"#;
        delta::check("read", &rolled, &[r#"["hour", "n"]"#, rows], &[]);
    });
    checked.await.expect("other engines see the same");
    assert_eq!(value(client, "SELECT n FROM rolled").await, "60");
}
