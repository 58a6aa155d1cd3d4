//! The 22 TPC-H queries of `examples/tpch`, and the tables they read.

use std::path::Path;

use crate::session::text_literal;

/// Name and text of every query.
pub const QUERIES: [(&str, &str); 22] = [
    ("q01", include_str!("../../examples/tpch/q01.sql")),
    ("q02", include_str!("../../examples/tpch/q02.sql")),
    ("q03", include_str!("../../examples/tpch/q03.sql")),
    ("q04", include_str!("../../examples/tpch/q04.sql")),
    ("q05", include_str!("../../examples/tpch/q05.sql")),
    ("q06", include_str!("../../examples/tpch/q06.sql")),
    ("q07", include_str!("../../examples/tpch/q07.sql")),
    ("q08", include_str!("../../examples/tpch/q08.sql")),
    ("q09", include_str!("../../examples/tpch/q09.sql")),
    ("q10", include_str!("../../examples/tpch/q10.sql")),
    ("q11", include_str!("../../examples/tpch/q11.sql")),
    ("q12", include_str!("../../examples/tpch/q12.sql")),
    ("q13", include_str!("../../examples/tpch/q13.sql")),
    ("q14", include_str!("../../examples/tpch/q14.sql")),
    ("q15", include_str!("../../examples/tpch/q15.sql")),
    ("q16", include_str!("../../examples/tpch/q16.sql")),
    ("q17", include_str!("../../examples/tpch/q17.sql")),
    ("q18", include_str!("../../examples/tpch/q18.sql")),
    ("q19", include_str!("../../examples/tpch/q19.sql")),
    ("q20", include_str!("../../examples/tpch/q20.sql")),
    ("q21", include_str!("../../examples/tpch/q21.sql")),
    ("q22", include_str!("../../examples/tpch/q22.sql")),
];

/// The statements that make the tables below `directory` known.
#[must_use]
pub fn create_tables(directory: &Path) -> Vec<String> {
    let create = |table: &&str| {
        let location = text_literal(&format!("{}/", directory.join(table).display()));
        format!("CREATE OR REPLACE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION {location}")
    };
    crate::generate::TPCH_TABLES.iter().map(create).collect()
}
