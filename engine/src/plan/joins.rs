//! Joins whose partitions share state in one process take a form that needs none.
//!
//! ```text
//! HashJoin CollectLeft, Inner            HashJoin CollectLeft, Inner
//!   Coalesce                      →        Exchange broadcast
//!     left (4)                               left (4)
//!   right (8)                              right (8)
//!
//! HashJoin CollectLeft, Left             HashJoin Partitioned, Left
//!   Coalesce                      →        Repartition hash (8)
//!     left (4)                               left (4)
//!   right (8)                              Repartition hash (8)
//!                                            right (8)
//! ```
//!
//! Rule 5. Why only Inner, Right, RightSemi, RightAnti and RightMark broadcast: a join that also emits build rows must
//! know which of them *any* probe partition matched. With two tasks that each hold the whole build side, a Left join
//! would emit the row that only the other task matched, with nulls: a wrong row.

use std::sync::Arc;

use datafusion::common::{JoinType, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};

use super::with_children;
use crate::exchange::{ExchangeExec, Transfer};

pub(super) fn normalise(plan: Arc<dyn ExecutionPlan>, partitions: usize) -> Result<Arc<dyn ExecutionPlan>> {
    super::rewrite(plan, &mut |node| {
        if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            return hash_join(join, &node, partitions);
        }
        if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
            return nested_loop_join(join, &node);
        }
        if let Some(join) = node.downcast_ref::<CrossJoinExec>()
            && partition_count(join.right()) > 1
        {
            let children = vec![broadcast(join.left()), Arc::clone(join.right())];
            return with_children(&node, children);
        }
        Ok(node)
    })
}

/// Whether every probe partition may have its own copy of the build side.
pub(super) const fn may_replicate_build(join_type: JoinType) -> bool {
    match join_type {
        JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => true,
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark | JoinType::Full => false,
    }
}

fn hash_join(join: &HashJoinExec, node: &Arc<dyn ExecutionPlan>, partitions: usize) -> Result<Arc<dyn ExecutionPlan>> {
    if *join.partition_mode() == PartitionMode::Partitioned || partition_count(join.right()) == 1 {
        return Ok(Arc::clone(node));
    }
    if join.null_aware {
        // All probe partitions run in one task, which only receives rows: both sides are computed elsewhere.
        let probe: Arc<dyn ExecutionPlan> = Arc::new(ExchangeExec::new(Arc::clone(join.right()), Transfer::Gather));
        let children = vec![Arc::clone(join.left()), probe];
        return with_children(node, children);
    }
    if may_replicate_build(*join.join_type()) {
        let children = vec![broadcast(join.left()), Arc::clone(join.right())];
        return with_children(node, children);
    }
    let (left_keys, right_keys) = join.on().iter().cloned().unzip();
    let left = hashed(uncoalesced(join.left()), left_keys, partitions)?;
    let right = hashed(Arc::clone(join.right()), right_keys, partitions)?;
    let partitioned = join
        .builder()
        .with_new_children(vec![left, right])?
        .with_partition_mode(PartitionMode::Partitioned)
        .recompute_properties()
        .build_exec()?;
    Ok(partitioned)
}

fn nested_loop_join(join: &NestedLoopJoinExec, node: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if partition_count(join.right()) == 1 {
        return Ok(Arc::clone(node));
    }
    if may_replicate_build(*join.join_type()) {
        let children = vec![broadcast(join.left()), Arc::clone(join.right())];
        return with_children(node, children);
    }
    if may_replicate_build(join.join_type().swap()) {
        let probe = uncoalesced(join.left());
        let build = broadcast(join.right());
        let children = vec![probe, build];
        let swapped = with_children(node, children)?;
        let swapped = swapped
            .downcast_ref::<NestedLoopJoinExec>()
            .ok_or_else(|| internal_datafusion_err!("rule 5: a nested-loop join changed its type"))?
            .swap_inputs()?;
        return Ok(swapped);
    }
    let probe: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(Arc::clone(join.right())));
    let children = vec![Arc::clone(join.left()), probe];
    with_children(node, children)
}

fn broadcast(build: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    Arc::new(ExchangeExec::new(uncoalesced(build), Transfer::Broadcast))
}

/// The input of a merge that only brings partitions together: an exchange does that anyway.
fn uncoalesced(plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match plan.downcast_ref::<CoalescePartitionsExec>() {
        Some(coalesce) if coalesce.fetch().is_none() => Arc::clone(coalesce.input()),
        _ => Arc::clone(plan),
    }
}

fn hashed(
    plan: Arc<dyn ExecutionPlan>,
    keys: Vec<Arc<dyn datafusion::physical_expr::PhysicalExpr>>,
    partitions: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    Ok(Arc::new(RepartitionExec::try_new(plan, Partitioning::Hash(keys, partitions))?))
}

fn partition_count(plan: &Arc<dyn ExecutionPlan>) -> usize {
    plan.output_partitioning().partition_count()
}
