//! Puts outputs into the store, behind the tasks that read them: a large one while its task still runs, in a pack of its
//! own; of the others many of a run in one pack, after they are finished.
//!
//! Invariant: an output is reported durable only when the object that holds all of it is complete. One that is released
//! first is written no more.

mod fill;
mod follow;
mod queue;
mod rate;
mod sink;

use std::sync::Arc;
use std::time::Duration;

use tidemill_core::schedule::LostOutput;
use tidemill_core::{Error, ExecutorId, RunId};
use tidemill_engine::crash;
use tidemill_engine::exchange::{PackBuilder, PackUpload, PondSlot, pack_name};
use tidemill_engine::wire;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use self::fill::{Filling, Unpacked};
use self::queue::{Offer, Queue};
pub(crate) use self::rate::StoreRate;
pub(crate) use self::sink::{DurableSink, Finished};
use crate::store::{BlockStore, StoredOutput};

/// How long a run is young: what ends within that time is not worth a request, and is soon done again.
const YOUNG: Duration = Duration::from_millis(800);
/// The variable that says otherwise, in milliseconds: for tests, whose runs are short.
const YOUNG_VARIABLE: &str = "TIDEMILL_YOUNG_MILLIS";
/// After a store refused.
const RETRY: Duration = Duration::from_secs(2);
/// Bytes of one part of an upload. Two are held in memory: one that is sent, and the next.
const PART: usize = 32 << 20;

/// The door to those that write.
#[derive(Debug, Clone)]
pub(crate) struct Packer {
    offers: mpsc::UnboundedSender<Offer>,
    parts: Arc<PackerParts>,
    /// One permit for each large output that may be written while its task runs.
    following: Arc<Semaphore>,
    young: Duration,
}

/// What those that write need.
#[derive(Debug)]
pub(crate) struct PackerParts {
    pub(crate) rate: StoreRate,
    pub(crate) store: Arc<BlockStore>,
    pub(crate) pond: PondSlot,
    pub(crate) executor: ExecutorId,
    /// Where frames are encoded, on its threads for what blocks.
    pub(crate) cpu: Handle,
    /// Hears of packs that are durable.
    pub(crate) written: mpsc::Sender<wire::PackDurable>,
}

impl Packer {
    /// Starts the task on the parts' `cpu` runtime. As many large outputs are written while their tasks run as hold an
    /// eighth of `memory`.
    pub(crate) fn start(parts: PackerParts, memory: usize) -> Self {
        let (offers, from) = mpsc::unbounded_channel();
        let parts = Arc::new(parts);
        let again = offers.downgrade();
        let (young, serving) = (young(), Arc::clone(&parts));
        parts.cpu.spawn(async move { serving.serve(from, again, young).await });
        let following = Arc::new(Semaphore::new((memory / 8 / (2 * PART)).max(1)));
        Self { offers, parts, following, young }
    }

    /// An output that others may outlive, and how long it took.
    fn offer(&self, run: &RunId, output: LostOutput, took: Duration) {
        // The task ends with the process.
        let _ = self.offers.send(Offer { run: run.clone(), output, took });
    }
}

fn young() -> Duration {
    match std::env::var(YOUNG_VARIABLE).map(|millis| millis.parse()) {
        Ok(Ok(millis)) => Duration::from_millis(millis),
        Err(_) => YOUNG,
        Ok(Err(error)) => {
            tracing::warn!(%error, "{YOUNG_VARIABLE} is no number of milliseconds: it is not used");
            YOUNG
        }
    }
}

impl PackerParts {
    async fn serve(
        &self,
        mut from: mpsc::UnboundedReceiver<Offer>,
        again: mpsc::WeakUnboundedSender<Offer>,
        young: Duration,
    ) {
        let mut queue = Queue::new(young);
        loop {
            let next = queue.next();
            let offered = match &next {
                Some((due, _)) => tokio::time::timeout_at(*due, from.recv()).await.ok(),
                None => Some(from.recv().await),
            };
            match (offered, next) {
                (Some(Some(offer)), _) => {
                    let bytes = self.bytes(&offer.run, offer.output);
                    queue.add(offer, bytes);
                }
                // The process stops.
                (Some(None), _) | (None, None) => return,
                (None, Some((_, run))) => {
                    let outputs = queue.take(&run);
                    self.pack_or_retry(run, outputs, &again).await;
                }
            }
        }
    }

    async fn pack_or_retry(&self, run: RunId, outputs: Vec<LostOutput>, again: &mpsc::WeakUnboundedSender<Offer>) {
        // Those released meanwhile are needed by nobody.
        let stored = |output: &LostOutput| self.store.output(&run, *output).ok().map(|stored| (*output, stored));
        let stored: Vec<_> = outputs.iter().filter_map(stored).collect();
        if stored.is_empty() {
            return;
        }
        if let Err(Unpacked { error, unreadable }) = self.pack(&run, &stored).await {
            tracing::warn!(%run, %error, "a pack could not be written: trying again");
            // One that cannot be read is lost to its readers too: its task runs again.
            let outputs: Vec<_> = outputs.into_iter().filter(|output| Some(*output) != unreadable).collect();
            // By name: what is released meanwhile is not held for it.
            if let Some(again) = again.upgrade() {
                tokio::spawn(async move {
                    tokio::time::sleep(RETRY).await;
                    for output in outputs {
                        let _ = again.send(Offer { run: run.clone(), output, took: Duration::ZERO });
                    }
                });
            }
        }
    }

    fn bytes(&self, run: &RunId, output: LostOutput) -> u64 {
        self.store.output(run, output).map_or(0, |stored| stored.bytes())
    }

    async fn pack(&self, run: &RunId, outputs: &[(LostOutput, Arc<StoredOutput>)]) -> Result<(), Unpacked> {
        let Some(mut begun) = self.begin(run) else { return Ok(()) };
        // Those of a run that has ended are gone, mostly all at once.
        let is_needed = || outputs.iter().any(|(output, _)| self.store.output(run, *output).is_ok());
        let builder = match Filling::new(outputs).send(&mut begun.upload, is_needed).await {
            Ok(Some(builder)) => builder,
            other => {
                begun.upload.abort().await;
                return other.map(drop);
            }
        };
        let since = begun.since;
        self.complete(run, begun, builder, outputs.iter().map(|(output, _)| *output)).await?;
        self.rate.note(outputs.iter().map(|(_, stored)| stored.bytes()).sum(), since.elapsed());
        Ok(())
    }

    /// Begins an object, if this process knows where.
    fn begin(&self, run: &RunId) -> Option<Begun> {
        let name = pack_name(run, &format!("{}-{}", self.executor, ulid::Ulid::new()));
        let upload = self.pond.get()?.upload(&name);
        Some(Begun { name, upload, since: Instant::now() })
    }

    /// Completes an object and says so.
    async fn complete(
        &self,
        run: &RunId,
        begun: Begun,
        builder: PackBuilder,
        outputs: impl Iterator<Item = LostOutput>,
    ) -> Result<(), Error> {
        let Begun { name, upload, since } = begun;
        let (rest, crc, bytes) = builder.finish();
        crash::before("pack.finish");
        let puts = upload.finish(rest).await?;
        crash::after("pack.finish");
        let outputs: Vec<_> = outputs.map(Into::into).collect();
        tracing::debug!(%name, outputs = outputs.len(), bytes, took = ?since.elapsed(), "a pack is durable");
        let pack = wire::Pack { name, crc, bytes, puts };
        // The agent ends with the process.
        let _ = self.written.send(wire::PackDurable { run: run.0.clone(), pack: Some(pack), outputs }).await;
        Ok(())
    }
}

/// An object being written.
struct Begun {
    name: String,
    upload: PackUpload,
    since: Instant,
}
