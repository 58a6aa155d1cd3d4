//! Placeholders of a plan, each place by itself: a value of the type of what stands there beside it.
//!
//! DataFusion has one type for all places of a placeholder and refuses a statement where it meets two. A job compares its interval
//! with the timestamps of one table and the DATEs of another, and moves its ends by lengths of time.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as Planned;
use datafusion::logical_expr::expr::{Between, BinaryExpr, Cast, InList, Placeholder, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Values};
use tidemill_core::Result;
use tidemill_engine::error::{from_datafusion, to_datafusion};

/// What a placeholder meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met<'a> {
    /// Nothing that tells a type.
    Nothing,
    /// A value of this type.
    Value(&'a DataType),
    /// A CAST to this type.
    Cast(&'a DataType),
}

/// The plan with a value in each place of a placeholder, by its name and what it meets there.
///
/// # Errors
/// There is no such value, or what it makes of the plan is none.
pub(super) fn bind(
    plan: LogicalPlan,
    mut value: impl FnMut(&str, Met<'_>) -> Result<ScalarValue>,
) -> Result<LogicalPlan> {
    if plan.get_parameter_names().map_err(|e| from_datafusion(&e))?.is_empty() {
        return Ok(plan);
    }
    let bound = plan.transform_up_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| in_expr(expr, &schema, &names, &mut value))?.map_data(with_types)
    });
    bound.data().map_err(|e| from_datafusion(&e))
}

/// A node whose columns have the types that its values have by now.
fn with_types(node: LogicalPlan) -> Planned<LogicalPlan> {
    match node {
        LogicalPlan::Values(Values { values, .. }) => LogicalPlanBuilder::values(values)?.build(),
        node => node.recompute_schema(),
    }
}

fn in_expr(
    expr: Expr,
    schema: &DFSchema,
    names: &NamePreserver,
    value: &mut impl FnMut(&str, Met<'_>) -> Result<ScalarValue>,
) -> Planned<Transformed<Expr>> {
    if !has_placeholder(&expr)? {
        return Ok(Transformed::no(expr));
    }
    let name = names.save(&expr);
    let bound = expr.transform_down(|part| in_part(part, schema, value))?;
    // Others refer to it by the name that it had.
    Ok(bound.update_data(|expr| name.restore(expr)))
}

fn has_placeholder(expr: &Expr) -> Planned<bool> {
    expr.exists(|part| Ok(matches!(part, Expr::Placeholder(_))))
}

/// What surrounds a placeholder is looked at before the placeholder.
fn in_part(
    part: Expr,
    schema: &DFSchema,
    value: &mut impl FnMut(&str, Met<'_>) -> Result<ScalarValue>,
) -> Planned<Transformed<Expr>> {
    let bound = match part {
        Expr::Placeholder(found) => {
            let kind = found.field.as_ref().map(|field| field.data_type().clone()).filter(tells);
            literal(&found, kind.as_ref().map_or(Met::Nothing, Met::Value), value)?
        }
        Expr::Cast(Cast { expr, field }) => {
            let expr = Box::new(moved(*expr, Met::Cast(field.data_type()), schema, value)?);
            Expr::Cast(Cast { expr, field })
        }
        Expr::TryCast(TryCast { expr, field }) => {
            let expr = Box::new(moved(*expr, Met::Cast(field.data_type()), schema, value)?);
            Expr::TryCast(TryCast { expr, field })
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
            let (of_left, of_right) = (time_of(&left, schema), time_of(&right, schema));
            let left = compared(left, of_right.as_ref(), schema, value)?;
            let right = compared(right, of_left.as_ref(), schema, value)?;
            Expr::BinaryExpr(BinaryExpr { left, op, right })
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let ends = time_of(&low, schema).or_else(|| time_of(&high, schema));
            let of = time_of(&expr, schema);
            let expr = compared(expr, ends.as_ref(), schema, value)?;
            let low = compared(low, of.as_ref(), schema, value)?;
            let high = compared(high, of.as_ref(), schema, value)?;
            Expr::Between(Between { expr, negated, low, high })
        }
        Expr::InList(InList { expr, list, negated }) => {
            let (of, one) = (time_of(&expr, schema), list.iter().find_map(|one| time_of(one, schema)));
            let expr = compared(expr, one.as_ref(), schema, value)?;
            let list = list.into_iter().map(|one| compared(Box::new(one), of.as_ref(), schema, value).map(|one| *one));
            let list = list.collect::<Planned<_>>()?;
            Expr::InList(InList { expr, list, negated })
        }
        other => return Ok(Transformed::no(other)),
    };
    Ok(Transformed::yes(bound))
}

/// One side of a comparison, the other side of which is a time of this type.
fn compared(
    side: Box<Expr>,
    with: Option<&DataType>,
    schema: &DFSchema,
    value: &mut impl FnMut(&str, Met<'_>) -> Result<ScalarValue>,
) -> Planned<Box<Expr>> {
    match with {
        Some(kind) => Ok(Box::new(moved(*side, Met::Value(kind), schema, value)?)),
        None => Ok(side),
    }
}

/// A placeholder, alone or moved by lengths of time, as a value; anything else stays what it is.
fn moved(
    expr: Expr,
    met: Met<'_>,
    schema: &DFSchema,
    value: &mut impl FnMut(&str, Met<'_>) -> Result<ScalarValue>,
) -> Planned<Expr> {
    match expr {
        Expr::Placeholder(found) => literal(&found, met, value),
        Expr::BinaryExpr(BinaryExpr { mut left, op: op @ (Operator::Plus | Operator::Minus), mut right }) => {
            if is_length(&right, schema)? {
                left = Box::new(moved(*left, met, schema, value)?);
            } else if op == Operator::Plus && is_length(&left, schema)? {
                right = Box::new(moved(*right, met, schema, value)?);
            }
            Ok(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        other => Ok(other),
    }
}

fn literal(
    found: &Placeholder,
    met: Met<'_>,
    value: &mut impl FnMut(&str, Met<'_>) -> Result<ScalarValue>,
) -> Planned<Expr> {
    let value = value(found.id.trim_start_matches('$'), met).map_err(to_datafusion)?;
    Ok(Expr::Literal(value, None))
}

/// Whether the type that DataFusion guessed is one of what is compared: beside a length of time it guesses a length of time.
const fn tells(kind: &DataType) -> bool {
    !matches!(kind, DataType::Null | DataType::Interval(_) | DataType::Duration(_))
}

const fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

/// The type of an expression, if it is a time or a day.
fn time_of(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    let kind = expr.get_type(schema).ok();
    kind.filter(|kind| matches!(kind, DataType::Date32 | DataType::Timestamp(..)))
}

/// Whether an expression is a length of time, and not guessed to be one.
fn is_length(expr: &Expr, schema: &DFSchema) -> Planned<bool> {
    Ok(!has_placeholder(expr)? && matches!(expr.get_type(schema), Ok(DataType::Interval(_) | DataType::Duration(_))))
}

#[cfg(test)]
#[expect(clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use arrow::datatypes::TimeUnit;
    use datafusion::dataframe::DataFrame;
    use datafusion::prelude::SessionContext;
    use tidemill_core::Error;

    use super::*;

    /// What the placeholders of a condition over a day, a time and a text meet, in their order.
    async fn met(condition: &str) -> Vec<String> {
        let context = SessionContext::new();
        let from = "(VALUES (DATE '2026-03-01', TIMESTAMP '2026-03-01T00:00:00', 'x')) AS t(day, ts, text)";
        let plan = context.state().create_logical_plan(&format!("SELECT ts FROM {from} WHERE {condition}")).await;
        let mut met = Vec::new();
        let bound = bind(plan.expect("a plan"), |name, what| {
            let (shown, value) = match what {
                Met::Nothing => ("nothing".to_owned(), ScalarValue::TimestampNanosecond(Some(0), None)),
                Met::Value(DataType::Date32) => ("day".to_owned(), ScalarValue::Date32(Some(0))),
                Met::Value(DataType::Timestamp(TimeUnit::Nanosecond, None)) => {
                    ("time".to_owned(), ScalarValue::TimestampNanosecond(Some(0), None))
                }
                Met::Cast(to) => (format!("cast to {to}"), ScalarValue::TimestampNanosecond(Some(0), None)),
                Met::Value(other) => return Err(Error::invalid(format!("{name} is compared with {other}"))),
            };
            met.push(format!("{name}: {shown}"));
            Ok(value)
        });
        match bound {
            Ok(plan) => {
                assert!(plan.get_parameter_names().expect("names").is_empty(), "{condition}");
                let run = DataFrame::new(context.state(), plan).collect().await;
                run.unwrap_or_else(|e| panic!("{condition}: {e}"));
                met
            }
            Err(error) => vec![error.message],
        }
    }

    #[tokio::test]
    async fn each_place_has_the_type_of_what_it_meets_there() {
        for (condition, expected) in [
            ("ts >= $a AND day >= $a", vec!["a: time", "a: day"]),
            ("$a <= ts AND ts BETWEEN $a AND $b", vec!["a: time", "a: time", "b: time"]),
            ("$a BETWEEN day AND day", vec!["a: day"]),
            ("day IN ($a, $b - INTERVAL '1 day') OR $a IN (day, day)", vec!["a: day", "b: day", "a: day"]),
            ("ts >= $a - INTERVAL '1 day' AND day > $a - INTERVAL '6 days'", vec!["a: time", "a: day"]),
            ("day < INTERVAL '1 day' + $a", vec!["a: day"]),
            (
                "day = $a::date AND day > CAST($a - INTERVAL '1 day' AS DATE)",
                vec!["a: cast to Date32", "a: cast to Date32"],
            ),
            ("ts >= date_trunc('day', $a)", vec!["a: nothing"]),
            ("ts - $a IS NOT NULL", vec!["a: time"]),
            (
                "ts IN (SELECT ts2 FROM (VALUES (TIMESTAMP '2026-03-01T00:00:00')) AS u(ts2) WHERE ts2 < $b)",
                vec!["b: time"],
            ),
            ("text = $a", vec!["a is compared with Utf8"]),
            ("day > DATE '2026-03-01'", vec![]),
        ] {
            let mut found = met(condition).await;
            let mut expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            // The parts of a condition are visited in no order that matters.
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{condition}");
        }
    }

    #[tokio::test]
    async fn a_column_keeps_its_name_and_gets_its_type() {
        let context = SessionContext::new();
        let sql = "SELECT x AS y, \"$a\" FROM (SELECT $a AS x, $a) AS t GROUP BY 1, 2";
        let plan = context.state().create_logical_plan(sql).await.expect("a plan");
        let bound = bind(plan, |_, _| Ok(ScalarValue::Date32(Some(1)))).expect("a plan");
        let columns = bound.schema().fields().iter().map(|field| (field.name().as_str(), field.data_type().clone()));
        assert_eq!(columns.collect::<Vec<_>>(), [("y", DataType::Date32), ("$a", DataType::Date32)]);
    }
}
