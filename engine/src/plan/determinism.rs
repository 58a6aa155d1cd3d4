//! Whether a repeated attempt of a stage gives the same rows.
//!
//! Rule 20. Volatile functions (`random()`, `uuid()`) do not, and neither does a limit without an order over an
//! exchange, whose blocks arrive in any order.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use tidemill_core::graph::Determinism;

use crate::exchange::ExchangeReaderExec;

pub(super) fn of(plan: &Arc<dyn ExecutionPlan>) -> Result<Determinism> {
    let mut determinism = Determinism::Exact;
    plan.apply(|node| {
        if cuts_unordered(node)? {
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

/// A limit that keeps whatever comes first.
fn cuts_unordered(node: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let limits = node.is::<GlobalLimitExec>()
        || node.is::<LocalLimitExec>()
        || node.downcast_ref::<CoalescePartitionsExec>().is_some_and(|c| c.fetch().is_some());
    if !limits || node.properties().output_ordering().is_some() {
        return Ok(false);
    }
    node.exists(|n| Ok(n.is::<ExchangeReaderExec>()))
}
