//! The leaf of a consumer's plan: reads a producer stage's output.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{internal_datafusion_err, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, SchedulingType,
};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::StreamExt;
use tidemill_core::{StageId, TaskId};

use super::{BlockRequest, BlockStream, IoMetrics, Manifest, TaskIo};

/// Which blocks a partition of the reader holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// Partition p: block p of every task.
    Hash,
    /// Partition p: the only block of task p.
    PerTask,
    /// The only partition: the only block of every task.
    All,
}

/// Reads a producer stage's output.
#[derive(Debug)]
pub struct ExchangeReaderExec {
    /// The producer.
    pub stage: StageId,
    /// Which blocks a partition holds.
    pub mode: ReadMode,
    /// The stage's partition that is this plan's only one.
    only: Option<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ExchangeReaderExec {
    /// A reader that truthfully declares what the exchange keeps of the producer's properties.
    #[must_use]
    pub fn new(stage: StageId, mode: ReadMode, equivalence: EquivalenceProperties, partitioning: Partitioning) -> Self {
        let properties =
            PlanProperties::new(equivalence, partitioning, EmissionType::Incremental, Boundedness::Bounded)
                .with_scheduling_type(SchedulingType::Cooperative);
        Self { stage, mode, only: None, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }

    /// The reader of one partition alone.
    #[must_use]
    pub fn narrowed(&self, partition: usize) -> Self {
        let partitioning = match self.properties.output_partitioning() {
            Partitioning::Hash(keys, _) => Partitioning::Hash(keys.clone(), 1),
            _ => Partitioning::UnknownPartitioning(1),
        };
        let equivalence = self.properties.equivalence_properties().clone();
        Self { only: Some(partition), ..Self::new(self.stage, self.mode, equivalence, partitioning) }
    }

    fn requests(&self, manifest: &Manifest, partition: usize) -> Result<Vec<BlockRequest>> {
        let block = |index: usize, partition: usize| {
            let output = manifest.outputs.get(index).ok_or_else(|| {
                internal_datafusion_err!("stage {} has no task {index}: its manifest lacks it", self.stage)
            })?;
            let number = |n: usize| u32::try_from(n).map_err(|_| internal_datafusion_err!("{n} is no task number"));
            Ok(BlockRequest {
                task: TaskId { stage: self.stage, index: number(index)? },
                attempt: output.attempt,
                partition: number(partition)?,
                holder: output.holder.clone(),
                footer: output.footer,
                pack: output.pack.clone(),
            })
        };
        match self.mode {
            ReadMode::Hash => (0..manifest.outputs.len()).map(|task| block(task, partition)).collect(),
            ReadMode::PerTask => Ok(vec![block(partition, 0)?]),
            ReadMode::All if partition == 0 => (0..manifest.outputs.len()).map(|task| block(task, 0)).collect(),
            ReadMode::All => internal_err!("a broadcast has one partition, not {partition}"),
        }
    }
}

impl DisplayAs for ExchangeReaderExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            ReadMode::Hash => "hash",
            ReadMode::PerTask => "gather",
            ReadMode::All => "broadcast",
        };
        write!(f, "ExchangeReaderExec: stage={}, {mode}", self.stage)?;
        if let Some(ordering) = self.properties.output_ordering() {
            write!(f, ", ordering=[{ordering}]")?;
        }
        Ok(())
    }
}

impl ExecutionPlan for ExchangeReaderExec {
    fn name(&self) -> &'static str {
        "ExchangeReaderExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
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
        let Some(io) = context.session_config().get_extension::<TaskIo>() else {
            return internal_err!("an exchange reader runs outside a task");
        };
        let Some(manifest) = io.manifests.get(&self.stage) else {
            return internal_err!("the task was given no manifest of stage {}", self.stage);
        };
        let schema = self.schema();
        let requests = self.requests(manifest, self.only.unwrap_or(partition))?;
        let blocks = io.source.read(&io.run, requests, Arc::clone(&schema), Arc::clone(&io.metrics));
        let rows = MetricBuilder::new(&self.metrics).output_rows(partition);
        let expected = Arc::clone(&schema);
        let metrics = Arc::clone(&io.metrics);
        let batches = timed(blocks, Arc::clone(&metrics)).map(move |batch| {
            let batch = batch.map_err(DataFusionError::from)?;
            rows.add(batch.num_rows());
            IoMetrics::add(&metrics.rows_in, batch.num_rows() as u64);
            with_schema(batch, &expected)
        });
        // Local blocks are always ready: without yielding, a task could not be stopped.
        Ok(make_cooperative(Box::pin(RecordBatchStreamAdapter::new(schema, batches))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Gives a batch the planned schema: nullability may drift when literals replace subqueries.
fn with_schema(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

/// Counts the time in which the consumer had nothing to read.
fn timed(blocks: BlockStream, metrics: Arc<IoMetrics>) -> BlockStream {
    futures::stream::unfold((blocks, metrics), |(mut blocks, metrics)| async move {
        let start = Instant::now();
        let next = blocks.next().await;
        IoMetrics::add_since(&metrics.wait_ns, start);
        next.map(|batch| (batch, (blocks, metrics)))
    })
    .boxed()
}
