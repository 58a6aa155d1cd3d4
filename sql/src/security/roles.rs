//! What a plan needs: to read, or to write.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use tidemill_core::{Principal, Result, Role};
use tidemill_engine::error::from_datafusion;

/// Refuses a plan that changes something to who may only read. Every statement and every client's own plan comes here.
///
/// # Errors
/// `Denied`; the error says what needs which role.
pub(crate) fn check_plan(by: &Principal, plan: &LogicalPlan) -> Result<()> {
    if by.role >= Role::Write || matches!(plan, LogicalPlan::Explain(_)) {
        // What is explained is not done.
        return Ok(());
    }
    let mut change: Option<&'static str> = None;
    // A part of a query may write, too.
    let walked = plan.apply_with_subqueries(|node| {
        change = match node {
            LogicalPlan::Ddl(_) => Some("a change of the catalogue"),
            LogicalPlan::Dml(_) => Some("a change of a table"),
            LogicalPlan::Copy(_) => Some("COPY"),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    });
    walked.map_err(|e| from_datafusion(&e))?;
    match change {
        Some(what) => by.require(Role::Write, what),
        None => Ok(()),
    }
}
