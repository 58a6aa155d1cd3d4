//! Intervals that begin or end inside of files: what these have outside is there afterwards, once.

use std::path::Path;

use tidemill::client::Client;
use tidemill_core::ErrorKind;
use tidemill_tests::harness::{LocalCluster, Shape, rows, value};

use super::{cluster, files, refused, text, version};

/// The second of January takes the place of what is there.
const SECOND: &str = "INSERT INTO t REPLACE WHERE day >= '2026-01-02' AND day < '2026-01-03'";
/// What is not of the second of January.
const OTHERS: &str = "(day < DATE '2026-01-02' OR day >= DATE '2026-01-03' OR day IS NULL)";

/// Makes a table of days; `rest` says what divides it.
async fn create(client: &mut Client, folder: &Path, rest: &str) {
    let create = format!(
        "CREATE EXTERNAL TABLE t (day DATE, v BIGINT, k VARCHAR) STORED AS DELTA {rest} LOCATION '{}'",
        at(folder)
    );
    rows(client, &create).await;
}

fn at(folder: &Path) -> String {
    folder.join("t").display().to_string()
}

/// Adds so many rows in one statement: those of each three days, and with `without` some of no day.
async fn insert(client: &mut Client, count: u64, without: &str) {
    let day = format!("CASE WHEN {without} THEN NULL ELSE DATE '2026-01-01' + CAST(x % 3 AS INT) END");
    let insert = format!("INSERT INTO t SELECT {day}, x, 'k' || (x % 2) FROM generate_series(1, {count}) AS g(x)");
    assert_eq!(value(client, &insert).await, count.to_string());
}

/// Replaces the second of January by the rows of a query; what is there then is what SQL says of the version before. Tells how
/// many files were written.
async fn replaced(client: &mut Client, folder: &Path, query: &str, count: &str) -> usize {
    let before = version(client, "t").await;
    let kept = format!("SELECT * FROM t VERSION AS OF {before} WHERE {OTHERS}");
    let all = format!("SELECT * FROM ({kept} UNION ALL {query}) AS r ORDER BY v, k, day");
    let (expected, files_before) = (text(client, &all).await, files(folder, ".parquet").len());
    assert_eq!(value(client, &format!("{SECOND} {query}")).await, count, "only new rows are counted");
    assert_eq!(text(client, "SELECT * FROM t ORDER BY v, k, day").await, expected);
    assert_eq!(version(client, "t").await, (before.parse::<u64>().expect("a number") + 1).to_string());
    files(folder, ".parquet").len() - files_before
}

#[tokio::test(flavor = "multi_thread")]
async fn the_middle_of_a_file_is_replaced_and_the_rest_of_it_stays() {
    let (_cluster, mut client, folder) = cluster().await;
    create(&mut client, folder.path(), "").await;
    insert(&mut client, 30, "false").await;
    let written = files(folder.path(), ".parquet");
    // What is kept is no excuse for rows outside.
    for day in ["DATE '2026-01-03'", "NULL"] {
        let outside = format!("{SECOND} SELECT DATE '2026-01-02', 1, 'x' UNION ALL SELECT {day}, 2, 'x'");
        refused(&mut client, &outside, ErrorKind::Invalid, &["outside of the interval"]).await;
    }
    assert_eq!(version(&mut client, "t").await, "1");
    let start = std::time::Instant::now();
    while files(folder.path(), ".parquet") != written {
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "files of refused statements stay");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let one = "SELECT DATE '2026-01-02', 100, 'new'";
    let first = replaced(&mut client, folder.path(), one, "1").await;
    assert!(first >= 3, "new rows, those before and those behind are in files of their own: {first}");
    assert_eq!(replaced(&mut client, folder.path(), one, "1").await, 1, "no file lies across the interval any more");
    // The statement may read what it replaces, and give nothing.
    let itself = format!("{SECOND} SELECT day, v + 1, k FROM t WHERE day = DATE '2026-01-02'");
    assert_eq!(value(&mut client, &itself).await, "1");
    assert_eq!(text(&mut client, "SELECT v FROM t WHERE day = DATE '2026-01-02'").await, "101");
    assert_eq!(replaced(&mut client, folder.path(), &format!("{one} WHERE false"), "0").await, 0);
    assert_eq!(text(&mut client, "SELECT count(*), count(DISTINCT v), sum(v) FROM t").await, "20 20 320");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_partitions_by_another_column_are_divided_too() {
    let (_cluster, mut client, folder) = cluster().await;
    create(&mut client, folder.path(), "PARTITIONED BY (k)").await;
    insert(&mut client, 60, "false").await;
    insert(&mut client, 30, "x % 5 = 0").await;
    let several = "SELECT DATE '2026-01-02', x, 'k' || (x % 3) FROM generate_series(1000, 1008) AS g(x)";
    replaced(&mut client, folder.path(), several, "9").await;
    let none = format!("SELECT * FROM ({several}) AS r WHERE false");
    assert_eq!(replaced(&mut client, folder.path(), &none, "0").await, 0, "the files of the day go, and no other");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_value_are_outside_and_stay() {
    let (_cluster, mut client, folder) = cluster().await;
    create(&mut client, folder.path(), "").await;
    insert(&mut client, 40, "x % 4 = 0").await;
    let one = "SELECT DATE '2026-01-02', 100, 'new'";
    let first = replaced(&mut client, folder.path(), one, "1").await;
    assert!(first >= 4, "rows without a day are in files of their own: {first}");
    assert_eq!(replaced(&mut client, folder.path(), one, "1").await, 1);
    assert_eq!(text(&mut client, "SELECT count(*) FROM t WHERE day IS NULL").await, "10");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_which_nothing_is_known_are_written_again() {
    let (_cluster, mut client, folder) = cluster().await;
    create(&mut client, folder.path(), "").await;
    insert(&mut client, 40, "x % 4 = 0").await;
    for day in ["2026-01-01", "2026-01-02", "2026-02-01"] {
        assert_eq!(value(&mut client, &format!("INSERT INTO t SELECT DATE '{day}', 200, 'old'")).await, "1");
    }
    without_statistics(&folder.path().join("t"));
    // Another cluster, which has not read them.
    let other = LocalCluster::start(Shape { executors: 2, slots: 2 }).await;
    let mut client = other.client().await;
    let create = format!("CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION '{}'", at(folder.path()));
    rows(&mut client, &create).await;
    let one = "SELECT DATE '2026-01-02', 100, 'new'";
    assert!(replaced(&mut client, folder.path(), one, "1").await >= 4);
    assert_eq!(replaced(&mut client, folder.path(), one, "1").await, 1, "of what was written again all is known");
}

/// Takes away what the log says of the columns of files, as other engines may leave it out.
fn without_statistics(table: &Path) {
    let log = table.join("_delta_log");
    let mut taken = 0;
    for name in files(&log, ".json") {
        let entry = std::fs::read_to_string(log.join(&name)).expect("an entry");
        let mut lines = String::new();
        for line in entry.lines() {
            let mut action: serde_json::Value = serde_json::from_str(line).expect("a line");
            let add = action.get_mut("add").and_then(serde_json::Value::as_object_mut);
            taken += usize::from(add.and_then(|add| add.remove("stats")).is_some());
            lines.push_str(&format!("{action}\n"));
        }
        std::fs::write(log.join(&name), lines).expect("an entry");
    }
    assert!(taken >= 4, "{taken} files had statistics");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_divide_the_same_file_lose_nothing() {
    let (cluster, mut client, folder) = cluster().await;
    create(&mut client, folder.path(), "").await;
    insert(&mut client, 30, "false").await;
    for round in 0..4 {
        let mut writers = Vec::new();
        for day in [1, 3] {
            writers.push(tokio::spawn(until_replaced(cluster.client().await, day, round)));
        }
        for writer in writers {
            writer.await.expect("a writer");
        }
        let seen = text(&mut client, "SELECT day, count(*), sum(v) FROM t GROUP BY day ORDER BY day").await;
        assert_eq!(seen, format!("2026-01-01 1 {round}; 2026-01-02 10 145; 2026-01-03 1 {round}"));
        // All of them are in one file again.
        assert_eq!(value(&mut client, "OPTIMIZE t").await, "12");
    }
}

/// Replaces a day by one row, again as long as another writer's version is in the way.
async fn until_replaced(mut client: Client, day: u32, round: u32) {
    let next = day + 1;
    let sql = format!(
        "INSERT INTO t REPLACE WHERE day >= '2026-01-0{day}' AND day < '2026-01-0{next}' SELECT DATE '2026-01-0{day}', {round}, 'new'"
    );
    for _ in 0..20 {
        let answered = match client.execute(&sql).await {
            Ok(result) => result.collect().await.map(|_| ()),
            Err(error) => Err(error),
        };
        match answered {
            Ok(()) => return,
            Err(error) => assert_eq!(error.kind, ErrorKind::Conflict, "{error}"),
        }
    }
    panic!("the day {day} was refused twenty times");
}
