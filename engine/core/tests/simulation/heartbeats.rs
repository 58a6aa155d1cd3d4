//! The shell's ear: attempts that an executor should have and does not name for too long.

use tidemill_core::schedule::Event;
use tidemill_core::{Attempt, ExecutorId, Millis};

use crate::world::{Check, World};

impl World {
    pub(crate) fn heartbeat(&mut self, executor: ExecutorId, stream: u64, named: &[Attempt]) -> Check {
        if self.streams.get(&executor) != Some(&stream) {
            return Ok(());
        }
        // A launch that waits for the log is not known to its executor yet.
        let given = match self.state.executors.get(&executor) {
            Some(known) if !self.log.holds_effects() => known.running.keys().copied().collect(),
            _ => Vec::new(),
        };
        let now = Millis(self.clock());
        let watch = self.watches.entry((executor.clone(), stream)).or_default();
        let attempts = watch.missing(given, &named.iter().copied().collect(), now);
        if attempts.is_empty() {
            return Ok(());
        }
        self.ledger.counts.found_forgotten += attempts.len() as u64;
        self.step(Event::AttemptsForgotten { executor, attempts })
    }
}
