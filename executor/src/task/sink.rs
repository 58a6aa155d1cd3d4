//! A task of a statement that writes files: its rows go to a file of its own, its block holds their count. Rule 14.

use std::sync::Arc;

use arrow::array::UInt64Array;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use tidemill_core::Error;
use tidemill_engine::crash;
use tidemill_engine::dataset::DatasetSink;
use tidemill_engine::error::TaskError;
use tidemill_engine::exchange::{BlockSink, ExchangeWriterExec, IoMetrics};
use tidemill_engine::files::{check_writable, on_disk};
use tidemill_engine::plan::{SinkTarget, file_of, redirect, stage_codec};

use super::{AttemptSpec, Prepared};

/// Answers how many rows a dataset took, if it counts all of them: not where it keeps old ones, too. What others count is their own.
pub(super) async fn write(spec: &AttemptSpec, prepared: &Prepared) -> Result<Option<u64>, TaskError> {
    let exec = stage_codec().decode(&prepared.stage.sink, Default::default(), &prepared.context)?;
    let Some(exec) = exec.downcast_ref::<DataSinkExec>() else {
        return Err(Error::internal("rule 14: a sink decoded as something else").into());
    };
    let sink = sink_of(spec, prepared, exec)?;
    check_place(spec, sink.as_ref()).await?;
    let Some(writer) = prepared.plan.downcast_ref::<ExchangeWriterExec>() else {
        return Err(Error::internal("a stage's plan has no exchange writer").into());
    };
    let rows = match prepared.partition {
        Some(partition) => writer.input.execute(partition, Arc::clone(&prepared.context))?,
        None => merged(&writer.input).execute(0, Arc::clone(&prepared.context))?,
    };
    crash::before("sink.write");
    let count = sink.write_all(rows, &prepared.context).await?;
    crash::after("sink.write");
    let schema = Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)]));
    let counts = Arc::new(UInt64Array::from(vec![count]));
    let batch = RecordBatch::try_new(schema, vec![counts]).map_err(DataFusionError::from)?;
    IoMetrics::add(&prepared.io.metrics.rows_out, 1);
    prepared.sink.push(0, batch).await?;
    let dataset = exec.sink().downcast_ref::<DatasetSink>();
    Ok(dataset.filter(|sink| !sink.write().keeps).map(|_| count))
}

/// The statement's sink, for this attempt alone.
fn sink_of(spec: &AttemptSpec, prepared: &Prepared, exec: &DataSinkExec) -> Result<Arc<dyn DataSink>, TaskError> {
    if let Some(dataset) = exec.sink().downcast_ref::<DatasetSink>() {
        prepared.files.check(&dataset.write().location)?;
        return Ok(Arc::new(dataset.of_attempt(spec.task.index, spec.attempt)));
    }
    let single = prepared.stage.sink_single_file;
    let mut refused = None;
    let sink = redirect(exec, |config| {
        // What the store says of it would get lost among the words of who writes.
        refused = config.table_paths.iter().find_map(|path| prepared.files.check(path.as_str()).err());
        match single {
            true => {
                let file = config.table_paths.first().map(|path| path.as_str().rsplit('/').next().unwrap_or_default());
                SinkTarget::hidden(file.unwrap_or_default(), &spec.run, spec.attempt)
            }
            false => SinkTarget::part(&spec.run, spec.task.index, spec.attempt, &config.file_extension),
        }
    })?;
    if let Some(refused) = refused {
        return Err(refused.into());
    }
    Ok(sink)
}

/// Sees that files can be made where the sink writes.
async fn check_place(spec: &AttemptSpec, sink: &dyn DataSink) -> Result<(), TaskError> {
    let file = match sink.downcast_ref::<DatasetSink>() {
        Some(dataset) => {
            let own = format!(".{}-{}-{}", spec.run, spec.task.index, spec.attempt);
            on_disk(dataset.write().folder()?.get_url()).map(|folder| folder.join(own))
        }
        None => file_of(sink),
    };
    match file {
        Some(file) => Ok(check_writable(file).await?),
        None => Ok(()),
    }
}

/// All partitions as one, in their order if they have one.
fn merged(input: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match input.output_ordering() {
        Some(ordering) => Arc::new(SortPreservingMergeExec::new(ordering.clone(), Arc::clone(input))),
        None => Arc::new(CoalescePartitionsExec::new(Arc::clone(input))),
    }
}
