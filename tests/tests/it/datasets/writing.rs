//! What one writer does: tables are made, rows come and go, old versions are read.

use tidemill_core::ErrorKind;
use tidemill_tests::harness::{rows, value};

use super::{cluster, count, create_numbers, files, refused, text, version};

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_made_as_version_0_and_rows_come_in_versions() {
    let (_cluster, mut client, folder) = cluster().await;
    let at = folder.path().join("spend");
    let create = format!(
        "CREATE EXTERNAL TABLE spend (day DATE, ad BIGINT NOT NULL, cost DECIMAL(18, 4), name VARCHAR) STORED AS DELTA \
         PARTITIONED BY (day) LOCATION '{}'",
        at.display()
    );
    assert!(rows(&mut client, &create).await.iter().all(|batch| batch.num_columns() == 0), "CREATE answers nothing");
    assert_eq!(files(&at, ".json"), ["_delta_log/00000000000000000000.json"]);
    assert_eq!(text(&mut client, "SELECT * FROM spend").await, "");
    let insert = "INSERT INTO spend VALUES (DATE '2026-01-01', 1, 1.5, 'a'), (DATE '2026-01-02', 2, NULL, NULL), \
                  (NULL, 3, 2.25, 'ü')";
    assert_eq!(value(&mut client, insert).await, "3");
    assert_eq!(version(&mut client, "spend").await, "1");
    assert_eq!(
        text(&mut client, "SELECT * FROM spend ORDER BY ad").await,
        "2026-01-01 1 1.5000 a; 2026-01-02 2  ; ".to_owned() + " 3 2.2500 ü"
    );
    assert_eq!(value(&mut client, "INSERT INTO spend (ad, name) SELECT 4, 'without a day'").await, "1");
    assert_eq!(text(&mut client, "SELECT count(*), count(day), sum(ad) FROM spend").await, "4 2 10");
    assert_eq!(text(&mut client, "SELECT name FROM spend WHERE day IS NULL AND ad = 4").await, "without a day");
    // One file for each partition and task, and nothing else.
    let parts = files(&at, ".parquet");
    assert_eq!(parts.len(), 4, "{parts:?}");
    assert!(parts.iter().all(|file| file.starts_with("day=2026-01-0") || file.starts_with("day=__HIVE")), "{parts:?}");
    assert_eq!(files(&at.join("_tidemill"), ""), Vec::<String>::new());
    refused(&mut client, "INSERT INTO spend (day) VALUES (DATE '2026-01-01')", ErrorKind::Invalid, &["ad", "NOT NULL"])
        .await;
    refused(&mut client, "INSERT INTO spend (ad, x) VALUES (1, 2)", ErrorKind::Invalid, &["x"]).await;
    assert_eq!(version(&mut client, "spend").await, "2");
    // Another name for the same table, whose columns are its own.
    let taken = format!("CREATE EXTERNAL TABLE again STORED AS DELTA LOCATION '{}'", at.display());
    rows(&mut client, &taken).await;
    assert_eq!(count(&mut client, "SELECT count(*) FROM again").await, 4);
    let other = format!("CREATE EXTERNAL TABLE other (x BIGINT) STORED AS DELTA LOCATION '{}'", at.display());
    refused(&mut client, &other, ErrorKind::Conflict, &["other columns", "cost"]).await;
    let nowhere = format!("CREATE EXTERNAL TABLE no STORED AS DELTA LOCATION '{}'", folder.path().join("no").display());
    refused(&mut client, &nowhere, ErrorKind::NotFound, &["there is no Delta table", "give the columns"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_have_rows_are_not_read() {
    let (_cluster, mut client, folder) = cluster().await;
    let create = format!(
        "CREATE EXTERNAL TABLE t (k VARCHAR, v BIGINT) STORED AS DELTA PARTITIONED BY (k) LOCATION '{}'",
        folder.path().join("t").display()
    );
    rows(&mut client, &create).await;
    for part in 0..4 {
        let insert = format!(
            "INSERT INTO t SELECT 'k' || (x % 2), x FROM generate_series({}, {}) AS s(x)",
            part * 100,
            part * 100 + 99
        );
        assert_eq!(value(&mut client, &insert).await, "100");
    }
    for (filter, expected) in
        [("k = 'k0'", 200), ("v < 50", 50), ("v >= 300 AND k = 'k1'", 50), ("v > 1000", 0), ("k IS NULL", 0)]
    {
        assert_eq!(count(&mut client, &format!("SELECT count(*) FROM t WHERE {filter}")).await, expected, "{filter}");
    }
    // The other files are gone, and nobody misses them.
    for file in files(&folder.path().join("t"), ".parquet") {
        if !file.starts_with("k=k1") {
            std::fs::remove_file(folder.path().join("t").join(file)).expect("a file");
        }
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM t WHERE k = 'k1'").await, 200);
    let gone = refused(&mut client, "SELECT sum(v) FROM t", ErrorKind::Conflict, &["was deleted"]).await;
    assert!(gone.message.contains("dataset"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_number_is_found_though_files_are_passed_over() {
    let (_cluster, mut client, folder) = cluster().await;
    let create = format!(
        "CREATE EXTERNAL TABLE t (d DOUBLE, r REAL, i BIGINT) STORED AS DELTA LOCATION '{}'",
        folder.path().join("t").display()
    );
    rows(&mut client, &create).await;
    let nan = "INSERT INTO t SELECT CAST(x AS DOUBLE) AS d, CAST(x AS REAL) AS r, 1 AS i FROM (
               SELECT CASE v WHEN 1 THEN '1.0' WHEN 2 THEN 'NaN' END AS x FROM generate_series(1, 3) AS g(v))";
    assert_eq!(value(&mut client, nan).await, "3");
    for filter in ["d > 5", "r > 5", "d = CAST('NaN' AS DOUBLE)", "d IS NULL", "r < 5 AND i = 1", "NOT (d < 5)"] {
        assert_eq!(count(&mut client, &format!("SELECT count(*) FROM t WHERE {filter}")).await, 1, "{filter}");
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM t WHERE i > 1").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_writes_beside_a_dataset_and_not_into_it() {
    let (_cluster, mut client, folder) = cluster().await;
    let at = folder.path().join("t");
    create_numbers(&mut client, &at.display().to_string()).await;
    for below in ["t/x.csv", "t/", "t/deeper/x/"] {
        let copy = format!("COPY (SELECT 1 AS x) TO '{}/{below}' STORED AS CSV", folder.path().display());
        refused(&mut client, &copy, ErrorKind::Invalid, &["in the folder of the Delta table", "INSERT INTO"]).await;
    }
    assert_eq!(files(&at, ""), ["_delta_log/00000000000000000000.json"]);
    let beside = format!("COPY (SELECT 1 AS x) TO '{}/ts/x.csv' STORED AS CSV", folder.path().display());
    assert_eq!(value(&mut client, &beside).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_replaced_all_by_partition_or_by_interval() {
    let (_cluster, mut client, folder) = cluster().await;
    let create = format!(
        "CREATE EXTERNAL TABLE t (day DATE, v BIGINT) STORED AS DELTA PARTITIONED BY (day) LOCATION '{}'",
        folder.path().join("t").display()
    );
    rows(&mut client, &create).await;
    let days = "SELECT DATE '2026-01-01' + CAST(x % 4 AS INT), x FROM generate_series(0, 11) AS s(x)";
    let sums = "SELECT day, count(*), sum(v) FROM t GROUP BY 1 ORDER BY 1";
    assert_eq!(value(&mut client, &format!("INSERT INTO t {days}")).await, "12");
    let before = text(&mut client, sums).await;
    assert_eq!(before, "2026-01-01 3 12; 2026-01-02 3 15; 2026-01-03 3 18; 2026-01-04 3 21");
    // The same again changes nothing but the version.
    assert_eq!(value(&mut client, &format!("INSERT OVERWRITE t {days}")).await, "12");
    assert_eq!(text(&mut client, sums).await, before);
    let one = "INSERT OVERWRITE t PARTITION (day = '2026-01-02') SELECT DATE '2026-01-02', 100";
    assert_eq!(value(&mut client, one).await, "1");
    assert_eq!(text(&mut client, sums).await, before.replace("02 3 15", "02 1 100"));
    let interval = "INSERT INTO t REPLACE WHERE day >= '2026-01-02' AND day < '2026-01-04'";
    assert_eq!(value(&mut client, &format!("{interval} VALUES (DATE '2026-01-03', 7)")).await, "1");
    assert_eq!(text(&mut client, sums).await, "2026-01-01 3 12; 2026-01-03 1 7; 2026-01-04 3 21");
    // Rows outside of what is replaced are refused, and nothing is left of them.
    let kept = (version(&mut client, "t").await, files(&folder.path().join("t"), ".parquet"));
    for outside in ["VALUES (DATE '2026-01-04', 1)", "VALUES (DATE '2026-01-02', 1), (NULL, 2)"] {
        refused(&mut client, &format!("{interval} {outside}"), ErrorKind::Invalid, &["outside of the interval"]).await;
    }
    let other = "INSERT OVERWRITE t PARTITION (day = '2026-01-02') SELECT DATE '2026-01-01', 100";
    refused(&mut client, other, ErrorKind::Invalid, &["2026-01-01", "not replaced"]).await;
    let hours =
        "INSERT INTO t REPLACE WHERE day >= '2026-01-02 05:00' AND day < '2026-01-04' SELECT DATE '2026-01-02', 1";
    refused(&mut client, hours, ErrorKind::Invalid, &["no value of `day`"]).await;
    let inner = "INSERT OVERWRITE t PARTITION (v = 1) SELECT DATE '2026-01-02', 1";
    refused(&mut client, inner, ErrorKind::Invalid, &["does not divide the table"]).await;
    let start = std::time::Instant::now();
    while files(&folder.path().join("t"), ".parquet") != kept.1 {
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "files of refused statements stay");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(version(&mut client, "t").await, kept.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replaced_is_named_exactly_or_nothing_is() {
    let (_cluster, mut client, folder) = cluster().await;
    for (table, column, divided) in
        [("c", "d DECIMAL(10, 2)", true), ("k", "d DATE", true), ("s", "d VARCHAR", true), ("p", "d TIMESTAMP", false)]
    {
        let by = if divided { "PARTITIONED BY (d)" } else { "" };
        let at = folder.path().join(table);
        let create = format!(
            "CREATE EXTERNAL TABLE {table} ({column}, v BIGINT) STORED AS DELTA {by} LOCATION '{}'",
            at.display()
        );
        rows(&mut client, &create).await;
    }
    for (table, values, replacing, named) in [
        (
            "c",
            "(1.23, 1), (1.24, 2)",
            "REPLACE WHERE d = 1.234",
            "'1.234' is no value of `d`, which is Decimal128(10, 2)",
        ),
        ("c", "(1.25, 3)", "REPLACE WHERE d = '1.235'", "'1.235' is no value of `d`, which is Decimal128(10, 2)"),
        (
            "k",
            "(DATE '2026-01-02', 1)",
            "REPLACE WHERE d = '2026-01-02T12:00:00'",
            "'2026-01-02T12:00:00' is no value of `d`",
        ),
        ("s", "(NULL, 1), ('a', 2)", "REPLACE WHERE d = ''", "'' is no value of `d`"),
        (
            "p",
            "(TIMESTAMP '2026-01-01T00:00:00', 1)",
            "REPLACE WHERE d >= '2026-01-01T00:00:00.0000005' AND d < '2026-01-02'",
            "'2026-01-01T00:00:00.0000005' is no value of `d`",
        ),
    ] {
        rows(&mut client, &format!("INSERT INTO {table} VALUES {values}")).await;
        let before = text(&mut client, &format!("SELECT * FROM {table} ORDER BY v")).await;
        let nothing = format!("INSERT INTO {table} {replacing} SELECT * FROM {table} WHERE false");
        refused(&mut client, &nothing, ErrorKind::Invalid, &[named]).await;
        assert_eq!(text(&mut client, &format!("SELECT * FROM {table} ORDER BY v")).await, before);
    }
    let partition = "INSERT OVERWRITE c PARTITION (d = 1.234) SELECT * FROM c WHERE false";
    refused(&mut client, partition, ErrorKind::Invalid, &["'1.234' is no value of `d`"]).await;
    let null = "INSERT OVERWRITE s PARTITION (d = '') SELECT * FROM s WHERE false";
    refused(&mut client, null, ErrorKind::Invalid, &["'' is no value of `d`", "empty text"]).await;
    // What a column has is found however it is written, and the empty text is before every other.
    assert_eq!(value(&mut client, "INSERT OVERWRITE c PARTITION (d = 1.2300) SELECT 1.23, 9").await, "1");
    assert_eq!(text(&mut client, "SELECT * FROM c ORDER BY d").await, "1.23 9; 1.24 2; 1.25 3");
    assert_eq!(value(&mut client, "INSERT INTO s REPLACE WHERE d >= '' AND d < 'b' VALUES ('aa', 4)").await, "1");
    assert_eq!(text(&mut client, "SELECT * FROM s ORDER BY v").await, " 1; aa 4");
    let backwards = "INSERT INTO s REPLACE WHERE d >= 'b' AND d < '' VALUES ('aa', 4)";
    refused(&mut client, backwards, ErrorKind::Invalid, &["the interval from 'b' to before '' is empty"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interval_of_a_column_that_does_not_divide_is_replaced() {
    let (_cluster, mut client, folder) = cluster().await;
    let create = format!(
        "CREATE EXTERNAL TABLE t (at TIMESTAMP, v BIGINT) STORED AS DELTA LOCATION '{}'",
        folder.path().join("t").display()
    );
    rows(&mut client, &create).await;
    let hour = |hour: u32| {
        format!(
            "INSERT INTO t REPLACE WHERE at >= '2026-01-01 {hour:02}:00' AND at < '2026-01-01 {:02}:00' VALUES \
             (TIMESTAMP '2026-01-01 {hour:02}:00:00', {hour}), (TIMESTAMP '2026-01-01 {hour:02}:59:59.999999', {hour})",
            hour + 1
        )
    };
    for time in [1, 2, 3, 2, 2, 1] {
        assert_eq!(value(&mut client, &hour(time)).await, "2");
    }
    assert_eq!(text(&mut client, "SELECT count(*), sum(v) FROM t").await, "6 12");
    let half = "INSERT INTO t REPLACE WHERE at >= '2026-01-01 01:30' AND at < '2026-01-01 02:00' \
                VALUES (TIMESTAMP '2026-01-01 01:45:00', 1)";
    assert_eq!(value(&mut client, half).await, "1");
    assert_eq!(
        text(&mut client, "SELECT at FROM t WHERE at < TIMESTAMP '2026-01-01 02:30:00' ORDER BY at").await,
        "2026-01-01T01:00:00; 2026-01-01T01:45:00; 2026-01-01T02:00:00"
    );
    let nulls = "INSERT INTO t REPLACE WHERE at >= '2026-01-01 01:00' AND at < '2026-01-01 02:00' SELECT NULL, 1";
    refused(&mut client, nulls, ErrorKind::Invalid, &["no value", "at"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_are_read_by_number_and_time() {
    let (_cluster, mut client, folder) = cluster().await;
    create_numbers(&mut client, &folder.path().join("t").display().to_string()).await;
    let mut times = Vec::new();
    for id in 1..=3 {
        assert_eq!(value(&mut client, &format!("INSERT INTO t VALUES ({id}, 'v{id}')")).await, "1");
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        times.push(value(&mut client, "SELECT CAST(now() AS VARCHAR)").await);
    }
    for old in 0..=3 {
        assert_eq!(count(&mut client, &format!("SELECT count(*) FROM t VERSION AS OF {old}")).await, old);
    }
    assert_eq!(count(&mut client, &format!("SELECT count(*) FROM t TIMESTAMP AS OF '{}'", times[1])).await, 2);
    let both = "SELECT new.id FROM t AS new LEFT JOIN t VERSION AS OF 2 ON new.id = t.id WHERE t.id IS NULL";
    assert_eq!(text(&mut client, both).await, "3");
    rows(&mut client, "CREATE VIEW first AS SELECT * FROM t VERSION AS OF 1").await;
    assert_eq!(text(&mut client, "SELECT * FROM first").await, "1 v1");
    refused(&mut client, "SELECT * FROM t VERSION AS OF 9", ErrorKind::NotFound, &["no version 9", "newest is 3"])
        .await;
    let early = "SELECT * FROM t TIMESTAMP AS OF '1999-01-01'";
    refused(&mut client, early, ErrorKind::NotFound, &["had no version at 1999-01-01"]).await;
    refused(&mut client, "SELECT * FROM first VERSION AS OF 1", ErrorKind::Invalid, &["no versions"]).await;
    refused(&mut client, "SELECT * FROM u VERSION AS OF 1", ErrorKind::NotFound, &["u"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_made_of_a_query_in_one_version() {
    let (_cluster, mut client, folder) = cluster().await;
    let at = folder.path().join("t").display().to_string();
    let create = format!(
        "CREATE TABLE t STORED AS DELTA PARTITIONED BY (k) LOCATION '{at}' AS \
         SELECT x % 3 AS k, x AS v, arrow_cast('s' || x, 'Utf8View') AS s FROM generate_series(1, 100) AS g(x)"
    );
    rows(&mut client, &create).await;
    assert_eq!(version(&mut client, "t").await, "0");
    assert_eq!(
        text(&mut client, "SELECT k, count(*), max(v) FROM t GROUP BY 1 ORDER BY 1").await,
        "0 33 99; 1 34 100; 2 33 98"
    );
    // It lasts under this name.
    let shown = text(&mut client, "SHOW CREATE TABLE t").await;
    assert!(shown.contains("STORED AS DELTA LOCATION"), "{shown}");
    refused(&mut client, &create, ErrorKind::Conflict, &["exists already"]).await;
    let again = create.replacen("TABLE t", "TABLE u", 1);
    refused(&mut client, &again, ErrorKind::Conflict, &["there is a table at", "version 0"]).await;
    assert_eq!(value(&mut client, "INSERT INTO t SELECT k, v + 100, s FROM t").await, "100");
    assert_eq!(count(&mut client, "SELECT count(DISTINCT v) FROM t").await, 200);
    let odd = format!("CREATE TABLE o STORED AS DELTA LOCATION '{at}-o' AS SELECT 1 AS \"a b\"");
    refused(&mut client, &odd, ErrorKind::Invalid, &["`a b`", "without spaces"]).await;
    let unsigned = format!("CREATE TABLE o STORED AS DELTA LOCATION '{at}-o' AS SELECT arrow_cast(1, 'UInt64') AS a");
    refused(&mut client, &unsigned, ErrorKind::Invalid, &["`a`", "UInt64", "BIGINT"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_datasets_take_rows_and_what_is_odd_is_refused() {
    let (_cluster, mut client, folder) = cluster().await;
    rows(&mut client, "CREATE TABLE small AS SELECT 1 AS x").await;
    refused(&mut client, "INSERT INTO small VALUES (2)", ErrorKind::Invalid, &["no dataset", "STORED AS DELTA"]).await;
    refused(&mut client, "OPTIMIZE small", ErrorKind::Invalid, &["no dataset"]).await;
    refused(&mut client, "DELETE FROM small", ErrorKind::Invalid, &["not supported"]).await;
    let at = folder.path().join("full");
    std::fs::create_dir(&at).expect("a folder");
    std::fs::write(at.join("data.csv"), "1").expect("a file");
    let create = format!("CREATE EXTERNAL TABLE t (x BIGINT) STORED AS DELTA LOCATION '{}'", at.display());
    refused(&mut client, &create, ErrorKind::Conflict, &["data.csv", "folder of its own"]).await;
    let keyed = create.replace("(x BIGINT)", "(x BIGINT, y VARCHAR)").replace("full", "k");
    let keyed = keyed.replace("DELTA", "DELTA PARTITIONED BY (y)");
    rows(&mut client, &keyed).await;
    refused(&mut client, "INSERT INTO t VALUES (1, '')", ErrorKind::Invalid, &["`y`", "empty string"]).await;
    assert_eq!(value(&mut client, "INSERT INTO t SELECT 1, 'a/b=c %20' || chr(10) || 'ü'").await, "1");
    assert_eq!(text(&mut client, "SELECT x FROM t WHERE y = 'a/b=c %20' || chr(10) || 'ü'").await, "1");
    let none = "INSERT INTO t SELECT 1, 'x' WHERE false";
    assert_eq!(value(&mut client, none).await, "0");
    assert_eq!(version(&mut client, "t").await, "2");
}
