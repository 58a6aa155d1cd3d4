//! Columns of whole numbers in the fewest bytes that hold their values, or the differences of neighbours, before a frame is
//! compressed.
//!
//! Most bytes of a key or a decimal repeat its sign, and a key that rises differs little from the one before. LZ4 finds the
//! first value by value, at less than 1 GB/s, and the second not at all; here each is one pass over memory, and a fraction is
//! left to compress.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, ArrowPrimitiveType, PrimitiveArray, make_array};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowNativeType, DataType, Field, Int8Type, Int16Type, Int32Type, Int64Type, Schema, SchemaRef,
};
use arrow::error::{ArrowError, Result};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Marks the width of a column whose values are differences.
const DIFFERENCES: u8 = 0x80;

/// How a column is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    AsItWas,
    /// Each value in so many bytes.
    Values(u8),
    /// The difference of each value and the one before, in so many bytes; the first is 0 and stands here.
    Differences(u8, i64),
}

impl Written {
    const fn width(self) -> u8 {
        match self {
            Self::AsItWas => 0,
            Self::Values(width) | Self::Differences(width, _) => width,
        }
    }
}

/// The batch with narrow columns, and how each is written; `None` where no column has fewer bytes than before.
pub(super) fn narrow(batch: &RecordBatch) -> Result<Option<(RecordBatch, Vec<Written>)>> {
    let narrowed: Vec<_> = batch.columns().iter().map(narrow_column).collect::<Result<_>>()?;
    if narrowed.iter().all(Option::is_none) {
        return Ok(None);
    }
    let written: Vec<_> = narrowed.iter().map(|n| n.as_ref().map_or(Written::AsItWas, |(how, _)| *how)).collect();
    let columns = narrowed.into_iter().zip(batch.columns());
    let columns = columns.map(|(narrowed, column)| narrowed.map_or_else(|| Arc::clone(column), |(_, narrow)| narrow));
    let schema = narrow_schema(batch.schema_ref(), &written)?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(Some((RecordBatch::try_new_with_options(schema, columns.collect(), &options)?, written)))
}

/// A byte for each column, and eight more for the first value where differences follow.
pub(super) fn to_bytes(columns: &[Written]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(columns.len());
    for column in columns {
        match *column {
            Written::Differences(width, first) => {
                bytes.put_u8(width | DIFFERENCES);
                bytes.put_i64_le(first);
            }
            other => bytes.put_u8(other.width()),
        }
    }
    bytes.freeze()
}

/// The inverse of [`to_bytes`].
pub(super) fn from_bytes(mut bytes: &[u8]) -> Result<Vec<Written>> {
    let mut columns = Vec::new();
    while bytes.has_remaining() {
        columns.push(match bytes.get_u8() {
            0 => Written::AsItWas,
            width if width & DIFFERENCES == 0 => Written::Values(width),
            width => {
                let first = bytes.try_get_i64_le().map_err(|e| ArrowError::IpcError(e.to_string()))?;
                Written::Differences(width & !DIFFERENCES, first)
            }
        });
    }
    Ok(columns)
}

/// The columns as [`narrow`] left them.
pub(super) fn narrow_schema(schema: &SchemaRef, written: &[Written]) -> Result<SchemaRef> {
    if schema.fields().len() != written.len() {
        return Err(ArrowError::IpcError(format!("{} columns have {} widths", schema.fields().len(), written.len())));
    }
    let fields = schema.fields().iter().zip(written).map(|(field, written)| {
        let data_type = match written.width() {
            0 if *written == Written::AsItWas => return Ok(Arc::clone(field)),
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
pub(super) fn widen(batch: &RecordBatch, schema: &SchemaRef, written: &[Written]) -> Result<Vec<ArrayRef>> {
    let columns = batch.columns().iter().zip(schema.fields()).zip(written);
    columns
        .map(|((column, field), written)| match *written {
            Written::AsItWas => Ok(Arc::clone(column)),
            Written::Values(_) => widen_column(column, field.data_type(), None),
            Written::Differences(_, first) => widen_column(column, field.data_type(), Some(first)),
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

fn narrow_column(column: &ArrayRef) -> Result<Option<(Written, ArrayRef)>> {
    match bytes_of(column.data_type()) {
        Some(4) => narrowed::<i32>(column),
        Some(8) => narrowed::<i64>(column),
        Some(16) => narrowed::<i128>(column),
        _ => Ok(None),
    }
}

fn widen_column(column: &ArrayRef, data_type: &DataType, first: Option<i64>) -> Result<ArrayRef> {
    let values = match bytes_of(data_type) {
        Some(4) => widened::<i32>(column, first),
        Some(8) => widened::<i64>(column, first),
        Some(16) => widened::<i128>(column, first),
        _ => None,
    };
    let values = values.ok_or_else(|| ArrowError::IpcError(format!("no {data_type} is a {}", column.data_type())))?;
    let data = ArrayData::builder(data_type.clone()).len(column.len()).nulls(column.nulls().cloned());
    data.add_buffer(values).build().map(make_array)
}

/// A column's values, also those that are null.
fn narrowed<T: Whole>(column: &ArrayRef) -> Result<Option<(Written, ArrayRef)>> {
    let data = column.to_data();
    let values = data.buffer::<T>(0).get(..column.len()).unwrap_or_default();
    let wide = size_of::<T>();
    let width = width_of(values.iter().copied()).unwrap_or(wide);
    let nulls = column.nulls().cloned();
    if let Some((width, first)) = differences_of(values, width) {
        let before = values.iter().take(1).chain(values);
        let differences = values.iter().zip(before).map(|(value, before)| value.minus(*before).low());
        return Ok(Some((Written::Differences(width, first), array(differences, width, nulls)?)));
    }
    let width = u8::try_from(width).ok().filter(|_| width < wide);
    width.map(|width| Ok((Written::Values(width), array(values.iter().map(|v| v.low()), width, nulls)?))).transpose()
}

/// The fewest bytes that hold each of the numbers, with its sign; none if they are more than eight.
fn width_of<T: Whole>(numbers: impl Iterator<Item = T>) -> Option<usize> {
    let seen = numbers.fold(T::default(), |seen, number| seen.or(number.unsigned()));
    // With the sign's.
    match seen.bits() {
        ..8 => Some(1),
        8..16 => Some(2),
        16..32 => Some(4),
        32..64 => Some(8),
        _ => None,
    }
}

/// The bytes of differences and the first value, where differences have fewer bytes than values.
fn differences_of<T: Whole>(values: &[T], width: usize) -> Option<(u8, i64)> {
    let first = values.first()?.exact()?;
    let differences = values.iter().zip(values.get(1..)?).map(|(before, value)| value.minus(*before));
    let narrower = (width > 1).then(|| width_of(differences)).flatten().filter(|narrower| *narrower < width)?;
    Some((u8::try_from(narrower).ok()?, first))
}

fn array(numbers: impl Iterator<Item = i64>, width: u8, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    match width {
        1 => primitive::<Int8Type>(numbers.map(|n| n as i8), nulls),
        2 => primitive::<Int16Type>(numbers.map(|n| n as i16), nulls),
        4 => primitive::<Int32Type>(numbers.map(|n| n as i32), nulls),
        _ => primitive::<Int64Type>(numbers, nulls),
    }
}

fn primitive<P: ArrowPrimitiveType>(
    values: impl Iterator<Item = P::Native>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let values: ScalarBuffer<P::Native> = values.collect::<Vec<_>>().into();
    Ok(Arc::new(PrimitiveArray::<P>::try_new(values, nulls)?))
}

fn widened<T: Whole>(column: &ArrayRef, first: Option<i64>) -> Option<Buffer> {
    let (data, rows) = (column.to_data(), column.len());
    let mut values: Vec<T> = match column.data_type() {
        DataType::Int8 => data.buffer::<i8>(0).get(..rows)?.iter().map(|v| T::of((*v).into())).collect(),
        DataType::Int16 => data.buffer::<i16>(0).get(..rows)?.iter().map(|v| T::of((*v).into())).collect(),
        DataType::Int32 => data.buffer::<i32>(0).get(..rows)?.iter().map(|v| T::of((*v).into())).collect(),
        DataType::Int64 => data.buffer::<i64>(0).get(..rows)?.iter().map(|v| T::of(*v)).collect(),
        _ => return None,
    };
    if let Some(first) = first {
        let mut before = T::of(first);
        for value in &mut values {
            before = before.plus(*value);
            *value = before;
        }
    }
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
    /// The number in eight bytes, if it has no more.
    fn exact(self) -> Option<i64>;
    /// Of any two numbers there is a difference, beyond the last one it begins anew; [`Self::plus`] takes it back.
    fn minus(self, other: Self) -> Self;
    fn plus(self, other: Self) -> Self;
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
            fn exact(self) -> Option<i64> { Some(self.low()).filter(|low| Self::of(*low) == self) }
            fn minus(self, other: Self) -> Self { self.wrapping_sub(other) }
            fn plus(self, other: Self) -> Self { self.wrapping_add(other) }
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

    /// How the columns are written, after they came back as they were.
    fn written(columns: &[ArrayRef]) -> Vec<Written> {
        let batch = batch(columns);
        let Some((narrow, written)) = narrow(&batch).expect("a narrow batch") else { return Vec::new() };
        let written = from_bytes(&to_bytes(&written)).expect("what was written");
        assert_eq!(narrow.schema(), narrow_schema(batch.schema_ref(), &written).expect("a schema"));
        let wide = widen(&narrow, batch.schema_ref(), &written).expect("columns");
        assert_eq!(RecordBatch::try_new(batch.schema(), wide).expect("a batch"), batch);
        written
    }

    fn widths_of(columns: &[ArrayRef]) -> Vec<u8> {
        written(columns).into_iter().map(Written::width).collect()
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
    fn values_that_rise_or_fall_slowly_are_differences() {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..8192).map(|n| 3_000_000_000 + 17 * n)));
        let fall: ArrayRef = Arc::new(Int64Array::from_iter_values((0..8192).map(|n| i64::MIN + 300 * (9000 - n))));
        let days: ArrayRef = Arc::new(Date32Array::from_iter_values((0..8192).map(|n| 100_000 + n / 100)));
        let prices = Decimal128Array::from_iter_values((0..8192).map(|n| i128::from(i64::MAX) - n));
        assert_eq!(
            written(&[keys, fall, days, Arc::new(prices)]),
            [
                Written::Differences(1, 3_000_000_000),
                Written::Differences(2, i64::MIN + 300 * 9000),
                Written::Differences(1, 100_000),
                Written::Differences(1, i64::MAX),
            ]
        );
    }

    #[test]
    fn differences_that_begin_anew_come_back() {
        let jumps = Int64Array::from(vec![Some(i64::MAX), Some(i64::MIN), None, Some(i64::MIN + 9), Some(i64::MAX)]);
        written(&[Arc::new(jumps)]);
        let small: ArrayRef = Arc::new(Date32Array::from(vec![i32::MAX, i32::MIN, i32::MIN + 1, i32::MAX]));
        assert_eq!(written(&[small]), [Written::Differences(1, i32::MAX.into())]);
        let huge = Decimal128Array::from_iter_values([i128::MAX, i128::MIN, i128::MAX]);
        assert_eq!(written(&[Arc::new(huge.with_data_type(DataType::Decimal128(38, 0)))]), []);
    }

    #[test]
    fn what_does_not_fit_together_is_an_error() {
        let batch = batch(&[Arc::new(Int64Array::from(vec![1]))]);
        let (narrow, _) = narrow(&batch).expect("a narrow batch").expect("narrow columns");
        let text = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8, true)]));
        widen(&narrow, &text, &[Written::Values(1)]).expect_err("no text is a number");
        narrow_schema(&text, &[Written::Values(1); 2]).expect_err("two widths of one column");
        narrow_schema(&text, &[Written::Values(3)]).expect_err("no such width");
        narrow_schema(&text, &[Written::Differences(0, 7)]).expect_err("differences have bytes");
        from_bytes(&[DIFFERENCES | 1, 0, 0]).expect_err("no first value");
    }
}
