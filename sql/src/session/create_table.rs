//! A table that was ingested, as a statement that makes one of the same columns: what made it cannot be typed.

use std::borrow::Cow;

use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, TimeUnit};
use datafusion::common::utils::quote_identifier;
use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;

/// The most digits of a decimal number of 128 bits.
const DIGITS_OF_128_BITS: u8 = 38;

/// The statement, behind a line that says what it leaves out. It makes a `TABLE` or what `what` is; `name` is quoted where it
/// must be.
pub(super) fn create_table(what: &str, name: &str, schema: &Schema) -> String {
    let fields = || schema.fields().iter();
    let list = |columns: Vec<String>| columns.join(", ");
    let ingested = "-- Its rows were ingested";
    if let Some(columns) = fields().map(|field| column(field)).collect() {
        return format!("{ingested}: this makes the table without them.\nCREATE {what} {name} ({})", list(columns));
    }
    match fields().map(|field| cast(field)).collect() {
        Some(columns) => {
            let columns = list(columns);
            format!("{ingested}: this makes the table without them.\nCREATE {what} {name} AS SELECT {columns} LIMIT 0")
        }
        None => {
            let columns = list(fields().map(|field| format!("{} {}", field.name(), field.data_type())).collect());
            // Within one line, whatever the names of the columns are.
            let columns = columns.replace(['\n', '\r'], " ");
            format!("{ingested}, and SQL has no names for the types of all its columns.\n-- {name}: {columns}")
        }
    }
}

fn column(field: &Field) -> Option<String> {
    let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
    Some(format!("{} {}{not_null}", quoted(field.name()), sql_type(field.data_type())?))
}

/// A name that is no keyword, which a column must not begin with.
pub(crate) fn quoted(name: &str) -> Cow<'_, str> {
    match ALL_KEYWORDS.binary_search(&name.to_uppercase().as_str()) {
        Ok(_) => Cow::Owned(format!("\"{name}\"")),
        Err(_) => quote_identifier(name),
    }
}

/// A text as statements have it, between quotes.
pub(crate) fn text_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A column of a type that SQL has no name for, in Arrow's words.
fn cast(field: &Field) -> Option<String> {
    let kind = field.data_type().to_string();
    let is_read = kind.parse::<DataType>().is_ok_and(|read| read == *field.data_type());
    is_read.then(|| format!("arrow_cast(NULL, {}) AS {}", text_literal(&kind), quoted(field.name())))
}

/// The name of a type that holds the same values.
pub(crate) fn sql_type(kind: &DataType) -> Option<String> {
    let name = match kind {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INTEGER UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTEA",
        DataType::Date32 => "DATE",
        DataType::Time64(TimeUnit::Nanosecond) => "TIME",
        DataType::Timestamp(TimeUnit::Second, None) => "TIMESTAMP(0)",
        DataType::Timestamp(TimeUnit::Millisecond, None) => "TIMESTAMP(3)",
        DataType::Timestamp(TimeUnit::Microsecond, None) => "TIMESTAMP(6)",
        DataType::Timestamp(TimeUnit::Nanosecond, None) => "TIMESTAMP",
        DataType::Interval(IntervalUnit::MonthDayNano) => "INTERVAL",
        DataType::Decimal128(precision, scale) if *scale >= 0 => return Some(format!("DECIMAL({precision}, {scale})")),
        DataType::Decimal256(precision, scale) if *precision > DIGITS_OF_128_BITS && *scale >= 0 => {
            return Some(format!("DECIMAL({precision}, {scale})"));
        }
        DataType::Dictionary(_, values) => return sql_type(values),
        _ => return None,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::logical_expr::{DdlStatement, LogicalPlan};
    use datafusion::prelude::SessionContext;
    use tidemill_core::{Error, Result};
    use tidemill_engine::error::from_datafusion;

    use super::*;
    use crate::session::statements;

    /// The columns of the table that the statement makes.
    async fn made(statement: &str) -> Result<Arc<Schema>> {
        let [statement] = &statements::split(statement)?[..] else { return Err(Error::invalid("not one statement")) };
        let plan = SessionContext::new().state().create_logical_plan(statement).await;
        match plan.map_err(|e| from_datafusion(&e))? {
            LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => Ok(Arc::clone(table.input.schema().inner())),
            other => Err(Error::invalid(other.display().to_string())),
        }
    }

    #[tokio::test]
    async fn what_is_shown_makes_the_columns_again() -> Result<()> {
        let named = [
            DataType::Boolean,
            DataType::Int8,
            DataType::Int16,
            DataType::Int32,
            DataType::Int64,
            DataType::UInt8,
            DataType::UInt16,
            DataType::UInt32,
            DataType::UInt64,
            DataType::Float32,
            DataType::Float64,
            DataType::Utf8View,
            DataType::Binary,
            DataType::Date32,
            DataType::Time64(TimeUnit::Nanosecond),
            DataType::Timestamp(TimeUnit::Second, None),
            DataType::Timestamp(TimeUnit::Millisecond, None),
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Decimal128(12, 3),
            DataType::Decimal256(50, 4),
        ];
        let names = ["trunks", "primary", "Column", "with \"quotes\""];
        let name = |n: usize| names.get(n).map_or_else(|| format!("c{n}"), |name| (*name).to_owned());
        let fields = named.iter().enumerate().map(|(n, kind)| Field::new(name(n), kind.clone(), n > 0));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        let statement = create_table("TABLE", "woods.t", &schema);
        assert!(
            statement.contains("CREATE TABLE woods.t (trunks BOOLEAN NOT NULL, \"primary\" TINYINT, "),
            "{statement}"
        );
        assert_eq!(*made(&statement).await?, schema);
        Ok(())
    }

    #[tokio::test]
    async fn types_without_names_are_cast_and_those_that_cannot_be_are_told() -> Result<()> {
        let odd = [
            DataType::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into())),
            DataType::Duration(TimeUnit::Millisecond),
            DataType::FixedSizeBinary(3),
            DataType::Float16,
            DataType::new_list(DataType::Int64, true),
        ];
        let fields = odd.iter().enumerate().map(|(n, kind)| Field::new(format!("c{n}"), kind.clone(), true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        assert_eq!(*made(&create_table("TABLE", "t", &schema)).await?, schema);
        let run = DataType::RunEndEncoded(
            Arc::new(Field::new("run_ends", DataType::Int32, false)),
            Arc::new(Field::new("values", DataType::Utf8, true)),
        );
        let told = create_table("TABLE", "t", &Schema::new(vec![Field::new("line\nbreak", run, true)]));
        assert!(statements::split(&told)?.is_empty() || made(&told).await.is_ok(), "{told}");
        Ok(())
    }
}
