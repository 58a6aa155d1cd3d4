//! `EXPECT (…)`: what must hold of the rows of an interval before they are published.
//!
//! Conditions of single rows are checked as the rows are written: the first violation fails the run, and nothing of it is
//! published. Whatever needs all rows together (sums, uniqueness, the volume of the intervals before) needs a second look at
//! what was written, between the last task's end and the commit; the place for that is beside
//! [`Commit::commit`](tidemill_engine::planner::Commit), and it is not built: such a check is refused.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::TreeNode;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use tidemill_core::{Error, Result};
use tidemill_engine::error::from_datafusion;
use tidemill_engine::expect::expect;

use super::statement::{CreateJob, Expectation, Violation};
use crate::session::Planning;

/// Columns of a violating row that an error shows.
const SHOWN: usize = 8;

/// The rows of a job's query, with all that it expects of them.
///
/// # Errors
/// A condition is none, or needs more than one row.
pub(super) fn guarded(planning: &Planning<'_>, query: LogicalPlan, create: &CreateJob) -> Result<LogicalPlan> {
    if create.expect.is_empty() {
        return Ok(query);
    }
    let schema = query.schema().as_ref().clone();
    let columns = || schema.columns().into_iter();
    let Some(first) = columns().next() else {
        return Err(Error::invalid("a job without columns has nothing to expect").at(create.job.place));
    };
    let shown: Vec<_> = columns().take(SHOWN).map(|column| (column.name.clone(), Expr::Column(column))).collect();
    let mut guarded = Expr::Column(first.clone());
    for check in &create.expect {
        let holds = condition(planning, check, &schema)?;
        guarded = expect(guarded, holds, &check.shown(), shown.clone());
    }
    let rest = columns().skip(1).map(Expr::Column);
    let projection: Vec<Expr> = std::iter::once(guarded.alias(first.name)).chain(rest).collect();
    let plan = LogicalPlanBuilder::from(query).project(projection).and_then(LogicalPlanBuilder::build);
    plan.map_err(|e| from_datafusion(&e))
}

/// A condition of the columns of a row.
fn condition(planning: &Planning<'_>, check: &Expectation, schema: &DFSchema) -> Result<Expr> {
    let place = check.predicate.place;
    let wrong = |what: String| Error::invalid(format!("the check `{}` {what}", check.shown())).at(place);
    if check.violation == Violation::Warn {
        return Err(wrong("only warns, which is not built yet: write ON VIOLATION FAIL".to_owned()));
    }
    let state = planning.context.state();
    let condition = state.create_logical_expr(&check.predicate.value, schema).map_err(|e| {
        let error = from_datafusion(&e);
        wrong(format!("cannot be read: {}", error.message))
    })?;
    let needs_more = |expr: &Expr| {
        matches!(
            expr,
            Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
                | Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
                | Expr::Placeholder(_)
        )
    };
    if condition.exists(|expr| Ok(needs_more(expr))).map_err(|e| from_datafusion(&e))? {
        return Err(wrong(
            "needs more than one row at a time, and only conditions of single rows are checked yet".to_owned(),
        ));
    }
    match condition.get_type(schema).map_err(|e| from_datafusion(&e))? {
        DataType::Boolean => Ok(condition),
        other => Err(wrong(format!("is a value of type {other} and no condition"))),
    }
}
