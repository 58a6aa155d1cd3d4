//! The statements around `CREATE JOB`.

use tidemill::client::Client;
use tidemill_core::ErrorKind;
use tidemill_tests::harness::{LocalCluster, Shape, rows, value};

use super::{away, click, hourly, refused, tables, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_created_shown_altered_and_dropped() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    let january = refused(client, &hourly("counts", "").replace("5 * * * *", "0 0 * * JAN")).await;
    assert!(january.message.contains("'JAN' is no day of week") && january.place.is_some(), "{january}");
    rows(client, &hourly("counts", ", retries = 2")).await;
    assert_eq!(value(client, "SELECT job || ' ' || output || ' ' || reason || ' ' || state FROM system.jobs").await, {
        "counts sums cron 5 * * * * active"
    });
    assert_eq!(rows(client, "SHOW JOBS").await.iter().map(|b| b.num_rows()).sum::<usize>(), 1);
    let definition = rows(client, "SHOW CREATE JOB counts").await;
    let definition = arrow::util::display::array_value_to_string(definition[0].column(1), 0).expect("a text");
    let again = refused(client, &definition).await;
    assert_eq!(again.kind, ErrorKind::Conflict, "{again}");
    rows(client, &definition.replacen("CREATE JOB", "CREATE OR REPLACE TASK", 1)).await;
    rows(client, &definition.replacen("CREATE JOB", "CREATE JOB IF NOT EXISTS", 1).replace("'2'", "'7'")).await;
    assert_eq!(value(client, "SELECT strpos(statement, 'retries = ''2''') > 0 FROM system.jobs").await, "true");
    rows(client, "ALTER JOB counts SET (retries = 5, overlap = 'forbid')").await;
    let altered = value(client, "SELECT statement FROM system.jobs").await;
    assert!(altered.contains("retries = '5'") && altered.contains("overlap = 'forbid'"), "{altered}");
    assert!(!altered.contains("retries = '2'") && altered.contains("interval_column = 'hour'"), "{altered}");
    rows(client, "ALTER JOB counts UNSET (overlap)").await;
    let unset = value(client, "SELECT statement FROM system.jobs").await;
    assert!(unset.contains("retries = '5'") && !unset.contains("overlap"), "{unset}");
    let needed = refused(client, "ALTER JOB counts UNSET (interval_column)").await;
    assert!(needed.message.contains("set interval_column"), "{needed}");
    let unknown = refused(client, "ALTER JOB counts UNSET (retrys)").await;
    assert!(unknown.message.contains("did you mean `retries`?"), "{unknown}");
    let unknown = refused(client, "ALTER JOB counts SET (retrys = 5)").await;
    assert!(unknown.message.contains("did you mean `retries`?"), "{unknown}");
    rows(client, "ALTER JOB counts SUSPEND").await;
    assert_eq!(value(client, "SELECT state || ' ' || suspended_because FROM system.jobs").await, "suspended by a user");
    rows(client, "ALTER JOB IF EXISTS counts RESUME").await;
    rows(client, "ALTER JOB IF EXISTS nobody RESUME").await;
    assert_eq!(value(client, "SELECT state FROM system.jobs").await, "active");
    let misspelt = refused(client, "DROP JOB count").await;
    assert!(misspelt.message.contains("did you mean `counts`?"), "{misspelt}");
    assert_eq!(misspelt.place.map(|place| place.column), Some(10));
    // What a job publishes into, or waits for, stays as long as the job.
    let used = refused(client, "DROP TABLE sums").await;
    assert!(used.message.contains("the job counts publishes into"), "{used}");
    // Neither does it become another one: the ledger says what is in the one that is there.
    let elsewhere = folder.path().join("rolled").display().to_string();
    let elsewhere = format!("CREATE OR REPLACE EXTERNAL TABLE sums STORED AS DELTA LOCATION '{elsewhere}'");
    let replaced = refused(client, &elsewhere).await;
    assert_eq!(replaced.kind, ErrorKind::Conflict, "{replaced}");
    assert!(replaced.message.contains("the job counts publishes into `public.sums`"), "{replaced}");
    rows(client, "DROP JOB counts").await;
    rows(client, &elsewhere).await;
    rows(client, "DROP JOB IF EXISTS counts").await;
    rows(client, "DROP TABLE sums").await;
    assert_eq!(value(client, "SELECT count(*) FROM system.jobs").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_do_not_delete_each_others_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    rows(client, &hourly("east", "")).await;
    let error = refused(client, &hourly("west", "")).await;
    assert!(error.message.contains("the job east publishes into `sums` too"), "{error}");
    for (view, of) in [("raw", "clicks"), ("seen", "raw")] {
        rows(client, &format!("CREATE VIEW {view} AS SELECT * FROM {of}")).await;
    }
    let west = hourly("west", "").replace("INTO sums", "INTO rolled").replace("FROM clicks", "FROM seen");
    rows(client, &west).await;
    // What a job reads, through however many views, stays as long as the job.
    for read in ["VIEW seen", "VIEW raw"] {
        let error = refused(client, &format!("DROP {read}")).await;
        assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
        assert!(error.message.contains("the job west reads `public."), "{error}");
    }
    let error = refused(client, "DROP TABLE clicks").await;
    assert!(error.message.contains("reads `public.clicks`: drop the job first"), "{error}");
    let secret = hourly("north", "").replace("GROUP BY", "AND 'password=hunter2' <> '' GROUP BY");
    let error = refused(client, &secret).await;
    assert!(error.message.contains("looks like a password") && !error.message.contains("hunter2"), "{error}");
    rows(client, "DROP JOB west").await;
    rows(client, "DROP VIEW seen").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interval_that_is_asked_for_runs_is_retried_and_says_why_it_failed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cluster, file) = away(folder.path()).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    click(client, folder.path()).await;
    let job = hourly("counts", ", retries = 2, retry_backoff = '100ms'").replace("count(*)", "sum(away(1))");
    rows(client, &job).await;
    let execute = "EXECUTE JOB counts FOR INTERVAL '2026-03-01 07:00'";
    assert_eq!(value(client, execute).await, "job-counts-1-7-1-1", "the run is named before it has ended");
    let of = |column: &str| {
        format!(
            "SELECT {column} FROM system.intervals WHERE job = 'counts' AND interval_start = TIMESTAMP '2026-03-01T07:00:00Z'"
        )
    };
    until(client, &of("max(state)"), "failed").await;
    // Where did it stop, and why.
    let error = value(client, &of("error")).await;
    assert!(error.contains("the store does not answer"), "{error}");
    assert_eq!(value(client, &of("run_id || ' ' || attempt || ' ' || generation")).await, "job-counts-1-7-1-3 3 1");
    let runs = "SELECT count(*) || ' ' || count(DISTINCT attempt) || ' ' || max(cause) || ' ' || max(state) FROM system.runs \
                WHERE job = 'counts' AND interval_end = TIMESTAMP '2026-03-01T08:00:00Z'";
    assert_eq!(value(client, runs).await, "3 3 manual failed");
    std::fs::remove_file(&file).expect("the file");
    let again = shown(client, "EXECUTE JOB counts FOR INTERVAL '2026-03-01T08:00:00+01:00'").await;
    assert!(
        again.contains("| job-counts-1-7-2-1 | 2026-03-01T07:00:00Z | 2026-03-01T08:00:00Z |           |"),
        "{again}"
    );
    until(client, &of("max(state)"), "published").await;
    assert_eq!(value(client, &of("published_version || ' ' || published_generation")).await, "1 2");
    assert_eq!(value(client, &of("run_id || ' ' || attempt || ' ' || generation")).await, "job-counts-1-7-2-1 1 2");
    assert_eq!(value(client, "SELECT hour || ' ' || n FROM sums").await, "2026-03-01T07:00:00 60");
    for (wrong, why) in
        [("2026-02-01", "before the START"), ("2026-03-01 07:30", "no interval"), ("then", "not a time")]
    {
        let error = refused(client, &format!("EXECUTE JOB counts FOR INTERVAL '{wrong}'")).await;
        assert!(error.message.contains(why), "{error}");
    }
}

/// What a statement answers, as a table.
async fn shown(client: &mut Client, sql: &str) -> String {
    arrow::util::pretty::pretty_format_batches(&rows(client, sql).await).expect("a table").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_lists_what_it_would_run_and_runs_that() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    rows(client, &hourly("counts", ", retries = 0")).await;
    let backfill = "BACKFILL JOB counts FROM '2026-03-01 04:00' TO '2026-03-01 08:00' MAX RUNS 2 REVERSE";
    let listed = rows(client, &format!("{backfill} DRY RUN")).await;
    let first = arrow::util::display::array_value_to_string(listed[0].column(2), 0).expect("a time");
    assert_eq!((listed.iter().map(|b| b.num_rows()).sum::<usize>(), first.as_str()), (4, "2026-03-01 07:00"));
    assert_eq!(value(client, "SELECT count(*) FROM system.runs WHERE job = 'counts'").await, "0");
    let accepted = shown(client, backfill).await;
    assert!(
        accepted.contains("| backfill | intervals | why |\n") && accepted.contains("| 1        | 4         |"),
        "{accepted}"
    );
    let published = "SELECT count(*) FROM system.intervals WHERE state = 'published'";
    until(client, published, "4").await;
    let nothing = shown(client, "BACKFILL JOB counts FROM '2026-02-01' TO '2026-03-01'").await;
    assert!(nothing.contains("|          | 0         | it ends before the START of job counts"), "{nothing}");
    let strip = shown(client, "SHOW INTERVALS OF counts FROM '2026-03-01' TO '2026-03-02'").await;
    assert!(strip.contains("| 2026-03-01 | ----####----------------"), "{strip}");
    assert!(refused(client, "CANCEL BACKFILL 1 OF counts").await.message.contains("no backfill 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_waits_until_its_input_is_complete_for_the_interval() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = LocalCluster::start(Shape { executors: 1, slots: 1 }).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    let waiting =
        hourly("counts", ", retries = 0, deadline = '90 minutes'").replace("WITH", "DEPENDS ON clicks COMPLETE WITH");
    rows(client, &waiting).await;
    let asked = shown(client, "EXECUTE JOB counts FOR INTERVAL '2026-03-01 07:00'").await;
    assert!(asked.contains("| clicks to be complete |"), "{asked}");
    let late = "SELECT late FROM system.intervals WHERE interval_start = TIMESTAMP '2026-03-01T07:00:00Z' \
                AND deadline = TIMESTAMP '2026-03-01T09:30:00Z'";
    assert_eq!(value(client, late).await, "true", "nobody is told, and it is to be seen");
    let stands = "SELECT state || ': ' || coalesce(waits_for, error) FROM system.intervals \
                  WHERE interval_start = TIMESTAMP '2026-03-01T07:00:00Z'";
    assert_eq!(value(client, stands).await, "waiting: clicks to be complete");
    // What a job publishes is not for others to say, but for the time before its START.
    let own = refused(client, "ALTER DATASET sums COMPLETE FROM '2026-02-01' TO '2026-03-02'").await;
    assert_eq!(own.kind, ErrorKind::Conflict, "{own}");
    assert!(own.message.contains("the job counts publishes into `public.sums`"), "{own}");
    rows(client, "ALTER DATASET sums COMPLETE FROM '2026-02-01' TO '2026-03-01'").await;
    rows(client, "ALTER DATASET clicks COMPLETE FROM '2026-03-01 07:00' TO '2026-03-01 07:59'").await;
    assert_eq!(value(client, stands).await, "waiting: clicks to be complete");
    rows(
        client,
        "ALTER DATASET clicks COMPLETE FROM '2026-03-01 08:59' TO '2026-03-01 09:00' AT TIME ZONE 'Europe/Berlin'",
    )
    .await;
    let published = "SELECT count(*) FROM system.intervals WHERE state = 'published'";
    until(client, published, "1").await;
    assert_eq!(value(client, late).await, "false");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_by_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cluster, _) = away(folder.path()).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    click(client, folder.path()).await;
    rows(client, &hourly("counts", ", retry_backoff = '1h'").replace("count(*)", "sum(away(1))")).await;
    rows(client, "EXECUTE JOB counts FOR INTERVAL '2026-03-01 07:00'").await;
    let state = "SELECT max(state) FROM system.intervals WHERE interval_start = TIMESTAMP '2026-03-01T07:00:00Z'";
    until(client, state, "retrying").await;
    rows(client, "CANCEL RUN 'job-counts-1-7-1-1'").await;
    assert_eq!(value(client, state).await, "cancelled");
    let late = refused(client, "CANCEL RUN 'job-counts-1-7-1-1'").await;
    assert!(late.message.contains("is not in progress"), "{late}");
    assert_eq!(refused(client, "CANCEL RUN 'nobody'").await.kind, ErrorKind::NotFound);
}
