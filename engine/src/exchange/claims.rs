//! What a message says of its buffers, before Arrow believes it.
//!
//! A checksum says that bytes are those that were written, not that they make sense. Arrow takes a message's own word for how
//! large a buffer becomes, and allocates as much at once: one number would end a process. Where buffers lie outside of the
//! message, it panics.

use arrow::ipc::{CompressionType, RecordBatch};

/// How many times its size a buffer in LZ4 may become, at the most: each byte of it stands for 255.
const EXPANDS: i64 = 256;
/// Rows of a batch, and values of a column, at the most.
const LENGTH: i64 = u32::MAX as i64;
/// Bytes before a compressed buffer: the size that it becomes, or -1 if it is not compressed.
const PREFIX: usize = 8;

/// Refuses lengths and places that cannot be true.
pub(super) fn check(batch: &RecordBatch<'_>, body: &[u8]) -> Result<(), String> {
    let is_length = |length: i64| (0..=LENGTH).contains(&length);
    let nodes_fit =
        batch.nodes().is_none_or(|nodes| nodes.iter().all(|n| is_length(n.length()) && is_length(n.null_count())));
    if !is_length(batch.length()) || !nodes_fit {
        return Err("it claims more rows than a batch has".to_owned());
    }
    let is_compressed = match batch.compression().map(|compression| compression.codec()) {
        None => false,
        Some(CompressionType::LZ4_FRAME) => true,
        Some(other) => return Err(format!("it is compressed in another way than frames are: {other:?}")),
    };
    // Buffers do not overlap: otherwise a few bytes would become many buffers.
    let (mut left, mut count) = (body.len(), 0);
    for buffer in batch.buffers().into_iter().flatten() {
        count += 1;
        let (offset, length) = (usize::try_from(buffer.offset()), usize::try_from(buffer.length()));
        let (Ok(offset), Ok(length)) = (offset, length) else { return Err("a buffer has no place".to_owned()) };
        let bytes = offset.checked_add(length).and_then(|end| body.get(offset..end));
        let bytes = bytes.ok_or("a buffer lies outside of its message")?;
        left = left.checked_sub(length).ok_or("buffers are larger than their message")?;
        if is_compressed && !bytes.is_empty() && !is_plausible(bytes) {
            return Err("a buffer claims to become larger than it can".to_owned());
        }
    }
    let mut variadic = batch.variadicBufferCounts().into_iter().flatten();
    if variadic.any(|buffers| !(0..=count).contains(&buffers)) {
        return Err("a column claims more buffers than there are".to_owned());
    }
    Ok(())
}

/// Whether a compressed buffer may become as large as it says.
fn is_plausible(bytes: &[u8]) -> bool {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else { return false };
    let most = i64::try_from(rest.len()).unwrap_or(i64::MAX).saturating_mul(EXPANDS);
    (-1..=most).contains(&i64::from_le_bytes(*prefix))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Float64Array;
    use arrow::record_batch::RecordBatch;
    use bytes::Bytes;
    use tidemill_core::Result;

    use super::super::frame::{Compression, Frame};

    fn frame(compression: Compression) -> Result<(Frame, RecordBatch)> {
        let numbers = Arc::new(Float64Array::from(vec![7.0; 100_000]));
        let batch = RecordBatch::try_from_iter([("n", numbers as _)]);
        let batch = batch.map_err(|e| tidemill_core::Error::internal(e.to_string()))?;
        Ok((Frame::encode(&batch, compression)?, batch))
    }

    /// What is said of a frame whose only buffer with content says that it becomes so large. Its checksum fits.
    fn said(claimed: i64) -> Result<String> {
        let (frame, batch) = frame(Compression::Lz4)?;
        let mut messages = frame.messages;
        let real = 800_000_i64.to_le_bytes();
        for message in &mut messages {
            let at = message.body.windows(real.len()).position(|bytes| bytes == real).unwrap_or_default();
            let mut body = message.body.to_vec();
            body.splice(at..at + real.len(), claimed.to_le_bytes());
            message.body = Bytes::from(body);
        }
        Ok(Frame::of(messages).decode(&batch.schema()).map_or_else(|e| e.to_string(), |_| "decoded".to_owned()))
    }

    #[test]
    fn a_buffer_that_claims_a_tebibyte_is_refused_before_it_is_allocated() -> Result<()> {
        assert_eq!(said(800_000)?, "decoded");
        for claimed in [1 << 40, i64::MAX, i64::MIN, -2] {
            let said = said(claimed)?;
            assert!(said.contains("claims to become larger than it can"), "{claimed}: {said}");
        }
        // What is possible, and not true, Arrow finds out.
        assert_ne!(said(800_001)?, "decoded");
        Ok(())
    }

    #[test]
    fn what_compresses_best_is_not_refused() -> Result<()> {
        for compression in [Compression::None, Compression::Lz4] {
            let (frame, batch) = frame(compression)?;
            assert_eq!(frame.decode(&batch.schema())?, batch);
        }
        Ok(())
    }

    #[test]
    fn a_message_that_is_cut_off_is_refused() -> Result<()> {
        let (frame, batch) = frame(Compression::None)?;
        let mut messages = frame.messages;
        messages.iter_mut().for_each(|message| message.body.truncate(message.body.len() / 2));
        let error = Frame::of(messages).decode(&batch.schema()).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("outside of its message"), "{error}");
        Ok(())
    }
}
