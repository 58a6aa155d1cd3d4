//! What the driver does for jobs: carries out what statements ask of them, and follows the clocks on the wall.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::Schema;
use tidemill_core::interval::{Job, JobName};
use tidemill_core::record::{Change, Outcome};
use tidemill_core::schedule::{Command, Event};
use tidemill_core::{Principal, RunId};

use super::{Driver, now, wall};
use crate::delivery::Keeper;
use crate::runs::{RunMessage, tell};

/// How often jobs look at the time: all of them are asked.
const EVERY: Duration = Duration::from_millis(500);
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

    /// A job that minds a change of a table: one that publishes into it, or waits for what is to go.
    pub(super) fn job_of(&self, table: &str, change: Change) -> Option<&JobName> {
        let waits = |job: &Job| change == Change::Drop && job.spec.inputs().any(|input| input.0 == table);
        let uses = |job: &Job| job.spec.output.0 == table || waits(job);
        self.state.jobs.jobs.iter().find(|(_, job)| uses(job)).map(|(name, _)| name)
    }

    /// Lets jobs look at the time, now and then.
    pub(super) fn jobs_tick(&mut self) {
        if self.jobs_ticked.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.jobs_ticked = Some(Instant::now());
        self.look_at_clock();
        self.handle(Event::JobsTick);
    }

    /// Follows the clocks on the wall, if somebody set them or the machine has slept.
    fn look_at_clock(&mut self) {
        let (Ok(wall), Ok(own)) = (i64::try_from(wall().0), i64::try_from(now().0)) else { return };
        let ahead_ms = wall - own;
        if ahead_ms.abs_diff(self.state.clock_ahead_ms) >= SLACK_MS {
            tracing::warn!(ahead_ms, "the clock was set: schedules follow it");
            self.handle(Event::ClockSet { ahead_ms });
        }
    }
}
