//! One attempt: decode a fresh plan, execute its partitions, hold the output.
//!
//! Invariant: nothing is shared between attempts but the process's memory pool, object stores and caches.

mod accounted;
mod inputs;
mod metrics;
mod operators;
mod rows;
mod sink;
mod so_far;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNode;
use datafusion::config::ConfigOptions;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use futures::TryStreamExt;
use prost::Message;
use tidemill_core::record::{Footer, LOCAL, OperatorMetrics, RowCounts, TaskMetrics};
use tidemill_core::schedule::LostOutput;
use tidemill_core::{Attempt, BlobHash, Epoch, Error, Result, RunId, TaskId};
use tidemill_engine::error::TaskError;
use tidemill_engine::exchange::{ExchangeWriterExec, IoMetrics, TaskIo};
use tidemill_engine::files::FileAccess;
use tidemill_engine::pinned::PinnedFiles;
use tidemill_engine::plan::{TaskPlan, stage_codec, task_plan};
use tidemill_engine::runtime::{register_stores, task_config};
use tidemill_engine::wire::{self, missing};
use tokio::task::JoinSet;

pub(crate) use self::so_far::SoFar;
use crate::packer::{DurableSink, Finished};
use crate::process::ExecutorShared;

/// An attempt as the coordinator launched it.
#[derive(Debug, Clone)]
pub(crate) struct AttemptSpec {
    pub(crate) run: RunId,
    pub(crate) task: TaskId,
    pub(crate) attempt: Attempt,
    pub(crate) launch: wire::Launch,
}

impl AttemptSpec {
    pub(crate) fn new(launch: wire::Launch) -> Result<Self> {
        let reference = launch.attempt.clone().ok_or_else(|| missing("Launch.attempt"))?;
        Ok(Self {
            run: RunId(reference.run.clone()),
            task: reference.task.ok_or_else(|| missing("AttemptRef.task"))?.into(),
            attempt: reference.attempt.ok_or_else(|| missing("AttemptRef.attempt"))?.into(),
            launch,
        })
    }

    const fn output(&self) -> LostOutput {
        LostOutput { task: self.task, attempt: self.attempt }
    }

    const fn epoch(&self) -> Epoch {
        self.attempt.epoch
    }
}

/// What a finished attempt tells.
pub(crate) struct Done {
    pub(crate) footer: Footer,
    pub(crate) metrics: TaskMetrics,
    /// The same by operator, where the run asked for it.
    pub(crate) operators: Vec<OperatorMetrics>,
    /// What became of its rows; none where that cannot be known.
    pub(crate) rows: Option<RowCounts>,
}

/// Runs an attempt to its end and makes its output visible.
pub(crate) async fn run(
    shared: Arc<ExecutorShared>,
    spec: AttemptSpec,
    so_far: Arc<SoFar>,
) -> std::result::Result<Done, TaskError> {
    let prepared = prepare(&shared, &spec).await?;
    let plan = Arc::clone(&prepared.plan);
    so_far.begin(&plan, &prepared.io.metrics);
    let executed = execute(&spec, &prepared).await;
    let (finished, written) = executed.map_err(|error| prepared.pinned.changed().map_or(error, TaskError::from))?;
    let metrics = metrics::collect(&plan, &prepared.io.metrics, &finished);
    let operators = if prepared.tells_operators { operators::collect(&plan) } else { Vec::new() };
    let rows = rows::count(&plan, written);
    Ok(Done { footer: finished.footer.summary(), metrics, operators, rows })
}

/// What an attempt executes.
struct Prepared {
    plan: Arc<dyn ExecutionPlan>,
    /// The partition of `plan` to execute; `None` for all.
    partition: Option<usize>,
    context: Arc<TaskContext>,
    io: Arc<TaskIo>,
    sink: Arc<DurableSink>,
    stage: wire::StageSpec,
    pinned: PinnedFiles,
    /// What it may write.
    files: FileAccess,
    /// Whether the run asked what each operator did.
    tells_operators: bool,
}

async fn prepare(shared: &Arc<ExecutorShared>, spec: &AttemptSpec) -> std::result::Result<Prepared, TaskError> {
    let began = Instant::now();
    let stage = shared.blobs.get(&BlobHash(spec.launch.stage.clone())).await?;
    let stage = wire::StageSpec::decode(stage).map_err(|e| undecodable("stage", &e))?;
    let session = shared.blobs.get(&BlobHash(spec.launch.session.clone())).await?;
    let session = wire::SessionSpec::decode(session).map_err(|e| undecodable("session", &e))?;
    for store in &session.stores {
        let url = url::Url::parse(store).map_err(|e| Error::internal(format!("`{store}` is no store: {e}")))?;
        register_stores(&shared.runtime, [&url])?;
    }
    let (durability, tells_operators) = (session.durability(), session.operator_metrics);
    let metrics = Arc::new(IoMetrics::default());
    let manifests = inputs::manifests(shared, spec).await?;
    let values = inputs::values(shared, spec, &stage, &manifests, &metrics).await?;
    let mut config = task_config(&session.config.into_iter().collect())?;
    // The writer decides how many blocks there are, so the plan is decoded before its sink is made.
    // Readers of some formats take their store while they are decoded.
    let pinned = PinnedFiles::of(&values.scans);
    let runtime = pinned.runtime(&shared.runtime);
    let bare = shared.task_context(spec.attempt, config.clone(), Arc::clone(&runtime));
    let decoded = stage_codec().decode(&stage.plan, values, &bare)?;
    let own = (stage.whole_partitions == 0).then_some(spec.task.index as usize);
    let TaskPlan { plan, partition } = task_plan(decoded, own, config.options_mut())?;
    let plan = accounted::account(plan)?;
    fit_memory(config.options_mut(), &plan, shared.config.memory.operators)?;
    let blocks = match plan.downcast_ref::<ExchangeWriterExec>() {
        Some(writer) if stage.sink.is_empty() => writer.output_partitions(),
        Some(_) => 1,
        None => return Err(Error::internal("a stage's plan has no exchange writer").into()),
    };
    let blocks = u32::try_from(blocks).map_err(|_| Error::internal("an output has too many blocks"))?;
    // What shares the coordinator's process is lost with it: nothing of it is repeated.
    let exact = if shared.config.endpoint == LOCAL { Vec::new() } else { stage.exact.clone() };
    let held = Arc::new(shared.store.sink(&spec.run, spec.output(), blocks, session.force_encode, exact));
    let sink = Arc::new(shared.packer.sink(&spec.run, spec.output(), held, durability, began));
    let io = Arc::new(TaskIo {
        run: spec.run.clone(),
        epoch: spec.epoch(),
        manifests,
        source: Arc::clone(&shared.source),
        sink: Arc::clone(&sink) as _,
        metrics,
    });
    let config = config.with_extension(Arc::clone(&io));
    let context = Arc::new(shared.task_context(spec.attempt, config, runtime));
    let files = shared.config.files.clone();
    Ok(Prepared { plan, partition, context, io, sink, stage, pinned, files, tells_operators })
}

/// What DataFusion reserves and assumes on machines of many gigabytes, cut to this executor's size.
fn fit_memory(
    options: &mut ConfigOptions,
    plan: &Arc<dyn ExecutionPlan>,
    operators: usize,
) -> datafusion::error::Result<()> {
    // A sort could otherwise not begin to spill.
    let reserved = &mut options.execution.sort_spill_reservation_bytes;
    *reserved = (*reserved).min(operators / 32);
    // Rows of fixed width are sorted in place when they spill, in memory that was counted when they came: merging their
    // batches instead needs as much again for their keys, when none is left. Strings are kept where they are, and once
    // put together each would be counted for all.
    let has_views = |node: &Arc<dyn ExecutionPlan>| {
        node.schema().fields().iter().any(|f| matches!(f.data_type(), DataType::Utf8View | DataType::BinaryView))
    };
    if !plan.exists(|node| Ok(node.is::<SortExec>() && has_views(node)))? {
        let in_place = &mut options.execution.sort_in_place_threshold_bytes;
        *in_place = (*in_place).max(operators);
    }
    Ok(())
}

fn undecodable(what: &str, error: &prost::DecodeError) -> Error {
    Error::internal(format!("a {what} cannot be decoded ({error}): do both processes run the same build?"))
}

/// Executes the task's partitions and makes the output visible. Answers how many of their rows were written, too, if that is told.
async fn execute(spec: &AttemptSpec, prepared: &Prepared) -> std::result::Result<(Finished, Option<u64>), TaskError> {
    let written = if prepared.stage.sink.is_empty() {
        run_partitions(prepared).await?;
        Some(prepared.io.metrics.rows_out.load(Ordering::Relaxed))
    } else {
        sink::write(spec, prepared).await?
    };
    let start = Instant::now();
    let finished = prepared.sink.finish().await;
    IoMetrics::add_since(&prepared.io.metrics.exchange_ns, start);
    Ok((finished, written))
}

/// One partition, or all of them side by side: never another subset.
async fn run_partitions(prepared: &Prepared) -> std::result::Result<(), TaskError> {
    if let Some(partition) = prepared.partition {
        return drain(Arc::clone(&prepared.plan), partition, Arc::clone(&prepared.context)).await;
    }
    let mut partitions = JoinSet::new();
    for partition in 0..prepared.stage.whole_partitions as usize {
        partitions.spawn(drain(Arc::clone(&prepared.plan), partition, Arc::clone(&prepared.context)));
    }
    while let Some(joined) = partitions.join_next().await {
        joined.map_err(|e| Error::internal(format!("a partition of the task panicked: {e}")))??;
    }
    Ok(())
}

async fn drain(
    plan: Arc<dyn ExecutionPlan>,
    partition: usize,
    context: Arc<TaskContext>,
) -> std::result::Result<(), TaskError> {
    let mut stream = plan.execute(partition, context)?;
    while stream.try_next().await?.is_some() {}
    Ok(())
}
