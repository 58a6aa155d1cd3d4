//! Small tables with nulls, skew, every type and every format, written once by in-process DataFusion.

use std::fs::File;
use std::path::{Path, PathBuf};

use datafusion::prelude::SessionContext;

/// Change it when the tables change: older ones are written again.
const VERSION: &str = "2";

const NAMES: &str = "CASE value % 8 WHEN 0 THEN 'a, b' WHEN 1 THEN 'ünïcode' WHEN 2 THEN NULL WHEN 3 THEN 'say \"x\"' \
                     ELSE 'n' || value END";

/// The statements that make the tables, for the oracle and for Tidemill alike.
///
/// # Panics
/// The tables cannot be written.
pub async fn create_small_tables() -> Vec<String> {
    let folder = small_tables();
    std::fs::create_dir_all(&folder).expect("the data folder can be made");
    // Test processes may start side by side.
    let lock = File::create(folder.with_extension("lock")).expect("the lock can be made");
    lock.lock().expect("the lock can be taken");
    let marker = folder.join("version");
    if std::fs::read_to_string(&marker).ok().as_deref() != Some(VERSION) {
        std::fs::remove_dir_all(&folder).expect("old tables can be removed");
        std::fs::create_dir_all(&folder).expect("the data folder can be made");
        write(&folder).await;
        std::fs::write(&marker, VERSION).expect("the marker can be written");
    }
    statements(&folder)
}

fn statements(folder: &Path) -> Vec<String> {
    let path = |table: &str| folder.join(table).display().to_string();
    let parquet = ["empty", "one", "few", "many", "skew", "typed", "evolving"];
    let mut statements: Vec<String> = parquet
        .iter()
        .map(|table| format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}/'", path(table)))
        .collect();
    statements.push(format!(
        "CREATE EXTERNAL TABLE csv_gz STORED AS CSV LOCATION '{}/' \
         OPTIONS ('format.compression' 'gzip', 'format.has_header' 'true')",
        path("csv_gz")
    ));
    statements.push(format!("CREATE EXTERNAL TABLE json_lines STORED AS JSON LOCATION '{}/'", path("json_lines")));
    statements.push(format!("CREATE EXTERNAL TABLE arrow_file STORED AS ARROW LOCATION '{}/'", path("arrow_file")));
    statements.push(format!(
        "CREATE EXTERNAL TABLE hive STORED AS PARQUET PARTITIONED BY (year, month) LOCATION '{}/'",
        path("hive")
    ));
    statements.push(
        "CREATE VIEW types AS SELECT *, arrow_cast(vw, 'Dictionary(Int32, Utf8)') AS dict, \
         arrow_cast(vw, 'LargeUtf8') AS lg, NULL AS nothing, \
         CASE id % 3 WHEN 0 THEN INTERVAL '1 month' WHEN 1 THEN INTERVAL '2 days 3 hours' END AS span FROM typed"
            .to_owned(),
    );
    statements
}

async fn write(folder: &Path) {
    let context = SessionContext::new();
    for (file, query) in files() {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder can be made");
        let options = match file {
            f if f.ends_with(".csv.gz") => {
                "STORED AS CSV OPTIONS ('format.compression' 'gzip', 'format.has_header' 'true')"
            }
            f if f.ends_with(".json") => "STORED AS JSON",
            f if f.ends_with(".arrow") => "STORED AS ARROW",
            _ => "STORED AS PARQUET",
        };
        let copy = format!("COPY ({query}) TO '{}' {options}", path.display());
        let written = context.sql(&copy).await.unwrap_or_else(|e| panic!("{copy}\n{e}"));
        written.collect().await.unwrap_or_else(|e| panic!("{copy}\n{e}"));
    }
}

/// Files, and the rows in them.
fn files() -> Vec<(&'static str, String)> {
    let series =
        |columns: &str, from: u32, to: u32| format!("SELECT value AS id, {columns} FROM generate_series({from}, {to})");
    let many =
        "CASE WHEN value % 19 = 0 THEN NULL ELSE value * 7 % 97 END AS k, value % 7 AS g, 'n' || (value % 211) AS name";
    let skew = "CASE WHEN value % 23 = 0 THEN NULL WHEN value % 10 < 9 THEN 7 ELSE value % 97 END AS k, value % 7 AS g, \
                'n' || (value % 211) AS name";
    let few = format!("nullif(value % 5, 4) AS k, value % 3 AS g, {NAMES} AS name");
    let typed = "value % 2 AS g, CASE WHEN value % 5 > 0 THEN value % 2 = 0 END AS b, arrow_cast(value % 3, 'Int8') AS i8, \
                 arrow_cast(value % 4, 'Int16') AS i16, arrow_cast(value % 3, 'UInt8') AS u8, \
                 arrow_cast(value % 5, 'UInt32') AS u32, arrow_cast(value % 3, 'Float32') AS f32, \
                 CASE value WHEN 4 THEN CAST('NaN' AS DOUBLE) WHEN 5 THEN NULL ELSE value % 4 * 0.5 END AS f64, \
                 CAST(value % 6 * 1.25 AS DECIMAL(12, 2)) AS d12, CAST(value * 1000000007 AS DECIMAL(38, 10)) AS d38, \
                 arrow_cast(arrow_cast(19750 + value % 3, 'Int32'), 'Date32') AS dy, \
                 arrow_cast(1700000000000 + value % 4 * 3600000, 'Timestamp(Millisecond, None)') AS ts, \
                 arrow_cast(1700000000000000 + value % 3 * 1728000000000, \
                 'Timestamp(Microsecond, Some(\"Europe/Berlin\"))') AS tsz, \
                 arrow_cast(arrow_cast(value % 5 * 3600, 'Int32'), 'Time32(Second)') AS tm, \
                 arrow_cast('b' || (value % 3), 'Binary') AS bin, 'a rather long text ' || (value % 4) AS vw, \
                 CASE WHEN value % 4 > 0 THEN [value % 2, 7] END AS lst, \
                 named_struct('a', value % 2, 'b', 's' || (value % 3)) AS st, map(['x', 'y'], [value % 2, 5]) AS mp";
    let formats = format!("value % 3 AS g, {NAMES} AS name");
    let mut files = vec![
        ("empty/part-0.parquet", series(many, 1, 0)),
        ("one/part-0.parquet", series(many, 3, 3)),
        ("few/part-0.parquet", series(&few, 1, 4)),
        ("few/part-1.parquet", series(&few, 5, 9)),
        ("typed/part-0.parquet", series(typed, 1, 7)),
        ("typed/part-1.parquet", series(typed, 8, 13)),
        ("evolving/part-0.parquet", series("value % 3 AS g", 1, 4)),
        ("evolving/part-1.parquet", series("value % 3 AS g, nullif('note ' || (value % 3), 'note 0') AS note", 5, 9)),
        ("csv_gz/part-0.csv.gz", series(&formats, 1, 9)),
        ("csv_gz/part-1.csv.gz", series(&formats, 10, 17)),
        ("json_lines/part-0.json", series("value % 3 AS g, named_struct('x', value, 'y', 'v') AS inner", 1, 8)),
        ("arrow_file/part-0.arrow", series(&formats, 1, 9)),
        ("hive/year=2023/month=1/part-0.parquet", series("value % 3 AS g", 1, 3)),
        ("hive/year=2023/month=2/part-0.parquet", series("value % 3 AS g", 4, 5)),
        ("hive/year=2024/month=2/part-0.parquet", series("value % 3 AS g", 1, 9)),
    ];
    let parts = ["many/part-0.parquet", "many/part-1.parquet", "many/part-2.parquet", "many/part-3.parquet"];
    files.extend(
        parts
            .into_iter()
            .zip([(1, 700), (701, 900), (901, 2200), (2201, 3000)])
            .map(|(f, (a, b))| (f, series(many, a, b))),
    );
    let parts = ["skew/part-0.parquet", "skew/part-1.parquet", "skew/part-2.parquet"];
    files.extend(
        parts.into_iter().zip([(1, 1000), (1001, 2000), (2001, 3000)]).map(|(f, (a, b))| (f, series(skew, a, b))),
    );
    files
}

/// The statements of a file in `tests/queries`.
#[must_use]
pub fn statements_of(text: &str) -> Vec<String> {
    tidemill::session::statements::split(text).expect("the queries can be read")
}

/// Where the small tables lie, once they are made.
#[must_use]
pub fn small_tables() -> PathBuf {
    super::data::target_dir().join("test-data/tables")
}
