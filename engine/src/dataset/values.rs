//! Values of partition columns as Delta Lake writes them, and the names of the folders that people see.

use std::borrow::Cow;

use arrow::datatypes::{DataType, TimeUnit};
use arrow::util::display::array_value_to_string;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tidemill_core::Error;

use crate::error::to_datafusion;

/// How a folder's name says that there is no value, as other engines write it.
pub const NO_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

/// A value as the log has it; `None` for no value.
///
/// # Errors
/// It is an empty string, which the log cannot tell from no value.
pub fn value_text(column: &str, value: &ScalarValue) -> Result<Option<String>> {
    if value.is_null() {
        return Ok(None);
    }
    // Without a zone other engines would take it for a time of their own zone.
    if let ScalarValue::TimestampMicrosecond(Some(micros), Some(_)) = value {
        return Ok(Some(format!("{}Z", to_the_microsecond(*micros)?)));
    }
    let text = array_value_to_string(&value.to_array()?, 0)?;
    if text.is_empty() {
        return Err(to_datafusion(Error::invalid(format!(
            "the partition column `{column}` is the empty string in some row, which a Delta table cannot tell from NULL: write \
             NULL or another value"
        ))));
    }
    Ok(Some(match value.data_type() {
        DataType::Timestamp(..) => text.replacen('T', " ", 1),
        _ => text,
    }))
}

/// A time with all six digits of its second's fraction: with three, readers must assume that it was cut.
pub(super) fn to_the_microsecond(micros: i64) -> Result<String> {
    let (seconds, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let text = array_value_to_string(&ScalarValue::TimestampSecond(Some(seconds), None).to_array()?, 0)?;
    Ok(format!("{text}.{rest:06}"))
}

/// The value that the log has as `text`, in its column's type.
///
/// # Errors
/// The text is none of that type.
pub fn value_of(column: &str, text: Option<&str>, kind: &DataType) -> Result<ScalarValue> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return ScalarValue::try_from(kind) };
    let wrong = |why: &dyn std::fmt::Display| {
        to_datafusion(Error::invalid(format!("the partition value `{text}` of `{column}` is no {kind}: {why}")))
    };
    match kind {
        DataType::Binary => Err(wrong(&"binary partition columns are not read")),
        DataType::Utf8 => Ok(ScalarValue::Utf8(Some(text.to_owned()))),
        // Without a zone it is UTC, whatever the column's zone is called.
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let text = text.trim_end_matches(['Z', 'z']).to_owned();
            let plain = ScalarValue::try_from_string(text, &DataType::Timestamp(TimeUnit::Microsecond, None));
            match plain.map_err(|e| wrong(&e))? {
                ScalarValue::TimestampMicrosecond(value, _) => {
                    Ok(ScalarValue::TimestampMicrosecond(value, zone.clone()))
                }
                other => Ok(other),
            }
        }
        DataType::Decimal128(..) => {
            let plain = without_power(text).ok_or_else(|| wrong(&"it has too many digits"))?;
            ScalarValue::try_from_string(plain.into_owned(), kind).map_err(|e| wrong(&e))
        }
        kind => ScalarValue::try_from_string(text.to_owned(), kind).map_err(|e| wrong(&e)),
    }
}

/// A decimal number without a power of ten: Spark writes `0E-8` and `1E-7`, which Arrow does not read. `None` for more digits than any
/// column has.
fn without_power(text: &str) -> Option<Cow<'_, str>> {
    /// More than a column's digits on both sides of the point.
    const MOST: i32 = 80;
    let Some((mantissa, power)) = text.split_once(['e', 'E']) else { return Some(Cow::Borrowed(text)) };
    let power: i32 = power.parse().ok().filter(|power| (-MOST..=MOST).contains(power))?;
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, behind) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{behind}");
    if all.is_empty() || all.len() > usize::try_from(MOST).ok()? || !all.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    // Where the point is among these digits: zeros are put where there are none.
    let point = i32::try_from(whole.len()).ok()? + power;
    let before = usize::try_from(-point).unwrap_or(0) + 1;
    let padded = format!("{}{all}{}", "0".repeat(before), "0".repeat(usize::try_from(power).unwrap_or(0)));
    let (whole, behind) = padded.split_at_checked(usize::try_from(point + i32::try_from(before).ok()?).ok()?)?;
    Some(Cow::Owned(format!("{sign}{whole}.{behind}")))
}

/// What stands for itself in every store, URL and shell.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What a column's name may not have in that of a folder.
const NOT_IN_NAMES: &str = "\"#%*/:<=>?\\|";

/// The name of a folder. What rows are in it stands in the log; some readers look here all the same, for the column's name as it is.
pub(super) fn folder_name(column: &str, value: Option<&str>) -> String {
    let mut name = String::new();
    for c in column.chars() {
        match c.is_ascii_control() || NOT_IN_NAMES.contains(c) {
            true => name.extend(utf8_percent_encode(c.encode_utf8(&mut [0; 4]), NON_ALPHANUMERIC)),
            false => name.push(c),
        }
    }
    name.push('=');
    match value {
        Some(value) => name.extend(utf8_percent_encode(value, PLAIN)),
        None => name.push_str(NO_VALUE),
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_and_read_again() -> Result<()> {
        let zone = Some("UTC".into());
        for (value, expected) in [
            (ScalarValue::Date32(Some(20_454)), Some("2026-01-01")),
            (ScalarValue::Int64(Some(-5)), Some("-5")),
            (ScalarValue::Boolean(Some(true)), Some("true")),
            (ScalarValue::Utf8(Some("a/b=%20 ü".to_owned())), Some("a/b=%20 ü")),
            (ScalarValue::Utf8(None), None),
            (ScalarValue::Decimal128(Some(12_345), 10, 2), Some("123.45")),
            (ScalarValue::TimestampMicrosecond(Some(1_767_225_600_000_001), None), Some("2026-01-01 00:00:00.000001")),
            (ScalarValue::TimestampMicrosecond(Some(1_767_225_600_000_000), None), Some("2026-01-01 00:00:00")),
            (ScalarValue::TimestampMicrosecond(Some(-1), zone), Some("1969-12-31T23:59:59.999999Z")),
        ] {
            let text = value_text("c", &value)?;
            assert_eq!(text.as_deref(), expected, "{value:?}");
            assert_eq!(value_of("c", text.as_deref(), &value.data_type())?, value);
        }
        assert!(value_text("c", &ScalarValue::Utf8(Some(String::new()))).is_err());
        assert!(value_of("c", Some("yesterday"), &DataType::Date32).is_err());
        assert_eq!(value_of("c", Some(""), &DataType::Int32)?, ScalarValue::Int32(None));
        Ok(())
    }

    #[test]
    fn values_are_read_however_other_engines_write_them() -> Result<()> {
        let decimal = DataType::Decimal128(20, 8);
        for (text, expected) in [
            ("0E-8", 0),
            ("1E-7", 10),
            ("-1.5e-6", -150),
            ("1.25E+3", 125_000_000_000),
            ("+2E0", 200_000_000),
            ("12.5", 1_250_000_000),
        ] {
            assert_eq!(value_of("d", Some(text), &decimal)?, ScalarValue::Decimal128(Some(expected), 20, 8), "{text}");
        }
        for text in ["E5", "1E", "1E999999999", "-E-3", "1x5E2", "NaN"] {
            assert!(value_of("d", Some(text), &decimal).is_err(), "{text}");
        }
        let zone = || Some("UTC".into());
        let instant = DataType::Timestamp(TimeUnit::Microsecond, zone());
        for (text, expected) in [
            ("1970-01-01 00:00:01", 1_000_000),
            ("1970-01-01 00:00:01.5", 1_500_000),
            ("1970-01-01T00:00:01.000002Z", 1_000_002),
            ("1970-01-01T01:00:01+01:00", 1_000_000),
        ] {
            let value = ScalarValue::TimestampMicrosecond(Some(expected), zone());
            assert_eq!(value_of("t", Some(text), &instant)?, value, "{text}");
        }
        Ok(())
    }

    #[test]
    fn folders_have_names_that_mean_the_same_everywhere() {
        assert_eq!(folder_name("day", Some("2026-01-01")), "day=2026-01-01");
        assert_eq!(folder_name("a_b", Some("x/../y%20 ü")), "a_b=x%2F..%2Fy%2520%20%C3%BC");
        assert_eq!(folder_name("it's größe a/b", Some("ü")), "it's größe a%2Fb=%C3%BC");
        assert_eq!(folder_name("k", None), format!("k={NO_VALUE}"));
    }
}
