//! `$interval_start` and `$interval_end`: each gets a value of the type of what it meets at its place.
//!
//! DataFusion binds one value for all places of a name, and takes `$interval_start - INTERVAL '1 day'` for an interval less an
//! interval. But a query may compare the same end with a DATE of one table and a TIMESTAMP of another, or look back from it.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as Planned;
use datafusion::logical_expr::expr::{Between, BinaryExpr, InList, Placeholder};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator};
use tidemill_core::interval::{Interval, Spec};
use tidemill_core::{Error, Result};
use tidemill_engine::error::{from_datafusion, to_datafusion};

use super::query::{instant, is_of_days, value};
use crate::session::nearest;

/// The placeholders that a job's query may have.
const START: &str = "interval_start";
const END: &str = "interval_end";

/// A job's query with the ends of an interval in the places of its placeholders.
///
/// # Errors
/// It has others, or one meets what no time can be compared with.
pub(super) fn bind(plan: LogicalPlan, interval: Interval, spec: &Spec) -> Result<LogicalPlan> {
    let ends = Ends { interval, spec };
    let bound = || -> Planned<LogicalPlan> {
        if plan.get_parameter_names()?.is_empty() {
            return Ok(plan);
        }
        // What is below comes first, so that its columns have their types.
        plan.transform_up_with_subqueries(|node| ends.in_node(node)).data()
    };
    bound().map_err(|e| from_datafusion(&e))
}

/// What the placeholders of a run stand for.
struct Ends<'a> {
    interval: Interval,
    spec: &'a Spec,
}

impl Ends<'_> {
    fn in_node(&self, plan: LogicalPlan) -> Planned<Transformed<LogicalPlan>> {
        let (schema, names) = (merge_schema(&plan.inputs()), NamePreserver::new(&plan));
        let bound = plan.map_expressions(|expr| {
            if !expr.exists(|part| Ok(matches!(part, Expr::Placeholder(_))))? {
                return Ok(Transformed::no(expr));
            }
            let name = names.save(&expr);
            Ok(Transformed::yes(name.restore(self.in_expression(expr, &schema)?)))
        })?;
        let is_changed = bound.transformed;
        bound.map_data(|plan| match plan {
            LogicalPlan::Values(values) if is_changed => LogicalPlanBuilder::values(values.values)?.build(),
            plan => plan.recompute_schema(),
        })
    }

    fn in_expression(&self, expr: Expr, schema: &DFSchema) -> Planned<Expr> {
        let compared = expr.transform_down(|part| self.compared(part, schema).map(Transformed::yes)).data()?;
        // What is left meets what DataFusion found beside it, or nothing.
        let left = compared.transform_up(|part| match part {
            Expr::Placeholder(Placeholder { id, field }) => {
                let kind = field.as_ref().map(|field| field.data_type());
                self.literal(&id, kind.filter(|kind| !is_length(kind))).map(Transformed::yes)
            }
            other => Ok(Transformed::no(other)),
        });
        left.data()
    }

    /// A comparison, and a cast to a day, say of which type the ends in it are.
    fn compared(&self, expr: Expr, schema: &DFSchema) -> Planned<Expr> {
        let time = |expr: &Expr| expr.get_type(schema).ok().filter(is_time);
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) => {
                let (of_left, of_right) = (time(&left), time(&right));
                let left = Box::new(self.meets(*left, of_right.as_ref())?);
                let right = Box::new(self.meets(*right, of_left.as_ref())?);
                Expr::BinaryExpr(BinaryExpr { left, op, right })
            }
            Expr::Between(Between { expr, negated, low, high }) => {
                let (within, ends) = (time(&expr), time(&low).or_else(|| time(&high)));
                let expr = Box::new(self.meets(*expr, ends.as_ref())?);
                let low = Box::new(self.meets(*low, within.as_ref())?);
                let high = Box::new(self.meets(*high, within.as_ref())?);
                Expr::Between(Between { expr, negated, low, high })
            }
            Expr::InList(InList { expr, list, negated }) => {
                let (among, of_list) = (time(&expr), list.iter().find_map(time));
                let expr = Box::new(self.meets(*expr, of_list.as_ref())?);
                let list = list.into_iter().map(|item| self.meets(item, among.as_ref()));
                Expr::InList(InList { expr, list: list.collect::<Planned<_>>()?, negated })
            }
            // The day that the clocks of the job's zone show, which is not always that of UTC.
            Expr::Cast(mut cast) if *cast.field.data_type() == DataType::Date32 && is_of_days(self.spec) => {
                cast.expr = Box::new(self.meets(*cast.expr, Some(&DataType::Date32))?);
                Expr::Cast(cast)
            }
            other => other,
        })
    }

    /// An expression that meets one of this type: the end itself, or so much before or behind it.
    fn meets(&self, expr: Expr, kind: Option<&DataType>) -> Planned<Expr> {
        let Some(kind) = kind else { return Ok(expr) };
        match expr {
            Expr::Placeholder(Placeholder { id, .. }) => self.literal(&id, Some(kind)),
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) => {
                let left = Box::new(self.meets(*left, Some(kind))?);
                let right = match op {
                    Operator::Plus => Box::new(self.meets(*right, Some(kind))?),
                    _ => right,
                };
                Ok(Expr::BinaryExpr(BinaryExpr { left, op, right }))
            }
            other => Ok(other),
        }
    }

    fn literal(&self, placeholder: &str, kind: Option<&DataType>) -> Planned<Expr> {
        let found = self.end(placeholder.trim_start_matches('$'), kind).map_err(to_datafusion)?;
        Ok(Expr::Literal(found, None))
    }

    fn end(&self, name: &str, kind: Option<&DataType>) -> Result<ScalarValue> {
        let at = match name {
            START => self.interval.start,
            END => self.interval.end,
            other => {
                let alike = nearest(other, [START, END].into_iter()).unwrap_or(START);
                return Err(Error::invalid(format!(
                    "a job has no placeholder `${other}`: did you mean `${alike}`? There are `${START}` and `${END}`"
                )));
            }
        };
        let unknown = instant();
        let kind = kind.filter(|kind| **kind != DataType::Null).unwrap_or(&unknown);
        value(at, kind, self.spec).map_err(|why| Error::invalid(format!("`${name}` {why}")))
    }
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

const fn is_time(kind: &DataType) -> bool {
    matches!(kind, DataType::Date32 | DataType::Timestamp(..))
}

const fn is_length(kind: &DataType) -> bool {
    matches!(kind, DataType::Interval(_) | DataType::Duration(_))
}

#[cfg(test)]
#[expect(clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use datafusion::dataframe::DataFrame;
    use datafusion::prelude::SessionContext;
    use tidemill_core::interval::Calendar;

    use super::*;
    use crate::jobs::parser::parse;
    use crate::jobs::spec::spec_of;
    use crate::jobs::statement::JobStatement;

    /// Days, with an instant of each: the first and the last of the seventh of March in New York, and the one before and behind.
    const ROWS: &str = "WITH t AS (SELECT * FROM (VALUES \
        (1, DATE '2026-03-06', TIMESTAMP '2026-03-07T04:59:59'), (2, DATE '2026-03-07', TIMESTAMP '2026-03-07T05:00:00'), \
        (3, DATE '2026-03-07', TIMESTAMP '2026-03-08T04:59:59'), (4, DATE '2026-03-08', TIMESTAMP '2026-03-08T05:00:00')) \
        AS v(n, day, ts)) ";

    /// The values of the first column of a query's rows for the seventh of March, with commas between.
    async fn given(clauses: &str, query: &str) -> Result<String> {
        let statement = format!("CREATE JOB j INTO s SCHEDULE CRON '@daily' START '2026-03-07' {clauses} AS SELECT 1");
        let Some(JobStatement::Create(create)) = parse(&statement)? else { panic!("{statement}") };
        let spec = spec_of(&create, "id".to_owned(), None)?;
        let start = spec.start.expect("START");
        let interval = Calendar { zone: spec.zone, length: spec.interval, start }.interval(0);
        let state = SessionContext::new().state();
        let plan = state.create_logical_plan(&format!("{ROWS}{query}")).await.map_err(|e| from_datafusion(&e))?;
        let bound = bind(plan, interval, &spec)?;
        let batches = DataFrame::new(state, bound).collect().await.map_err(|e| from_datafusion(&e))?;
        let cells = batches.iter().flat_map(|batch| {
            (0..batch.num_rows()).map(|row| arrow::util::display::array_value_to_string(batch.column(0), row))
        });
        Ok(cells.collect::<std::result::Result<Vec<_>, _>>().expect("values").join(", "))
    }

    async fn in_new_york(filter: &str) -> String {
        let query = format!("SELECT n FROM t WHERE {filter} ORDER BY n");
        let day = "AT TIME ZONE 'America/New_York' INTERVAL '1 day'";
        given(day, &query).await.unwrap_or_else(|e| panic!("{filter}: {e}"))
    }

    #[tokio::test]
    async fn an_end_has_the_type_of_what_it_meets_at_each_place() {
        for (filter, expected) in [
            ("ts >= $interval_start AND ts < $interval_end", "2, 3"),
            ("day >= $interval_start AND day < $interval_end", "2, 3"),
            // Of two tables with different columns, too.
            ("day = $interval_start AND ts > $interval_start", "3"),
            ("arrow_cast(ts, 'Timestamp(µs)') >= $interval_start AND ts < $interval_end", "2, 3"),
            ("arrow_cast(ts, 'Timestamp(µs, \"UTC\")') >= $interval_start AND day < $interval_end", "2, 3"),
            ("$interval_start BETWEEN day AND day", "2, 3"),
            ("day BETWEEN $interval_start AND $interval_end", "2, 3, 4"),
            ("day IN ($interval_start)", "2, 3"),
            ("$interval_start IN (day, DATE '2000-01-01')", "2, 3"),
            ("n IN (SELECT n FROM t WHERE day = $interval_end) OR ts = $interval_start", "2, 4"),
            ("$interval_start < $interval_end AND day < $interval_start", "1"),
            ("to_char($interval_start::date, '%Y-%m-%d') = CAST(day AS VARCHAR)", "2, 3"),
            ("date_trunc('hour', $interval_start) = ts", "2"),
        ] {
            assert_eq!(in_new_york(filter).await, expected, "{filter}");
        }
    }

    #[tokio::test]
    async fn a_query_may_look_back_from_an_end_and_ahead() {
        for (filter, expected) in [
            ("ts >= $interval_start - INTERVAL '1 hour' AND ts < $interval_end", "1, 2, 3"),
            ("day >= $interval_start - INTERVAL '1 day' AND day < $interval_end", "1, 2, 3"),
            ("day > $interval_start - INTERVAL '1 day' AND ts > $interval_start", "3, 4"),
            ("INTERVAL '1 day' + $interval_start = ts", "4"),
            ("ts BETWEEN $interval_start - INTERVAL '1 second' AND $interval_start", "1, 2"),
        ] {
            assert_eq!(in_new_york(filter).await, expected, "{filter}");
        }
    }

    #[tokio::test]
    async fn what_meets_nothing_is_an_instant_and_as_a_date_the_zones_day() {
        let days = |zone: &str| format!("AT TIME ZONE '{zone}' INTERVAL '1 day'");
        for (query, expected) in [
            ("SELECT $interval_start", "2026-03-06T23:00:00Z"),
            // UTC is a day behind, and another place says nothing of this one.
            ("SELECT $interval_start::date", "2026-03-07"),
            ("SELECT CAST($interval_end AS DATE)", "2026-03-08"),
            (
                "SELECT h FROM (SELECT $interval_start AS h, day FROM t) WHERE day = $interval_end",
                "2026-03-06T23:00:00Z",
            ),
            ("SELECT n FROM (SELECT $interval_start AS h, n, day FROM t) WHERE day = $interval_end", "4"),
            ("SELECT max(n) FROM t WHERE day >= $interval_start GROUP BY $interval_start", "4"),
            ("SELECT v FROM (VALUES ($interval_start)) AS w(v)", "2026-03-06T23:00:00Z"),
        ] {
            assert_eq!(given(&days("Europe/Berlin"), query).await.as_deref(), Ok(expected), "{query}");
        }
        let hours = "AT TIME ZONE 'Europe/Berlin' INTERVAL '1 hour'";
        let day = given(hours, "SELECT $interval_start::date").await;
        assert_eq!(day.as_deref(), Ok("2026-03-06"), "hours are of no day, and UTC's is said");
        for (query, expected) in [
            ("SELECT n FROM t WHERE day = $interval_start", "meets a DATE"),
            ("SELECT n FROM t WHERE CAST(n AS VARCHAR) = $interval_start", "compare it with a timestamp or a date"),
            ("SELECT $interval_strat", "did you mean `$interval_start`?"),
        ] {
            let error = given(hours, query).await.err().unwrap_or_else(|| panic!("{query} was not refused"));
            assert!(error.message.contains(expected), "{query}: {error}");
        }
    }
}
