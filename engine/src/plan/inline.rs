//! Leaves that only this process can produce (the information schema, generated series) become rows in the plan.
//!
//! ```text
//! Filter                          Filter
//!   StreamingTableExec     →        DataSourceExec (memory)
//! ```
//!
//! Rule 3. Their rows are few: they describe the catalogue. More than [`MAX_BYTES`] is refused.

use std::sync::Arc;

use datafusion::common::resources_datafusion_err;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::streaming::StreamingTableExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::StreamExt;

/// Bytes that one leaf may add to a plan.
const MAX_BYTES: usize = 16 << 20;

pub(super) async fn inline_local_leaves(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut leaves = Vec::new();
    plan.apply(|node| {
        if is_local(node) {
            leaves.push(Arc::clone(node));
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    let mut inlined = Vec::new();
    for leaf in leaves {
        let rows = read(&leaf, &context).await?;
        inlined.push((leaf, rows));
    }
    let replaced = plan.transform_up(|node| {
        let found = inlined.iter().find(|(leaf, _)| Arc::ptr_eq(leaf, &node));
        Ok(found.map_or_else(|| Transformed::no(Arc::clone(&node)), |(_, rows)| Transformed::yes(Arc::clone(rows))))
    });
    Ok(replaced?.data)
}

fn is_local(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let bounded = !plan.boundedness().is_unbounded();
    bounded && (plan.is::<StreamingTableExec>() || plan.is::<LazyMemoryExec>())
}

async fn read(leaf: &Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> Result<Arc<dyn ExecutionPlan>> {
    let mut partitions = Vec::new();
    let mut bytes = 0;
    for partition in 0..leaf.output_partitioning().partition_count() {
        let mut stream = leaf.execute(partition, Arc::clone(context))?;
        let mut batches = Vec::new();
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            bytes += batch.get_array_memory_size();
            if bytes > MAX_BYTES {
                return Err(resources_datafusion_err!(
                    "{} gives more than {MAX_BYTES} bytes, which is too much to send with a plan: write it to a file and \
                     read that",
                    leaf.name()
                ));
            }
            batches.push(batch);
        }
        partitions.push(batches);
    }
    // Nodes above may have been planned by the order of the leaf.
    let ordering = leaf.equivalence_properties().output_ordering().into_iter().collect();
    let rows = MemorySourceConfig::try_new(&partitions, leaf.schema(), None)?.try_with_sort_information(ordering)?;
    Ok(DataSourceExec::from_data_source(rows))
}
