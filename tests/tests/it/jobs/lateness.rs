//! Late data: jobs with `allowed_lateness` compute by themselves what was published without it, as long as it is young enough.

use std::path::Path;
use std::time::{Duration, SystemTime};

use tidemill::client::Client;
use tidemill::oracle::Oracle;
use tidemill_core::Millis;
use tidemill_core::interval::Zone;
use tidemill_tests::harness::{ProcessCluster, assert_answer, rows, value};

use super::{asked, refused, tables, until};
use crate::durable::state_in;

/// Which intervals are stale, and why.
const STALE: &str = "SELECT coalesce(string_agg(job || ' ' || interval_start || ': ' || stale, ', ' ORDER BY job), 'nothing') \
                     FROM system.intervals WHERE stale IS NOT NULL";

/// An hour, counted from 1970, on the clocks of UTC.
fn at(hour: u64) -> String {
    Zone::UTC.local(Millis(hour * 3_600_000)).to_string()
}

/// The same, as a system table shows it.
fn shown(hour: u64) -> String {
    format!("{}:00Z", at(hour).replace(' ', "T"))
}

/// So many clicks come in each of some hours, with a file of their own.
async fn click(client: &mut Client, folder: &Path, file: &str, hours: &[u64], clicks: u64) {
    let hours: Vec<String> = hours.iter().map(|hour| format!("({hour})")).collect();
    let clicks = format!(
        "SELECT to_timestamp(h * 3600 + v * 7) AS ts, v AS ad FROM (VALUES {}) AS hours(h) \
         CROSS JOIN generate_series(1, {clicks}) AS t(v)",
        hours.join(", ")
    );
    let path = folder.join(format!("clicks/{file}.parquet"));
    rows(client, &format!("COPY ({clicks}) TO '{}'", path.display())).await;
}

/// Whoever brings the clicks says that they are complete.
async fn complete(client: &mut Client, from: u64, to: u64) {
    rows(client, &format!("ALTER DATASET clicks COMPLETE FROM '{}' TO '{}'", at(from), at(to))).await;
}

/// Waits until so many intervals were computed more than once, and which.
async fn again(client: &mut Client, count: usize) -> String {
    let computed = "FROM system.intervals WHERE state = 'published' AND published_generation > 1";
    until(client, &format!("SELECT count(*) {computed}"), &count.to_string()).await;
    let which = "job || ' ' || interval_start || ' ' || published_generation";
    value(client, &format!("SELECT string_agg({which}, ', ' ORDER BY job || ' ' || interval_start) {computed}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ob10_late_clicks_compute_exactly_their_hours_again_by_themselves() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = ProcessCluster::durable(1, 2, &state_in(&folder.path().join("state"))).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    // Lateness is counted from now.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let this = since.as_secs() / 3_600;
    let (old, young) = (this - 60, this - 6);
    click(client, folder.path(), "all", &[old, young, young + 1, young + 2, young + 3], 60).await;
    let counts = asked("counts", ", allowed_lateness = '2d'").replace("'2026-03-01'", &format!("'{}'", at(old)));
    rows(client, &counts.replacen("WITH", "DEPENDS ON clicks COMPLETE WITH", 1)).await;
    let rolls = format!(
        "CREATE JOB rolls INTO rolled SCHEDULE CRON '@yearly' INTERVAL '1 hour' START '{}' DEPENDS ON sums COMPLETE \
         WITH (interval_column = 'hour', allowed_lateness = '2d') \
         AS SELECT hour, n FROM sums WHERE hour >= $interval_start AND hour < $interval_end",
        at(old)
    );
    rows(client, &rolls).await;
    complete(client, old, this).await;
    for job in ["counts", "rolls"] {
        for (from, to) in [(old, old + 1), (young, young + 4)] {
            rows(client, &format!("BACKFILL JOB {job} FROM '{}' TO '{}'", at(from), at(to))).await;
        }
    }
    until(client, "SELECT count(*) FROM system.intervals WHERE state = 'published'", "10").await;
    assert_eq!(value(client, STALE).await, "nothing");
    // Clicks of two hours come late, and of one that is older than the jobs care for.
    click(client, folder.path(), "late", &[old, young + 1, young + 2], 5).await;
    complete(client, old, old + 1).await;
    complete(client, young + 1, young + 3).await;
    cluster.restart_coordinator();
    let client = &mut cluster.client().await;
    let (first, second) = (shown(young + 1), shown(young + 2));
    let expected = format!("counts {first} 2, counts {second} 2, rolls {first} 2, rolls {second} 2");
    assert_eq!(again(client, 4).await, expected);
    let runs = "SELECT count(*) || ' ' || count(DISTINCT job || ' ' || interval_start) FROM system.runs \
                WHERE cause = 'late' AND state = 'succeeded'";
    assert_eq!(value(client, runs).await, "4 4");
    let left = shown(old);
    let stale = format!("counts {left}: clicks has other rows since, rolls {left}: sums is stale");
    assert_eq!(value(client, STALE).await, stale);
    // Jobs that care for longer compute that, too.
    for job in ["rolls", "counts"] {
        rows(client, &format!("ALTER JOB {job} SET (allowed_lateness = '7d')")).await;
    }
    let expected = format!("counts {left} 2, counts {first} 2, counts {second} 2");
    assert_eq!(again(client, 6).await, format!("{expected}, {}", expected.replace("counts", "rolls")));
    assert_eq!(value(client, STALE).await, "nothing");
    let oracle = Oracle::new(2, 1 << 28).expect("an oracle");
    oracle.register(folder.path(), &["clicks"]).await.expect("the clicks");
    let epoch = |hour: &str| format!("SELECT CAST(date_part('epoch', {hour}) AS BIGINT) AS hour");
    let direct = format!("{}, count(*) AS n FROM clicks GROUP BY 1", epoch("date_trunc('hour', ts)"));
    let expected = oracle.answer(&direct).await.expect("an answer");
    for table in ["sums", "rolled"] {
        assert_answer(client, &format!("{}, n FROM {table}", epoch("hour")), &expected, table).await;
    }
    let appends = refused(client, "ALTER JOB counts SET (mode = 'append')").await;
    assert!(appends.message.contains("allowed_lateness computes intervals again"), "{appends}");
}
