//! A place in a physical plan where data changes tasks. Stands in plans between the passes that find such places and
//! the cut; never executed.

use std::fmt;
use std::sync::Arc;

use datafusion::common::internal_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};

/// How rows go from the producer's tasks to the consumer's.
#[derive(Debug, Clone)]
pub enum Transfer {
    /// By this partitioning of rows.
    Hash(Partitioning),
    /// Every task's output stays a partition of its own, read by one task.
    Gather,
    /// The same, each in its order.
    SortedGather,
    /// Everything to everybody, as one partition.
    Broadcast,
}

/// A cut: its input becomes a stage.
#[derive(Debug)]
pub struct ExchangeExec {
    /// The plan of the producer.
    pub input: Arc<dyn ExecutionPlan>,
    /// How rows travel.
    pub transfer: Transfer,
    properties: Arc<PlanProperties>,
}

impl ExchangeExec {
    /// A cut above `input`.
    #[must_use]
    pub fn new(input: Arc<dyn ExecutionPlan>, transfer: Transfer) -> Self {
        let partitions = input.output_partitioning().partition_count();
        // Rows lose their order and meet rows of other partitions; columns that are equal stay so.
        let unordered = || {
            let mut equivalence = input.equivalence_properties().clone();
            if partitions == 1 {
                return equivalence; // One producer's rows arrive as they were sent.
            }
            equivalence.clear_orderings();
            equivalence.clear_per_partition_constants();
            equivalence
        };
        let (equivalence, partitioning) = match &transfer {
            Transfer::Hash(partitioning) => (unordered(), partitioning.clone()),
            Transfer::Broadcast => (unordered(), Partitioning::UnknownPartitioning(1)),
            Transfer::Gather => (unordered(), Partitioning::UnknownPartitioning(partitions)),
            // Partitions are the producer's, row for row: what holds for one holds for the other.
            Transfer::SortedGather => {
                (input.equivalence_properties().clone(), Partitioning::UnknownPartitioning(partitions))
            }
        };
        let properties =
            PlanProperties::new(equivalence, partitioning, EmissionType::Incremental, Boundedness::Bounded);
        Self { input, transfer, properties: Arc::new(properties) }
    }
}

impl DisplayAs for ExchangeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExchangeExec: {:?}", self.transfer)
    }
}

impl ExecutionPlan for ExchangeExec {
    fn name(&self) -> &'static str {
        "ExchangeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(Self::new(input, self.transfer.clone()))),
            None => internal_err!("an exchange needs an input"),
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

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        internal_err!("an exchange marker was executed: the plan was not cut into stages")
    }
}
