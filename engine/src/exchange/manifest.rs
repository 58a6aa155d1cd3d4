//! Which attempt holds which output, where, and what is in it.

use std::sync::Arc;

use prost::Message;
use tidemill_core::record::{Footer, Pack};
use tidemill_core::{Attempt, Error, ExecutorId, Result, StageId};

use crate::wire::{self, missing};

/// Exactly which attempts hold a stage's output. There is no other way to find one: nothing is ever listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The stage.
    pub stage: StageId,
    /// Outputs by task index.
    pub outputs: Vec<ManifestOutput>,
}

/// One task's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestOutput {
    /// The attempt that wrote it.
    pub attempt: Attempt,
    /// Who holds it.
    pub holder: Holder,
    /// What the holder's footer must say.
    pub footer: Footer,
    /// Where it is in the store, if it is.
    pub pack: Option<Arc<Pack>>,
}

/// An executor that holds outputs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Its name.
    pub executor: ExecutorId,
    /// Where its Flight service listens.
    pub endpoint: String,
}

/// What an output's blocks hold, by partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputFooter {
    /// Blocks by partition.
    pub blocks: Vec<BlockFooter>,
}

/// What one block holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlockFooter {
    /// Rows.
    pub rows: u64,
    /// Arrow in-memory bytes.
    pub bytes: u64,
    /// Frames.
    pub frames: u64,
    /// XOR of the rows' hashes.
    pub xor: u64,
    /// Sum of the rows' hashes, wrapping.
    pub sum: u64,
}

impl OutputFooter {
    /// The short form that is recorded.
    #[must_use]
    pub fn summary(&self) -> Footer {
        Footer {
            crc: crc32c::crc32c(&self.to_wire().encode_to_vec()),
            rows: self.blocks.iter().map(|b| b.rows).sum(),
            bytes: self.blocks.iter().map(|b| b.bytes).sum(),
            checksum: self.checksum(),
        }
    }

    /// What the rows of all blocks are; `None` where they were not looked at.
    fn checksum(&self) -> Option<u64> {
        let is_known = self.blocks.iter().any(|b| b.sum != 0 || b.xor != 0);
        let words = self.blocks.iter().flat_map(|b| [b.rows, b.xor, b.sum]);
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        let (low, high) = bytes.split_at(bytes.len() / 2);
        is_known.then(|| u64::from(crc32c::crc32c(low)) << 32 | u64::from(crc32c::crc32c(high)))
    }

    /// The wire form.
    #[must_use]
    pub fn to_wire(&self) -> wire::OutputFooter {
        let block = |b: &BlockFooter| {
            let BlockFooter { rows, bytes, frames, xor, sum } = *b;
            wire::BlockFooter { rows, bytes, frames, xor, sum }
        };
        wire::OutputFooter { blocks: self.blocks.iter().map(block).collect() }
    }

    /// The domain form.
    #[must_use]
    pub fn from_wire(footer: &wire::OutputFooter) -> Self {
        let block = |b: &wire::BlockFooter| {
            let wire::BlockFooter { rows, bytes, frames, xor, sum } = *b;
            BlockFooter { rows, bytes, frames, xor, sum }
        };
        Self { blocks: footer.blocks.iter().map(block).collect() }
    }
}

impl Manifest {
    /// The content of the manifest's blob.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut holders: Vec<Holder> = self.outputs.iter().map(|o| o.holder.clone()).collect();
        holders.sort();
        holders.dedup();
        let position = |h: &Holder| u32::try_from(holders.binary_search(h).unwrap_or_default()).unwrap_or(u32::MAX);
        let mut packs: Vec<&Arc<Pack>> = self.outputs.iter().filter_map(|o| o.pack.as_ref()).collect();
        packs.sort_by(|a, b| a.name.cmp(&b.name));
        packs.dedup();
        let pack_position = |pack: &Arc<Pack>| {
            let found = packs.binary_search_by(|p| p.name.cmp(&pack.name)).map_or(0, |position| position + 1);
            u32::try_from(found).unwrap_or(u32::MAX)
        };
        let outputs = self.outputs.iter().map(|o| wire::ManifestOutput {
            attempt: Some(o.attempt.into()),
            holder: position(&o.holder),
            footer: Some(o.footer.into()),
            pack: o.pack.as_ref().map_or(0, pack_position),
        });
        let outputs = outputs.collect();
        let holders =
            holders.iter().map(|h| wire::Holder { executor: h.executor.0.clone(), endpoint: h.endpoint.clone() });
        let packs = packs.iter().map(|p| wire::Pack::from(p.as_ref())).collect();
        wire::Manifest { stage: self.stage.0, holders: holders.collect(), outputs, packs }.encode_to_vec()
    }

    /// The inverse of [`Self::encode`].
    ///
    /// # Errors
    /// The bytes are damaged or of another build.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let manifest =
            wire::Manifest::decode(bytes).map_err(|e| Error::internal(format!("a manifest cannot be decoded: {e}")))?;
        let packs: Vec<Arc<Pack>> = manifest.packs.iter().map(|p| Arc::new(Pack::from(p))).collect();
        let outputs = manifest.outputs.iter().map(|o| {
            let holder = manifest.holders.get(o.holder as usize).ok_or_else(|| missing("Manifest.holders"))?;
            Ok(ManifestOutput {
                attempt: o.attempt.ok_or_else(|| missing("ManifestOutput.attempt"))?.into(),
                holder: Holder { executor: ExecutorId(holder.executor.clone()), endpoint: holder.endpoint.clone() },
                footer: o.footer.ok_or_else(|| missing("ManifestOutput.footer"))?.into(),
                pack: (o.pack as usize).checked_sub(1).and_then(|position| packs.get(position)).cloned(),
            })
        });
        Ok(Self { stage: StageId(manifest.stage), outputs: outputs.collect::<Result<_>>()? })
    }
}
