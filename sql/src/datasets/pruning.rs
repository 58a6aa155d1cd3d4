//! Files that cannot have a row that passes the filters, by their partitions' values and by what the log says of them.
//!
//! Invariant: what is not known, or may have been rounded, keeps a file in.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use arrow::datatypes::DataType;
use datafusion::catalog::Session;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use serde_json::Value;
use tidemill_engine::dataset::{PartitionValues, value_of};

use super::version::{ActiveFile, FileStatistics, Version};

/// The files that may have rows that pass all filters.
pub(super) fn pruned<'a>(version: &'a Version, state: &dyn Session, filters: &[Expr]) -> Result<Vec<&'a ActiveFile>> {
    let all: Vec<&ActiveFile> = version.files.values().collect();
    if filters.is_empty() || all.is_empty() {
        return Ok(all);
    }
    let schema = DFSchema::try_from(Arc::clone(&version.schema))?;
    // A filter that files cannot be judged by keeps all.
    let predicate = |filter: &Expr| {
        let physical = state.create_physical_expr(filter.clone(), &schema).ok()?;
        PruningPredicateBuilder::new().with_file_schema(Arc::clone(&version.schema)).build(physical)
    };
    let predicates: Vec<_> = filters.iter().filter_map(predicate).collect();
    // Statistics are long, and read only where the partition leaves a file in.
    let files = kept(version, all, &predicates, |_| FileStatistics::default())?;
    kept(version, files, &predicates, ActiveFile::statistics)
}

/// Those of the files that the predicates keep, by what is told of each.
fn kept<'a>(
    version: &'a Version,
    files: Vec<&'a ActiveFile>,
    predicates: &[Arc<PruningPredicate>],
    told: impl Fn(&ActiveFile) -> FileStatistics,
) -> Result<Vec<&'a ActiveFile>> {
    if files.is_empty() {
        return Ok(files);
    }
    let mut keep = vec![true; files.len()];
    let known = Known { version, files: files.iter().map(|&file| (file, told(file))).collect() };
    for predicate in predicates {
        for (kept, passes) in keep.iter_mut().zip(predicate.prune(&known)?) {
            *kept &= passes;
        }
    }
    Ok(files.into_iter().zip(keep).filter(|(_, kept)| *kept).map(|(file, _)| file).collect())
}

/// What is known of the files.
struct Known<'a> {
    version: &'a Version,
    files: Vec<(&'a ActiveFile, FileStatistics)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    Least,
    Greatest,
}

impl Known<'_> {
    fn kind(&self, column: &str) -> Option<&DataType> {
        self.version.schema.field_with_name(column).ok().map(arrow::datatypes::Field::data_type)
    }

    fn bounds(&self, column: &Column, bound: Bound) -> Option<ArrayRef> {
        let kind = self.kind(&column.name)?;
        let values = self.files.iter().map(|(file, told)| {
            let found = bound_of(&file.partition, told, &column.name, kind, bound);
            found.map_or_else(|| ScalarValue::try_from(kind), Ok)
        });
        ScalarValue::iter_to_array(values.collect::<Result<Vec<_>>>().ok()?).ok()
    }
}

impl PruningStatistics for Known<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, Bound::Least)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, Bound::Greatest)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        self.kind(&column.name)?;
        let counts = self.files.iter().map(|(file, told)| nulls_of(&file.partition, told, &column.name));
        Some(Arc::new(counts.collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.files.iter().map(|(_, told)| told.num_records).collect::<UInt64Array>()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// How many rows of a file have no value, if that is known.
pub(super) fn nulls_of(partition: &PartitionValues, told: &FileStatistics, column: &str) -> Option<u64> {
    match partition.get(column) {
        // One value for all rows.
        Some(value) if value.as_ref().is_none_or(String::is_empty) => told.num_records,
        Some(_) => Some(0),
        None => told.null_count.get(column).and_then(Value::as_u64),
    }
}

/// What no value of a column in a file exceeds, if that is known.
pub(super) fn bound_of(
    partition: &PartitionValues,
    told: &FileStatistics,
    column: &str,
    kind: &DataType,
    bound: Bound,
) -> Option<ScalarValue> {
    if let Some(value) = partition.get(column) {
        return value_of(column, value.as_deref(), kind).ok().filter(|value| !value.is_null());
    }
    let values = match bound {
        Bound::Least => &told.min_values,
        Bound::Greatest => &told.max_values,
    };
    parsed(values.get(column)?, kind, bound)
}

/// A bound as the log has it. Numbers with a fraction are not trusted: writers leave out what is not a number, and round.
fn parsed(value: &Value, kind: &DataType, bound: Bound) -> Option<ScalarValue> {
    match (kind, value) {
        (DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64, Value::Number(number)) => {
            ScalarValue::Int64(Some(number.as_i64()?)).cast_to(kind).ok()
        }
        (DataType::Utf8, Value::String(text)) => Some(ScalarValue::Utf8(Some(text.clone()))),
        (DataType::Date32, Value::String(text)) => ScalarValue::try_from_string(text.clone(), kind).ok(),
        (DataType::Timestamp(..), Value::String(text)) => {
            // With fewer than six digits it may have been cut to milliseconds.
            let digits = |fraction: &str| fraction.bytes().take_while(u8::is_ascii_digit).count();
            let is_whole = text.split_once('.').is_some_and(|(_, fraction)| digits(fraction) >= 6);
            let text = text.replacen('T', " ", 1);
            match value_of("", Some(&text), kind).ok()? {
                ScalarValue::TimestampMicrosecond(Some(micros), zone) => {
                    let rounded = match bound {
                        Bound::Greatest if !is_whole => micros.checked_add(1_000)?,
                        Bound::Least | Bound::Greatest => micros,
                    };
                    Some(ScalarValue::TimestampMicrosecond(Some(rounded), zone))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bounds_are_read_as_writers_write_them() {
        let zone = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
        let micros = |value| Some(ScalarValue::TimestampMicrosecond(Some(value), Some("UTC".into())));
        for (text, greatest) in [
            ("1970-01-01T00:00:01.500Z", 1_501_000),
            ("1970-01-01 00:00:01.5", 1_501_000),
            ("1970-01-01T00:00:01.500000Z", 1_500_000),
        ] {
            assert_eq!(parsed(&json!(text), &zone, Bound::Least), micros(1_500_000), "{text}");
            assert_eq!(parsed(&json!(text), &zone, Bound::Greatest), micros(greatest), "{text}");
        }
        assert_eq!(
            parsed(&json!("2026-01-01"), &DataType::Date32, Bound::Least),
            Some(ScalarValue::Date32(Some(20_454)))
        );
        assert_eq!(parsed(&json!(5), &DataType::Int16, Bound::Least), Some(ScalarValue::Int16(Some(5))));
        assert_eq!(parsed(&json!(5.5), &DataType::Float64, Bound::Greatest), None);
        assert_eq!(parsed(&json!("x"), &DataType::Int32, Bound::Least), None);
    }
}
