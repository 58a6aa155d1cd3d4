//! The plan that a task executes: of its stage's partitions only its own, with the filters that joins and sorts make
//! while they run.
//!
//! ```text
//! HashJoin CollectLeft (4)                 HashJoin CollectLeft (1), makes a filter
//!   Reader stage=0, broadcast (1)   →        Reader stage=0, broadcast (1)
//!   scan a.parquet … d.parquet (4)           scan c.parquet (1), waits for nobody, skips by the filter
//! ```
//!
//! Rule 12, the half inside a task: a join's filter is complete when all partitions of *its* plan have built. In a plan
//! of one partition that is this task alone, so no filter waits for another task.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNode;
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::filter_pushdown::FilterPushdown;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::with_children;
use crate::exchange::ExchangeReaderExec;
use crate::runtime::allow_filters_in_task;

/// What a task executes, and which partition of it.
#[derive(Debug)]
pub struct TaskPlan {
    /// The plan, with the stage's exchange writer as root.
    pub plan: Arc<dyn ExecutionPlan>,
    /// The partition that is the task's own; `None` if it executes all.
    pub partition: Option<usize>,
}

/// Makes the plan of a task from its stage's, freshly decoded; `partition` is the one it executes, or `None` for all.
/// `options` are those it will be executed with.
///
/// # Errors
/// DataFusion cannot push a filter down.
pub fn task_plan(
    plan: Arc<dyn ExecutionPlan>,
    partition: Option<usize>,
    options: &mut ConfigOptions,
) -> Result<TaskPlan> {
    let narrowed = match partition {
        None => TaskPlan { plan, partition },
        Some(number) => match narrow(&plan, number)? {
            Some(plan) => TaskPlan { plan, partition: Some(0) },
            // A leaf that cannot be narrowed: executed as it is, and without filters.
            None => return Ok(TaskPlan { plan, partition }),
        },
    };
    // A filter of one step of a recursion would stay for the next.
    if narrowed.plan.exists(|node| Ok(node.is::<RecursiveQueryExec>()))? {
        return Ok(narrowed);
    }
    allow_filters_in_task(options);
    let plan = FilterPushdown::new_post_optimization().optimize(narrowed.plan, options)?;
    Ok(TaskPlan { plan, ..narrowed })
}

/// The plan whose only partition is partition `number` of `plan`.
fn narrow(plan: &Arc<dyn ExecutionPlan>, number: usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if count(plan) == 1 {
        return Ok(Some(Arc::clone(plan)));
    }
    if let Some(reader) = plan.downcast_ref::<ExchangeReaderExec>() {
        return Ok(Some(Arc::new(reader.narrowed(number))));
    }
    if let Some(empty) = plan.downcast_ref::<EmptyExec>() {
        return Ok(Some(Arc::new(EmptyExec::new(empty.schema()))));
    }
    if plan.is::<UnionExec>() {
        return narrow_union(plan, number);
    }
    if plan.children().is_empty() {
        return Ok(narrow_scan(plan, number));
    }
    if plan.is::<RepartitionExec>() {
        return Ok(None);
    }
    let mut children = Vec::with_capacity(plan.children().len());
    for child in plan.children() {
        // A build side is one partition already; everything else has the node's own.
        match narrow(child, number)? {
            Some(child) => children.push(child),
            None => return Ok(None),
        }
    }
    with_children(plan, children).map(Some)
}

fn narrow_scan(plan: &Arc<dyn ExecutionPlan>, number: usize) -> Option<Arc<dyn ExecutionPlan>> {
    let source = plan.downcast_ref::<DataSourceExec>()?;
    let config = source.data_source().downcast_ref::<FileScanConfig>()?;
    let group = config.file_groups.get(number)?.clone();
    let one = FileScanConfigBuilder::from(config.clone()).with_file_groups(vec![group]).with_output_partitioning(None);
    Some(DataSourceExec::from_data_source(one.build()))
}

/// The other inputs stay, without partitions: the union's columns are those of all of them.
fn narrow_union(plan: &Arc<dyn ExecutionPlan>, number: usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let mut start = 0;
    let mut inputs = Vec::with_capacity(plan.children().len());
    for input in plan.children() {
        let end = start + count(input);
        inputs.push(match (start..end).contains(&number) {
            false => Arc::new(EmptyExec::new(input.schema()).with_partitions(0)) as _,
            true => match narrow(input, number - start)? {
                Some(input) => input,
                None => return Ok(None),
            },
        });
        start = end;
    }
    with_children(plan, inputs).map(Some)
}

fn count(plan: &Arc<dyn ExecutionPlan>) -> usize {
    plan.output_partitioning().partition_count()
}
