//! What the log says of a file's columns, so that readers can skip it: rows, least and greatest values, nulls.
//!
//! Invariant: bounds hold for every row. Where that cannot be said of a column (not a number, values without an order),
//! nothing is said.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::Accumulator;

use super::values::to_the_microsecond;

/// Columns that have statistics, as in other engines.
const COLUMNS: usize = 32;
/// Longer strings are cut: a prefix bounds them, too.
const STRING_CHARS: usize = 32;

/// A column's values so far.
#[derive(Debug)]
struct Column {
    name: String,
    index: usize,
    nulls: u64,
    bounds: Bounds,
}

#[derive(Debug)]
enum Bounds {
    /// Values of this type are not compared, or some value cannot be.
    Unknown,
    /// No value yet.
    Nothing,
    Between(ScalarValue, ScalarValue),
}

/// The columns of one file.
#[derive(Debug)]
pub(super) struct Statistics {
    rows: u64,
    columns: Vec<Column>,
}

impl Statistics {
    /// Of the first columns, and of `also` wherever it is.
    pub(super) fn new(schema: &SchemaRef, also: Option<&str>) -> Self {
        let fields = schema.fields().iter().enumerate();
        let fields = fields.filter(|(index, field)| *index < COLUMNS || also == Some(field.name().as_str()));
        let columns = fields.filter(|(_, field)| !field.data_type().is_nested()).map(|(index, field)| Column {
            name: field.name().clone(),
            index,
            nulls: 0,
            bounds: if has_order(field.data_type()) { Bounds::Nothing } else { Bounds::Unknown },
        });
        Self { rows: 0, columns: columns.collect() }
    }

    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        for column in &mut self.columns {
            column.add(batch.column(column.index))?;
        }
        Ok(())
    }

    pub(super) const fn rows(&self) -> u64 {
        self.rows
    }

    /// A column's nulls and its least and greatest value, if these are known.
    pub(super) fn of(&self, name: &str) -> Option<(u64, Option<(&ScalarValue, &ScalarValue)>)> {
        let column = self.columns.iter().find(|column| column.name == name)?;
        let bounds = match &column.bounds {
            Bounds::Between(min, max) => Some((min, max)),
            Bounds::Nothing | Bounds::Unknown => None,
        };
        Some((column.nulls, bounds))
    }

    /// In Delta Lake's JSON.
    pub(super) fn json(&self) -> Result<String> {
        let (mut least, mut greatest, mut nulls) = (Vec::new(), Vec::new(), Vec::new());
        for column in &self.columns {
            let name = serde_json::Value::from(column.name.as_str());
            nulls.push(format!("{name}:{}", column.nulls));
            let Bounds::Between(min, max) = &column.bounds else { continue };
            if let Some(min) = bound(min, Side::Least)? {
                least.push(format!("{name}:{min}"));
            }
            if let Some(max) = bound(max, Side::Greatest)? {
                greatest.push(format!("{name}:{max}"));
            }
        }
        let (least, greatest, nulls) = (least.join(","), greatest.join(","), nulls.join(","));
        let rows = self.rows;
        Ok(format!(
            "{{\"numRecords\":{rows},\"minValues\":{{{least}}},\"maxValues\":{{{greatest}}},\"nullCount\":{{{nulls}}}}}"
        ))
    }
}

impl Column {
    fn add(&mut self, values: &ArrayRef) -> Result<()> {
        self.nulls += values.null_count() as u64;
        if matches!(self.bounds, Bounds::Unknown) || values.null_count() == values.len() {
            return Ok(());
        }
        if has_nan(values) {
            self.bounds = Bounds::Unknown;
            return Ok(());
        }
        let (min, max) = extremes(values)?;
        self.bounds = match std::mem::replace(&mut self.bounds, Bounds::Nothing) {
            Bounds::Between(least, greatest) => {
                let least = if min.partial_cmp(&least).is_some_and(std::cmp::Ordering::is_lt) { min } else { least };
                let exceeds = max.partial_cmp(&greatest).is_some_and(std::cmp::Ordering::is_gt);
                Bounds::Between(least, if exceeds { max } else { greatest })
            }
            Bounds::Nothing | Bounds::Unknown => Bounds::Between(min, max),
        };
        Ok(())
    }
}

/// The least and the greatest value.
fn extremes(values: &ArrayRef) -> Result<(ScalarValue, ScalarValue)> {
    let mut least = MinAccumulator::try_new(values.data_type())?;
    let mut greatest = MaxAccumulator::try_new(values.data_type())?;
    let batch = [Arc::clone(values)];
    least.update_batch(&batch)?;
    greatest.update_batch(&batch)?;
    Ok((least.evaluate()?, greatest.evaluate()?))
}

const fn has_order(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(..)
            | DataType::Date32
            | DataType::Utf8
            | DataType::Timestamp(TimeUnit::Microsecond, _)
    )
}

fn has_nan(values: &ArrayRef) -> bool {
    match values.data_type() {
        DataType::Float32 => values.as_primitive::<Float32Type>().iter().flatten().any(f32::is_nan),
        DataType::Float64 => values.as_primitive::<Float64Type>().iter().flatten().any(f64::is_nan),
        _ => false,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Least,
    Greatest,
}

/// A bound in JSON; `None` where none can be written.
fn bound(value: &ScalarValue, side: Side) -> Result<Option<String>> {
    Ok(match value {
        ScalarValue::Utf8(Some(text)) => cut(text, side).map(|text| serde_json::Value::from(text).to_string()),
        ScalarValue::Float32(Some(value)) => number(f64::from(*value)),
        ScalarValue::Float64(Some(value)) => number(*value),
        ScalarValue::TimestampMicrosecond(Some(micros), zone) => {
            let zone = if zone.is_some() { "Z" } else { "" };
            usual(to_the_microsecond(*micros)?).map(|text| format!("\"{text}{zone}\""))
        }
        ScalarValue::Date32(Some(_)) => {
            usual(array_value_to_string(&value.to_array()?, 0)?).map(|text| format!("\"{text}\""))
        }
        ScalarValue::Decimal128(Some(_), ..)
        | ScalarValue::Int8(Some(_))
        | ScalarValue::Int16(Some(_))
        | ScalarValue::Int32(Some(_))
        | ScalarValue::Int64(Some(_)) => Some(array_value_to_string(&value.to_array()?, 0)?),
        _ => None,
    })
}

/// A day or a time of a year with four digits: others are not read everywhere, and some readers fail on them.
fn usual(text: String) -> Option<String> {
    let is_usual = text.find('-') == Some(4) && text.bytes().take(4).all(|digit| digit.is_ascii_digit());
    is_usual.then_some(text)
}

/// JSON has no infinity.
fn number(value: f64) -> Option<String> {
    serde_json::Number::from_f64(value).map(|number| number.to_string())
}

/// A string that is not greater, or not less.
fn cut(text: &str, side: Side) -> Option<String> {
    if text.chars().count() <= STRING_CHARS {
        return Some(text.to_owned());
    }
    let mut prefix: Vec<char> = text.chars().take(STRING_CHARS).collect();
    if side == Side::Least {
        return Some(prefix.into_iter().collect());
    }
    // The last character that has a next one is raised, and what follows left out.
    while let Some(last) = prefix.pop() {
        let next = match last {
            '\u{D7FF}' => Some('\u{E000}'),
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            prefix.push(next);
            return Some(prefix.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn statistics_bound_every_row() -> Result<()> {
        let long = "x".repeat(40);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("i", Arc::new(Int64Array::from(vec![Some(3), None, Some(-1)]))),
            ("f", Arc::new(Float64Array::from(vec![1.5, f64::NAN, 0.0]))),
            ("s", Arc::new(StringArray::from(vec!["a\"b", long.as_str(), "m"]))),
            ("d", Arc::new(Date32Array::from(vec![20_454, 20_455, 20_453]))),
            ("t", Arc::new(TimestampMicrosecondArray::from(vec![1, 1_001, 2_000]).with_timezone("UTC"))),
            ("n", Arc::new(Decimal128Array::from(vec![100, -250, 3]).with_precision_and_scale(10, 2)?)),
            ("b", Arc::new(BooleanArray::from(vec![Some(true), None, None]))),
            ("e", Arc::new(Int64Array::from(vec![None, None, None]))),
        ];
        let batch = RecordBatch::try_from_iter(columns)?;
        let mut statistics = Statistics::new(&batch.schema(), None);
        statistics.add(&batch.slice(0, 1))?;
        statistics.add(&batch.slice(1, 2))?;
        let read: serde_json::Value = serde_json::from_str(&statistics.json()?)
            .map_err(|e| datafusion::error::DataFusionError::External(Box::new(e)))?;
        let expected = json!({
            "numRecords": 3,
            "minValues": {"i": -1, "s": "a\"b", "d": "2025-12-31", "t": "1970-01-01T00:00:00.000001Z", "n": -2.50},
            "maxValues": {"i": 3, "s": format!("{}y", "x".repeat(31)), "d": "2026-01-02", "t": "1970-01-01T00:00:00.002000Z", "n": 1.00},
            "nullCount": {"i": 1, "f": 0, "s": 0, "d": 0, "t": 0, "n": 0, "b": 2, "e": 3},
        });
        assert_eq!(read, expected);
        Ok(())
    }

    #[test]
    fn years_that_others_do_not_read_are_no_bounds() -> Result<()> {
        let micros = |value| ScalarValue::TimestampMicrosecond(Some(value), Some("UTC".into()));
        let last = 253_402_300_799_999_999;
        for (value, expected) in [
            (micros(last), Some("\"9999-12-31T23:59:59.999999Z\"")),
            (micros(last + 1), None),
            (ScalarValue::Date32(Some(2_932_896)), Some("\"9999-12-31\"")),
            (ScalarValue::Date32(Some(2_932_897)), None),
            (ScalarValue::Date32(Some(-720_000)), None),
        ] {
            assert_eq!(bound(&value, Side::Greatest)?.as_deref(), expected, "{value:?}");
        }
        Ok(())
    }
}
