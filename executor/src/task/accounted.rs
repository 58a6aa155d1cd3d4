//! Memory of operators that hold all their input without saying so.
//!
//! ```text
//! WindowAggExec            WindowAggExec
//!   SortExec        →        AccountedExec
//!                              SortExec
//! ```
//!
//! A window whose frames reach to the end of their partition keeps every row of the task, and DataFusion does not count
//! them. Counted, they end in an error that names the operator instead of a dead process.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayData};
use arrow::buffer::Buffer;
use arrow::record_batch::RecordBatch;
use datafusion::common::internal_err;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::WindowAggExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;

/// Puts an accountant below every operator that keeps its input uncounted.
pub(super) fn account(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let accounted = plan.transform_up(|node| {
        if !node.is::<WindowAggExec>() {
            return Ok(Transformed::no(node));
        }
        let children = node.children().into_iter();
        let children = children.map(|child| Arc::new(AccountedExec { input: Arc::clone(child) }) as _).collect();
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        Ok(Transformed::yes(node.replace_children(children, options)?))
    });
    Ok(accounted?.data)
}

/// Counts what passes through it until its stream is dropped.
#[derive(Debug)]
pub(super) struct AccountedExec {
    pub(super) input: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for AccountedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountedExec")
    }
}

impl ExecutionPlan for AccountedExec {
    fn name(&self) -> &'static str {
        "AccountedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(Self { input })),
            None => internal_err!("an accountant needs an input"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let held = MemoryConsumer::new(format!("WindowAggExec[{partition}]")).register(context.memory_pool());
        let input = self.input.execute(partition, context)?;
        let schema = input.schema();
        let state = (input, held, HashSet::new());
        let counted = futures::stream::unfold(state, |(mut input, held, mut seen)| async move {
            let batch = input.next().await?;
            let counted = batch.and_then(|b| held.try_grow(new_bytes(&b, &mut seen)).map(|()| b));
            Some((counted, (input, held, seen)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, counted)))
    }
}

/// Bytes of buffers that no earlier batch had: batches of a sort share those of their strings.
fn new_bytes(batch: &RecordBatch, seen: &mut HashSet<usize>) -> usize {
    fn visit(data: &ArrayData, seen: &mut HashSet<usize>) -> usize {
        let nulls = data.nulls().map(|n| n.buffer());
        let buffers = data.buffers().iter().chain(nulls);
        let own: usize = buffers.filter(|b| seen.insert(b.data_ptr().as_ptr() as usize)).map(Buffer::capacity).sum();
        own + data.child_data().iter().map(|child| visit(child, seen)).sum::<usize>()
    }
    batch.columns().iter().map(|column| visit(&column.to_data(), seen)).sum()
}
