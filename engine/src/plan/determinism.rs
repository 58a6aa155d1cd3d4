//! Whether a repeated attempt of a stage gives the same rows: which of the three kinds a stage is.
//!
//! Rule 20. Volatile functions (`random()`, `uuid()`) do not, and neither does what depends on the order of rows over an
//! exchange, whose blocks arrive in any order: limits and ranks (ties), `array_agg` and its like. Sums of floating-point numbers
//! depend on it in their last digits only (`inexact`). A table of another database may change between two reads.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use tidemill_core::graph::Determinism;

use super::inexact::Inexact;
use crate::connector::ConnectorScanExec;
use crate::exchange::ExchangeReaderExec;

pub(super) fn of(plan: &Arc<dyn ExecutionPlan>, inexact: &Inexact) -> Result<Determinism> {
    let mut determinism = match (inexact.rows, inexact.columns.is_empty()) {
        (true, _) => Determinism::RowIndeterminate,
        (false, false) => Determinism::ValueIndeterminate,
        (false, true) => Determinism::Exact,
    };
    plan.apply(|node| {
        if node.is::<ConnectorScanExec>() || depends_on_arrival(node)? {
            determinism = Determinism::RowIndeterminate;
        }
        node.apply_expressions(&mut |expr| {
            if datafusion::physical_expr_common::physical_expr::is_volatile(expr) {
                determinism = Determinism::RowIndeterminate;
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(determinism)
}

/// Aggregates whose result does not depend on the order of their input, but for the last digits of floating-point sums.
const ORDER_INDEPENDENT: &[&str] = &[
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "grouping",
    "max",
    "median",
    "min",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];

/// A limit keeps whatever comes first, a rank numbers ties as they come, and so do unknown aggregates.
fn depends_on_arrival(node: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let ranks = node.fetch().is_some() || node.is::<BoundedWindowAggExec>() || node.is::<WindowAggExec>();
    let aggregates = node
        .downcast_ref::<AggregateExec>()
        .is_some_and(|a| a.aggr_expr().iter().any(|f| !ORDER_INDEPENDENT.contains(&f.fun().name())));
    if !ranks && !aggregates && !node.is::<GlobalLimitExec>() {
        return Ok(false);
    }
    // Inside a recursion, partitions of one process meet in any order too.
    node.exists(|n| Ok(n.is::<ExchangeReaderExec>() || n.is::<RecursiveQueryExec>()))
}
