//! The pack of a large output, written while its task runs: when the task ends, only the last part is left to do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill_core::schedule::LostOutput;
use tidemill_core::{Error, RunId};
use tidemill_engine::error::TaskError;
use tidemill_engine::exchange::PackBuilder;
use tidemill_engine::exchange::frame::Frame;
use tokio::sync::watch;

use super::{Begun, PART, Packer, RETRY};
use crate::store::{AttemptSink, Snapshot, StoredOutput};

/// Arrow bytes that are worth a thread's turn.
const CHUNK: u64 = 8 << 20;

/// How far a task is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    pub(super) frames: u64,
    /// Arrow bytes of the frames.
    pub(super) bytes: u64,
    /// Whether the output stands in the store of this process.
    pub(super) is_finished: bool,
}

impl Progress {
    /// Bytes that are not encoded when so many frames are, frames being of about one size.
    pub(super) fn behind(&self, encoded: u64) -> u64 {
        self.frames.saturating_sub(encoded) * (self.bytes / self.frames.max(1))
    }
}

/// Writes one attempt's output.
pub(super) struct Follower {
    pub(super) packer: Packer,
    pub(super) run: RunId,
    pub(super) output: LostOutput,
    pub(super) sink: Arc<AttemptSink>,
    /// Its sender is dropped when the attempt fails or is stopped.
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) encoded: watch::Sender<u64>,
}

/// What comes next.
enum Next {
    Part(Growing, Vec<Bytes>),
    /// The output is finished, and all of it is in the builder.
    Complete(Growing),
    /// The attempt was stopped, or its run has ended.
    NotNeeded,
}

impl Follower {
    pub(super) async fn serve(mut self, begun: Begun) {
        if let Err(error) = self.pack(begun).await {
            tracing::warn!(run = %self.run, %error, "the pack of a task that runs could not be written: trying again");
            // Its task does not wait for it any more.
            self.encoded.send_replace(u64::MAX);
            if self.progress.wait_for(|progress| progress.is_finished).await.is_ok() {
                tokio::time::sleep(RETRY).await;
                self.packer.offer(&self.run, self.output, Duration::ZERO);
            }
        }
    }

    async fn pack(&mut self, mut begun: Begun) -> Result<(), Error> {
        let stopped = stopped(self.progress.clone());
        let parts = tokio::select! {
            parts = self.parts(&mut begun) => parts,
            // Also in the middle of a part: nothing of it is needed.
            () = stopped => Ok(None),
        };
        match parts {
            Ok(Some(builder)) => self.packer.parts.complete(&self.run, begun, builder, [self.output].into_iter()).await,
            other => {
                begun.upload.abort().await;
                other.map(drop)
            }
        }
    }

    /// Sends everything but the rest, which completes the object; `None` if it is not needed.
    async fn parts(&mut self, begun: &mut Begun) -> Result<Option<PackBuilder>, Error> {
        let mut next = self.next(Growing::default()).await?;
        loop {
            match next {
                Next::Part(growing, part) => {
                    let sent = begun.upload.part(part);
                    (_, next) = tokio::try_join!(sent, self.next(growing))?;
                }
                Next::Complete(mut growing) => {
                    let Some(stored) = self.stored() else { return Ok(None) };
                    growing.builder.output(self.output, stored.footer());
                    growing.reach(stored.footer().blocks.len());
                    return Ok(Some(growing.builder));
                }
                Next::NotNeeded => return Ok(None),
            }
        }
    }

    /// Encodes frames as they come, until there is enough for a part.
    async fn next(&mut self, mut growing: Growing) -> Result<Next, Error> {
        loop {
            let encoded = growing.frames;
            let is_enough = |progress: &Progress| progress.is_finished || progress.behind(encoded) >= CHUNK;
            let Ok(progress) = self.progress.wait_for(is_enough).await.map(|progress| *progress) else {
                return Ok(Next::NotNeeded);
            };
            growing.snapshot = match progress.is_finished {
                true => match self.stored() {
                    Some(stored) => stored.after(&growing.passed),
                    None => return Ok(Next::NotNeeded),
                },
                false => self.sink.after(&growing.passed).await,
            };
            let is_last = progress.is_finished && growing.snapshot.frames.is_empty();
            // On a thread of its own, which the system interrupts: beside the task, not in turns with its batches.
            let filled = tokio::task::spawn_blocking(move || growing.fill()).await;
            let (filled, part) = filled.map_err(|e| Error::internal(format!("a pack's encoding panicked: {e}")))??;
            growing = filled;
            self.encoded.send_replace(growing.frames);
            self.sink.take_encoded(std::mem::take(&mut growing.new)).await;
            match part {
                Some(part) => return Ok(Next::Part(growing, part)),
                None if is_last => return Ok(Next::Complete(growing)),
                None => {}
            }
        }
    }

    /// The finished output; `None` once it was released.
    fn stored(&self) -> Option<Arc<StoredOutput>> {
        self.packer.parts.store.output(&self.run, self.output).ok()
    }
}

/// Ends when an attempt ends that is not finished.
async fn stopped(mut progress: watch::Receiver<Progress>) {
    if progress.wait_for(|progress| progress.is_finished).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

/// A pack of one output.
#[derive(Default)]
struct Growing {
    builder: PackBuilder,
    /// Frames of each partition that the builder took, and of all.
    passed: Vec<usize>,
    frames: u64,
    snapshot: Snapshot,
    /// Frames that were encoded for it, by partition and position.
    new: Vec<(usize, usize, Frame)>,
}

impl Growing {
    /// Begins blocks until there are so many.
    fn reach(&mut self, blocks: usize) {
        for partition in self.passed.len()..blocks {
            self.builder.block(0, u32::try_from(partition).unwrap_or(u32::MAX));
            self.passed.push(0);
        }
    }

    /// Appends the snapshot's frames until there is enough for a part.
    fn fill(mut self) -> Result<(Self, Option<Vec<Bytes>>), Error> {
        while let Some((partition, frame, is_new)) = self.snapshot.next().map_err(|e: TaskError| e.error)? {
            self.reach(partition + 1);
            self.builder.frame_of(partition, &frame);
            if let Some(passed) = self.passed.get_mut(partition) {
                self.new.extend(is_new.then_some((partition, *passed, frame)));
                *passed += 1;
            }
            self.frames += 1;
            if let Some(part) = self.builder.take_part(PART) {
                return Ok((self, Some(part)));
            }
        }
        Ok((self, None))
    }
}
