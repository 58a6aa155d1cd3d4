//! One attempt's finished output.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use tidemill_core::Error;
use tidemill_engine::error::TaskError;
use tidemill_engine::exchange::OutputFooter;
use tidemill_engine::exchange::frame::{Compression, Frame};

use super::Budget;

/// Where one frame is.
#[derive(Debug, Clone)]
pub(crate) enum Held {
    /// In memory, as it was written.
    Batch(RecordBatch),
    /// In memory, encoded.
    Encoded(Frame),
    /// In the output's file.
    Disk { offset: u64, length: usize, crc: u32 },
}

/// A finished output. Dropping it frees its memory and removes its file.
#[derive(Debug)]
pub(crate) struct StoredOutput {
    budget: Arc<Budget>,
    blocks: Vec<Vec<Mutex<Held>>>,
    footer: Arc<OutputFooter>,
    memory: Mutex<usize>,
    file: Option<Arc<SpillFile>>,
}

/// The file of an output, removed when dropped.
#[derive(Debug)]
pub(crate) struct SpillFile {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
}

/// Frames as they were held at one moment, those of one partition beside each other, and the file that some are in.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) frames: VecDeque<(usize, Held)>,
    pub(crate) file: Option<Arc<SpillFile>>,
}

impl Snapshot {
    /// The next frame as packs hold it, its partition, and whether it was encoded now; it may block.
    pub(crate) fn next(&mut self) -> Result<Option<(usize, Frame, bool)>, TaskError> {
        let Some((partition, held)) = self.frames.pop_front() else { return Ok(None) };
        let is_new = matches!(held, Held::Batch(_));
        Ok(Some((partition, packed(held, self.file.as_ref())?, is_new)))
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        // A process that stops removes its whole folder, perhaps before this.
        if let Err(error) = std::fs::remove_file(&self.path).or_else(absent) {
            tracing::warn!(path = %self.path.display(), %error, "an exchange file could not be removed");
        }
    }
}

impl SpillFile {
    fn read(&self, offset: u64, length: usize) -> Result<Bytes, Error> {
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, offset);
        read.map_err(|e| Error::unavailable(format!("{} cannot be read: {e}", self.path.display())))?;
        Ok(bytes.into())
    }
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

impl StoredOutput {
    pub(super) fn new(
        budget: Arc<Budget>,
        blocks: Vec<Vec<Held>>,
        footer: OutputFooter,
        memory: usize,
        file: Option<Arc<SpillFile>>,
    ) -> Self {
        let blocks = blocks.into_iter().map(|frames| frames.into_iter().map(Mutex::new).collect()).collect();
        Self { budget, blocks, footer: Arc::new(footer), memory: Mutex::new(memory), file }
    }

    pub(crate) fn footer(&self) -> &Arc<OutputFooter> {
        &self.footer
    }

    /// Arrow bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.footer.blocks.iter().map(|block| block.bytes).sum()
    }

    pub(crate) fn frames(&self, partition: u32) -> usize {
        self.blocks.get(partition as usize).map_or(0, Vec::len)
    }

    pub(crate) fn held(&self, partition: u32, frame: usize) -> Result<Held, TaskError> {
        let slot = self.blocks.get(partition as usize).and_then(|b| b.get(frame));
        let slot = slot.ok_or_else(|| Error::internal(format!("frame {frame} of block {partition} does not exist")))?;
        Ok(slot.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// One frame in encoded form. What was compressed once stays so while the budget has room for it.
    pub(crate) async fn encoded_frame(
        &self,
        partition: u32,
        frame: usize,
        compression: Compression,
    ) -> Result<Frame, TaskError> {
        match self.held(partition, frame)? {
            Held::Encoded(frame) => Ok(frame),
            Held::Batch(batch) => {
                let encoded = Frame::encode(&batch, compression)?;
                // A hash block has one reader; a single block may be read by every task of the next stage. What was not
                // compressed is quickly made again, and must not become what goes to disk and into packs.
                if self.blocks.len() == 1 && compression == Compression::Lz4 {
                    self.keep_encoded(partition, frame, &encoded);
                }
                Ok(encoded)
            }
            Held::Disk { offset, length, crc } => self.read(offset, length, crc).await,
        }
    }

    /// One frame as packs hold it; it may block. What is held stays as it is: readers in this process take it by
    /// reference.
    pub(crate) fn packed_frame(&self, partition: u32, frame: usize) -> Result<Frame, TaskError> {
        packed(self.held(partition, frame)?, self.file.as_ref())
    }

    /// Every partition's frames but the first so many; not all if they are large.
    pub(crate) fn after(&self, passed: &[usize]) -> Snapshot {
        let held = |slot: &Mutex<Held>| slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Snapshot { frames: after(&self.blocks, passed, held), file: self.file.clone() }
    }

    fn keep_encoded(&self, partition: u32, frame: usize, encoded: &Frame) {
        let size = encoded.size();
        let Some(slot) = self.blocks.get(partition as usize).and_then(|b| b.get(frame)) else { return };
        let mut held = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Held::Batch(batch) = &*held
            && self.budget.try_take(size)
        {
            let freed = batch.get_array_memory_size();
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            *memory = *memory + size - freed;
            self.budget.give_back(freed);
            *held = Held::Encoded(encoded.clone());
        }
    }

    async fn read(&self, offset: u64, length: usize, crc: u32) -> Result<Frame, TaskError> {
        let spill = Arc::clone(spilled(self.file.as_ref())?);
        let read = tokio::task::spawn_blocking(move || spill.read(offset, length));
        let bytes = read.await.map_err(|e| Error::internal(format!("reading a frame panicked: {e}")))??;
        Ok(Frame::from_bytes(bytes, crc)?)
    }
}

/// Arrow bytes of a snapshot, about.
const SNAPSHOT: usize = 64 << 20;

/// Every partition's frames but the first so many; not all if they are large.
pub(super) fn after<T>(blocks: &[Vec<T>], passed: &[usize], held: impl Fn(&T) -> Held) -> VecDeque<(usize, Held)> {
    let passed = passed.iter().copied().chain(std::iter::repeat(0));
    let blocks = blocks.iter().zip(passed).enumerate();
    let frames = blocks.flat_map(|(partition, (frames, passed))| {
        frames.get(passed..).unwrap_or_default().iter().map(move |frame| (partition, frame))
    });
    let mut bytes = 0;
    let held = frames.map(|(partition, frame)| (partition, held(frame)));
    held.take_while(|(_, held)| {
        let is_enough = bytes >= SNAPSHOT;
        if let Held::Batch(batch) = held {
            bytes += batch.get_array_memory_size();
        }
        !is_enough
    })
    .collect()
}

fn packed(held: Held, file: Option<&Arc<SpillFile>>) -> Result<Frame, TaskError> {
    match held {
        Held::Batch(batch) => Ok(Frame::encode(&batch, Compression::Lz4)?),
        Held::Encoded(frame) => Ok(frame),
        Held::Disk { offset, length, crc } => Ok(Frame::from_bytes(spilled(file)?.read(offset, length)?, crc)?),
    }
}

fn spilled(file: Option<&Arc<SpillFile>>) -> Result<&Arc<SpillFile>, TaskError> {
    Ok(file.ok_or_else(|| Error::internal("an output has no file"))?)
}

impl Drop for StoredOutput {
    fn drop(&mut self) {
        let memory = self.memory.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.budget.give_back(*memory);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use arrow::array::UInt64Array;
    use tidemill_engine::exchange::BlockFooter;

    use super::*;

    #[tokio::test]
    #[expect(clippy::expect_used, reason = "a test")]
    async fn what_a_reader_on_the_same_host_got_uncompressed_is_stored_compressed() {
        let numbers = Arc::new(UInt64Array::from(vec![7; 8192]));
        let batch = RecordBatch::try_from_iter([("n", numbers as _)]).expect("a batch");
        let budget = Arc::new(Budget { limit: 1 << 20, used: AtomicUsize::new(0) });
        let footer = OutputFooter { blocks: vec![BlockFooter::default()] };
        let stored = StoredOutput::new(budget, vec![vec![Held::Batch(batch.clone())]], footer, 0, None);
        let sent = stored.encoded_frame(0, 0, Compression::None).await.expect("a frame");
        assert!(sent.size() > 8192 * 8);
        let packed = stored.packed_frame(0, 0).expect("a frame");
        assert_eq!(packed, Frame::encode(&batch, Compression::Lz4).expect("a frame"));
    }
}
