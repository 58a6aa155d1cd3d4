//! Finished outputs that wait to be written: which go into a pack together, and when.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tidemill_core::RunId;
use tidemill_core::schedule::LostOutput;
use tokio::time::Instant;

/// How long an output waits for others.
const PACK_AFTER: Duration = Duration::from_millis(200);
/// Runs whose age is kept.
const RUNS_KNOWN: usize = 1_000;
/// Arrow bytes of a pack's outputs after which it is written at once.
const PACK_BYTES: u64 = 64 << 20;

/// An output of a run, and what it is worth.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) run: RunId,
    pub(super) output: LostOutput,
    /// How long its task took; nothing if it was tried before.
    pub(super) took: Duration,
}

/// Outputs of a run that wait to be packed together.
struct Waiting {
    due: Instant,
    bytes: u64,
    outputs: VecDeque<(LostOutput, u64)>,
}

/// What waits, and since when runs are known.
pub(super) struct Queue {
    young: Duration,
    waiting: BTreeMap<RunId, Waiting>,
    first: BTreeMap<RunId, Instant>,
}

impl Queue {
    pub(super) const fn new(young: Duration) -> Self {
        Self { young, waiting: BTreeMap::new(), first: BTreeMap::new() }
    }

    /// Takes an output of so many bytes.
    pub(super) fn add(&mut self, offer: Offer, bytes: u64) {
        let Offer { run, output, took } = offer;
        let now = Instant::now();
        if self.first.len() >= RUNS_KNOWN {
            // Those that have nothing waiting begin anew.
            self.first.retain(|run, _| self.waiting.contains_key(run));
        }
        let first = *self.first.entry(run.clone()).or_insert(now);
        // What took long is not soon done again.
        let grown = if took >= self.young { now } else { first + self.young };
        let due = grown.max(now + PACK_AFTER);
        let waiting = self.waiting.entry(run).or_insert(Waiting { due, bytes: 0, outputs: VecDeque::new() });
        waiting.due = waiting.due.min(due);
        waiting.bytes += bytes;
        waiting.outputs.push_back((output, bytes));
        if waiting.bytes >= PACK_BYTES {
            waiting.due = grown.min(waiting.due);
        }
    }

    /// As many of the run's as fit into one pack; the others are due next.
    pub(super) fn take(&mut self, run: &RunId) -> Vec<LostOutput> {
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

    /// What is due next, and when.
    pub(super) fn next(&self) -> Option<(Instant, RunId)> {
        self.waiting.iter().map(|(run, waiting)| (waiting.due, run.clone())).min()
    }
}
