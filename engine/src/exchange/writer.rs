//! The root of a producer's plan: partitions its input's rows into blocks.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use arrow::compute::BatchCoalescer;
use arrow::datatypes::DataType;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::internal_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::Time;
use datafusion::physical_plan::repartition::BatchPartitioner;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures::{StreamExt, TryStreamExt};

use super::{IoMetrics, TaskIo};

/// Rows of one frame, at the most.
const FRAME_ROWS: usize = 8192;
/// Rows that all of a task's unfinished frames hold, at the most: many partitions get smaller frames.
const UNFINISHED_ROWS: usize = 16 * FRAME_ROWS;
/// Rows of one frame, at the least.
const LEAST_FRAME_ROWS: usize = 256;

/// Writes its input's rows to blocks and yields nothing.
#[derive(Debug)]
pub struct ExchangeWriterExec {
    /// The stage's plan.
    pub input: Arc<dyn ExecutionPlan>,
    /// How rows are divided; `None` for one block.
    pub partitioning: Option<Partitioning>,
    properties: Arc<PlanProperties>,
}

impl ExchangeWriterExec {
    /// A writer of `input`'s rows.
    #[must_use]
    pub fn new(input: Arc<dyn ExecutionPlan>, partitioning: Option<Partitioning>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { input, partitioning, properties: Arc::new(properties) }
    }

    /// Blocks of each output.
    #[must_use]
    pub fn output_partitions(&self) -> usize {
        self.partitioning.as_ref().map_or(1, Partitioning::partition_count)
    }
}

impl DisplayAs for ExchangeWriterExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.partitioning {
            Some(partitioning) => write!(f, "ExchangeWriterExec: {partitioning}"),
            None => write!(f, "ExchangeWriterExec"),
        }
    }
}

impl ExecutionPlan for ExchangeWriterExec {
    fn name(&self) -> &'static str {
        "ExchangeWriterExec"
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
            Some(input) => Ok(Arc::new(Self::new(input, self.partitioning.clone()))),
            None => internal_err!("an exchange writer needs an input"),
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
        let Some(io) = context.session_config().get_extension::<TaskIo>() else {
            return internal_err!("an exchange writer runs outside a task");
        };
        let input = self.input.execute(partition, context)?;
        let partitioning = self.partitioning.clone();
        let schema = self.schema();
        let done = futures::stream::once(write(input, partitioning, io))
            .try_filter_map(|()| async { Ok(None::<RecordBatch>) });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, done)))
    }
}

async fn write(
    mut input: SendableRecordBatchStream,
    partitioning: Option<Partitioning>,
    io: Arc<TaskIo>,
) -> Result<()> {
    let partitions = partitioning.as_ref().map_or(1, Partitioning::partition_count);
    let mut output = Output::new(&input, partitions, Arc::clone(&io));
    let time = Time::new();
    let mut partitioner = match partitioning {
        Some(Partitioning::Hash(exprs, n)) if n > 1 => Some(BatchPartitioner::new_hash_partitioner(exprs, n, time)?),
        Some(Partitioning::Range(range)) => Some(BatchPartitioner::new_range_partitioner(&range, time)),
        Some(Partitioning::Hash(..)) | None => None,
        Some(other) => return internal_err!("rule 6: no exchange writes {other}"),
    };
    while let Some(batch) = input.next().await {
        let batch = batch?;
        let start = Instant::now();
        match &mut partitioner {
            Some(partitioner) => {
                let parts: Vec<(usize, RecordBatch)> = partitioner.partition_iter(batch)?.collect::<Result<_>>()?;
                for (partition, part) in parts {
                    output.append(partition, part).await?;
                }
            }
            None => output.append(0, batch).await?,
        }
        IoMetrics::add_since(&io.metrics.exchange_ns, start);
    }
    output.finish().await
}

/// The last frame of a block was allocated for many more rows than it has, and strings of any frame for up to a mebibyte.
fn shrunk(frame: RecordBatch) -> Result<RecordBatch> {
    let has_views =
        || frame.columns().iter().any(|c| matches!(c.data_type(), DataType::Utf8View | DataType::BinaryView));
    if frame.num_rows() >= LEAST_FRAME_ROWS && !has_views() {
        return Ok(frame);
    }
    let (schema, mut columns, rows) = frame.into_parts();
    for column in &mut columns {
        if let Some(column) = Arc::get_mut(column) {
            column.shrink_to_fit();
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// Collects rows into frames, one unfinished frame per partition. Coalescing also compacts string views, which would
/// otherwise drag the buffers of the whole input batch into every partition.
struct Output {
    coalescers: Vec<BatchCoalescer>,
    io: Arc<TaskIo>,
}

impl Output {
    fn new(input: &SendableRecordBatchStream, partitions: usize, io: Arc<TaskIo>) -> Self {
        let rows = (UNFINISHED_ROWS / partitions).clamp(LEAST_FRAME_ROWS, FRAME_ROWS);
        let coalescers = (0..partitions).map(|_| BatchCoalescer::new(input.schema(), rows)).collect();
        Self { coalescers, io }
    }

    async fn append(&mut self, partition: usize, batch: RecordBatch) -> Result<()> {
        let Some(coalescer) = self.coalescers.get_mut(partition) else {
            return internal_err!("partition {partition} of an exchange does not exist");
        };
        coalescer.push_batch(batch)?;
        self.push_completed(partition).await
    }

    async fn push_completed(&mut self, partition: usize) -> Result<()> {
        let Some(coalescer) = self.coalescers.get_mut(partition) else { return Ok(()) };
        while let Some(frame) = coalescer.next_completed_batch() {
            let frame = shrunk(frame)?;
            IoMetrics::add(&self.io.metrics.rows_out, frame.num_rows() as u64);
            IoMetrics::add(&self.io.metrics.bytes_out, frame.get_array_memory_size() as u64);
            let number = u32::try_from(partition).unwrap_or(u32::MAX);
            self.io.sink.push(number, frame).await.map_err(DataFusionError::from)?;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<()> {
        for partition in 0..self.coalescers.len() {
            if let Some(coalescer) = self.coalescers.get_mut(partition) {
                coalescer.finish_buffered_batch()?;
            }
            self.push_completed(partition).await?;
        }
        Ok(())
    }
}
