//! Where blocks come from and go to: traits, and the choice between the same process and another.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tidemill_core::record::{Footer, Pack};
use tidemill_core::schedule::LostOutput;
use tidemill_core::{Attempt, Epoch, ExecutorId, RunId, StageId, TaskId};

use super::{FlightBlocks, Holder, IoMetrics, Manifest, OutputFooter, PondSlot};
use crate::error::TaskError;

/// Batches of blocks. Ends with every row or with an error.
pub type BlockStream = BoxStream<'static, Result<RecordBatch, TaskError>>;

/// One block to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRequest {
    /// Whose output.
    pub task: TaskId,
    /// Which attempt's.
    pub attempt: Attempt,
    /// Which partition of it.
    pub partition: u32,
    /// Who holds it.
    pub holder: Holder,
    /// What its footer must be.
    pub footer: Footer,
    /// Where it is in the store, if it is: who loses its holder goes on there.
    pub pack: Option<Arc<Pack>>,
}

impl BlockRequest {
    /// The output this block belongs to, for reporting its loss.
    #[must_use]
    pub const fn output(&self) -> LostOutput {
        LostOutput { task: self.task, attempt: self.attempt }
    }
}

/// Fetches blocks, from this process or another.
pub trait BlockSource: fmt::Debug + Send + Sync {
    /// Reads the blocks, in no particular order among them; a block's frames come in order.
    fn read(&self, run: &RunId, blocks: Vec<BlockRequest>, schema: SchemaRef, metrics: Arc<IoMetrics>) -> BlockStream;
}

/// Takes the output of one attempt.
#[async_trait]
pub trait BlockSink: fmt::Debug + Send + Sync {
    /// Appends one frame to a partition's block. Waits while the budget is full.
    async fn push(&self, partition: u32, batch: RecordBatch) -> Result<(), TaskError>;
}

/// Blocks held by this process.
pub trait LocalBlocks: fmt::Debug + Send + Sync {
    /// This process's name as a holder.
    fn executor(&self) -> &ExecutorId;

    /// The footer of an output.
    ///
    /// # Errors
    /// It is not here: `LostInput`.
    fn footer(&self, run: &RunId, output: LostOutput) -> Result<Arc<OutputFooter>, TaskError>;

    /// The frames of a block, by reference where they are in memory.
    fn frames(&self, run: &RunId, block: &BlockRequest, schema: SchemaRef, metrics: Arc<IoMetrics>) -> BlockStream;
}

/// Reads blocks of this process by reference and others over Flight.
#[derive(Debug, Clone)]
pub struct BlockTransport {
    local: Option<Arc<dyn LocalBlocks>>,
    remote: Arc<FlightBlocks>,
    pond: PondSlot,
}

impl BlockTransport {
    /// A transport; `local` where this process holds blocks.
    #[must_use]
    pub fn new(local: Option<Arc<dyn LocalBlocks>>, remote: Arc<FlightBlocks>) -> Self {
        let pond = remote.pond().clone();
        Self { local, remote, pond }
    }

    fn read_local(
        &self,
        local: &Arc<dyn LocalBlocks>,
        run: &RunId,
        block: &BlockRequest,
        schema: SchemaRef,
        metrics: Arc<IoMetrics>,
    ) -> BlockStream {
        let frames = match local.footer(run, block.output()) {
            Ok(footer) => {
                let frames = local.frames(run, block, Arc::clone(&schema), Arc::clone(&metrics));
                super::merged::checked(frames, block.clone(), footer)
            }
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        };
        super::resume::or_pack(run, frames, block.clone(), self.pond.clone(), schema, metrics)
    }
}

impl BlockSource for BlockTransport {
    fn read(&self, run: &RunId, blocks: Vec<BlockRequest>, schema: SchemaRef, metrics: Arc<IoMetrics>) -> BlockStream {
        let mut here = Vec::new();
        let mut elsewhere: BTreeMap<Holder, Vec<BlockRequest>> = BTreeMap::new();
        for block in blocks {
            match &self.local {
                Some(local) if *local.executor() == block.holder.executor => {
                    here.push(self.read_local(local, run, &block, Arc::clone(&schema), Arc::clone(&metrics)));
                }
                _ => elsewhere.entry(block.holder.clone()).or_default().push(block),
            }
        }
        let mut streams: Vec<BlockStream> = Vec::new();
        if !here.is_empty() {
            streams.push(futures::stream::iter(here).flatten().boxed());
        }
        for (holder, blocks) in elsewhere {
            streams.push(self.remote.read(run, &holder, blocks, Arc::clone(&schema), Arc::clone(&metrics)));
        }
        super::merged::merge(streams)
    }
}

/// What a task's exchange nodes need, given to them through the session's extensions.
#[derive(Debug)]
pub struct TaskIo {
    /// The run.
    pub run: RunId,
    /// The epoch that launched the task.
    pub epoch: Epoch,
    /// Inputs by stage.
    pub manifests: BTreeMap<StageId, Manifest>,
    /// Where blocks come from.
    pub source: Arc<dyn BlockSource>,
    /// Where output goes.
    pub sink: Arc<dyn BlockSink>,
    /// What it costs.
    pub metrics: Arc<IoMetrics>,
}
