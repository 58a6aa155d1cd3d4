//! The shell's ear: attempts that an executor should have and does not name for too long.

use std::collections::BTreeMap;

use tidemill_core::schedule::Event;
use tidemill_core::{Attempt, ExecutorId};

use crate::world::{Check, World};

/// An attempt that is not named for this long was forgotten.
const FORGOTTEN_MS: u64 = 10_000;

impl World {
    pub(crate) fn heartbeat(&mut self, executor: ExecutorId, stream: u64, named: &[Attempt]) -> Check {
        if self.streams.get(&executor) != Some(&stream) {
            return Ok(());
        }
        let known = self.state.executors.get(&executor).map(|e| &e.running);
        // A launch that waits for the log is not known to its executor yet.
        let watched = known.filter(|_| !self.log.holds_effects());
        let missing = watched.into_iter().flat_map(BTreeMap::keys).filter(|a| !named.contains(a)).copied();
        let before = self.unnamed.remove(&executor).unwrap_or_default();
        let now = self.now;
        let unnamed: BTreeMap<Attempt, u64> =
            missing.map(|attempt| (attempt, before.get(&attempt).copied().unwrap_or(now))).collect();
        let is_old = |since: u64| now - since > FORGOTTEN_MS;
        let attempts: Vec<Attempt> = unnamed.iter().filter(|(_, since)| is_old(**since)).map(|(a, _)| *a).collect();
        self.unnamed.insert(executor.clone(), unnamed);
        if attempts.is_empty() {
            return Ok(());
        }
        self.ledger.counts.found_forgotten += attempts.len() as u64;
        self.step(Event::AttemptsForgotten { executor, attempts })
    }
}
