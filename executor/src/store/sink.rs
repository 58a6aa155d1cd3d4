//! One attempt's output while it is written. Frames stay in memory while the budget has room; then the attempt's own
//! frames go to its file.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use tidemill_core::Error;
use tidemill_engine::error::{TaskError, io_error};
use tidemill_engine::exchange::frame::{Compression, Frame};
use tidemill_engine::exchange::{BlockFooter, BlockSink, OutputFooter};
use tokio::sync::Mutex;

use super::output::{Snapshot, SpillFile, after};
use super::{Budget, Held, StoredOutput};

/// Takes frames until it is finished; dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub(crate) struct AttemptSink {
    budget: Arc<Budget>,
    path: PathBuf,
    encode: bool,
    /// Columns whose rows are looked at, for comparison with another attempt.
    exact: Vec<u32>,
    state: Mutex<Writing>,
}

#[derive(Debug)]
struct Writing {
    budget: Arc<Budget>,
    blocks: Vec<Vec<Held>>,
    footer: OutputFooter,
    memory: usize,
    file: Option<Arc<SpillFile>>,
    written: Written,
}

/// What an attempt made of its frames, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Written {
    /// Of its file.
    pub(crate) spilled: u64,
    /// Of the frames that were encoded here, each once. Who follows the attempt encodes others, in the time of its pack.
    pub(crate) encoded: u64,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.budget.give_back(self.memory);
    }
}

impl AttemptSink {
    pub(super) fn new(budget: Arc<Budget>, path: PathBuf, blocks: u32, encode: bool, exact: Vec<u32>) -> Self {
        let count = blocks as usize;
        let state = Writing {
            budget: Arc::clone(&budget),
            blocks: vec![Vec::new(); count],
            footer: OutputFooter { blocks: vec![BlockFooter::default(); count] },
            memory: 0,
            file: None,
            written: Written::default(),
        };
        Self { budget, path, encode, exact, state: Mutex::new(state) }
    }

    /// Every partition's frames so far but the first so many; not all if they are large, and none after the end.
    pub(crate) async fn after(&self, passed: &[usize]) -> Snapshot {
        let state = self.state.lock().await;
        Snapshot { frames: after(&state.blocks, passed, Held::clone), file: state.file.clone() }
    }

    /// Takes frames that were encoded elsewhere, by partition and position, instead of their batches, if memory is short: to
    /// spill them would encode them again.
    pub(crate) async fn take_encoded(&self, encoded: Vec<(usize, usize, Frame)>) {
        let mut state = self.state.lock().await;
        for (partition, position, frame) in encoded.into_iter().filter(|_| self.budget.is_tight()) {
            let slot = state.blocks.get_mut(partition).and_then(|block| block.get_mut(position));
            if let Some(held @ Held::Batch(_)) = slot {
                let size = frame.size();
                let Held::Batch(batch) = std::mem::replace(held, Held::Encoded(frame)) else { continue };
                let freed = batch.get_array_memory_size().saturating_sub(size);
                state.memory = state.memory.saturating_sub(freed);
                self.budget.give_back(freed);
            }
        }
    }

    /// The finished output, its footer, and what was made of its frames.
    pub(crate) async fn finish(&self) -> (StoredOutput, OutputFooter, Written) {
        let mut state = self.state.lock().await;
        let blocks = std::mem::take(&mut state.blocks);
        let footer = std::mem::take(&mut state.footer);
        let memory = std::mem::take(&mut state.memory);
        let (file, written) = (state.file.take(), state.written);
        (StoredOutput::new(Arc::clone(&self.budget), blocks, footer.clone(), memory, file), footer, written)
    }
}

#[async_trait]
impl BlockSink for AttemptSink {
    async fn push(&self, partition: u32, batch: RecordBatch) -> Result<(), TaskError> {
        let size = batch.get_array_memory_size();
        let rows = batch.num_rows() as u64;
        let mut looked = BlockFooter::default();
        if !self.exact.is_empty() {
            looked.add_rows(&batch, &self.exact)?;
        }
        let held = match self.encode {
            true => Held::Encoded(Frame::encode(&batch, Compression::Lz4)?),
            false => Held::Batch(batch),
        };
        let mut state = self.state.lock().await;
        if let Held::Encoded(frame) = &held {
            state.written.encoded += frame.stored_size() as u64;
        }
        let number = partition as usize;
        let Some(block) = state.footer.blocks.get_mut(number) else {
            return Err(Error::internal(format!("block {partition} of an output does not exist")).into());
        };
        block.rows += rows;
        block.bytes += size as u64;
        block.frames += 1;
        block.xor ^= looked.xor;
        block.sum = block.sum.wrapping_add(looked.sum);
        let held = match self.budget.try_take(size) {
            true => {
                state.memory += size;
                held
            }
            false => {
                state.spill_memory(&self.path).await?;
                state.append(&self.path, held).await?
            }
        };
        if let Some(frames) = state.blocks.get_mut(number) {
            frames.push(held);
        }
        Ok(())
    }
}

impl Writing {
    /// Moves every frame that is in memory to the file.
    async fn spill_memory(&mut self, path: &PathBuf) -> Result<(), TaskError> {
        // In place: whoever looks at it after an error finds every frame.
        for partition in 0..self.blocks.len() {
            for position in 0..self.blocks.get(partition).map_or(0, Vec::len) {
                let Some(held) = self.slot(partition, position).cloned() else { continue };
                let moved = self.append(path, held).await?;
                self.slot(partition, position).into_iter().for_each(|slot| *slot = moved.clone());
            }
        }
        self.budget.give_back(std::mem::take(&mut self.memory));
        Ok(())
    }

    fn slot(&mut self, partition: usize, position: usize) -> Option<&mut Held> {
        self.blocks.get_mut(partition)?.get_mut(position)
    }

    async fn append(&mut self, path: &PathBuf, held: Held) -> Result<Held, TaskError> {
        let frame = match held {
            Held::Batch(batch) => {
                let frame = Frame::encode(&batch, Compression::Lz4)?;
                self.written.encoded += frame.stored_size() as u64;
                frame
            }
            Held::Encoded(frame) => frame,
            disk @ Held::Disk { .. } => return Ok(disk),
        };
        let failed = |e: std::io::Error| {
            let error = io_error(&e);
            Error { message: format!("{} cannot be written: {}", path.display(), error.message), ..error }
        };
        if self.file.is_none() {
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).map_err(failed)?;
            self.file = Some(Arc::new(SpillFile { file, path: path.clone() }));
        }
        let Some(spill) = &self.file else { return Err(Error::internal("an output has no file").into()) };
        let (spill, offset, bytes, crc) = (Arc::clone(spill), self.written.spilled, frame.to_bytes(), frame.crc);
        let length = bytes.len();
        tokio::task::spawn_blocking(move || spill.file.write_all_at(&bytes, offset))
            .await
            .map_err(|e| Error::internal(format!("writing a frame panicked: {e}")))?
            .map_err(failed)?;
        self.written.spilled += length as u64;
        Ok(Held::Disk { offset, length, crc })
    }
}
