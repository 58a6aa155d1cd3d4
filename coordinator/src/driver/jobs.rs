//! What the driver does for jobs: carries out what statements ask of them, and follows the clocks on the wall.

use std::sync::Arc;

use arrow::datatypes::Schema;
use tidemill_core::record::Outcome;
use tidemill_core::schedule::{Command, Event};
use tidemill_core::{Principal, RunId};

use super::{Driver, now, wall};
use crate::delivery::Keeper;
use crate::runs::{RunMessage, tell};

/// Clocks on the wall that differ by less from the driver's are taken for the same: they are corrected all the time.
const SLACK_MS: u64 = 1_000;

impl Driver {
    /// Asks something of jobs or of another run, for a statement's run.
    pub(super) fn command(&mut self, run: RunId, command: Command) {
        let Some(asking) = self.state.runs.get(&run).filter(|known| !known.state.is_terminal()) else {
            return; // Cancelled meanwhile.
        };
        let by = asking.spec.by.clone().unwrap_or_else(Principal::anybody);
        if let Command::CancelRun { run: other } = &command
            && let Err(error) = self.check_owner(other, &by)
        {
            return self.handle(Event::Answered { run, outcome: Outcome::Failed { error } });
        }
        let columns = Arc::new(Schema::empty());
        if let Some(client) = self.clients.get(&run) {
            tell(&client.messages, RunMessage::Schema(Arc::clone(&columns)));
        }
        let (kept, answer) = Keeper::nothing(&columns, &self.config.pond);
        self.keep(answer);
        self.handle(Event::Commanded { run, command, kept });
    }

    /// Follows the clocks on the wall, if somebody set them or the machine has slept.
    pub(super) fn look_at_clock(&mut self) {
        let (Ok(wall), Ok(own)) = (i64::try_from(wall().0), i64::try_from(now().0)) else { return };
        let ahead_ms = wall - own;
        if ahead_ms.abs_diff(self.state.clock_ahead_ms) >= SLACK_MS {
            tracing::warn!(ahead_ms, "the clock was set: schedules follow it");
            self.handle(Event::ClockSet { ahead_ms });
        }
    }
}
