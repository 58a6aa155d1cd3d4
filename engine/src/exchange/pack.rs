//! Packs: many tasks' blocks in one object, partition-major, so that tasks of one partition read neighbours. A large
//! output has a pack of its own, which is written while its task runs: partition-major run by run, as frames come.
//!
//! ```text
//! frames of block (0, task 0), of (0, task 1), …, of (1, task 0), …  index  u32 CRC32C of the index  u32 its bytes  "TMPACK01"
//! ```
//!
//! Frame n of a block is frame n of the same block in every other tier. Each frame's CRC32C stands in the index, the
//! index's own in the log.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tidemill_core::schedule::LostOutput;
use tidemill_core::{Error, Result};

use super::OutputFooter;
use super::frame::Frame;
use crate::wire;

const MAGIC: &[u8; 8] = b"TMPACK01";
/// Bytes behind the index.
pub(super) const TAIL_BYTES: usize = 4 + 4 + MAGIC.len();

/// Messages with fewer bytes are copied beside each other, so that stores are not given crumbs.
const CRUMB: usize = 16 << 10;

/// A pack being put together.
#[derive(Debug, Default)]
pub struct PackBuilder {
    /// What was not taken yet: whole messages, which are not copied, and behind them `crumbs`.
    chunks: Vec<Bytes>,
    crumbs: BytesMut,
    /// Bytes of `chunks`.
    chunked: usize,
    /// Bytes that were taken.
    taken: usize,
    index: wire::PackIndex,
}

impl PackBuilder {
    /// A pack of one block that belongs to no task: a run's result with these columns.
    pub(super) fn of_result(schema: Vec<u8>) -> Self {
        let block = wire::PackBlock { output: 0, partition: 0, frames: Vec::new() };
        let index = wire::PackIndex { outputs: Vec::new(), blocks: vec![block], schema };
        Self { index, ..Self::default() }
    }

    /// Notes an output whose blocks will be appended.
    pub fn output(&mut self, output: LostOutput, footer: &OutputFooter) {
        self.index.outputs.push(wire::PackOutput {
            task: Some(output.task.into()),
            attempt: Some(output.attempt.into()),
            footer: Some(footer.to_wire()),
        });
    }

    /// Begins a block of the `output`-th output.
    pub fn block(&mut self, output: usize, partition: u32) {
        let output = u32::try_from(output).unwrap_or(u32::MAX);
        self.index.blocks.push(wire::PackBlock { output, partition, frames: Vec::new() });
    }

    /// Appends a frame to the block that was begun last.
    pub fn frame(&mut self, frame: &Frame) {
        self.frame_of(self.index.blocks.len().saturating_sub(1), frame);
    }

    /// Appends a frame to the `block`-th block that was begun.
    pub fn frame_of(&mut self, block: usize, frame: &Frame) {
        let offset = self.len() as u64;
        for part in frame.to_parts() {
            self.put(part);
        }
        let length = self.len() as u64 - offset;
        if let Some(block) = self.index.blocks.get_mut(block) {
            block.frames.push(wire::PackFrame { offset, length, crc: frame.crc });
        }
    }

    fn put(&mut self, bytes: Bytes) {
        if bytes.len() < CRUMB {
            self.crumbs.put_slice(&bytes);
        } else {
            self.sweep_up();
            self.chunked += bytes.len();
            self.chunks.push(bytes);
        }
    }

    fn sweep_up(&mut self) {
        if !self.crumbs.is_empty() {
            self.chunked += self.crumbs.len();
            self.chunks.push(self.crumbs.split().freeze());
        }
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.taken + self.held()
    }

    fn held(&self) -> usize {
        self.chunked + self.crumbs.len()
    }

    /// Takes what can be sent already, if it is enough for a part.
    pub fn take_part(&mut self, part: usize) -> Option<Vec<Bytes>> {
        (self.held() >= part).then(|| self.take())
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.sweep_up();
        self.taken += std::mem::take(&mut self.chunked);
        std::mem::take(&mut self.chunks)
    }

    /// Whether nothing was appended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.outputs.is_empty()
    }

    /// The rest of the object, the CRC32C of its index, and the object's size.
    #[must_use]
    pub fn finish(mut self) -> (Vec<Bytes>, u32, u64) {
        let index = self.index.encode_to_vec();
        let crc = crc32c::crc32c(&index);
        self.crumbs.put_slice(&index);
        self.crumbs.put_u32_le(crc);
        self.crumbs.put_u32_le(u32::try_from(index.len()).unwrap_or(u32::MAX));
        self.crumbs.put_slice(MAGIC);
        let size = self.len() as u64;
        (self.take(), crc, size)
    }
}

/// No store has larger objects.
const MAX_PACK: u64 = 1 << 50;

/// The bytes of the index, from the object's last ones.
pub(super) fn index_bytes(tail: &[u8]) -> Result<usize> {
    let tail = tail.get(tail.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default();
    match (tail.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes), tail.get(8..)) {
        (Some(length), Some(magic)) if magic == MAGIC => Ok(length as usize),
        _ => Err(Error::unavailable("a pack does not end as one")),
    }
}

/// Decodes an index and compares it with what the log says of it.
pub(super) fn decode_index(bytes: &[u8], crc: u32) -> Result<wire::PackIndex> {
    if crc32c::crc32c(bytes) != crc {
        return Err(Error::unavailable("a pack's index is not the recorded one"));
    }
    let index = wire::PackIndex::decode(bytes);
    let index = index.map_err(|e| Error::unavailable(format!("a pack's index is damaged: {e}")))?;
    let mut frames = index.blocks.iter().flat_map(|block| &block.frames);
    match frames.all(|frame| frame.offset.checked_add(frame.length).is_some_and(|end| end <= MAX_PACK)) {
        true => Ok(index),
        false => Err(Error::unavailable("a pack's index is damaged: a frame lies beyond any object")),
    }
}
