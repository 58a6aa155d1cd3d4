//! The log's objects as bytes: records, or a state, with the blobs that they name.
//!
//! ```text
//! "TMLOG001"  u32 header bytes  header (JSON)  blobs, one after the other  u32 CRC32C of all before it
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tidemill_core::record::{RECORD_VERSION, Record, State};
use tidemill_core::{BlobHash, Epoch, Error, Result};
use tidemill_engine::blob::Blob;

const MAGIC: &[u8; 8] = b"TMLOG001";
const CRC_BYTES: usize = 4;

/// One object of the log.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) header: Header,
    pub(super) blobs: Vec<Blob>,
}

/// What an object says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    /// The version of the records.
    pub(super) version: u32,
    /// Unique to the process that wrote it: no two writers' bodies are the same.
    pub(super) writer: String,
    pub(super) epoch: Epoch,
    pub(super) seq: u64,
    pub(super) content: Content,
    blobs: Vec<(BlobHash, usize)>,
}

/// What an object holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Content {
    /// Changes of the state, in order.
    Records(Vec<Record>),
    /// Nothing of this epoch follows: a later one began.
    Seal { by: Epoch },
    /// The state before batch `seq`.
    Snapshot(Box<State>),
}

/// Enough of a header to refuse the rest of it by name.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Batch {
    pub(super) fn new(writer: &str, epoch: Epoch, seq: u64, content: Content, blobs: Vec<Blob>) -> Self {
        let lengths = blobs.iter().map(|b| (b.hash.clone(), b.bytes.len())).collect();
        let header = Header { version: RECORD_VERSION, writer: writer.to_owned(), epoch, seq, content, blobs: lengths };
        Self { header, blobs }
    }

    pub(super) fn encode(&self) -> Result<Bytes> {
        let header = serde_json::to_vec(&self.header).map_err(|e| Error::internal(format!("a log batch: {e}")))?;
        let length = u32::try_from(header.len()).map_err(|_| Error::resources_exhausted("a log batch is too large"))?;
        let blobs: usize = self.blobs.iter().map(|b| b.bytes.len()).sum();
        let mut body = BytesMut::with_capacity(MAGIC.len() + 4 + header.len() + blobs + CRC_BYTES);
        body.put_slice(MAGIC);
        body.put_u32_le(length);
        body.put_slice(&header);
        for blob in &self.blobs {
            body.put_slice(&blob.bytes);
        }
        body.put_u32_le(crc32c::crc32c(&body));
        Ok(body.freeze())
    }

    /// The inverse of [`Self::encode`]; `name` is the object's.
    ///
    /// # Errors
    /// The object is damaged, or was written by a newer version.
    pub(super) fn decode(name: &str, body: &Bytes) -> Result<Self> {
        let damaged = |what: &str| Error::internal(format!("{name} in --state is damaged: {what}"));
        let content = body.len().checked_sub(CRC_BYTES).ok_or_else(|| damaged("it is too short"))?;
        let (content, crc) = (body.slice(..content), body.slice(content..));
        if crc32c::crc32c(&content).to_le_bytes() != *crc {
            return Err(damaged("its checksum differs"));
        }
        let rest = content.strip_prefix(MAGIC).ok_or_else(|| damaged("it does not begin as a log batch"))?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("it has no header"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let header = rest.get(..length).ok_or_else(|| damaged("its header is cut off"))?;
        let version: Version = serde_json::from_slice(header).map_err(|e| damaged(&e.to_string()))?;
        if version.version != RECORD_VERSION {
            let message = format!(
                "{name} in --state has records of version {}, this build reads {RECORD_VERSION}: start the build that wrote it",
                version.version
            );
            return Err(Error::invalid(message));
        }
        let header: Header = serde_json::from_slice(header).map_err(|e| {
            Error::invalid(format!(
                "{name} in --state holds a record that this build does not know ({e}): start a newer build"
            ))
        })?;
        let mut at = MAGIC.len() + 4 + length;
        let mut blobs = Vec::with_capacity(header.blobs.len());
        for (hash, length) in &header.blobs {
            let end = at.checked_add(*length).filter(|end| *end <= content.len());
            let end = end.ok_or_else(|| damaged("its blobs are cut off"))?;
            blobs.push(Blob { hash: hash.clone(), bytes: content.slice(at..end) });
            at = end;
        }
        Ok(Self { header, blobs })
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use tidemill_core::RunId;

    use super::*;

    /// The object with another header, whose length and checksum fit.
    fn with_header(whole: &[u8], length: usize, header: &[u8]) -> Bytes {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(u32::try_from(header.len()).expect("a short header").to_le_bytes());
        bytes.extend(header);
        bytes.extend(&whole[MAGIC.len() + 4 + length..whole.len() - CRC_BYTES]);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes.into()
    }

    /// Changed headers, under a checksum that fits them: the worst that can stand in an object.
    #[test]
    fn objects_of_any_content_are_read_or_refused() {
        let records = vec![Record::RunRestarted { run: RunId("r".to_owned()) }];
        let blobs = vec![Blob::new(b"some bytes".to_vec()), Blob::new(b"others".to_vec())];
        let batch = Batch::new("w", Epoch(1), 2, Content::Records(records), blobs);
        let (whole, header) = (batch.encode().expect("a batch"), serde_json::to_vec(&batch.header).expect("a header"));
        assert_eq!(
            Batch::decode("whole", &with_header(&whole, header.len(), &header)).expect("a batch").blobs.len(),
            2
        );
        let mut read = 0;
        for seed in 0..20_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut changed = header.clone();
            let at = rng.usize(..changed.len());
            match rng.u8(0..4) {
                0 => changed[at] = rng.u8(..),
                1 => changed.insert(at, b'9'),
                2 => drop(changed.remove(at)),
                // In the place of a digit of a length, a number that no sum can hold.
                _ if changed[at].is_ascii_digit() => drop(changed.splice(at..=at, usize::MAX.to_string().bytes())),
                _ => changed[at] = 0xff,
            }
            read += usize::from(Batch::decode("changed", &with_header(&whole, header.len(), &changed)).is_ok());
        }
        assert!(read > 100, "only {read} changed headers can be read: the others try nothing behind them");
        // Each number by the largest one.
        for at in (0..header.len()).filter(|at| header[*at].is_ascii_digit()) {
            let mut changed = header.clone();
            changed.splice(at..=at, usize::MAX.to_string().bytes());
            // Whether it is read does not matter; that this comes back does.
            let _ = Batch::decode("changed", &with_header(&whole, header.len(), &changed));
        }
    }
}
