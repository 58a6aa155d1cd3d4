//! Rows are counted on their way into a dataset, and what is counted is what SQL counts.

use tidemill_tests::harness::{ProcessCluster, rows, value};

use super::{click, hourly, tables, until};

const COUNTS: &str = "SELECT rows_read || ' ' || rows_filtered || ' ' || rows_aggregated || ' ' || groups || ' ' || rows_joined || ' ' \
                      || rows_written FROM system.runs WHERE";

#[tokio::test(flavor = "multi_thread")]
async fn a_job_counts_the_rows_that_it_filters_and_aggregates() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = ProcessCluster::start(2, 2).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    click(client, folder.path()).await;
    let job = hourly("counts", ", retries = 0").replace("count(*) AS n", "ad % 7 AS n");
    rows(client, &job.replace("GROUP BY 1", "AND ad % 3 = 0 GROUP BY 1, 2")).await;
    rows(client, "EXECUTE JOB counts FOR INTERVAL '2026-03-01 07:00'").await;
    let state = "SELECT max(coalesce(error, state)) FROM system.intervals WHERE job = 'counts' \
                 AND interval_start = TIMESTAMP '2026-03-01T07:00:00Z'";
    until(client, state, "published").await;
    let taken = "ts >= TIMESTAMP '2026-03-01 07:00:00' AND ts < TIMESTAMP '2026-03-01 08:00:00' AND ad % 3 = 0";
    let expected = format!(
        "SELECT r || ' ' || (r - t) || ' ' || t || ' ' || g || ' 0 ' || w FROM (SELECT count(*) AS r FROM clicks) AS a \
         CROSS JOIN (SELECT count(*) AS t, count(DISTINCT ad % 7) AS g FROM clicks WHERE {taken}) AS b \
         CROSS JOIN (SELECT count(*) AS w FROM sums) AS c"
    );
    let expected = value(client, &expected).await;
    assert_eq!(expected, "1440 1420 20 7 0 7");
    assert_eq!(value(client, &format!("{COUNTS} job = 'counts'")).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_that_stop_early_or_spread_rows_are_published() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = ProcessCluster::start(2, 2).await;
    let client = &mut cluster.client().await;
    tables(client, folder.path()).await;
    click(client, folder.path()).await;
    let all = "SELECT ts, ad FROM clicks";
    let per_time = "SELECT a.ts, count(*) FROM clicks a";
    let none = "(SELECT * FROM clicks WHERE ad > 9999)";
    let queries = [
        ("SELECT ts, ad FROM clicks ORDER BY ts LIMIT 3".to_owned(), "3"),
        ("SELECT ts, ad FROM clicks LIMIT 5".to_owned(), "5"),
        (format!("{all} WHERE ad < 10 UNION ALL {all} WHERE ad > 1429 UNION ALL {per_time} GROUP BY 1"), "1460"),
        (format!("{per_time} JOIN clicks b ON a.ad = b.ad % 10 GROUP BY 1 HAVING count(*) > 143"), "10"),
        (format!("{all} WHERE ad IN (SELECT ad % 4 FROM clicks)"), "4"),
        (format!("{all} WHERE ad NOT IN (SELECT ad / 2 FROM clicks)"), "720"),
        ("SELECT ts, CAST(rank() OVER (ORDER BY ad % 5) AS BIGINT) FROM clicks".to_owned(), "1440"),
        ("SELECT DISTINCT date_trunc('hour', ts), ad % 2 FROM clicks".to_owned(), "48"),
        (format!("SELECT a.ts, b.ad FROM clicks a LEFT JOIN {none} b ON a.ad = b.ad"), "1440"),
        (format!("SELECT a.ts, b.ad FROM {none} a JOIN clicks b ON a.ad = b.ad"), "0"),
        ("SELECT ts, ad FROM clicks WHERE ad > (SELECT avg(ad) FROM clicks)".to_owned(), "720"),
    ];
    for (query, written) in queries {
        assert_eq!(value(client, &format!("INSERT INTO sums {query}")).await, written, "{query}");
    }
    let joined = "SELECT string_agg(rows_joined || '', ' ') FROM system.runs WHERE statement LIKE 'INSERT%HAVING%'";
    assert_eq!(value(client, joined).await, "1440");
}
