//! What comes of one input: destinations of several kinds, and several aggregates.

use tidemill::client::Client;
use tidemill_tests::harness::{ProcessCluster, rows, value};

use super::{asked, click, tables, until};

/// Of the clicks what every destination gets.
const EXTRACT: &str =
    "CREATE VIEW cleaned AS SELECT date_trunc('hour', ts) AS hour, ad AS n FROM clicks WHERE ad % 7 <> 0";

/// A cluster with a day of clicks.
async fn clicked(folder: &std::path::Path) -> (ProcessCluster, Client) {
    let cluster = ProcessCluster::start(1, 2).await;
    let mut client = cluster.client().await;
    tables(&mut client, folder).await;
    click(&mut client, folder).await;
    (cluster, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn as1_every_kind_of_destination_takes_the_same_extract() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_cluster, client) = &mut clicked(folder.path()).await;
    rows(client, EXTRACT).await;
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (format, options) in [("PARQUET", ""), ("CSV", "OPTIONS ('format.has_header' 'true')"), ("JSON", "")] {
        let to = path(format);
        rows(client, &format!("COPY (SELECT * FROM cleaned) TO '{to}/' STORED AS {format}")).await;
        let back = format!("CREATE EXTERNAL TABLE of_{format} (hour TIMESTAMP, n BIGINT) STORED AS {format}");
        rows(client, &format!("{back} LOCATION '{to}/' {options}")).await;
    }
    rows(client, "INSERT INTO sums SELECT * FROM cleaned").await;
    // The days of a job are those of its view.
    rows(
        client,
        "CREATE JOB days INTO rolled SCHEDULE CRON '@yearly' INTERVAL '1 day' START '2026-03-01' \
         WITH (interval_column = 'hour') AS SELECT * FROM cleaned WHERE hour >= $interval_start AND hour < $interval_end",
    )
    .await;
    rows(client, "EXECUTE JOB days FOR INTERVAL '2026-03-01'").await;
    until(client, "SELECT count(*) FROM system.intervals WHERE state = 'published'", "1").await;
    for table in ["of_parquet", "of_csv", "of_json", "sums", "rolled"] {
        let all = format!("SELECT count(*) || ' ' || count(DISTINCT n) || ' ' || count(DISTINCT hour) FROM {table}");
        assert_eq!(value(client, &all).await, "1234 1234 24", "{table}");
        let others = format!("SELECT count(*) FROM (SELECT hour, n FROM {table} EXCEPT SELECT hour, n FROM cleaned)");
        assert_eq!(value(client, &others).await, "0", "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ob11_several_aggregates_come_of_one_pass_over_the_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_cluster, client) = &mut clicked(folder.path()).await;
    let columns = "hour TIMESTAMP, ad BIGINT, publisher BIGINT, country BIGINT, n BIGINT";
    let location = folder.path().join("cube").display().to_string();
    rows(client, &format!("CREATE EXTERNAL TABLE cube ({columns}) STORED AS DELTA LOCATION '{location}'")).await;
    let sets = "GROUP BY GROUPING SETS ((date_trunc('hour', ts), ad % 3, ad % 4), (date_trunc('hour', ts), ad % 3, ad % 5), \
                (date_trunc('hour', ts)))";
    let keys = "date_trunc('hour', ts) AS hour, ad % 3 AS ad, ad % 4 AS publisher, ad % 5 AS country, count(*) AS n";
    let job = asked("counts", "").replace("INTO sums", "INTO cube").replace("GROUP BY 1", sets);
    rows(client, &job.replace("date_trunc('hour', ts) AS hour, count(*) AS n", keys)).await;
    rows(client, "EXECUTE JOB counts FOR INTERVAL '2026-03-01 07:00'").await;
    until(client, "SELECT count(*) FROM system.intervals WHERE state = 'published'", "1").await;
    // The file's rows are counted once, for three aggregates: 12, 15 and 1 rows.
    let counted = "SELECT rows_read || ' ' || rows_written FROM system.runs WHERE job = 'counts'";
    assert_eq!(value(client, counted).await, "1440 28");
    // Each is what a query of its own gives.
    let hour = "FROM clicks WHERE ts >= TIMESTAMP '2026-03-01T07:00:00' AND ts < TIMESTAMP '2026-03-01T08:00:00'";
    for (keys, of_set, own, groups) in [
        ("ad, publisher", "publisher IS NOT NULL", "ad % 3, ad % 4, count(*) {hour} GROUP BY 1, 2", 12),
        ("ad, country", "country IS NOT NULL", "ad % 3, ad % 5, count(*) {hour} GROUP BY 1, 2", 15),
        ("ad", "ad IS NULL", "CAST(NULL AS BIGINT), count(*) {hour}", 1),
    ] {
        let own = own.replace("{hour}", hour);
        let of_cube = format!("SELECT {keys}, n FROM cube WHERE {of_set}");
        let all = format!("SELECT count(*) || ' ' || sum(n) FROM ({of_cube})");
        assert_eq!(value(client, &all).await, format!("{groups} 60"), "{keys}");
        let differ = format!("SELECT count(*) FROM ({of_cube} EXCEPT SELECT {own})");
        assert_eq!(value(client, &differ).await, "0", "{keys}");
    }
}
