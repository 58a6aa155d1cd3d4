//! The tables of random queries: small, with nulls, duplicates and skew, in several files.

use std::path::Path;

use datafusion::prelude::SessionContext;
use fastrand::Rng;

use super::relation::Type;

/// Tables and their columns.
pub(super) type Columns = &'static [(&'static str, Type)];

/// Every table that queries may read.
pub(super) const TABLES: [(&str, Columns); 4] = [
    ("t0", &[("a", Type::Int), ("b", Type::Int), ("s", Type::Text)]),
    ("t1", &[("a", Type::Int), ("b", Type::Int), ("c", Type::Int), ("s", Type::Text)]),
    ("t2", &[("a", Type::Int), ("s", Type::Text)]),
    ("t3", &[("a", Type::Int), ("b", Type::Int)]),
];

/// Writes the tables of a seed, and answers the statements that make them.
///
/// # Panics
/// They cannot be written.
pub async fn write_tables(seed: u64, folder: &Path) -> Vec<String> {
    let mut rng = Rng::with_seed(seed);
    let context = SessionContext::new();
    let mut statements = Vec::new();
    for (table, columns) in TABLES {
        let directory = folder.join(table);
        std::fs::create_dir_all(&directory).expect("a folder");
        for file in 0..rng.usize(1..5) {
            let rows = match rng.u8(0..6) {
                0 => 0,
                1 => 1,
                2 => rng.usize(100..400),
                _ => rng.usize(2..40),
            };
            let select = rows_of(&mut rng, columns, rows);
            let path = directory.join(format!("part-{file}.parquet"));
            let copy = format!("COPY ({select}) TO '{}' STORED AS PARQUET", path.display());
            let written = context.sql(&copy).await.unwrap_or_else(|e| panic!("{copy}\n{e}"));
            written.collect().await.unwrap_or_else(|e| panic!("{copy}\n{e}"));
        }
        statements.push(format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}/'", directory.display()));
    }
    statements
}

fn rows_of(rng: &mut Rng, columns: Columns, rows: usize) -> String {
    let domain = *rng.choice(&[3, 12, 1000]).expect("a domain");
    let skew = rng.bool();
    let mut values = Vec::new();
    // One row that is filtered out again, so that every file has a first row to take its types from.
    for row in 0..=rows {
        let fields = columns.iter().map(|(_, kind)| {
            let number = if skew && rng.u8(0..10) < 8 { 1 } else { rng.i64(-1..domain) };
            match kind {
                _ if rng.u8(0..8) == 0 && row > 0 => "NULL".to_owned(),
                Type::Int => number.to_string(),
                Type::Text => format!("'v{number}'"),
            }
        });
        values.push(format!("({row}, {})", fields.collect::<Vec<_>>().join(", ")));
    }
    let listed = columns.iter().enumerate().map(|(i, (column, kind))| match kind {
        Type::Int => format!("CAST(column{} AS BIGINT) AS {column}", i + 2),
        Type::Text => format!("CAST(column{} AS VARCHAR) AS {column}", i + 2),
    });
    // Columns that may be null in one file may be so in all.
    let listed = listed.map(|l| {
        let (value, column) = l.rsplit_once(" AS ").expect("a name");
        format!("CASE WHEN column1 >= 0 THEN {value} END AS {column}")
    });
    let listed = listed.collect::<Vec<_>>().join(", ");
    format!("SELECT {listed} FROM (VALUES {}) WHERE column1 > 0", values.join(", "))
}
