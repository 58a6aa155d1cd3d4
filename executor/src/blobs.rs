//! Blobs that this executor has fetched, the latest ones kept.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tidemill_core::{BlobHash, Error, ErrorKind, Result};
use tidemill_engine::blob::Blob;
use tidemill_engine::control::ControlLink;

/// Which part of the operators' memory blobs may take, and bounds of that: plans of many short runs add up, and those of the runs in
/// progress are not fetched for each task.
const KEPT_PART: usize = 64;
const KEPT_LEAST: usize = 4 << 20;
const KEPT_MOST: usize = 64 << 20;

/// Fetches blobs once and keeps the latest.
pub(crate) struct BlobCache {
    link: Arc<dyn ControlLink>,
    /// The oldest first.
    kept: Mutex<Vec<Blob>>,
    most: usize,
}

impl BlobCache {
    /// For an executor whose operators have `memory` bytes.
    pub(crate) fn new(link: Arc<dyn ControlLink>, memory: usize) -> Self {
        Self { link, kept: Mutex::default(), most: (memory / KEPT_PART).clamp(KEPT_LEAST, KEPT_MOST) }
    }

    pub(crate) async fn get(&self, hash: &BlobHash) -> Result<Bytes> {
        if let Some(found) = self.touch(hash) {
            return Ok(found);
        }
        // A coordinator that has just taken over does not know what the last one made: the task is given out again.
        let fetched = self.link.fetch_blob(hash).await.map_err(|e| match e.kind {
            ErrorKind::NotFound => Error { kind: ErrorKind::Unavailable, ..e },
            _ => e,
        });
        let blob = Blob::verified(hash, fetched?)?;
        let bytes = blob.bytes.clone();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(blob);
        let mut total: usize = kept.iter().map(|b| b.bytes.len()).sum();
        while total > self.most && kept.len() > 1 {
            total -= kept.remove(0).bytes.len();
        }
        Ok(bytes)
    }

    fn touch(&self, hash: &BlobHash) -> Option<Bytes> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let position = kept.iter().position(|b| b.hash == *hash)?;
        let blob = kept.remove(position);
        let bytes = blob.bytes.clone();
        kept.push(blob);
        Some(bytes)
    }
}
