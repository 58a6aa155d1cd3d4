//! Columns of other databases: which types they have here, and how their values travel.
//!
//! | there | here |
//! |---|---|
//! | whole numbers, `double`, booleans, texts, bytes | the same |
//! | `numeric(p,s)` | `Decimal128(p, s)`, as text: the drivers' own decimals have fewer digits |
//! | times of day and date | microseconds, as numbers or text: the crate's rows know none before 1970 |
//! | enums, uuids, json and their like | text |
//!
//! What is not in these tables is refused when the table is created, by name.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use tidemill_core::{Error, Result};
use tidemill_engine::connector::{ConnectorKind, ConnectorScan, RemoteTable};

/// The only column of a query that is asked for how many rows there are.
pub(super) const COUNTED: &str = "tidemill.rows";

/// The digits of a `numeric` that declares none.
const FREE_NUMERIC: DataType = DataType::Decimal128(38, 20);

/// A column as its database describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RemoteColumn(pub(super) String, pub(super) String);

impl RemoteColumn {
    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// Its type there, in lower case.
    pub(super) fn source(&self) -> &str {
        &self.1
    }
}

/// How a column's values travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// As they are.
    Plain,
    /// As text.
    Text,
    /// As text, of which the database makes a list.
    Texts,
    /// As microseconds since 1970.
    Micros,
}

/// A column's type here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) data_type: DataType,
    pub(super) passage: Passage,
}

impl Declared {
    fn of(data_type: DataType, passage: Passage) -> Self {
        Self { data_type, passage }
    }

    fn plain(data_type: DataType) -> Self {
        Self::of(data_type, Passage::Plain)
    }

    /// The type that the database sends.
    pub(super) fn wire(&self) -> DataType {
        match self.passage {
            Passage::Plain | Passage::Texts => self.data_type.clone(),
            Passage::Text => DataType::Utf8,
            Passage::Micros => DataType::Int64,
        }
    }

    /// Whether values are what the database compares: a `numeric` without digits is rounded on its way.
    pub(super) fn is_exact(&self) -> bool {
        self.data_type != FREE_NUMERIC
    }
}

/// The type of a column of `table` here.
///
/// # Errors
/// There is none.
pub(super) fn declared(table: &RemoteTable, column: &RemoteColumn) -> Result<Declared> {
    let source = column.source();
    let found = match table.kind {
        ConnectorKind::Postgres => of_postgres(source),
        ConnectorKind::Mysql => of_mysql(source),
        ConnectorKind::Sqlite => of_sqlite(source),
    };
    found.ok_or_else(|| {
        let shown = if source.is_empty() { "no type".to_owned() } else { format!("the type `{source}`") };
        let name = column.name();
        Error::invalid(format!(
            "the column `{name}` of {table} has {shown}, which is not read: make a view there that casts it or leaves it out"
        ))
    })
}

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

fn of_postgres(source: &str) -> Option<Declared> {
    let (base, arguments) = split(source);
    Some(match base {
        "smallint" => Declared::plain(DataType::Int16),
        "integer" => Declared::plain(DataType::Int32),
        "bigint" => Declared::plain(DataType::Int64),
        "real" => Declared::plain(DataType::Float32),
        "double precision" => Declared::plain(DataType::Float64),
        "boolean" => Declared::plain(DataType::Boolean),
        "text" | "character varying" => Declared::plain(DataType::Utf8),
        "bytea" => Declared::plain(DataType::Binary),
        "date" => Declared::plain(DataType::Date32),
        "time without time zone" => Declared::plain(DataType::Time64(TimeUnit::Nanosecond)),
        "interval" => Declared::plain(DataType::Interval(IntervalUnit::MonthDayNano)),
        "timestamp without time zone" => Declared::of(MICROS, Passage::Micros),
        "timestamp with time zone" => {
            Declared::of(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), Passage::Micros)
        }
        "numeric" => Declared::of(decimal(arguments)?, Passage::Text),
        "character" | "name" | "\"char\"" | "uuid" | "json" | "jsonb" | "xml" | "inet" | "cidr" | "macaddr"
        | "enum" => Declared::of(DataType::Utf8, Passage::Text),
        "smallint[]" => list(DataType::Int16, Passage::Plain),
        "integer[]" => list(DataType::Int32, Passage::Plain),
        "bigint[]" => list(DataType::Int64, Passage::Plain),
        "real[]" => list(DataType::Float32, Passage::Plain),
        "double precision[]" => list(DataType::Float64, Passage::Plain),
        "boolean[]" => list(DataType::Boolean, Passage::Plain),
        "text[]" | "character varying[]" => list(DataType::Utf8, Passage::Texts),
        _ => return None,
    })
}

fn of_mysql(source: &str) -> Option<Declared> {
    let (base, arguments) = split(source);
    let signed = |signed: DataType, unsigned: DataType| {
        Declared::plain(if source.contains("unsigned") { unsigned } else { signed })
    };
    Some(match base {
        "tinyint" => signed(DataType::Int8, DataType::UInt8),
        "smallint" => signed(DataType::Int16, DataType::UInt16),
        "mediumint" | "int" => signed(DataType::Int32, DataType::UInt32),
        "bigint" => signed(DataType::Int64, DataType::UInt64),
        "float" => Declared::plain(DataType::Float32),
        "double" => Declared::plain(DataType::Float64),
        "year" => Declared::plain(DataType::Int16),
        "decimal" => Declared::of(decimal(arguments)?, Passage::Text),
        "date" => Declared::of(DataType::Date32, Passage::Text),
        "datetime" | "timestamp" => Declared::of(MICROS, Passage::Text),
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Declared::plain(DataType::Utf8),
        "enum" | "set" | "json" | "time" => Declared::of(DataType::Utf8, Passage::Text),
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Declared::plain(DataType::Binary),
        _ => return None,
    })
}

/// By the rules with which `SQLite` itself reads a declared type, for those that mean one thing.
fn of_sqlite(source: &str) -> Option<Declared> {
    let (base, _) = split(source);
    let has = |part: &str| base.contains(part);
    Some(match base {
        "date" => Declared::of(DataType::Date32, Passage::Text),
        "datetime" | "timestamp" => Declared::of(MICROS, Passage::Text),
        "json" | "uuid" => Declared::plain(DataType::Utf8),
        "boolean" | "bool" => Declared::plain(DataType::Boolean),
        _ if has("int") => Declared::plain(DataType::Int64),
        _ if has("char") || has("clob") || has("text") => Declared::plain(DataType::Utf8),
        _ if has("blob") => Declared::plain(DataType::Binary),
        _ if has("real") || has("floa") || has("doub") => Declared::plain(DataType::Float64),
        "numeric" | "decimal" | "num" => Declared::plain(DataType::Float64),
        _ => return None,
    })
}

/// `numeric(10,2)[]` in `numeric[]` and `10,2`.
fn split(source: &str) -> (&str, Option<&str>) {
    match source.split_once('(') {
        Some((base, rest)) => (base.trim(), rest.split(')').next()),
        None => (source.split(" unsigned").next().unwrap_or_default().trim(), None),
    }
}

fn decimal(arguments: Option<&str>) -> Option<DataType> {
    let Some(arguments) = arguments else { return Some(FREE_NUMERIC) };
    let (precision, scale) = arguments.split_once(',').unwrap_or((arguments, "0"));
    let (precision, scale): (u8, i8) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    let fits = (1..=38).contains(&precision) && (0..=38).contains(&scale) && scale.unsigned_abs() <= precision;
    fits.then_some(DataType::Decimal128(precision, scale))
}

fn list(item: DataType, passage: Passage) -> Declared {
    Declared::of(DataType::List(Arc::new(Field::new_list_field(item, true))), passage)
}

/// All columns of `table`, as a schema here.
///
/// # Errors
/// One has a type that is not read.
pub(super) fn schema(table: &RemoteTable, columns: &[RemoteColumn]) -> Result<SchemaRef> {
    let field = |column: &RemoteColumn| Ok(Field::new(column.name(), declared(table, column)?.data_type, true));
    Ok(Arc::new(Schema::new(columns.iter().map(field).collect::<Result<Vec<_>>>()?)))
}

/// Compares what a scan was planned with with the columns as they are now.
///
/// # Errors
/// One is gone or has another type: the error names it.
pub(super) fn check(scan: &ConnectorScan, now: &[RemoteColumn]) -> Result<()> {
    let table = &scan.table;
    for (planned, wire) in scan.schema.fields().iter().zip(scan.wire.fields()) {
        let name = planned.name();
        if name == COUNTED {
            continue;
        }
        let Some(column) = now.iter().find(|column| column.name() == name) else {
            return Err(Error::conflict(format!(
                "the column `{name}` of {table} is gone since the table was created: create it again with CREATE OR REPLACE"
            )));
        };
        let is_same = declared(table, column)
            .is_ok_and(|now| now.data_type == *planned.data_type() && now.wire() == *wire.data_type());
        if !is_same {
            return Err(Error::conflict(format!(
                "the column `{name}` of {table} is `{}` now, and was read as {} when the table was created: create it again with CREATE OR REPLACE",
                column.source(),
                planned.data_type()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_other_databases_have_one_here_or_none() {
        let micros = || DataType::Timestamp(TimeUnit::Microsecond, None);
        let cases = [
            (of_postgres("numeric(12,2)"), Some(DataType::Decimal128(12, 2))),
            (of_postgres("numeric"), Some(FREE_NUMERIC)),
            (of_postgres("numeric(50,2)"), None),
            (of_postgres("numeric(2,-3)"), None),
            (of_postgres("character varying(20)"), Some(DataType::Utf8)),
            (of_postgres("money"), None),
            (of_mysql("bigint(20) unsigned"), Some(DataType::UInt64)),
            (of_mysql("int unsigned"), Some(DataType::UInt32)),
            (of_mysql("datetime(6)"), Some(micros())),
            (of_sqlite("varchar(20)"), Some(DataType::Utf8)),
            (of_sqlite("unsigned big int"), Some(DataType::Int64)),
            (of_sqlite("datetime"), Some(micros())),
            (of_sqlite("string"), None),
            (of_sqlite(""), None),
        ];
        for (position, (found, expected)) in cases.into_iter().enumerate() {
            assert_eq!(found.map(|declared| declared.data_type), expected, "case {position}");
        }
    }
}
