//! Blobs: immutable bytes named by their hash.

use bytes::Bytes;
use tidemill_core::{BlobHash, Error, Result};

/// Bytes and their name.
#[derive(Debug, Clone)]
pub struct Blob {
    /// BLAKE3 of the bytes, in hex.
    pub hash: BlobHash,
    /// The content.
    pub bytes: Bytes,
}

impl Blob {
    /// Names `bytes`.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { hash: hash(&bytes), bytes }
    }

    /// Checks that `bytes` are what `hash` names.
    ///
    /// # Errors
    /// They are not: what was received is damaged.
    pub fn verified(hash: &BlobHash, bytes: impl Into<Bytes>) -> Result<Self> {
        let blob = Self::new(bytes);
        if blob.hash == *hash {
            return Ok(blob);
        }
        Err(Error::unavailable(format!("blob {hash} arrived damaged: it hashes to {}", blob.hash)))
    }
}

fn hash(bytes: &[u8]) -> BlobHash {
    BlobHash(blake3::hash(bytes).to_hex().to_string())
}
