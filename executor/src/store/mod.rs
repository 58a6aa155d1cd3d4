//! Exchange data held by this process: in memory up to a budget, beyond it on local disk.
//!
//! Invariant: an output is visible to readers only when it is finished, with its footer. Releasing a run removes all of
//! it, finished or not, from memory and disk.

mod output;
mod sink;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use tidemill_core::schedule::{Lost, LostOutput};
use tidemill_core::{Error, ErrorKind, ExecutorId, RunId};
use tidemill_engine::error::TaskError;
use tidemill_engine::exchange::frame::{Compression, Frame};
use tidemill_engine::exchange::{BlockRequest, BlockStream, IoMetrics, LocalBlocks, OutputFooter};

pub(crate) use output::{Held, Snapshot, StoredOutput};
pub(crate) use sink::{AttemptSink, Written};

/// All outputs that this process holds.
#[derive(Debug)]
pub struct BlockStore {
    executor: ExecutorId,
    directory: PathBuf,
    budget: Arc<Budget>,
    outputs: Mutex<HashMap<RunId, HashMap<LostOutput, Arc<StoredOutput>>>>,
}

/// Bytes of exchange data in memory.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// Takes `bytes` if they fit.
    pub(crate) fn try_take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|n| *n <= self.limit);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok()
    }

    /// Whether more than half is taken.
    pub(crate) fn is_tight(&self) -> bool {
        self.used.load(Ordering::Acquire) > self.limit / 2
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl BlockStore {
    /// A store that keeps at most `limit` bytes in memory and the rest below `directory`.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(executor: ExecutorId, limit: usize, directory: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let budget = Arc::new(Budget { limit, used: AtomicUsize::new(0) });
        Ok(Self { executor, directory: directory.to_owned(), budget, outputs: Mutex::default() })
    }

    /// Bytes of exchange data in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.budget.used.load(Ordering::Acquire)
    }

    /// How many outputs are held.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.lock().values().map(HashMap::len).sum()
    }

    /// A sink for one attempt's output.
    pub(crate) fn sink(
        self: &Arc<Self>,
        run: &RunId,
        output: LostOutput,
        blocks: u32,
        encode: bool,
        exact: Vec<u32>,
    ) -> AttemptSink {
        let name = format!("{run}-{}-{}.frames", output.task, output.attempt);
        AttemptSink::new(Arc::clone(&self.budget), self.directory.join(name), blocks, encode, exact)
    }

    /// Expects outputs of a run, until it is released.
    pub(crate) fn open(&self, run: &RunId) {
        self.lock().entry(run.clone()).or_default();
    }

    /// Makes a finished output visible, unless its run was released meanwhile.
    pub(crate) fn insert(&self, run: &RunId, output: LostOutput, stored: StoredOutput) {
        let mut runs = self.lock();
        let refused = match runs.get_mut(run) {
            Some(outputs) => outputs.insert(output, Arc::new(stored)),
            None => Some(Arc::new(stored)),
        };
        drop(runs);
        drop(refused);
    }

    /// Drops everything of a run. Readers that hold a block keep it until they are done.
    pub fn release(&self, run: &RunId) {
        let released = self.lock().remove(run);
        drop(released);
    }

    /// Runs of which anything is held or expected.
    #[must_use]
    pub fn runs(&self) -> Vec<RunId> {
        self.lock().keys().cloned().collect()
    }

    pub(crate) fn output(&self, run: &RunId, output: LostOutput) -> Result<Arc<StoredOutput>, TaskError> {
        let found = self.lock().get(run).and_then(|outputs| outputs.get(&output)).map(Arc::clone);
        found.ok_or_else(|| TaskError {
            error: Error::lost_input(format!(
                "executor {} does not hold the output of task {} (attempt {}) of run {run}",
                self.executor, output.task, output.attempt
            )),
            lost: Lost { outputs: vec![output], looked_in_packs: false },
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, HashMap<LostOutput, Arc<StoredOutput>>>> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The encoded frames of a block.
    pub(crate) fn encoded(
        stored: Arc<StoredOutput>,
        partition: u32,
        compression: Compression,
    ) -> impl futures::Stream<Item = Result<Frame, TaskError>> {
        let frames = stored.frames(partition);
        futures::stream::iter(0..frames).then(move |frame| {
            let stored = Arc::clone(&stored);
            async move { stored.encoded_frame(partition, frame, compression).await }
        })
    }
}

impl LocalBlocks for BlockStore {
    fn executor(&self) -> &ExecutorId {
        &self.executor
    }

    fn footer(&self, run: &RunId, output: LostOutput) -> Result<Arc<OutputFooter>, TaskError> {
        Ok(Arc::clone(self.output(run, output)?.footer()))
    }

    fn frames(&self, run: &RunId, block: &BlockRequest, schema: SchemaRef, metrics: Arc<IoMetrics>) -> BlockStream {
        let stored = match self.output(run, block.output()) {
            Ok(stored) => stored,
            Err(error) => return futures::stream::iter([Err(error)]).boxed(),
        };
        let (partition, output) = (block.partition, block.output());
        futures::stream::iter(0..stored.frames(partition))
            .then(move |frame| {
                let (stored, schema, metrics) = (Arc::clone(&stored), Arc::clone(&schema), Arc::clone(&metrics));
                async move {
                    match stored.held(partition, frame)? {
                        Held::Batch(batch) => Ok(batch),
                        Held::Encoded(_) | Held::Disk { .. } => {
                            let start = Instant::now();
                            let frame = stored.encoded_frame(partition, frame, Compression::None).await;
                            let frame = frame.map_err(|e| unreadable(e, output))?;
                            let batch = frame.decode(&schema)?;
                            IoMetrics::add_since(&metrics.encode_ns, start);
                            Ok(batch)
                        }
                    }
                }
            })
            .boxed()
    }
}

/// A frame on disk that cannot be read is lost input: its producer runs again.
fn unreadable(error: TaskError, output: LostOutput) -> TaskError {
    match error.error.kind {
        ErrorKind::Unavailable => {
            let lost = Lost { outputs: vec![output], looked_in_packs: false };
            TaskError { error: Error { kind: ErrorKind::LostInput, ..error.error }, lost }
        }
        _ => error,
    }
}
