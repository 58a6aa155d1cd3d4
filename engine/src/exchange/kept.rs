//! Results that outlive their runs: the frames of one block, with their schema, as a blob or as an object of its own.
//!
//! The form is that of a pack without outputs (`pack.rs`), so that frame n is the batch that the client got as n-th.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tidemill_core::record::{Kept, Pack};
use tidemill_core::{Error, Result, RunId};

use super::frame::{Compression, Frame};
use super::pack::{PackBuilder, TAIL_BYTES, decode_index, index_bytes};
use super::{PackUpload, PondSlot};
use crate::blob::Blob;
use crate::codec::{decode_schema, encode_schema};
use crate::error::from_datafusion;
use crate::wire;

/// Results up to this many bytes stand in the log; larger ones in an object of their own.
const INLINE_BYTES: usize = 16 << 10;
/// Bytes of one part of an upload, and what is held of a result in memory.
const PART: usize = 32 << 20;
/// The most bytes that are kept of a result.
const KEPT_BYTES: usize = 1 << 30;

/// The name of a new result: below its run's, so that the sweep knows whose it is.
#[must_use]
pub fn result_name(run: &RunId, writer: &str) -> String {
    format!("runs/{run}/result/{writer}.pack")
}

/// A result being kept while it goes to its client.
pub struct ResultKeeper {
    name: String,
    pond: PondSlot,
    builder: PackBuilder,
    upload: Option<PackUpload>,
}

impl ResultKeeper {
    /// Begins to keep a result with these columns under a new name; `None` where nothing outlives a process.
    ///
    /// # Errors
    /// The columns cannot be encoded.
    pub fn begin(name: String, schema: &SchemaRef, pond: &PondSlot) -> Result<Option<Self>> {
        if pond.get().is_none() {
            return Ok(None);
        }
        let schema = encode_schema(schema).map_err(|e| from_datafusion(&e))?;
        let builder = PackBuilder::of_result(schema);
        Ok(Some(Self { name, pond: pond.clone(), builder, upload: None }))
    }

    /// Keeps a batch.
    ///
    /// # Errors
    /// The store refused, or the result is too large to be kept.
    pub async fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        self.builder.frame(&Frame::encode(batch, Compression::Lz4)?);
        if self.builder.len() > KEPT_BYTES {
            return Err(Error::resources_exhausted(format!("it has more than {} MiB", KEPT_BYTES >> 20)));
        }
        match self.builder.take_part(PART) {
            Some(part) => self.upload()?.part(part).await,
            None => Ok(()),
        }
    }

    fn upload(&mut self) -> Result<&mut PackUpload> {
        let pond = self.pond.get().ok_or_else(|| Error::internal("the pond is gone"))?;
        Ok(self.upload.get_or_insert_with(|| pond.upload(&self.name)))
    }

    /// Keeps it: where it is, and the blob that this names.
    ///
    /// # Errors
    /// The store refused.
    pub async fn finish(mut self) -> Result<(Kept, Option<Blob>)> {
        if self.upload.is_none() && self.builder.len() <= INLINE_BYTES {
            let (kept, blob) = self.finish_small();
            return Ok((kept, Some(blob)));
        }
        self.upload()?;
        let Some(upload) = self.upload else { return Err(Error::internal("a result has no upload")) };
        let (rest, crc, bytes) = self.builder.finish();
        let puts = upload.finish(rest).await?;
        Ok((Kept::Object(Pack { name: self.name, crc, bytes, puts }), None))
    }

    /// Keeps one that has few rows, in the log.
    #[must_use]
    pub fn finish_small(self) -> (Kept, Blob) {
        let blob = Blob::new(self.builder.finish().0.concat());
        (Kept::Blob(blob.hash.clone()), blob)
    }

    /// Keeps one of a single small batch, in the log.
    ///
    /// # Errors
    /// The batch cannot be encoded.
    pub fn finish_with(mut self, batch: &RecordBatch) -> Result<(Kept, Blob)> {
        self.builder.frame(&Frame::encode(batch, Compression::Lz4)?);
        Ok(self.finish_small())
    }

    /// Forgets what was written.
    pub async fn abort(mut self) {
        if let Some(upload) = &mut self.upload {
            upload.abort().await;
        }
    }
}

/// A kept result: its columns and its batches, which are those that its client got.
pub type KeptRows = (SchemaRef, BoxStream<'static, Result<RecordBatch>>);

/// Reads a small result.
///
/// # Errors
/// It is damaged.
pub fn read_kept_blob(bytes: &Bytes) -> Result<KeptRows> {
    let tail = bytes.len().checked_sub(TAIL_BYTES).ok_or_else(|| Error::internal("a kept result is cut off"))?;
    let length = index_bytes(bytes)?;
    let start = tail.checked_sub(length).ok_or_else(|| Error::internal("a kept result is cut off"))?;
    let index = wire_index(&bytes.slice(start..tail))?;
    let schema = schema_of(&index)?;
    let mut batches = Vec::new();
    for frame in index.blocks.iter().flat_map(|b| &b.frames) {
        let range = usize::try_from(frame.offset).ok().zip(usize::try_from(frame.offset + frame.length).ok());
        let range =
            range.filter(|(_, end)| *end <= start).ok_or_else(|| Error::internal("a kept result is damaged"))?;
        batches.push(Frame::from_bytes(bytes.slice(range.0..range.1), frame.crc)?.decode(&schema));
    }
    Ok((schema, futures::stream::iter(batches).boxed()))
}

/// The blob's name is its content's hash: there is no other record of the index to compare with.
fn wire_index(bytes: &[u8]) -> Result<wire::PackIndex> {
    decode_index(bytes, crc32c::crc32c(bytes))
}

pub(super) fn schema_of(index: &wire::PackIndex) -> Result<SchemaRef> {
    Ok(Arc::new(decode_schema(&index.schema).map_err(|e| from_datafusion(&e))?))
}
