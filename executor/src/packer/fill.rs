//! The bytes of a pack of finished outputs, part by part.

use std::sync::Arc;

use bytes::Bytes;
use tidemill_core::Error;
use tidemill_core::schedule::LostOutput;
use tidemill_engine::exchange::{PackBuilder, PackUpload};
use tokio::task::JoinHandle;

use super::PART;
use crate::store::StoredOutput;

/// Why a pack was not written.
pub(super) struct Unpacked {
    pub(super) error: Error,
    /// The output whose frames cannot be read.
    pub(super) unreadable: Option<LostOutput>,
}

/// A part that is being encoded; none at the end.
type Encoding = JoinHandle<Result<(Filling, Option<Vec<Bytes>>), Unpacked>>;

async fn encoded(encoding: Encoding) -> Result<(Filling, Option<Vec<Bytes>>), Unpacked> {
    encoding.await.map_err(|e| Error::internal(format!("a pack's encoding panicked: {e}")))?
}

impl From<Error> for Unpacked {
    fn from(error: Error) -> Self {
        Self { error, unreadable: None }
    }
}

/// Outputs, of which some frames were appended.
pub(super) struct Filling {
    builder: PackBuilder,
    outputs: Vec<(LostOutput, Arc<StoredOutput>)>,
    /// What comes next: those of one partition beside each other.
    partition: u32,
    position: usize,
    frame: usize,
}

impl Filling {
    pub(super) fn new(outputs: &[(LostOutput, Arc<StoredOutput>)]) -> Self {
        let mut builder = PackBuilder::default();
        for (output, stored) in outputs {
            builder.output(*output, stored.footer());
        }
        Self { builder, outputs: outputs.to_vec(), partition: 0, position: 0, frame: 0 }
    }

    /// Sends everything but the rest, which completes the object. Ends early, with `None`, once `is_needed` says so.
    pub(super) async fn send(
        self,
        upload: &mut PackUpload,
        is_needed: impl Fn() -> bool + Send,
    ) -> Result<Option<PackBuilder>, Unpacked> {
        let mut next = encoded(self.encode()).await?;
        while let (filling, Some(part)) = next {
            if !is_needed() {
                return Ok(None);
            }
            let encoding = filling.encode();
            upload.part(part).await?;
            next = encoded(encoding).await?;
        }
        Ok(is_needed().then_some(next.0.builder))
    }

    /// Begins to encode a part. That takes as long as computing: on a thread of its own, beside the tasks, or it would have
    /// one turn for each of their batches, and what is finished would wait long for its place in the store.
    fn encode(mut self) -> Encoding {
        tokio::task::spawn_blocking(move || {
            let part = self.fill()?;
            Ok((self, part))
        })
    }

    /// Appends frames until there is enough for a part; `None` at the end.
    fn fill(&mut self) -> Result<Option<Vec<Bytes>>, Unpacked> {
        let blocks = |stored: &Arc<StoredOutput>| stored.footer().blocks.len();
        let partitions =
            u32::try_from(self.outputs.iter().map(|(_, stored)| blocks(stored)).max().unwrap_or(0)).unwrap_or(u32::MAX);
        while self.partition < partitions {
            while let Some((output, stored)) = self.outputs.get(self.position) {
                if self.frame == 0 && blocks(stored) > self.partition as usize {
                    self.builder.block(self.position, self.partition);
                }
                while self.frame < stored.frames(self.partition) {
                    let frame = stored.packed_frame(self.partition, self.frame);
                    let frame = frame.map_err(|e| Unpacked { error: e.error, unreadable: Some(*output) })?;
                    self.builder.frame(&frame);
                    self.frame += 1;
                    if let Some(part) = self.builder.take_part(PART) {
                        return Ok(Some(part));
                    }
                }
                self.frame = 0;
                self.position += 1;
            }
            self.position = 0;
            self.partition += 1;
        }
        Ok(None)
    }
}
