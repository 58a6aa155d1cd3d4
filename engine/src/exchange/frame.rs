//! Frames: one record batch each, self-contained (dictionaries are sent again), never split, encoded at most once.
//!
//! A frame is a list of Arrow IPC messages, dictionaries before the batch. The same bytes lie on disk and travel over
//! Flight; a CRC32C over all messages goes with them. Where whole numbers have fewer bytes than in their batch, a message
//! before the others says how they are written.

use std::collections::HashMap;
use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{read_dictionary, read_record_batch};
use arrow::ipc::writer::{DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{CompressionType, MessageHeader, root_as_message};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tidemill_core::{Error, Result};

use super::claims;
use super::widths::{self, narrow, narrow_schema, widen};

/// The header of the message whose body says how each column is written.
const WIDTHS: &[u8] = b"TMWIDTHS";

/// How frames are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: for peers on the same host.
    None,
    /// Whole numbers, or their differences, in the fewest bytes that hold them, then each buffer in LZ4's frame format.
    Lz4,
}

/// One encoded batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Messages in order.
    pub messages: Vec<Message>,
    /// CRC32C over headers and bodies in order.
    pub crc: u32,
}

/// One Arrow IPC message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The flatbuffer.
    pub header: Bytes,
    /// The buffers.
    pub body: Bytes,
}

impl Frame {
    /// Encodes a batch.
    ///
    /// # Errors
    /// Arrow cannot encode a column.
    pub fn encode(batch: &RecordBatch, compression: Compression) -> Result<Self> {
        let damaged = |e| Error::internal(format!("a batch cannot be encoded: {e}"));
        let (compression, narrowed) = match compression {
            Compression::None => (None, None),
            Compression::Lz4 => (Some(CompressionType::LZ4_FRAME), narrow(batch).map_err(damaged)?),
        };
        let (batch, widths) = narrowed.as_ref().map_or((batch, None), |(narrow, widths)| (narrow, Some(widths)));
        let options = IpcWriteOptions::default().try_with_compression(compression).map_err(damaged)?;
        let mut tracker = DictionaryTracker::new(false);
        // Numbers the schema's dictionaries.
        let generator = IpcDataGenerator::default();
        generator.schema_to_bytes_with_dictionary_tracker(batch.schema_ref(), &mut tracker, &options);
        let (dictionaries, encoded) =
            generator.encode(batch, &mut tracker, &options, &mut IpcWriteContext::default()).map_err(damaged)?;
        let widths = widths.map(|w| Message { header: Bytes::from_static(WIDTHS), body: widths::to_bytes(w) });
        Ok(Self::of(widths.into_iter().chain(dictionaries.into_iter().chain([encoded]).map(message)).collect()))
    }

    /// A frame of messages received or read.
    #[must_use]
    pub fn of(messages: Vec<Message>) -> Self {
        let crc =
            messages.iter().fold(0, |crc, m| crc32c::crc32c_append(crc32c::crc32c_append(crc, &m.header), &m.body));
        Self { messages, crc }
    }

    /// Bytes of its messages.
    #[must_use]
    pub fn size(&self) -> usize {
        self.messages.iter().map(|m| m.header.len() + m.body.len()).sum()
    }

    /// Decodes the batch.
    ///
    /// # Errors
    /// The messages are not what [`Self::encode`] wrote.
    pub fn decode(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        // Arrow panics on some messages that no encoder writes, such as a bitmap that is too short for its rows. What a peer
        // sent must not end more than the task that reads it, whatever it is.
        let decoded = std::panic::catch_unwind(AssertUnwindSafe(|| self.try_decode(schema)));
        decoded.unwrap_or_else(|_| Err(undecodable("Arrow cannot make sense of it")))
    }

    fn try_decode(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let (widths, messages) = match self.messages.split_first() {
            Some((first, rest)) if first.header == WIDTHS => (Some(widths::from_bytes(&first.body)), rest),
            _ => (None, self.messages.as_slice()),
        };
        let widths = widths.transpose().map_err(undecodable)?;
        let widths = widths.as_deref();
        let written = widths.map_or_else(|| Ok(Arc::clone(schema)), |widths| narrow_schema(schema, widths));
        let numbered = numbered(&written.map_err(undecodable)?)?;
        let mut dictionaries: HashMap<i64, ArrayRef> = HashMap::new();
        for message in messages {
            let ipc = root_as_message(&message.header).map_err(undecodable)?;
            let body = Buffer::from(message.body.clone());
            match ipc.header_type() {
                MessageHeader::DictionaryBatch => {
                    let batch = ipc.header_as_dictionary_batch().ok_or_else(|| undecodable("no dictionary"))?;
                    let values = batch.data().filter(|_| !batch.isDelta());
                    let values = values.ok_or_else(|| undecodable("a dictionary is not whole"))?;
                    claims::check(&values, &message.body).map_err(undecodable)?;
                    read_dictionary(&body, batch, &numbered, &mut dictionaries, &ipc.version()).map_err(undecodable)?;
                }
                MessageHeader::RecordBatch => {
                    let batch = ipc.header_as_record_batch().ok_or_else(|| undecodable("no batch"))?;
                    claims::check(&batch, &message.body).map_err(undecodable)?;
                    let numbered = Arc::clone(&numbered);
                    let read = read_record_batch(&body, batch, numbered, &dictionaries, None, &ipc.version());
                    let options = RecordBatchOptions::new();
                    let batch = read.map_err(undecodable)?;
                    let options = options.with_row_count(Some(batch.num_rows()));
                    let columns = widths.map_or_else(|| Ok(batch.columns().to_vec()), |w| widen(&batch, schema, w));
                    return RecordBatch::try_new_with_options(
                        Arc::clone(schema),
                        columns.map_err(undecodable)?,
                        &options,
                    )
                    .map_err(undecodable);
                }
                other => return Err(undecodable(format!("unexpected message {other:?}"))),
            }
        }
        Err(undecodable("it has no batch"))
    }

    /// Bytes of the frame as it lies on disk and in packs.
    #[must_use]
    pub fn stored_size(&self) -> usize {
        8 + 16 * self.messages.len() + self.size()
    }

    /// The frame as it lies on disk: count, then per message two lengths, header and body.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.stored_size());
        self.to_parts().iter().for_each(|part| bytes.put_slice(part));
        bytes.freeze()
    }

    /// The same in parts, beside each other: headers and bodies are not copied.
    pub(super) fn to_parts(&self) -> Vec<Bytes> {
        let mut parts = Vec::with_capacity(1 + 3 * self.messages.len());
        parts.push(Bytes::copy_from_slice(&(self.messages.len() as u64).to_le_bytes()));
        for message in &self.messages {
            let mut lengths = BytesMut::with_capacity(16);
            lengths.put_u64_le(message.header.len() as u64);
            lengths.put_u64_le(message.body.len() as u64);
            parts.extend([lengths.freeze(), message.header.clone(), message.body.clone()]);
        }
        parts
    }

    /// The inverse of [`Self::to_bytes`], checked against the frame's CRC.
    ///
    /// # Errors
    /// The bytes are damaged.
    pub fn from_bytes(mut bytes: Bytes, crc: u32) -> Result<Self> {
        let damaged = || Error::unavailable("a frame on disk is damaged");
        let count = take_length(&mut bytes).ok_or_else(damaged)?;
        let mut messages = Vec::new();
        for _ in 0..count {
            let header = take_length(&mut bytes).ok_or_else(damaged)?;
            let body = take_length(&mut bytes).ok_or_else(damaged)?;
            if header.checked_add(body).is_none_or(|n| n > bytes.len()) {
                return Err(damaged());
            }
            messages.push(Message { header: bytes.split_to(header), body: bytes.split_to(body) });
        }
        let frame = Self::of(messages);
        if frame.crc == crc { Ok(frame) } else { Err(damaged()) }
    }
}

fn undecodable(why: impl Display) -> Error {
    Error::internal(format!("a frame cannot be decoded: {why}"))
}

/// The schema with its dictionaries numbered as the encoder numbers them; the same one where it has none.
fn numbered(schema: &SchemaRef) -> Result<SchemaRef> {
    let has_dictionaries = schema.flattened_fields().iter().any(|f| matches!(f.data_type(), DataType::Dictionary(..)));
    if !has_dictionaries {
        return Ok(Arc::clone(schema));
    }
    let mut tracker = DictionaryTracker::new(false);
    let encoded = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
        schema,
        &mut tracker,
        &IpcWriteOptions::default(),
    );
    let message = root_as_message(&encoded.ipc_message).ok();
    let decoded = message.and_then(|m| m.header_as_schema()).map(fb_to_schema);
    decoded.map(Arc::new).ok_or_else(|| Error::internal("a schema cannot be numbered"))
}

fn take_length(bytes: &mut Bytes) -> Option<usize> {
    (bytes.len() >= 8).then(|| usize::try_from(bytes.get_u64_le()).ok())?
}

fn message(encoded: EncodedData) -> Message {
    Message { header: encoded.ipc_message.into(), body: encoded.arrow_data.into() }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a test")]
mod tests {
    use arrow::array::{DictionaryArray, Int64Array, StringArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn what_is_decoded_is_what_was_encoded() {
        for rows in [0, 1, 8192] {
            let numbers = Int64Array::from_iter_values(0..rows);
            let words = StringArray::from_iter((0..rows).map(|n| (n % 3 > 0).then_some("a word that comes often")));
            let named: DictionaryArray<Int32Type> = (0..rows).map(|n| ["x", "y"][usize::from(n % 2 == 0)]).collect();
            let columns: [(&str, ArrayRef); 3] =
                [("n", Arc::new(numbers)), ("w", Arc::new(words)), ("d", Arc::new(named))];
            let batch = RecordBatch::try_from_iter(columns).expect("a batch");
            for compression in [Compression::None, Compression::Lz4] {
                let frame = Frame::encode(&batch, compression).expect("a frame");
                let bytes = frame.to_bytes();
                assert_eq!(bytes.len(), frame.stored_size());
                let read = Frame::from_bytes(bytes, frame.crc).expect("the same frame");
                assert_eq!(read, frame);
                assert_eq!(read.decode(&batch.schema()).expect("a batch"), batch);
            }
        }
    }
}
