//! Puts finished outputs into the store, behind the tasks that read them: many outputs of a run in one pack.
//!
//! Invariant: an output is reported durable only when the object that holds all of it is complete. One that is released
//! first is written no more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::schedule::LostOutput;
use tidemill_core::{ExecutorId, Result, RunId};
use tidemill_engine::crash;
use tidemill_engine::error::TaskError;
use tidemill_engine::exchange::{PackBuilder, PackUpload, PondSlot, pack_name};
use tidemill_engine::wire;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::store::{BlockStore, StoredOutput};

/// How long an output waits for others.
const PACK_AFTER: Duration = Duration::from_millis(500);
/// Arrow bytes of a pack's outputs after which it is written at once.
const PACK_BYTES: u64 = 64 << 20;
/// Bytes of one part of an upload, and what is held of a pack in memory.
const PART: usize = 32 << 20;
/// After a store refused.
const RETRY: Duration = Duration::from_secs(2);

/// The door to the task that writes.
#[derive(Debug, Clone)]
pub(crate) struct Packer {
    offers: mpsc::UnboundedSender<(RunId, LostOutput)>,
}

/// What the task that writes needs.
pub(crate) struct PackerParts {
    pub(crate) store: Arc<BlockStore>,
    pub(crate) pond: PondSlot,
    pub(crate) executor: ExecutorId,
    /// Where frames are encoded.
    pub(crate) cpu: Handle,
    /// Hears of packs that are durable.
    pub(crate) written: mpsc::Sender<wire::PackDurable>,
}

impl Packer {
    /// Starts the task on the parts' `cpu` runtime.
    pub(crate) fn start(parts: PackerParts) -> Self {
        let (offers, from) = mpsc::unbounded_channel();
        let cpu = parts.cpu.clone();
        let again = offers.clone();
        cpu.spawn(async move { parts.serve(from, again.downgrade()).await });
        Self { offers }
    }

    /// An output that others may outlive.
    pub(crate) fn offer(&self, run: &RunId, output: LostOutput) {
        // The task ends with the process.
        let _ = self.offers.send((run.clone(), output));
    }
}

type Offers = BTreeMap<RunId, Vec<(LostOutput, Arc<StoredOutput>)>>;

impl PackerParts {
    async fn serve(
        self,
        mut from: mpsc::UnboundedReceiver<(RunId, LostOutput)>,
        again: mpsc::WeakUnboundedSender<(RunId, LostOutput)>,
    ) {
        while let Some(first) = from.recv().await {
            let deadline = Instant::now() + PACK_AFTER;
            let mut offered = vec![first];
            let mut bytes = self.bytes(offered.first());
            while bytes < PACK_BYTES {
                let Ok(Some(next)) = tokio::time::timeout_at(deadline, from.recv()).await else { break };
                bytes += self.bytes(Some(&next));
                offered.push(next);
            }
            let mut runs = Offers::new();
            for (run, output) in offered {
                // Released meanwhile: nobody needs it.
                if let Ok(stored) = self.store.output(&run, output) {
                    runs.entry(run).or_default().push((output, stored));
                }
            }
            for (run, outputs) in runs {
                if let Err(error) = self.pack(&run, &outputs).await {
                    tracing::warn!(%run, %error, "a pack could not be written: trying again");
                    // By name: what is released meanwhile is not held for it.
                    let named: Vec<LostOutput> = outputs.into_iter().map(|(output, _)| output).collect();
                    if let Some(again) = again.upgrade() {
                        tokio::spawn(async move {
                            tokio::time::sleep(RETRY).await;
                            for output in named {
                                let _ = again.send((run.clone(), output));
                            }
                        });
                    }
                }
            }
        }
    }

    fn bytes(&self, offer: Option<&(RunId, LostOutput)>) -> u64 {
        let stored = offer.and_then(|(run, output)| self.store.output(run, *output).ok());
        stored.map_or(0, |s| s.footer().blocks.iter().map(|b| b.bytes).sum())
    }

    async fn pack(&self, run: &RunId, outputs: &[(LostOutput, Arc<StoredOutput>)]) -> Result<()> {
        let Some(pond) = self.pond.get() else { return Ok(()) };
        let name = pack_name(run, &format!("{}-{}", self.executor, ulid::Ulid::new()));
        let mut upload = pond.upload(&name);
        let mut builder = PackBuilder::default();
        if let Err(error) = fill(&mut builder, &mut upload, outputs).await {
            upload.abort().await;
            return Err(error.error);
        }
        let (rest, crc, bytes) = builder.finish();
        crash::before("pack.finish");
        let puts = upload.finish(rest).await?;
        crash::after("pack.finish");
        let pack = wire::PackDurable {
            run: run.0.clone(),
            pack: Some(wire::Pack { name, crc, bytes, puts }),
            outputs: outputs.iter().map(|(output, _)| (*output).into()).collect(),
        };
        // The agent ends with the process.
        let _ = self.written.send(pack).await;
        Ok(())
    }
}

/// Appends the outputs' blocks, those of one partition beside each other.
async fn fill(
    builder: &mut PackBuilder,
    upload: &mut PackUpload,
    outputs: &[(LostOutput, Arc<StoredOutput>)],
) -> std::result::Result<(), TaskError> {
    for (output, stored) in outputs {
        builder.output(*output, stored.footer());
    }
    let partitions = outputs.iter().map(|(_, stored)| stored.footer().blocks.len()).max().unwrap_or(0);
    for partition in 0..u32::try_from(partitions).unwrap_or(u32::MAX) {
        for (position, (_, stored)) in outputs.iter().enumerate() {
            if stored.footer().blocks.len() <= partition as usize {
                continue;
            }
            builder.block(position, partition);
            for frame in 0..stored.frames(partition) {
                builder.frame(&stored.packed_frame(partition, frame).await?);
                // Encoding takes as long as computing: tasks on the same threads have their turn.
                tokio::task::yield_now().await;
                if let Some(part) = builder.take_part(PART) {
                    upload.part(part).await?;
                }
            }
        }
    }
    Ok(())
}
