//! What each operator of a task did, by where it stands in the plan.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use tidemill_core::record::OperatorMetrics;

use super::accounted::AccountedExec;

/// The operators below the writer that measure what they do; called when the plan's streams are drained.
pub(super) fn collect(plan: &Arc<dyn ExecutionPlan>) -> Vec<OperatorMetrics> {
    let mut operators = Vec::new();
    if let Some(input) = plan.children().first() {
        add(input, Vec::new(), &mut operators);
    }
    operators
}

/// What an operator counted, if it counts its rows.
fn measured(plan: &Arc<dyn ExecutionPlan>, path: &[u32]) -> Option<OperatorMetrics> {
    let metrics = plan.metrics()?;
    Some(OperatorMetrics {
        path: path.to_vec(),
        name: plan.name().to_owned(),
        rows: metrics.output_rows()? as u64,
        compute_ns: metrics.elapsed_compute().unwrap_or(0) as u64,
        spilled_bytes: metrics.spilled_bytes().unwrap_or(0) as u64,
    })
}

fn add(plan: &Arc<dyn ExecutionPlan>, path: Vec<u32>, operators: &mut Vec<OperatorMetrics>) {
    // It stands in no stage's plan.
    if let Some(accounted) = plan.downcast_ref::<AccountedExec>() {
        return add(&accounted.input, path, operators);
    }
    operators.extend(measured(plan, &path));
    for (position, child) in (0u32..).zip(plan.children()) {
        let mut path = path.clone();
        path.push(position);
        add(child, path, operators);
    }
}
