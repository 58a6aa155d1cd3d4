//! Rows as they come from a database, as the table declares them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use tidemill_core::{Error, Result};

use super::{ConnectorScan, RemoteTable};

/// Reads columns back that travelled as something else.
#[derive(Debug)]
pub(super) struct Rows {
    table: RemoteTable,
    schema: SchemaRef,
    wire: SchemaRef,
}

impl Rows {
    pub(super) fn new(scan: &ConnectorScan) -> Self {
        let (schema, wire) = (Arc::clone(&scan.schema), Arc::clone(&scan.wire));
        Self { table: scan.table.clone(), schema, wire }
    }

    /// A batch with the declared columns. A value that has no place in its column is an error, never a null.
    pub(super) fn declared(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let (came, expected) = (batch.num_columns(), self.schema.fields().len());
        if came != expected {
            let message = format!("{} sent {came} columns instead of {expected}", self.table);
            return Err(Error::internal(message));
        }
        let columns = (0..expected).map(|position| self.column(batch, position)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|e| Error::internal(format!("the rows of {} make no batch: {e}", self.table)))
    }

    fn column(&self, batch: &RecordBatch, position: usize) -> Result<ArrayRef> {
        let (declared, wire) = (self.schema.field(position), self.wire.field(position));
        let column = batch.column(position);
        if !comes_as(column.data_type(), wire.data_type()) {
            return Err(Error::conflict(format!(
                "the column `{}` of {} gives {}, and gave {} when the table was created: create it again",
                declared.name(),
                self.table,
                column.data_type(),
                wire.data_type()
            )));
        }
        if column.data_type() == declared.data_type() {
            return Ok(one_nan(column));
        }
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(column, declared.data_type(), &strict)
            .map_err(|e| self.unfit(declared.name(), declared.data_type(), &e))
    }

    fn unfit(&self, column: &str, declared: &DataType, error: &ArrowError) -> Error {
        Error::invalid(format!(
            "a value of the column `{column}` of {} is no {declared} ({error}): leave such values out with a view there",
            self.table
        ))
    }
}

/// Databases have one NaN, above all numbers. Here one with a sign is below them, and a filter that the database applied would
/// have kept other rows.
fn one_nan(column: &ArrayRef) -> ArrayRef {
    const NAN: u64 = 0x7ff8_0000_0000_0000;
    const SHORT_NAN: u32 = 0x7fc0_0000;
    if let Some(numbers) = column.as_primitive_opt::<Float64Type>() {
        return Arc::new(numbers.unary::<_, Float64Type>(|x| if x.is_nan() { f64::from_bits(NAN) } else { x }));
    }
    if let Some(numbers) = column.as_primitive_opt::<Float32Type>() {
        return Arc::new(numbers.unary::<_, Float32Type>(|x| if x.is_nan() { f32::from_bits(SHORT_NAN) } else { x }));
    }
    Arc::clone(column)
}

/// Whether a type is the one that was agreed on. Texts may be long ones.
fn comes_as(came: &DataType, agreed: &DataType) -> bool {
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8);
    let is_bytes = |data_type: &DataType| matches!(data_type, DataType::Binary | DataType::LargeBinary);
    // A database may send a number that it computed in as few bytes as it needs.
    let widens = came.is_signed_integer() && *agreed == DataType::Int64;
    came == agreed
        || widens
        || (is_text(came) && is_text(agreed))
        || (is_bytes(came) && is_bytes(agreed))
        || *came == DataType::Null
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema, TimeUnit};

    use super::*;
    use crate::connector::ConnectorKind;

    fn rows(declared: DataType, wire: DataType) -> Rows {
        let schema = |data_type| Arc::new(Schema::new(vec![Field::new("x", data_type, true)]));
        let table =
            RemoteTable { kind: ConnectorKind::Postgres, database: "pg".to_owned(), table: "public.t".to_owned() };
        Rows { table, schema: schema(declared), wire: schema(wire) }
    }

    fn batch(column: ArrayRef) -> Result<RecordBatch> {
        RecordBatch::try_from_iter([("x", column)]).map_err(|e| Error::internal(e.to_string()))
    }

    #[test]
    fn columns_are_read_back_exactly_or_not_at_all() -> Result<()> {
        let decimals = rows(DataType::Decimal128(10, 2), DataType::Utf8);
        let read = decimals.declared(&batch(Arc::new(StringArray::from(vec![Some("-12.50"), None])))?)?;
        let shown = arrow::util::display::array_value_to_string(read.column(0), 0).unwrap_or_default();
        assert_eq!((shown.as_str(), read.column(0).is_null(1)), ("-12.50", true));
        let unfit = decimals.declared(&batch(Arc::new(StringArray::from(vec!["NaN"])))?).err().map(|e| e.message);
        assert!(unfit.unwrap_or_default().contains("a value of the column `x` of public.t"));
        let times = rows(DataType::Timestamp(TimeUnit::Microsecond, None), DataType::Int64);
        let before_1970 = times.declared(&batch(Arc::new(Int64Array::from(vec![-1])))?)?;
        let shown = arrow::util::display::array_value_to_string(before_1970.column(0), 0).unwrap_or_default();
        assert_eq!(shown, "1969-12-31T23:59:59.999999");
        Ok(())
    }

    #[test]
    fn no_nan_is_below_all_numbers() -> Result<()> {
        let numbers = arrow::array::Float64Array::from(vec![Some(-f64::NAN), Some(f64::NAN), Some(-0.0), None]);
        let read = rows(DataType::Float64, DataType::Float64).declared(&batch(Arc::new(numbers))?)?;
        let read = read.column(0).as_primitive::<Float64Type>();
        assert!(read.iter().take(2).all(|x| x.is_some_and(|x| x.is_nan() && x.is_sign_positive())));
        assert!(read.value(2).is_sign_negative() && arrow::array::Array::is_null(read, 3));
        Ok(())
    }

    #[test]
    fn a_column_of_another_type_is_named() -> Result<()> {
        let drifted = rows(DataType::Int32, DataType::Int32).declared(&batch(Arc::new(Int64Array::from(vec![1])))?);
        let message = drifted.err().map(|e| e.message).unwrap_or_default();
        assert!(message.contains("`x` of public.t in PostgreSQL") && message.contains("create it again"), "{message}");
        Ok(())
    }
}
