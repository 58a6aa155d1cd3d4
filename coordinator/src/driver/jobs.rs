//! What the driver does for jobs: carries out what statements ask of them, and follows the clocks on the wall.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use tidemill_core::interval::{Job, JobName, Request, RunKey, accepted, waits_for};
use tidemill_core::record::{Change, Outcome};
use tidemill_core::schedule::{Command, Event};
use tidemill_core::{Error, Millis, Principal, Result, RunId};

use super::{Driver, now, wall};
use crate::delivery::Keeper;
use crate::runs::{RunMessage, tell};

/// How often jobs look at the time: all of them are asked.
const EVERY: Duration = Duration::from_millis(500);
/// Clocks on the wall that differ by less from the driver's are taken for the same: they are corrected all the time.
const SLACK_MS: u64 = 1_000;
/// The zone of times in answers.
const UTC: &str = "UTC";

/// The columns of what a command answers.
#[must_use]
pub fn answer_columns(command: &Command) -> SchemaRef {
    // The number is signed: one without a sign in the first column is how many rows a statement wrote, for clients of Flight SQL.
    let columns = match (command.backfill(), command.execution()) {
        (Some(_), _) => vec![
            Field::new("backfill", DataType::Int64, true),
            Field::new("intervals", DataType::UInt64, false),
            Field::new("why", DataType::Utf8, true),
        ],
        (None, Some(_)) => {
            let time = |name| Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())), false);
            vec![
                Field::new("run_id", DataType::Utf8, false),
                time("interval_start"),
                time("interval_end"),
                Field::new("waits_for", DataType::Utf8, true),
            ]
        }
        (None, None) => Vec::new(),
    };
    Arc::new(Schema::new(columns))
}

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
        let (columns, at) = (answer_columns(&command), now());
        let answer = match self.answer(&command, &columns, at) {
            Ok(answer) => answer,
            Err(error) => return self.handle(Event::Answered { run, outcome: Outcome::Failed { error } }),
        };
        if let Some(client) = self.clients.get(&run) {
            tell(&client.messages, RunMessage::Schema(Arc::clone(&columns)));
        }
        let (kept, blob) = match &answer {
            Some(rows) => Keeper::batch(rows, &self.config.pond),
            None => Keeper::nothing(&columns, &self.config.pond),
        };
        self.keep(blob);
        if let Some(rows) = answer {
            // Told when the step's records are durable.
            self.answers.insert(run.clone(), rows);
        }
        self.handle_at(Event::Commanded { run, command, kept }, at);
    }

    /// The rows that tell what a command will have done; none if it tells nothing, or is refused.
    fn answer(&self, command: &Command, columns: &SchemaRef, at: Millis) -> Result<Option<RecordBatch>> {
        let row = match (command.backfill(), command.execution()) {
            (Some((job, request)), _) => self.of_backfill(job, request, at),
            (None, Some((job, start))) => self.of_execution(job, start),
            (None, None) => None,
        };
        let row = row.map(|row| RecordBatch::try_new(Arc::clone(columns), row)).transpose();
        row.map_err(|e| Error::internal(format!("what a statement about a job answers cannot be made: {e}")))
    }

    fn of_backfill(&self, job: &JobName, request: &Request, at: Millis) -> Option<Vec<ArrayRef>> {
        let wall = Millis(at.0.saturating_add_signed(self.state.clock_ahead_ms));
        let accepted = accepted(&self.state.jobs, job, request, wall).ok()?;
        Some(vec![
            Arc::new(Int64Array::from(vec![accepted.id.and_then(|id| i64::try_from(id).ok())])),
            Arc::new(UInt64Array::from(vec![accepted.intervals])),
            Arc::new(StringArray::from(vec![accepted.why_none.as_deref()])),
        ])
    }

    /// The run that will compute the interval, behind one that is in progress.
    fn of_execution(&self, name: &JobName, start: Millis) -> Option<Vec<ArrayRef>> {
        let job = self.state.jobs.jobs.get(name)?;
        let index = job.calendar.containing(start)?;
        let before = job.active.get(&index).map_or(0, |active| active.generation).max(job.ledger.generation(index));
        let (job_name, incarnation, generation) = (name.clone(), job.incarnation, before.saturating_add(1));
        let run = RunKey { job: job_name, incarnation, index, generation, attempt: 1 }.run();
        let interval = job.calendar.interval(index);
        let time = |at: Millis| {
            let at = i64::try_from(at.0).ok()?;
            Some(Arc::new(TimestampMillisecondArray::from(vec![at]).with_timezone(UTC)) as ArrayRef)
        };
        let inputs = waits_for(&self.state.jobs, job, index);
        let names: Vec<&str> = inputs.iter().map(|input| input.0.strip_prefix("public.").unwrap_or(&input.0)).collect();
        let waits = (!names.is_empty()).then(|| format!("{} to be complete", names.join(", ")));
        Some(vec![
            Arc::new(StringArray::from(vec![run.0])),
            time(interval.start)?,
            time(interval.end)?,
            Arc::new(StringArray::from(vec![waits])),
        ])
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
