//! Puts finished outputs into the store, behind the tasks that read them: many outputs of a run in one pack.
//!
//! Invariant: an output is reported durable only when the object that holds all of it is complete. One that is released
//! first is written no more.

mod fill;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::schedule::LostOutput;
use tidemill_core::{ExecutorId, RunId};
use tidemill_engine::crash;
use tidemill_engine::exchange::{PondSlot, pack_name};
use tidemill_engine::wire;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::fill::{Filling, Unpacked};
use crate::store::{BlockStore, StoredOutput};

/// How long an output waits for others.
const PACK_AFTER: Duration = Duration::from_millis(200);
/// How long a run is young: what ends within that time is not worth a request, and is soon done again.
const YOUNG: Duration = Duration::from_millis(800);
/// The variable that says otherwise, in milliseconds: for tests, whose runs are short.
const YOUNG_VARIABLE: &str = "TIDEMILL_YOUNG_MILLIS";
/// Runs whose age is kept.
const RUNS_KNOWN: usize = 1_000;
/// Arrow bytes of a pack's outputs after which it is written at once.
const PACK_BYTES: u64 = 64 << 20;
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
    /// Where frames are encoded, on its threads for what blocks.
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

/// Outputs of a run that wait to be packed together.
struct Waiting {
    due: Instant,
    bytes: u64,
    outputs: VecDeque<(LostOutput, u64)>,
}

/// What waits, and since when runs are known.
struct Queue {
    young: Duration,
    waiting: BTreeMap<RunId, Waiting>,
    first: BTreeMap<RunId, Instant>,
}

impl Queue {
    fn new() -> Self {
        let young = match std::env::var(YOUNG_VARIABLE).map(|millis| millis.parse()) {
            Ok(Ok(millis)) => Duration::from_millis(millis),
            Err(_) => YOUNG,
            Ok(Err(error)) => {
                tracing::warn!(%error, "{YOUNG_VARIABLE} is no number of milliseconds: it is not used");
                YOUNG
            }
        };
        Self { young, waiting: BTreeMap::new(), first: BTreeMap::new() }
    }

    fn add(&mut self, run: RunId, output: LostOutput, bytes: u64) {
        let now = Instant::now();
        if self.first.len() >= RUNS_KNOWN {
            // Those that have nothing waiting begin anew.
            self.first.retain(|run, _| self.waiting.contains_key(run));
        }
        let grown = *self.first.entry(run.clone()).or_insert(now) + self.young;
        let due = grown.max(now + PACK_AFTER);
        let waiting = self.waiting.entry(run).or_insert(Waiting { due, bytes: 0, outputs: VecDeque::new() });
        waiting.bytes += bytes;
        waiting.outputs.push_back((output, bytes));
        if waiting.bytes >= PACK_BYTES {
            waiting.due = grown.min(waiting.due);
        }
    }

    /// As many of the run's as fit into one pack; the others are due next.
    fn take(&mut self, run: &RunId) -> Vec<LostOutput> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        let Some(waiting) = self.waiting.get_mut(run) else { return taken };
        while bytes < PACK_BYTES
            && let Some((output, size)) = waiting.outputs.pop_front()
        {
            bytes += size;
            taken.push(output);
        }
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        if waiting.outputs.is_empty() {
            self.waiting.remove(run);
        }
        taken
    }

    fn next(&self) -> Option<(Instant, RunId)> {
        self.waiting.iter().map(|(run, waiting)| (waiting.due, run.clone())).min()
    }
}

impl PackerParts {
    async fn serve(
        self,
        mut from: mpsc::UnboundedReceiver<(RunId, LostOutput)>,
        again: mpsc::WeakUnboundedSender<(RunId, LostOutput)>,
    ) {
        let mut queue = Queue::new();
        loop {
            let next = queue.next();
            let offered = match &next {
                Some((due, _)) => tokio::time::timeout_at(*due, from.recv()).await.ok(),
                None => Some(from.recv().await),
            };
            match (offered, next) {
                (Some(Some((run, output))), _) => {
                    let bytes = self.bytes(&run, output);
                    queue.add(run, output, bytes);
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

    async fn pack_or_retry(
        &self,
        run: RunId,
        outputs: Vec<LostOutput>,
        again: &mpsc::WeakUnboundedSender<(RunId, LostOutput)>,
    ) {
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
                        let _ = again.send((run.clone(), output));
                    }
                });
            }
        }
    }

    fn bytes(&self, run: &RunId, output: LostOutput) -> u64 {
        self.store.output(run, output).map_or(0, |s| s.footer().blocks.iter().map(|b| b.bytes).sum())
    }

    async fn pack(&self, run: &RunId, outputs: &[(LostOutput, Arc<StoredOutput>)]) -> Result<(), Unpacked> {
        let Some(pond) = self.pond.get() else { return Ok(()) };
        let name = pack_name(run, &format!("{}-{}", self.executor, ulid::Ulid::new()));
        let mut upload = pond.upload(&name);
        // Those of a run that has ended are gone, mostly all at once.
        let is_needed = || outputs.iter().any(|(output, _)| self.store.output(run, *output).is_ok());
        let builder = match Filling::new(outputs).send(&mut upload, is_needed).await {
            Ok(Some(builder)) => builder,
            other => {
                upload.abort().await;
                return other.map(drop);
            }
        };
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
