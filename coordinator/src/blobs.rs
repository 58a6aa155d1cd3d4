//! Blobs by hash, kept while a run or a catalogue entry names them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tidemill_core::{BlobHash, RunId};
use tidemill_engine::blob::Blob;
use tidemill_engine::planner::BlobReader;

/// In memory for now.
#[derive(Debug, Default)]
pub(crate) struct Blobs(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Content and how many names it has.
    blobs: HashMap<BlobHash, (Bytes, usize)>,
    runs: BTreeMap<RunId, Vec<BlobHash>>,
}

impl Kept {
    fn add(&mut self, blob: Blob) {
        self.blobs.entry(blob.hash).or_insert((blob.bytes, 0)).1 += 1;
    }

    fn release(&mut self, hash: &BlobHash) {
        let left = self.blobs.get_mut(hash).map(|(_, names)| {
            *names = names.saturating_sub(1);
            *names
        });
        if left == Some(0) {
            self.blobs.remove(hash);
        }
    }
}

impl Blobs {
    /// Keeps blobs until the run is released.
    pub(crate) fn keep_for_run(&self, run: &RunId, blobs: Vec<Blob>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for blob in blobs {
            kept.runs.entry(run.clone()).or_default().push(blob.hash.clone());
            kept.add(blob);
        }
    }

    /// Forgets a run's names.
    pub(crate) fn release_run(&self, run: &RunId) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for hash in kept.runs.remove(run).unwrap_or_default() {
            kept.release(&hash);
        }
    }

    /// Keeps a blob that a catalogue entry names.
    pub(crate) fn keep(&self, blob: Blob) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(blob);
    }

    /// Forgets the name of a catalogue entry.
    pub(crate) fn release(&self, hash: &BlobHash) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).release(hash);
    }

    /// How many blobs are kept.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).blobs.len()
    }
}

impl BlobReader for Blobs {
    fn read(&self, hash: &BlobHash) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).blobs.get(hash).map(|(bytes, _)| bytes.clone())
    }
}
