//! Columns of whole numbers in the fewest bytes that hold their values, before a frame is compressed.
//!
//! Most bytes of a key or a decimal repeat its sign. LZ4 finds that value by value, at less than 1 GB/s; here it is one pass
//! over memory, and a fraction is left to compress.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, ArrowPrimitiveType, PrimitiveArray, make_array};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowNativeType, DataType, Field, Int8Type, Int16Type, Int32Type, Int64Type, Schema, SchemaRef,
};
use arrow::error::{ArrowError, Result};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

/// Stands for the width of a column that is as it was.
const AS_IT_WAS: u8 = 0;

/// The batch with narrow columns, and each column's bytes per value; `None` where no column has fewer than before.
pub(super) fn narrow(batch: &RecordBatch) -> Result<Option<(RecordBatch, Vec<u8>)>> {
    let narrowed: Vec<_> = batch.columns().iter().map(narrow_column).collect::<Result<_>>()?;
    if narrowed.iter().all(Option::is_none) {
        return Ok(None);
    }
    let widths: Vec<u8> = narrowed.iter().map(|n| n.as_ref().map_or(AS_IT_WAS, |(width, _)| *width)).collect();
    let columns = narrowed.into_iter().zip(batch.columns());
    let columns = columns.map(|(narrowed, column)| narrowed.map_or_else(|| Arc::clone(column), |(_, narrow)| narrow));
    let schema = narrow_schema(batch.schema_ref(), &widths)?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(Some((RecordBatch::try_new_with_options(schema, columns.collect(), &options)?, widths)))
}

/// The columns as [`narrow`] left them.
pub(super) fn narrow_schema(schema: &SchemaRef, widths: &[u8]) -> Result<SchemaRef> {
    if schema.fields().len() != widths.len() {
        return Err(ArrowError::IpcError(format!("{} columns have {} widths", schema.fields().len(), widths.len())));
    }
    let fields = schema.fields().iter().zip(widths).map(|(field, width)| {
        let data_type = match *width {
            AS_IT_WAS => return Ok(Arc::clone(field)),
            1 => DataType::Int8,
            2 => DataType::Int16,
            4 => DataType::Int32,
            8 => DataType::Int64,
            other => return Err(ArrowError::IpcError(format!("no column has values of {other} bytes"))),
        };
        Ok(Arc::new(Field::new(field.name(), data_type, field.is_nullable())))
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

/// The columns as they were.
pub(super) fn widen(batch: &RecordBatch, schema: &SchemaRef, widths: &[u8]) -> Result<Vec<ArrayRef>> {
    let columns = batch.columns().iter().zip(schema.fields()).zip(widths);
    columns
        .map(|((column, field), width)| match *width {
            AS_IT_WAS => Ok(Arc::clone(column)),
            _ => widen_column(column, field.data_type()),
        })
        .collect()
}

/// Bytes of a value of a type whose values are whole numbers; an unsigned one is as good as a signed one of the same bits.
const fn bytes_of(data_type: &DataType) -> Option<usize> {
    use DataType as T;
    match data_type {
        T::Int32 | T::UInt32 | T::Date32 | T::Time32(_) | T::Decimal32(..) => Some(4),
        T::Int64 | T::UInt64 | T::Date64 | T::Time64(_) | T::Timestamp(..) | T::Duration(_) | T::Decimal64(..) => {
            Some(8)
        }
        T::Decimal128(..) => Some(16),
        _ => None,
    }
}

fn narrow_column(column: &ArrayRef) -> Result<Option<(u8, ArrayRef)>> {
    match bytes_of(column.data_type()) {
        Some(4) => narrowed::<i32>(column),
        Some(8) => narrowed::<i64>(column),
        Some(16) => narrowed::<i128>(column),
        _ => Ok(None),
    }
}

fn widen_column(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    let values = match bytes_of(data_type) {
        Some(4) => widened::<i32>(column),
        Some(8) => widened::<i64>(column),
        Some(16) => widened::<i128>(column),
        _ => None,
    };
    let values = values.ok_or_else(|| ArrowError::IpcError(format!("no {data_type} is a {}", column.data_type())))?;
    let data = ArrayData::builder(data_type.clone()).len(column.len()).nulls(column.nulls().cloned());
    data.add_buffer(values).build().map(make_array)
}

/// A column's values, also those that are null.
fn narrowed<T: Whole>(column: &ArrayRef) -> Result<Option<(u8, ArrayRef)>> {
    let data = column.to_data();
    let values = data.buffer::<T>(0).get(..column.len()).unwrap_or_default();
    let seen = values.iter().fold(T::default(), |seen, value| seen.or(value.unsigned()));
    let nulls = column.nulls().cloned();
    Ok(Some(match seen.bits() {
        // With the sign's.
        ..8 => (1, array::<Int8Type>(values.iter().map(|v| v.low() as i8), nulls)?),
        8..16 => (2, array::<Int16Type>(values.iter().map(|v| v.low() as i16), nulls)?),
        16..32 if size_of::<T>() > 4 => (4, array::<Int32Type>(values.iter().map(|v| v.low() as i32), nulls)?),
        32..64 if size_of::<T>() > 8 => (8, array::<Int64Type>(values.iter().map(|v| v.low()), nulls)?),
        _ => return Ok(None),
    }))
}

fn array<P: ArrowPrimitiveType>(
    values: impl Iterator<Item = P::Native>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let values: ScalarBuffer<P::Native> = values.collect::<Vec<_>>().into();
    Ok(Arc::new(PrimitiveArray::<P>::try_new(values, nulls)?))
}

fn widened<T: Whole>(column: &ArrayRef) -> Option<Buffer> {
    let (data, rows) = (column.to_data(), column.len());
    let values: Vec<T> = match column.data_type() {
        DataType::Int8 => data.buffer::<i8>(0).get(..rows)?.iter().map(|v| T::of((*v).into())).collect(),
        DataType::Int16 => data.buffer::<i16>(0).get(..rows)?.iter().map(|v| T::of((*v).into())).collect(),
        DataType::Int32 => data.buffer::<i32>(0).get(..rows)?.iter().map(|v| T::of((*v).into())).collect(),
        DataType::Int64 => data.buffer::<i64>(0).get(..rows)?.iter().map(|v| T::of(*v)).collect(),
        _ => return None,
    };
    Some(Buffer::from_vec(values))
}

/// A whole number.
trait Whole: ArrowNativeType {
    /// Its bits that are not those of its sign.
    fn unsigned(self) -> Self;
    fn or(self, other: Self) -> Self;
    /// The place of its highest bit.
    fn bits(self) -> u32;
    /// Its lowest eight bytes.
    fn low(self) -> i64;
    /// The number with these lowest bytes and this sign.
    fn of(low: i64) -> Self;
}

macro_rules! whole {
    ($($number:ty),*) => {$(
        #[expect(clippy::allow_attributes, reason = "of one type a cast is none")]
        #[allow(trivial_numeric_casts, clippy::cast_lossless, clippy::cast_possible_truncation, clippy::unnecessary_cast)]
        impl Whole for $number {
            fn unsigned(self) -> Self { self ^ (self >> (Self::BITS - 1)) }
            fn or(self, other: Self) -> Self { self | other }
            fn bits(self) -> u32 { Self::BITS - self.leading_zeros() }
            fn low(self) -> i64 { self as i64 }
            fn of(low: i64) -> Self { low as Self }
        }
    )*};
}
whole!(i32, i64, i128);

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a test")]
mod tests {
    use arrow::array::{Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray, UInt64Array};

    use super::*;

    fn batch(columns: &[ArrayRef]) -> RecordBatch {
        let named: Vec<_> = columns.iter().enumerate().map(|(n, c)| (n.to_string(), Arc::clone(c))).collect();
        RecordBatch::try_from_iter_with_nullable(named.into_iter().map(|(n, c)| (n, c, true))).expect("a batch")
    }

    fn widths_of(columns: &[ArrayRef]) -> Vec<u8> {
        let batch = batch(columns);
        let Some((narrow, widths)) = narrow(&batch).expect("a narrow batch") else { return Vec::new() };
        assert_eq!(narrow.schema(), narrow_schema(batch.schema_ref(), &widths).expect("a schema"));
        let wide = widen(&narrow, batch.schema_ref(), &widths).expect("columns");
        assert_eq!(RecordBatch::try_new(batch.schema(), wide).expect("a batch"), batch);
        widths
    }

    #[test]
    fn values_at_every_border_come_back() {
        for bits in [7, 15, 31, 63, 127] {
            let (highest, width) = ((1_i128 << (bits - 1)) - 1 + (1_i128 << (bits - 1)), (bits + 1) / 8);
            for (values, expected) in [
                ([0, highest, -highest - 1], width),
                ([0, 0, highest.saturating_add(1)], if bits == 127 { 16 } else { 2 * width }),
            ] {
                let decimals = Decimal128Array::from_iter_values(values).with_data_type(DataType::Decimal128(38, 2));
                let expected = if expected < 16 { vec![expected] } else { Vec::new() };
                assert_eq!(widths_of(&[Arc::new(decimals)]), expected, "{values:?}");
                let Ok(longs) = values.iter().map(|v| i64::try_from(*v)).collect::<std::result::Result<Vec<_>, _>>()
                else {
                    continue;
                };
                let expected = if expected[0] < 8 { expected } else { Vec::new() };
                assert_eq!(widths_of(&[Arc::new(Int64Array::from(longs))]), expected, "{values:?}");
            }
        }
    }

    #[test]
    fn other_columns_nulls_and_slices_are_as_they_were() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(i64::MAX), None, Some(-3), Some(300), None]));
        let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(10_000), None, Some(-9), None, Some(9)]));
        let large: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, u64::MAX - 1, u64::MAX, 0, 1]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c", "d", "e"]));
        let real: ArrayRef = Arc::new(Float64Array::from(vec![1.0, -0.0, f64::NAN, 0.5, 2.0]));
        assert_eq!(widths_of(&[Arc::clone(&text), real]), Vec::<u8>::new());
        assert_eq!(widths_of(&[text, large, numbers.slice(1, 4), days].map(|c| c.slice(c.len() - 3, 3))), [0, 1, 2, 1]);
        assert_eq!(widths_of(&[numbers.slice(0, 0)]), [1]);
    }

    #[test]
    fn what_does_not_fit_together_is_an_error() {
        let batch = batch(&[Arc::new(Int64Array::from(vec![1]))]);
        let (narrow, _) = narrow(&batch).expect("a narrow batch").expect("narrow columns");
        let text = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8, true)]));
        widen(&narrow, &text, &[1]).expect_err("no text is a number");
        narrow_schema(&text, &[1, 1]).expect_err("two widths of one column");
        narrow_schema(&text, &[3]).expect_err("no such width");
    }
}
