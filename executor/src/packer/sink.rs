//! Where a task's frames go: into the store of this process, and if the output turns out large, behind that into a pack.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use tidemill_core::RunId;
use tidemill_core::schedule::LostOutput;
use tidemill_engine::crash;
use tidemill_engine::error::TaskError;
use tidemill_engine::exchange::{BlockSink, OutputFooter};
use tidemill_engine::wire::Durability;
use tokio::sync::watch;

use super::Packer;
use super::follow::{Follower, Progress};
use crate::store::{AttemptSink, Written};

/// Arrow bytes after which an output is large.
const LARGE: u64 = 16 << 20;
/// Arrow bytes that a task may write in a second and still be followed. Encoding takes a second for twice as much: to follow one
/// that writes faster would cost more than half of what doing it again would.
const FOLLOWED_PER_SECOND: u64 = 500 << 20;
/// Arrow bytes that a task is ahead of its pack, at the most.
const AHEAD: u64 = 32 << 20;
/// A task waits for its pack for this part of the time that it runs, at the most: a slow store is no reason to be slow.
const PATIENCE: u32 = 4;
/// A lost output is the exception: making it must take so many times as long as storing it.
const WORTH: u32 = 4;

/// Takes the frames of one attempt. Dropped before [`Self::finish`], nothing of them becomes durable.
#[derive(Debug)]
pub(crate) struct DurableSink {
    sink: Arc<AttemptSink>,
    packer: Packer,
    run: RunId,
    output: LostOutput,
    durability: Durability,
    began: Instant,
    /// What the follower is told.
    progress: watch::Sender<Progress>,
    /// Frames that the follower has encoded.
    encoded: watch::Receiver<u64>,
    /// What the follower is given, until it starts.
    ends: Mutex<Option<(watch::Receiver<Progress>, watch::Sender<u64>)>>,
    /// Nanoseconds that tasks waited for the follower.
    waited: AtomicU64,
}

impl Packer {
    /// A door to `sink` for an attempt.
    pub(crate) fn sink(
        &self,
        run: &RunId,
        output: LostOutput,
        sink: Arc<AttemptSink>,
        durability: Durability,
        began: Instant,
    ) -> DurableSink {
        let (progress, from) = watch::channel(Progress::default());
        let (to, encoded) = watch::channel(0);
        DurableSink {
            sink,
            packer: self.clone(),
            run: run.clone(),
            output,
            durability,
            began,
            progress,
            encoded,
            ends: Mutex::new(Some((from, to))),
            waited: AtomicU64::new(0),
        }
    }
}

/// An output that is visible.
pub(crate) struct Finished {
    pub(crate) footer: OutputFooter,
    /// What was made of its frames.
    pub(crate) written: Written,
    /// What durability `auto` decided; none where it had nothing to decide.
    pub(crate) choice: Option<Choice>,
}

/// What `auto` decided about an output, and by what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    /// Arrow bytes that do not go into the store.
    pub(crate) left_out_bytes: u64,
    /// How long the output took to make.
    pub(crate) made_in: Duration,
    /// How long it was expected to take to store.
    pub(crate) stored_in: Duration,
}

impl DurableSink {
    /// Makes the finished output visible.
    pub(crate) async fn finish(&self) -> Finished {
        let (stored, footer, written) = self.sink.finish().await;
        let parts = &self.packer.parts;
        crash::before("output.insert");
        parts.store.insert(&self.run, self.output, stored);
        crash::after("output.insert");
        let took = self.began.elapsed();
        let bytes = footer.blocks.iter().map(|b| b.bytes).sum();
        let has_store = parts.pond.get().is_some();
        let is_stored = self.is_followed() || has_store && self.is_worth_storing(took, bytes);
        let choice = (has_store && self.durability == Durability::Auto).then(|| Choice {
            left_out_bytes: if is_stored { 0 } else { bytes },
            made_in: took,
            stored_in: parts.rate.time_for(bytes),
        });
        if self.is_followed() {
            self.progress.send_modify(|progress| progress.is_finished = true);
        } else if is_stored {
            self.packer.offer(&self.run, self.output, took);
        }
        Finished { footer, written, choice }
    }

    /// Whether an output that took so long to make goes into the store.
    fn is_worth_storing(&self, took: Duration, bytes: u64) -> bool {
        match self.durability {
            Durability::Always => true,
            Durability::Auto => took > self.packer.parts.rate.time_for(bytes) * WORTH,
            Durability::Off => false,
        }
    }

    fn is_followed(&self) -> bool {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Starts the follower once the output is large, and its task not soon done again.
    fn follow(&self, bytes: u64) {
        let took = self.began.elapsed();
        let least = Duration::from_micros(bytes.saturating_mul(1_000_000) / FOLLOWED_PER_SECOND);
        let is_slow = took >= least.max(self.packer.young);
        if bytes < LARGE || !is_slow || !self.is_worth_storing(took, bytes) {
            return;
        }
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if ends.is_some()
            && let Some(begun) = self.packer.parts.begin(&self.run)
            // The others are written after their end.
            && let Ok(permit) = Arc::clone(&self.packer.following).try_acquire_owned()
            && let Some((progress, encoded)) = ends.take()
        {
            let follower = Follower {
                packer: self.packer.clone(),
                run: self.run.clone(),
                output: self.output,
                sink: Arc::clone(&self.sink),
                progress,
                encoded,
            };
            self.packer.parts.cpu.spawn(async move {
                follower.serve(begun).await;
                drop(permit);
            });
        }
    }

    /// Waits until the pack is not far behind.
    async fn wait_for_room(&self, progress: Progress) {
        let has_room = |encoded: &u64| progress.behind(*encoded) <= AHEAD;
        if has_room(&self.encoded.borrow()) {
            return;
        }
        let waited = Duration::from_nanos(self.waited.load(Ordering::Relaxed));
        let patience = (self.began.elapsed() / PATIENCE).saturating_sub(waited);
        let start = Instant::now();
        // Without room in time, or a follower, it goes on: the rest is written after the task's end.
        let _ = tokio::time::timeout(patience, self.encoded.clone().wait_for(has_room)).await;
        let waited = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.waited.fetch_add(waited, Ordering::Relaxed);
    }
}

#[async_trait]
impl BlockSink for DurableSink {
    async fn push(&self, partition: u32, batch: RecordBatch) -> Result<(), TaskError> {
        let size = batch.get_array_memory_size() as u64;
        self.sink.push(partition, batch).await?;
        self.progress.send_modify(|progress| {
            progress.frames += 1;
            progress.bytes += size;
        });
        let progress = *self.progress.borrow();
        if self.is_followed() {
            self.wait_for_room(progress).await;
        } else {
            self.follow(progress.bytes);
        }
        Ok(())
    }
}
