//! Walks every stage and refuses what no rule allows: a refused plan fails its run; a wrong one would give wrong rows.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{internal_err, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::sanity_checker::SanityCheckPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode, SortMergeJoinExec,
};
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use tidemill_core::graph::TaskShape;

use super::joins::may_replicate_build;
use super::{PlannedStage, StagedQuery};
use crate::connector::ConnectorScanExec;
use crate::exchange::{ExchangeReaderExec, ExchangeWriterExec};

/// Nodes whose partitions are independent: each may run in a task of its own.
const PARTITION_LOCAL: &[&str] = &[
    "AsyncFuncExec",
    "BoundedWindowAggExec",
    "BufferExec",
    "CoalesceBatchesExec",
    "ConnectorScanExec",
    "CooperativeExec",
    "DataSinkExec",
    "DataSourceExec",
    "EmptyExec",
    "ExchangeReaderExec",
    "FilterExec",
    "LocalLimitExec",
    "PlaceholderRowExec",
    "ProjectionExec",
    "SortExec",
    "SortExec(TopK)",
    "UnionExec",
    "UnnestExec",
    "WindowAggExec",
];

pub(super) fn verify(query: &StagedQuery, options: &ConfigOptions) -> Result<()> {
    for stage in &query.stages {
        verify_stage(query, stage).map_err(|e| in_stage(stage, e))?;
        // DataFusion's own check: every node's required distribution and ordering is what its children declare.
        SanityCheckPlan::new().optimize(Arc::clone(&stage.plan), options).map_err(|e| in_stage(stage, e))?;
    }
    Ok(())
}

fn in_stage(stage: &PlannedStage, error: DataFusionError) -> DataFusionError {
    if matches!(error, DataFusionError::Plan(_)) {
        return error;
    }
    DataFusionError::Internal(format!("stage {} cannot be run safely: {}", stage.id, error.message()))
}

fn verify_stage(query: &StagedQuery, stage: &PlannedStage) -> Result<()> {
    let Some(writer) = stage.plan.downcast_ref::<ExchangeWriterExec>() else {
        return internal_err!("rule 19: its root {} is no exchange writer", stage.plan.name());
    };
    writer.input.apply(|node| {
        if node.is::<ConnectorScanExec>() && !Arc::ptr_eq(node, &writer.input) {
            return internal_err!("rule 23: another database would be asked again whenever {} is", writer.input.name());
        }
        verify_node(query, node, stage.shape)?;
        // A recursion is one node here: its task runs all of it.
        Ok(if node.is::<RecursiveQueryExec>() { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Continue })
    })?;
    Ok(())
}

/// Inside a recursion nothing is divided, so only what would not be right in one process either is refused.
fn verify_recursion(recursion: &Arc<dyn ExecutionPlan>) -> Result<()> {
    recursion.apply(|node| {
        if node.boundedness().is_unbounded() {
            return internal_err!("rule 2: {} never ends", node.name());
        }
        verify_limits(node)?;
        if !node.dynamic_expressions_produced().is_empty() && node.is::<HashJoinExec>() {
            return internal_err!(
                "rule 12: a hash join in a recursion makes a filter, which the next step would reuse"
            );
        }
        if node.is::<ConnectorScanExec>() {
            return plan_err!(
                "a recursive query would ask another database again in each of its steps: copy what it needs into a table \
                 with CREATE TABLE … AS first"
            );
        }
        if node.is::<ScalarSubqueryExec>() || node.is::<ExchangeReaderExec>() {
            return internal_err!("rule 13: {} is inside a recursion", node.name());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn verify_node(query: &StagedQuery, node: &Arc<dyn ExecutionPlan>, shape: TaskShape) -> Result<()> {
    if node.boundedness().is_unbounded() {
        return internal_err!("rule 2: {} never ends", node.name());
    }
    verify_limits(node)?;
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        return verify_hash_join(node, join, shape);
    }
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let one = partition_count(join.right()) == 1;
        return match one || may_replicate_build(*join.join_type()) {
            true => verify_build(join.left(), partition_count(join.right())),
            false => internal_err!("rule 5: a {} nested-loop join has several probe partitions", join.join_type()),
        };
    }
    if let Some(join) = node.downcast_ref::<CrossJoinExec>() {
        return verify_build(join.left(), partition_count(join.right()));
    }
    if let Some(join) = node.downcast_ref::<SortMergeJoinExec>() {
        return verify_co_partitioned(join.left(), join.right());
    }
    if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        return verify_aggregate(aggregate);
    }
    if let Some(reader) = node.downcast_ref::<ExchangeReaderExec>() {
        return verify_reader(query, reader);
    }
    if node.is::<RecursiveQueryExec>() {
        return verify_recursion(node);
    }
    if node.is::<CoalescePartitionsExec>() || node.is::<SortPreservingMergeExec>() {
        return verify_merge(node, shape);
    }
    match node.name() {
        "GlobalLimitExec" if node.children().iter().all(|c| partition_count(c) == 1) => Ok(()),
        "GlobalLimitExec" => internal_err!("rule 7: a global limit has several input partitions"),
        "InterleaveExec" => {
            let counts: Vec<usize> = node.children().iter().map(|c| partition_count(c)).collect();
            match counts.windows(2).all(|w| w.first() == w.last()) {
                true => Ok(()),
                false => internal_err!("rule 9: interleaved inputs have {counts:?} partitions"),
            }
        }
        name if PARTITION_LOCAL.contains(&name) => Ok(()),
        name => internal_err!("no rule allows {name} in a stage: it is not known to be right across tasks"),
    }
}

fn verify_hash_join(node: &Arc<dyn ExecutionPlan>, join: &HashJoinExec, shape: TaskShape) -> Result<()> {
    if !node.dynamic_expressions_produced().is_empty() {
        return internal_err!("rule 12: a hash join makes a filter that waits for all its partitions");
    }
    let probes = partition_count(join.right());
    match join.partition_mode() {
        PartitionMode::Auto => internal_err!("rule 5: a hash join has no partition mode"),
        PartitionMode::Partitioned if join.null_aware && probes > 1 => {
            internal_err!("rule 5: a null-aware anti join is partitioned")
        }
        PartitionMode::Partitioned => verify_co_partitioned(join.left(), join.right()),
        PartitionMode::CollectLeft if join.null_aware && probes > 1 => match shape {
            TaskShape::Whole(_) => Ok(()),
            TaskShape::PerPartition(_) => internal_err!("rule 5: a null-aware anti join is divided among tasks"),
        },
        PartitionMode::CollectLeft if probes == 1 || may_replicate_build(*join.join_type()) => {
            verify_build(join.left(), probes)
        }
        PartitionMode::CollectLeft => {
            internal_err!("rule 5: a {} join would lose or double rows of its build side", join.join_type())
        }
    }
}

/// A build side that several tasks read must come from an exchange, so that it is computed once.
fn verify_build(build: &Arc<dyn ExecutionPlan>, probes: usize) -> Result<()> {
    if partition_count(build) != 1 {
        return internal_err!("rule 5: a build side has {} partitions", partition_count(build));
    }
    if probes > 1 && !build.is::<ExchangeReaderExec>() {
        return internal_err!("rule 10: {} would be computed by each of {probes} tasks", build.name());
    }
    Ok(())
}

fn verify_co_partitioned(left: &Arc<dyn ExecutionPlan>, right: &Arc<dyn ExecutionPlan>) -> Result<()> {
    if partition_count(left) == partition_count(right) {
        return Ok(());
    }
    internal_err!("rule 9: a join's sides have {} and {} partitions", partition_count(left), partition_count(right))
}

fn verify_aggregate(aggregate: &AggregateExec) -> Result<()> {
    match aggregate.mode() {
        AggregateMode::Final | AggregateMode::Single if partition_count(aggregate.input()) > 1 => {
            internal_err!("rule 6: a final aggregate has {} input partitions", partition_count(aggregate.input()))
        }
        _ => Ok(()),
    }
}

/// A merge brings together what other tasks wrote, or all partitions of its own task.
fn verify_merge(merge: &Arc<dyn ExecutionPlan>, shape: TaskShape) -> Result<()> {
    let gathers = |c: &&Arc<dyn ExecutionPlan>| partition_count(c) == 1 || c.is::<ExchangeReaderExec>();
    if matches!(shape, TaskShape::Whole(_)) || merge.children().iter().all(gathers) {
        return Ok(());
    }
    internal_err!("rule 6: {} merges partitions that belong to other tasks", merge.name())
}

/// DataFusion's encoding cuts these to 32 bits. Rule 16.
fn verify_limits(node: &Arc<dyn ExecutionPlan>) -> Result<()> {
    let skip = node.downcast_ref::<GlobalLimitExec>().map(GlobalLimitExec::skip);
    let largest = skip.max(node.fetch()).unwrap_or(0);
    if u32::try_from(largest).is_ok() {
        return Ok(());
    }
    plan_err!("LIMIT or OFFSET {largest} is more than {}: leave it out", u32::MAX)
}

fn verify_reader(query: &StagedQuery, reader: &ExchangeReaderExec) -> Result<()> {
    let Some(producer) = query.stages.get(reader.stage.index()) else {
        return internal_err!("rule 18: the exchange reads stage {}, which does not exist", reader.stage);
    };
    let [input] = producer.plan.children()[..] else {
        return internal_err!("rule 19: stage {} has no writer", reader.stage);
    };
    if input.schema() != reader.schema() {
        return internal_err!("rule 18: the exchange declares other columns than stage {} writes", reader.stage);
    }
    Ok(())
}

fn partition_count(plan: &Arc<dyn ExecutionPlan>) -> usize {
    plan.output_partitioning().partition_count()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::JoinType;
    use datafusion::physical_expr::expressions::col;
    use datafusion::physical_plan::empty::EmptyExec;
    use datafusion::physical_plan::joins::HashJoinExecBuilder;

    use super::*;

    #[test]
    fn rule_09_sides_of_different_partition_counts_are_refused() -> Result<()> {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
        let side = |n| -> Arc<dyn ExecutionPlan> { Arc::new(EmptyExec::new(Arc::clone(&schema)).with_partitions(n)) };
        let verified = |left, right| -> Result<String> {
            let on = vec![(col("k", &schema)?, col("k", &schema)?)];
            let node = HashJoinExecBuilder::new(side(left), side(right), on, JoinType::Inner)
                .with_partition_mode(PartitionMode::Partitioned)
                .build_exec()?;
            let join =
                node.downcast_ref::<HashJoinExec>().map(|j| verify_hash_join(&node, j, TaskShape::PerPartition(4)));
            Ok(join.and_then(Result::err).map(|e| e.message().into_owned()).unwrap_or_default())
        };
        assert_eq!(verified(4, 4)?, "");
        assert!(verified(3, 4)?.contains("rule 9"));
        Ok(())
    }
}
