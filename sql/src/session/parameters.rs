//! Values for a statement's placeholders: `$1`, `$2`, … by position, `$name` by the name of the value.
//!
//! Invariant: a value never becomes text. It takes its placeholder's place in the logical plan.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use tidemill_core::{Error, Result};
use tidemill_engine::error::from_datafusion;

use super::memory_table;

/// The plan with values in the places of its placeholders. `parameters` is one row in Arrow's stream format, or empty.
pub(super) fn bind(plan: LogicalPlan, parameters: &[u8]) -> Result<LogicalPlan> {
    let expected = expected(&plan)?;
    if expected.is_empty() && parameters.is_empty() {
        return Ok(plan);
    }
    if let LogicalPlan::Ddl(DdlStatement::CreateView(view)) = &plan {
        return Err(Error::invalid(format!("the view `{}` cannot have placeholders: write their values", view.name)));
    }
    let values = values(parameters)?;
    let by_position = expected.iter().filter_map(|(placeholder, _)| position(placeholder)).max().unwrap_or_default();
    let all_by_position = expected.iter().all(|(placeholder, _)| position(placeholder).is_some());
    if all_by_position && values.len() > by_position {
        let (given, needed) = (values.len(), by_position);
        return Err(Error::invalid(format!("{given} values are bound and the statement has {needed} placeholders")));
    }
    // A value's position comes before its name, which may be another number.
    let mut known: HashMap<String, ScalarValue> = values.iter().cloned().collect();
    known.extend((1..).zip(&values).map(|(position, (_, value)): (usize, _)| (position.to_string(), value.clone())));
    if let Some((missing, _)) = expected.iter().find(|(placeholder, _)| !known.contains_key(name(placeholder))) {
        return Err(Error::invalid(format!(
            "no value is bound to {missing}: bind one row with a value for each placeholder"
        )));
    }
    plan.with_param_values(known).map_err(|e| from_datafusion(&e))
}

/// A plan's placeholders with their types, where these are known; by position, then by name.
pub(super) fn expected(plan: &LogicalPlan) -> Result<Vec<(String, Option<FieldRef>)>> {
    let mut expected: Vec<_> = plan.get_parameter_fields().map_err(|e| from_datafusion(&e))?.into_iter().collect();
    expected.sort_by_cached_key(|(placeholder, _)| (position(placeholder).unwrap_or(usize::MAX), placeholder.clone()));
    Ok(expected)
}

/// The columns that values are bound with. A type that is not known is Arrow's null type.
pub(super) fn schema(expected: &[(String, Option<FieldRef>)]) -> SchemaRef {
    let typed = |(placeholder, field): &(String, Option<FieldRef>)| {
        let data_type = field.as_ref().map_or(DataType::Null, |field| field.data_type().clone());
        (placeholder.clone(), Field::new(placeholder, data_type, true))
    };
    let known: BTreeMap<String, Field> = expected.iter().map(typed).collect();
    let last = expected.iter().filter_map(|(placeholder, _)| position(placeholder)).max().unwrap_or_default();
    // One that the statement leaves out is bound all the same.
    let positions = (1..=last).map(|position| {
        let placeholder = format!("${position}");
        known.get(&placeholder).cloned().unwrap_or_else(|| Field::new(placeholder, DataType::Null, true))
    });
    let named = expected.iter().filter(|(placeholder, _)| position(placeholder).is_none());
    let named = named.filter_map(|(placeholder, _)| known.get(placeholder).cloned());
    Arc::new(Schema::new(positions.chain(named).collect::<Vec<_>>()))
}

/// A placeholder without its sign.
fn name(placeholder: &str) -> &str {
    placeholder.trim_start_matches('$')
}

fn position(placeholder: &str) -> Option<usize> {
    name(placeholder).parse().ok()
}

/// The values of the one row.
fn values(parameters: &[u8]) -> Result<Vec<(String, ScalarValue)>> {
    if parameters.is_empty() {
        return Ok(Vec::new());
    }
    let (schema, batches) = memory_table::read(parameters).map_err(|e| from_datafusion(&e))?;
    let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() == 1).filter(|_| rows == 1) else {
        return Err(Error::invalid(format!("{rows} rows of values are bound: a statement runs with one")));
    };
    let values = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let value = ScalarValue::try_from_array(column, 0).map_err(|e| from_datafusion(&e))?;
        Ok((name(field.name()).to_owned(), value))
    });
    values.collect()
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn plan(sql: &str) -> LogicalPlan {
        SessionContext::new().state().create_logical_plan(sql).await.expect("a plan")
    }

    fn row() -> Vec<u8> {
        let columns: Vec<(&str, arrow::array::ArrayRef)> =
            vec![("0", Arc::new(Int64Array::from(vec![5]))), ("1", Arc::new(StringArray::from(vec!["x' OR '1"])))];
        let batch = RecordBatch::try_from_iter(columns).expect("a batch");
        memory_table::encode(&batch.schema(), &[batch]).expect("bytes")
    }

    #[tokio::test]
    async fn values_are_bound_by_position_whatever_their_columns_are_called() {
        let bound = bind(plan("SELECT $1 AS a, $2 AS b").await, &row()).expect("a plan");
        assert_eq!(bound.expressions().iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), {
            "Int64(5) AS a Utf8(\"x' OR '1\") AS b"
        });
    }

    #[tokio::test]
    async fn values_are_bound_by_name_too() {
        let batch =
            RecordBatch::try_from_iter([("least", Arc::new(Int64Array::from(vec![5])) as arrow::array::ArrayRef)]);
        let batch = batch.expect("a batch");
        let row = memory_table::encode(&batch.schema(), &[batch]).expect("bytes");
        let bound = bind(plan("SELECT $least AS a").await, &row).expect("a plan");
        assert_eq!(bound.expressions().first().map(ToString::to_string).as_deref(), Some("Int64(5) AS a"));
    }

    #[tokio::test]
    async fn too_few_and_too_many_values_are_refused() {
        let few = bind(plan("SELECT $1, $2, $3").await, &row()).expect_err("an error");
        assert!(few.message.contains("no value is bound to $3"), "{few}");
        let many = bind(plan("SELECT $1").await, &row()).expect_err("an error");
        assert!(many.message.contains("2 values are bound and the statement has 1"), "{many}");
        let none = bind(plan("SELECT $1").await, &[]).expect_err("an error");
        assert!(none.message.contains("no value is bound to $1"), "{none}");
    }

    #[tokio::test]
    async fn placeholders_have_the_types_of_what_they_meet() {
        let plan = plan("SELECT 1 FROM (VALUES (1, 'x')) AS t(a, b) WHERE b = $2 AND a > $3").await;
        let schema = schema(&expected(&plan).expect("placeholders"));
        let types: Vec<_> = schema.fields().iter().map(|f| (f.name().as_str(), f.data_type().clone())).collect();
        assert_eq!(types, [("$1", DataType::Null), ("$2", DataType::Utf8), ("$3", DataType::Int64)]);
    }
}
