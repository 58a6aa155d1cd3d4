//! Why a stage brings everything together in one task: the rule that names it, or none.
//!
//! A gather that no rule names is slow and asks for memory that grows with the data. CI counts them.

use std::sync::Arc;

use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use tidemill_core::StageId;
use tidemill_core::graph::ExchangeKind;

use super::StagedQuery;
use crate::exchange::{ExchangeReaderExec, ExchangeWriterExec};

/// One gather.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gather {
    /// The stage of one task that reads everything.
    pub stage: StageId,
    /// The stage it reads.
    pub reads: StageId,
    /// The rule that names it.
    pub rule: Option<u32>,
}

/// Every place where the output of several tasks meets in one.
#[must_use]
pub fn gathers(query: &StagedQuery) -> Vec<Gather> {
    let mut found = Vec::new();
    for stage in &query.stages {
        let Some(writer) = stage.plan.downcast_ref::<ExchangeWriterExec>() else { continue };
        for input in &stage.inputs {
            let several = query.stages.get(input.stage.index()).is_some_and(|s| s.shape.tasks() > 1);
            let rule = match input.kind {
                ExchangeKind::Gather => gather_rule(&writer.input, input.stage),
                // An ORDER BY: its streams are merged, and nothing is held.
                ExchangeKind::SortedGather => Some(8),
                ExchangeKind::Hash | ExchangeKind::Broadcast | ExchangeKind::Scalar => continue,
            };
            if several {
                found.push(Gather { stage: stage.id, reads: input.stage, rule });
            }
        }
    }
    found
}

/// The rule of the nearest node above the reader of `stage` that wants all rows.
fn gather_rule(plan: &Arc<dyn ExecutionPlan>, stage: StageId) -> Option<u32> {
    let mut path = Vec::new();
    if !path_to(plan, stage, &mut path) {
        return None;
    }
    // From the reader up.
    path.iter().rev().zip(path.iter().rev().skip(1)).find_map(|(child, node)| rule_of(node, child)).or_else(|| {
        // A result is one stream.
        path.iter().all(|n| n.output_partitioning().partition_count() == 1 && !n.name().contains("Join")).then_some(6)
    })
}

fn path_to(plan: &Arc<dyn ExecutionPlan>, stage: StageId, path: &mut Vec<Arc<dyn ExecutionPlan>>) -> bool {
    path.push(Arc::clone(plan));
    let is_reader = plan.downcast_ref::<ExchangeReaderExec>().is_some_and(|r| r.stage == stage);
    if is_reader || plan.children().into_iter().any(|child| path_to(child, stage, path)) {
        return true;
    }
    path.pop();
    false
}

fn rule_of(node: &Arc<dyn ExecutionPlan>, child: &Arc<dyn ExecutionPlan>) -> Option<u32> {
    let is_left = node.children().first().is_some_and(|first| Arc::ptr_eq(first, child));
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        // A collected build side is in one place by design; a gathered probe side only where a NULL anywhere matters.
        return (is_left || join.null_aware).then_some(5);
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        return (is_left || !super::joins::may_replicate_build(*join.join_type())).then_some(5);
    }
    if node.name() == "CrossJoinExec" {
        return is_left.then_some(5);
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        return matches!(aggregate.mode(), AggregateMode::Final | AggregateMode::Single).then_some(6);
    }
    // One order, or one frame, over all rows; or a number of rows.
    let wants_all = node.is::<SortExec>() || node.is::<BoundedWindowAggExec>() || node.is::<WindowAggExec>();
    if wants_all || node.is::<RecursiveQueryExec>() {
        return Some(6);
    }
    (node.is::<GlobalLimitExec>() || node.fetch().is_some()).then_some(7)
}
