//! Every clause of `CREATE JOB` from Rust: what is built is what is kept, and what is shown can be sent again.

use arrow::array::{AsArray, RecordBatch};
use tidemill::ErrorKind;

use super::creates;

/// The statement that `SHOW CREATE JOB` shows.
fn shown(definition: &[RecordBatch]) -> String {
    let batch = definition.iter().find(|batch| batch.num_rows() == 1).expect("a definition");
    batch.column_by_name("definition").expect("a column").as_string::<i32>().value(0).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_every_clause_is_kept_as_it_was_built() {
    let folder = tempfile::tempdir().expect("a folder");
    let session = tidemill::local().start().await.expect("a session");
    for create in creates(folder.path()) {
        session.sql(&create).await.expect("a table");
    }
    let query = "SELECT hour, n FROM rolled WHERE hour >= $interval_start AND hour < $interval_end -- the end";
    let mut every = session
        .job("every clause")
        .publishes_into("sums")
        .on_update_of("rolled")
        .on_update_of("clicks")
        .time_zone("Europe/Berlin")
        .interval("1 hour")
        .start("2026-03-01")
        .catch_up()
        .depends_on("rolled")
        .depends_on("clicks")
        .expect("n <> 7")
        .warn("count(*) = 1")
        .constraint("it's one")
        .unique(["hour", "n"]);
    let settings = [
        ("mode", "replace_interval"),
        ("interval_column", "hour"),
        ("overlap", "replace"),
        ("max_active_runs", "2"),
        ("retries", "3"),
        ("retry_backoff", "10s"),
        ("timeout", "2h"),
        ("deadline", "03:00"),
        ("suspend_after_failures", "4"),
        ("lookback", "1"),
        ("on_failure", "http://127.0.0.1:9/failed"),
        ("on_success", "http://127.0.0.1:9/done"),
        ("on_late", "http://127.0.0.1:9/late"),
    ];
    for (key, value) in settings {
        every = every.set(key, value);
    }
    let every = every.query(query);
    let set: Vec<String> = settings.iter().map(|(key, value)| format!("{key} = '{value}'")).collect();
    let expected = format!(
        "CREATE JOB \"every clause\" INTO sums\n  TRIGGER ON UPDATE OF rolled, clicks AT TIME ZONE 'Europe/Berlin'\n  \
         INTERVAL '1 hour' START '2026-03-01' CATCHUP TRUE\n  DEPENDS ON rolled, clicks COMPLETE\n  \
         EXPECT (n <> 7) ON VIOLATION FAIL\n  CONSTRAINT \"it's one\" EXPECT (count(*) = 1) ON VIOLATION WARN\n  \
         EXPECT (UNIQUE (\"hour\", \"n\")) ON VIOLATION FAIL\n  WITH ({})\nAS {query}",
        set.join(", ")
    );
    assert_eq!(every.statement(), expected);
    let job = every.clone().create().await.expect("a job");
    let kept = shown(&job.definition().await.expect("a definition"));
    assert_eq!(kept, expected);
    // The same again changes nothing, from Rust and as the text that was shown.
    let job = every.create_or_replace().await.expect("the same job");
    let again = kept.replacen("CREATE", "CREATE OR REPLACE", 1);
    session.sql(&again).await.expect("what is shown can be sent").collect().await.expect("an answer");
    assert_eq!(shown(&job.definition().await.expect("a definition")), expected);
    assert_eq!(job.cancel_run("job-nobody").await.expect_err("there is none").kind, ErrorKind::NotFound);
    let told = "SELECT reason || ', ' || depends_on || ', ' || time_zone || ', ' || \"interval\" || ', ' || overlap || ', ' || state AS told \
                FROM system.jobs";
    let told = session.sql(told).await.expect("a statement").collect().await.expect("rows");
    let told = arrow::util::pretty::pretty_format_batches(&told).expect("a table").to_string();
    let row = "| update of rolled, clicks, rolled, clicks, Europe/Berlin, 1 hour, replace, active |";
    assert!(told.contains(row), "{told}");
}
