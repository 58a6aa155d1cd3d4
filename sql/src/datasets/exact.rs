//! Values that statements and jobs write, in the types of their columns.
//!
//! Invariant: what a column cannot hold is refused and never rounded: rows would go that nobody named.

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use tidemill_core::{Error, Result};
use tidemill_engine::dataset::{value_of, value_text};

use crate::session::text_literal;

/// Digits of a second that a time of a Delta table has.
const SECOND_DIGITS: usize = 6;

/// A value of a partition in its column's type, if it is one there.
pub(super) fn partition_value(column: &str, text: &str, kind: &DataType) -> Result<ScalarValue> {
    let exact = exactly_of_text(column, text, kind).filter(|value| !value.is_null() && !text.is_empty());
    exact.ok_or_else(|| {
        let advice = match kind {
            DataType::Utf8 => "a Delta table has no partition of the empty text, write NULL or another value",
            _ => "write one that it can hold",
        };
        Error::invalid(format!("{} is no value of `{column}`, which is {kind}: {advice}", text_literal(text)))
    })
}

/// A bound of an interval in its column's type, if it is one there.
pub(super) fn bound(column: &str, value: &ScalarValue, schema: &SchemaRef) -> Result<ScalarValue> {
    let field = schema.field_with_name(column).map_err(|_| {
        Error::invalid(format!("there is no column `{column}` in the table, by which an interval is replaced"))
    })?;
    let kind = field.data_type();
    let is_ordered = kind.is_integer() || matches!(kind, DataType::Date32 | DataType::Timestamp(..) | DataType::Utf8);
    if !is_ordered {
        return Err(Error::invalid(format!(
            "`{column}` is {kind}: intervals are replaced by a date, a time, a whole number or text"
        )));
    }
    let exact = match value {
        ScalarValue::Utf8(Some(text)) => exactly_of_text(column, text, kind),
        value => exactly(value, kind),
    };
    exact.filter(|value| !value.is_null()).ok_or_else(|| {
        Error::invalid(format!(
            "{} is no value of `{column}`, which is {kind}: take an interval that begins and ends with its values",
            shown(value)
        ))
    })
}

/// A value as messages have it.
pub(super) fn shown(value: &ScalarValue) -> String {
    match value {
        ScalarValue::Utf8(Some(text)) => text_literal(text),
        value => {
            // A zone is not said: it is always UTC.
            let plain = match value.data_type() {
                DataType::Timestamp(unit, Some(_)) => value.cast_to(&DataType::Timestamp(unit, None)).ok(),
                _ => None,
            };
            let text = value_text("", plain.as_ref().unwrap_or(value)).ok().flatten();
            text.map_or_else(|| value.to_string(), |text| text_literal(&text))
        }
    }
}

/// The same value in another type, if it has it.
fn exactly(value: &ScalarValue, kind: &DataType) -> Option<ScalarValue> {
    let cast = value.cast_to(kind).ok()?;
    (cast.cast_to(&value.data_type()).ok()? == *value).then_some(cast)
}

/// The value that a text means in a type, if it has it.
fn exactly_of_text(column: &str, text: &str, kind: &DataType) -> Option<ScalarValue> {
    match kind {
        // Also the empty one, before which there is none.
        DataType::Utf8 => Some(ScalarValue::Utf8(Some(text.to_owned()))),
        DataType::Date32 => date(column, text),
        DataType::Timestamp(..) => {
            // Times without seconds are usual, and Arrow does not read them.
            let has_minutes = text.len() == "2026-01-01 00:00".len();
            let text = if has_minutes { &format!("{text}:00") } else { text };
            if fraction(text).len() > SECOND_DIGITS {
                return None;
            }
            value_of(column, Some(text), kind).ok()
        }
        kind => {
            let text = text.trim();
            let value = value_of(column, Some(text), kind).ok().filter(|value| !value.is_null())?;
            // Arrow rounds numbers to what their type can hold.
            let is_exact = !kind.is_numeric() || number(text) == number(&value_text(column, &value).ok()??);
            is_exact.then_some(value)
        }
    }
}

/// A day; a time of it would be lost.
fn date(column: &str, text: &str) -> Option<ScalarValue> {
    let value = value_of(column, Some(text), &DataType::Date32).ok()?;
    // Without a time, or with a year of more digits, to which none is read.
    if text.len() <= "2026-01-01".len() || text.starts_with(['+', '-']) {
        return Some(value);
    }
    let plain = DataType::Timestamp(TimeUnit::Microsecond, None);
    let is_midnight = value.cast_to(&plain).ok()? == value_of(column, Some(text), &plain).ok()?;
    (is_midnight && fraction(text).is_empty()).then_some(value)
}

/// The digits of a time's second behind the point, without zeros at the end.
fn fraction(time: &str) -> &str {
    let rest = time.split_once('.').map_or("", |(_, rest)| rest);
    let end = rest.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default().trim_end_matches('0')
}

/// A number as its sign, its digits and the power of ten of the last one, however it is written; `None` for what is infinite or
/// no number.
fn number(text: &str) -> Option<(bool, String, i64)> {
    let (mantissa, power) = match text.split_once(['e', 'E']) {
        Some((mantissa, power)) => (mantissa, power.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (is_negative, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, behind) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{behind}");
    if all.is_empty() || !all.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let significant = all.trim_end_matches('0');
    let zeros = all.len() - significant.len();
    let digits = significant.trim_start_matches('0');
    if digits.is_empty() {
        return Some((false, String::new(), 0));
    }
    let power = power.checked_add(i64::try_from(zeros).ok()?)?.checked_sub(i64::try_from(behind.len()).ok()?)?;
    Some((is_negative, digits.to_owned(), power))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn told(text: &str, kind: &DataType) -> std::result::Result<String, String> {
        partition_value("d", text, kind).map(|value| shown(&value)).map_err(|error| error.message)
    }

    #[test]
    fn what_a_type_can_hold_is_taken_however_it_is_written() {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        for (text, kind, expected) in [
            ("1.23", DataType::Decimal128(10, 2), "'1.23'"),
            ("-01.2300", DataType::Decimal128(10, 2), "'-1.23'"),
            ("-0.00", DataType::Decimal128(10, 2), "'0.00'"),
            ("99999999.99", DataType::Decimal128(10, 2), "'99999999.99'"),
            ("7", DataType::Int32, "'7'"),
            ("0.1", DataType::Float32, "'0.1'"),
            ("1e-1", DataType::Float64, "'0.1'"),
            ("true", DataType::Boolean, "'true'"),
            ("1.40", DataType::Utf8, "'1.40'"),
            ("2026-01-02", DataType::Date32, "'2026-01-02'"),
            ("2026-01-02T00:00:00.000", DataType::Date32, "'2026-01-02'"),
            ("2026-01-02 05:00", time.clone(), "'2026-01-02 05:00:00'"),
            ("2026-01-02T05:00:00.123456000", time, "'2026-01-02 05:00:00.123456'"),
            ("2026-01-02T05:00:00Z", zoned, "'2026-01-02 05:00:00'"),
        ] {
            assert_eq!(told(text, &kind).as_deref(), Ok(expected), "{text} as {kind}");
        }
    }

    #[test]
    fn what_a_type_cannot_hold_is_refused_and_not_rounded() {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        for (text, kind) in [
            ("1.234", DataType::Decimal128(10, 2)),
            ("1.235", DataType::Decimal128(10, 2)),
            ("-0.001", DataType::Decimal128(10, 2)),
            ("99999999.995", DataType::Decimal128(10, 2)),
            ("100000000", DataType::Decimal128(10, 2)),
            ("x", DataType::Decimal128(10, 2)),
            ("1.4", DataType::Int64),
            ("128", DataType::Int8),
            ("16777217", DataType::Float32),
            ("9007199254740993", DataType::Float64),
            ("1e400", DataType::Float64),
            ("2026-01-02T12:00:00", DataType::Date32),
            ("2026-01-02T00:00:00.0000000001", DataType::Date32),
            ("2026-01-02T00:00:00+02:00", DataType::Date32),
            ("2026-02-30", DataType::Date32),
            ("2026-01-01T00:00:00.0000005", time.clone()),
            ("2026-01-01T00:00:00.00000000001Z", time),
            ("", DataType::Utf8),
            ("", DataType::Int32),
        ] {
            let expected = format!("'{text}' is no value of `d`, which is {kind}: ");
            let told = told(text, &kind);
            assert!(told.as_ref().is_err_and(|told| told.starts_with(&expected)), "{text} as {kind}: {told:?}");
        }
    }

    #[test]
    fn the_empty_text_is_a_bound_and_a_number_with_a_fraction_is_none() -> Result<()> {
        let fields = [("k", DataType::Utf8), ("n", DataType::Int64), ("c", DataType::Decimal128(10, 2))];
        let fields = fields.map(|(name, kind)| Field::new(name, kind, true));
        let schema: SchemaRef = Arc::new(Schema::new(fields.to_vec()));
        let text = |text: &str| ScalarValue::Utf8(Some(text.to_owned()));
        assert_eq!(bound("k", &text(""), &schema)?, text(""));
        assert_eq!(shown(&text("it's")), "'it''s'");
        assert_eq!(bound("n", &text("-3"), &schema)?, ScalarValue::Int64(Some(-3)));
        let told = |column: &str, text: ScalarValue| bound(column, &text, &schema).err().map(|error| error.message);
        assert!(told("n", text("2.5")).is_some_and(|told| told.starts_with("'2.5' is no value of `n`")));
        assert!(told("c", text("2.5")).is_some_and(|told| told.contains("whole number")));
        Ok(())
    }
}
