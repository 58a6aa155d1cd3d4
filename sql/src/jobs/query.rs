//! A job's query for one of its intervals: `$interval_start` and `$interval_end` get values of the types of what they meet,
//! and the columns those of the dataset.

use std::sync::Arc;

use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};
use tidemill_core::interval::{Interval, Local, Spec, Unit, Zone};
use tidemill_core::{Error, Millis, Place, Result};
use tidemill_engine::error::from_datafusion;

use super::bind::{Met, bind};
use super::statement::CreateJob;
use crate::session::{Planning, nearest};

/// The placeholders that a job's query may have.
const START: &str = "interval_start";
const END: &str = "interval_end";
const DAY_MS: u64 = 86_400_000;

/// The type of what meets nothing: an instant.
fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The query of a job for an interval, with its placeholders bound.
///
/// # Errors
/// It is no query, or cannot be planned; the place is in the job's statement.
pub(super) async fn bound(
    planning: &Planning<'_>,
    create: &CreateJob,
    spec: &Spec,
    interval: Interval,
) -> Result<LogicalPlan> {
    let text = &create.query.value;
    let plan = planning.query(text).await.map_err(|e| Error { place: moved(e.place, create.query.place), ..e })?;
    let wrong = |what: String| Error::invalid(what).at(create.query.place);
    match &plan {
        LogicalPlan::Ddl(_)
        | LogicalPlan::Dml(_)
        | LogicalPlan::Copy(_)
        | LogicalPlan::Statement(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::DescribeTable(_) => {
            return Err(wrong("a job computes rows: what stands behind AS must be a query".to_owned()));
        }
        _ => {}
    }
    let bound = bind(plan, |name, met| {
        let at = match name {
            START => interval.start,
            END => interval.end,
            other => {
                let alike = nearest(other, [START, END].into_iter()).unwrap_or(START);
                return Err(Error::invalid(format!(
                    "a job has no placeholder `${other}`: did you mean `${alike}`? There are `${START}` and `${END}`"
                )));
            }
        };
        let kind = match met {
            Met::Value(kind) => kind.clone(),
            // The day of the zone's clocks, which is another one than that of UTC.
            Met::Cast(DataType::Date32) if is_of_days(spec, at) => DataType::Date32,
            Met::Cast(_) | Met::Nothing => instant(),
        };
        value(at, &kind, spec).map_err(|why| Error::invalid(format!("`${name}` {why}")))
    });
    bound.map_err(|e| e.at(create.query.place))
}

/// A place in the query, in the statement around it.
fn moved(place: Option<Place>, query: Option<Place>) -> Option<Place> {
    let (Some(place), Some(query)) = (place, query) else { return place.or(query) };
    let column = if place.line == 1 { query.column + place.column - 1 } else { place.column };
    Some(Place { line: query.line + place.line - 1, column })
}

/// An end of an interval as a value of a type.
pub(super) fn value(at: Millis, kind: &DataType, spec: &Spec) -> std::result::Result<ScalarValue, String> {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    let far = || "lies beyond what the type of its column can hold".to_owned();
    match kind {
        DataType::Timestamp(TimeUnit::Second, zone) => {
            Ok(ScalarValue::TimestampSecond(Some(ms.div_euclid(1_000)), zone.clone()))
        }
        DataType::Timestamp(TimeUnit::Millisecond, zone) => {
            Ok(ScalarValue::TimestampMillisecond(Some(ms), zone.clone()))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            Ok(ScalarValue::TimestampMicrosecond(Some(ms.checked_mul(1_000).ok_or_else(far)?), zone.clone()))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            Ok(ScalarValue::TimestampNanosecond(Some(ms.checked_mul(1_000_000).ok_or_else(far)?), zone.clone()))
        }
        DataType::Date32 if is_of_days(spec, at) => {
            let day = i32::try_from(day_of(at, spec.zone)).map_err(|_| far())?;
            Ok(ScalarValue::Date32(Some(day)))
        }
        DataType::Date32 => Err(format!(
            "meets a DATE, and the job's intervals are of {} and not of whole days: compare it with a timestamp, or choose \
             INTERVAL '1 day' and a START at midnight",
            spec.interval
        )),
        other => Err(format!("meets a value of type {other}: compare it with a timestamp or a date")),
    }
}

/// Whether intervals are of days, and this end of one is where clocks begin a day. A job that was replaced without a START may have
/// intervals that begin at another time than its clauses say.
pub(super) fn is_of_days(spec: &Spec, at: Millis) -> bool {
    let long = match spec.interval.unit {
        Unit::Minute | Unit::Hour => false,
        Unit::Day | Unit::Week | Unit::Month | Unit::Year => true,
    };
    long && spec.zone.instant(Local(day_of(at, spec.zone).saturating_mul(DAY_MS.cast_signed()))) == at
}

/// The day that clocks show, counted from 1970.
pub(super) fn day_of(at: Millis, zone: Zone) -> i64 {
    zone.local(at).0.div_euclid(DAY_MS.cast_signed())
}

/// The query with the dataset's columns: by name, in the dataset's order and types.
///
/// # Errors
/// One is missing, or there is one too many, or its type does not fit.
pub(super) fn fitted(plan: LogicalPlan, table: &SchemaRef, create: &CreateJob) -> Result<LogicalPlan> {
    let wrong = |what: String| Error::invalid(what).at(create.query.place);
    let output = create.output.value.to_string();
    let given = Arc::clone(plan.schema());
    for field in given.fields() {
        if table.field_with_name(field.name()).is_err() {
            let known = nearest(field.name(), table.fields().iter().map(|field| field.name().as_str()));
            let hint = known.map_or_else(
                || format!("its columns are {}", columns(table)),
                |known| format!("name it with AS, did you mean `{known}`?"),
            );
            return Err(wrong(format!("the dataset `{output}` has no column `{}`: {hint}", field.name())));
        }
    }
    let mut fitted: Vec<Expr> = Vec::with_capacity(table.fields().len());
    for field in table.fields() {
        let mut named = given.iter().filter(|(_, own)| own.name() == field.name());
        let (found, twice) = (named.next(), named.next());
        let Some((qualifier, own)) = found else {
            return Err(wrong(format!(
                "the query gives no column `{}` of the dataset `{output}`: add it, or NULL AS {0}",
                field.name()
            )));
        };
        if twice.is_some() {
            return Err(wrong(format!("the query gives the column `{}` twice", field.name())));
        }
        if !fits(own.data_type(), field.data_type()) {
            return Err(wrong(format!(
                "the query gives `{}` as {}, and it is {} in the dataset `{output}`: CAST it",
                field.name(),
                own.data_type(),
                field.data_type()
            )));
        }
        let column = Expr::Column(Column::new(qualifier.cloned(), own.name()));
        fitted.push(match own.data_type() == field.data_type() {
            true => column.alias(field.name()),
            false => cast(column, field.data_type().clone()).alias(field.name()),
        });
    }
    let fitted = LogicalPlanBuilder::from(plan).project(fitted).and_then(LogicalPlanBuilder::build);
    fitted.map_err(|e| from_datafusion(&e))
}

/// Whether every value of a type can be one of another without a loss that nobody asked for.
fn fits(given: &DataType, wanted: &DataType) -> bool {
    let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_time = |kind: &DataType| matches!(kind, DataType::Timestamp(..));
    // An integer would be what is left of it.
    let is_fraction = scale_of(given).map_or_else(|| given.is_floating(), |scale| scale > 0);
    // Digits behind the point would be rounded away: of sums nobody sees it.
    let is_rounded = scale_of(given).zip(scale_of(wanted)).is_some_and(|(given, wanted)| given > wanted);
    let is_number = given.is_numeric() && wanted.is_numeric() && !is_rounded;
    if given == wanted || *given == DataType::Null {
        return true;
    }
    let alike = (is_text(given) && is_text(wanted))
        || (is_time(given) && is_time(wanted))
        || (is_number && (!given.is_floating() || wanted.is_floating()) && !(is_fraction && wanted.is_integer()))
        || (matches!(given, DataType::Dictionary(_, values) if fits(values, wanted)))
        || (given.is_binary() && wanted.is_binary())
        || (given.is_nested() && wanted.is_nested())
        || (*given == DataType::Date32 && is_time(wanted));
    alike && can_cast_types(given, wanted)
}

/// Digits behind the point, of a decimal.
const fn scale_of(kind: &DataType) -> Option<i8> {
    match kind {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => Some(*scale),
        _ => None,
    }
}

fn columns(schema: &SchemaRef) -> String {
    schema.fields().iter().map(|field| format!("`{}`", field.name())).collect::<Vec<_>>().join(", ")
}

/// A column of the dataset by name.
pub(super) fn type_of(table: &SchemaRef, column: &str) -> Option<DataType> {
    table.field_with_name(column).ok().map(|field| field.data_type().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_loses_what_nobody_took_away() {
        let decimal = |scale| DataType::Decimal128(18, scale);
        for (given, wanted) in [
            (decimal(4), DataType::Int64),
            (DataType::Decimal256(40, 1), DataType::Int32),
            (DataType::Float64, DataType::Int64),
            (DataType::Float64, decimal(4)),
            (decimal(6), decimal(4)),
            (DataType::Utf8, DataType::Int64),
        ] {
            assert!(!fits(&given, &wanted), "{given} into {wanted}");
        }
        for (given, wanted) in [
            (decimal(0), DataType::Int64),
            (decimal(4), decimal(6)),
            (decimal(4), DataType::Float64),
            (DataType::Int64, decimal(4)),
            (DataType::Int64, DataType::Int32),
            (DataType::Utf8View, DataType::Utf8),
        ] {
            assert!(fits(&given, &wanted), "{given} into {wanted}");
        }
    }
}
