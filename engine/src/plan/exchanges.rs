//! Every place where rows change partitions gets a marker.
//!
//! ```text
//! SortPreservingMerge fetch=10        SortPreservingMerge fetch=10
//!   Sort fetch=10 (8)            →      Exchange sorted gather (8)
//!     Repartition hash (8)                Sort fetch=10 (8)
//!       scan (4)                            Exchange hash (8)
//!                                             scan (4)
//! ```
//!
//! Rules 6 to 8. A merge keeps its node and its `fetch` in the consumer; producers get the limit too. Inside a stage
//! whose one task runs all partitions nothing needs to be gathered, so merges there stay as they are.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};

use super::with_children;
use crate::exchange::{ExchangeExec, Transfer};

pub(super) fn mark(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    super::rewrite(plan, &mut |node| {
        if let Some(repartition) = node.downcast_ref::<RepartitionExec>() {
            return mark_repartition(repartition);
        }
        if let Some(coalesce) = node.downcast_ref::<CoalescePartitionsExec>() {
            return mark_coalesce(coalesce, &node);
        }
        if let Some(merge) = node.downcast_ref::<SortPreservingMergeExec>()
            && partition_count(merge.input()) > 1
            && !runs_whole(merge.input())
        {
            let exchange = Arc::new(ExchangeExec::new(Arc::clone(merge.input()), Transfer::SortedGather));
            return with_children(&node, vec![exchange]);
        }
        Ok(node)
    })
}

fn mark_repartition(repartition: &RepartitionExec) -> Result<Arc<dyn ExecutionPlan>> {
    let input = Arc::clone(repartition.input());
    match repartition.partitioning() {
        // It only spreads work, which tasks do.
        Partitioning::RoundRobinBatch(_) | Partitioning::UnknownPartitioning(_) => Ok(input),
        Partitioning::Hash(_, 1) if partition_count(&input) == 1 => Ok(input),
        partitioning @ (Partitioning::Hash(..) | Partitioning::Range(_)) => {
            let promised = repartition.preserve_order() && partition_count(&input) > 1;
            let ordering = input.output_ordering().cloned().filter(|_| promised);
            let exchange: Arc<dyn ExecutionPlan> =
                Arc::new(ExchangeExec::new(input, Transfer::Hash(partitioning.clone())));
            Ok(match ordering {
                // Blocks of several producers arrive in any order: what was promised is sorted again.
                Some(ordering) => Arc::new(SortExec::new(ordering, exchange).with_preserve_partitioning(true)),
                None => exchange,
            })
        }
    }
}

fn mark_coalesce(coalesce: &CoalescePartitionsExec, node: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let input = coalesce.input();
    if partition_count(input) == 1 && coalesce.fetch().is_none() {
        return Ok(Arc::clone(input));
    }
    if partition_count(input) == 1 || runs_whole(input) {
        return Ok(Arc::clone(node));
    }
    let limited: Arc<dyn ExecutionPlan> = match coalesce.fetch() {
        Some(fetch) if input.fetch().is_none_or(|f| f > fetch) => {
            Arc::new(LocalLimitExec::new(Arc::clone(input), fetch))
        }
        _ => Arc::clone(input),
    };
    let exchange = Arc::new(ExchangeExec::new(limited, Transfer::Gather));
    with_children(node, vec![exchange])
}

/// Whether the stage that `plan` belongs to must run all its partitions in one task.
pub(super) fn runs_whole(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if plan.is::<ExchangeExec>() || plan.is::<RecursiveQueryExec>() {
        return false;
    }
    let shares_state =
        plan.downcast_ref::<HashJoinExec>().is_some_and(|join| join.null_aware && partition_count(join.right()) > 1);
    shares_state || plan.children().into_iter().any(runs_whole)
}

fn partition_count(plan: &Arc<dyn ExecutionPlan>) -> usize {
    plan.output_partitioning().partition_count()
}
