//! Named jobs and their intervals: `step(state, event, now) → records, actions`.
//!
//! What runs when, what waits for what, and what is published how often. One file per kind of event; a `Decider` collects
//! what was decided and changes the state only by applying the records it emits, as in [`schedule`](crate::schedule).
//! `docs/jobs.md` has the semantics.
//!
//! Invariant: time is an argument, the rules of time zones are compiled in. An interval is submitted only while its
//! inputs cover it, in one run at a time, and published at most once per generation. Nothing here grows with the number of
//! intervals.

mod apply;
mod backfills;
mod calendar;
mod check;
mod clock;
mod coverage;
mod cron;
mod deadlines;
mod decide;
mod fires;
mod jobs;
mod lateness;
mod ledger;
mod names;
mod record;
mod requests;
mod retry;
mod runs;
mod spans;
mod spec;
mod stale;
mod standing;
mod starts;
mod state;
mod updates;
mod zone;

pub use backfills::{Accepted, Plan, accepted, plan};
pub use calendar::{Calendar, Interval, Length, Unit};
pub use coverage::{covered, ready};
pub use cron::Cron;
pub use deadlines::deadline;
pub use ledger::{Entry, Failure, Fate, Ledger, MOST_COUNTED};
pub use names::{Cause, DatasetName, JobName, RUN_PREFIX, RunKey};
pub use record::{Cursor, Record};
pub use retry::is_retried;
pub use spans::{Ranges, Spans};
pub use spec::{CatchUp, Deadline, Mode, Options, Overlap, Spec, Trigger};
pub use stale::Inherited;
pub(crate) use standing::why_stopped;
pub use standing::{Standing, held_up_by, standing, waits_for};
pub use state::{
    Active, ActiveState, Backfill, Coverage, Job, Order, Reprocess, Request, State, StopReason, SuspendReason,
    Suspension,
};
pub use zone::{CALENDAR_END, Local, Zone};

use serde::{Deserialize, Serialize};

use crate::{Error, Millis, Result};
use decide::Decider;

/// Something that happened outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A coordinator leads from now on, with a state replayed from its records.
    Restarted,
    /// `CREATE JOB`.
    JobCreated { job: JobName, spec: Spec },
    /// `CREATE OR REPLACE JOB`. A job with other intervals or another dataset begins anew, any other keeps its ledger.
    JobReplaced { job: JobName, spec: Spec },
    /// `ALTER JOB … SET`: the clauses as they are then.
    JobAltered { job: JobName, spec: Spec },
    /// `DROP JOB`.
    JobDropped { job: JobName },
    /// `ALTER JOB … SUSPEND`.
    JobSuspended { job: JobName },
    /// `ALTER JOB … RESUME`.
    JobResumed { job: JobName },
    /// `EXECUTE JOB … FOR INTERVAL`, named by where it begins.
    Requested { job: JobName, start: Millis },
    /// `BACKFILL JOB`.
    BackfillRequested { job: JobName, request: Request },
    /// A backfill is to begin no more intervals.
    BackfillCancelled { job: JobName, id: u64 },
    /// `CANCEL RUN` of one that the machine started.
    RunCancelled { run: RunKey },
    /// A run that was submitted has waited for its turn, or goes on under a new leader: its timeout counts from now.
    RunBegan { run: RunKey },
    /// A run that was submitted is over.
    RunEnded { run: RunKey, ended: Ended },
    /// A dataset is complete for a stretch of time, as of a version of it. Reported at least once: again after a restart,
    /// unless [`Coverage::versions`] has it.
    DatasetCovered { dataset: DatasetName, from: Millis, to: Millis, version: u64 },
    /// `DROP TABLE`.
    DatasetDropped { dataset: DatasetName },
    /// Time passed.
    Tick,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Its generation of the interval is in the dataset since this version, whoever put it there; with so many rows, if it was this
    /// run.
    Published { version: u64, rows: Option<u64> },
    /// It published nothing.
    Failed { error: Error },
    /// It was cancelled, and published nothing.
    Cancelled,
}

/// Something for the shell to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Submit a run, unless one of this key is known; answer with [`Event::RunEnded`] in either case.
    Submit {
        run: RunKey,
        interval: Interval,
        cause: Cause,
        /// Which of the job's clauses it goes by.
        revision: u64,
    },
    /// End a run; answer with [`Event::RunEnded`] when it has.
    Cancel { run: RunKey },
    /// Tell whoever asked to be told. May be said again after a crash.
    Notify { job: JobName, to: String, notice: Notice },
}

/// What people are told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// An interval failed, and is not tried again.
    Failed { run: RunKey, interval: Interval, error: Error },
    /// An interval was published.
    Published { run: RunKey, interval: Interval, version: u64 },
    /// Intervals are not published by their deadlines: how many, the first and the last of them.
    Late { first: Interval, last: Interval, count: u64 },
}

/// Limits of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Runs of backfills and of late data of all jobs at once. Fewer than the scheduler's `active_runs`, so that others find a place.
    pub backfill_runs: usize,
    /// Backfills of one job that are not done.
    pub backfills: usize,
    /// Intervals of one job that were asked for and have not begun.
    pub requests: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { backfill_runs: 8, backfills: 16, requests: 1_000 }
    }
}

/// What one event led to: records in the order they were applied, actions to carry out in theirs.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use = "records must be logged and actions carried out"]
pub struct Step {
    /// Applied to the state already.
    pub records: Vec<Record>,
    /// Whether they must be durable before the actions, and before a client is answered.
    pub urgent: bool,
    /// For the shell.
    pub actions: Vec<Action>,
}

/// Decides what `event` means in `state` at `now`.
///
/// # Errors
///
/// What a client asked for and cannot have, in a sentence. Nothing has changed then.
pub fn step(state: &mut State, limits: &Limits, event: Event, now: Millis) -> Result<Step> {
    let mut d = Decider::new(state, limits, now);
    match event {
        Event::Restarted => d.restarted(),
        Event::JobCreated { job, spec } => d.job_created(job, spec)?,
        Event::JobReplaced { job, spec } => d.job_replaced(job, spec)?,
        Event::JobAltered { job, spec } => d.job_altered(job, spec)?,
        Event::JobDropped { job } => d.job_dropped(job)?,
        Event::JobSuspended { job } => d.job_suspended(job)?,
        Event::JobResumed { job } => d.job_resumed(job)?,
        Event::Requested { job, start } => d.requested(job, start)?,
        Event::BackfillRequested { job, request } => d.backfill_requested(job, request)?,
        Event::BackfillCancelled { job, id } => d.backfill_cancelled(job, id)?,
        Event::RunCancelled { run } => d.run_cancelled(&run)?,
        Event::RunBegan { run } => d.run_began(&run),
        Event::RunEnded { run, ended } => d.run_ended(&run, ended),
        Event::DatasetCovered { dataset, from, to, version } => d.dataset_covered(dataset, from, to, version)?,
        Event::DatasetDropped { dataset } => d.dataset_dropped(dataset),
        Event::Tick => d.tick(),
    }
    d.start_runs();
    Ok(d.into_step())
}

impl Decider<'_> {
    fn tick(&mut self) {
        self.look_at_clock();
        self.fire_schedules();
        self.end_overdue_runs();
        self.retry_runs();
        self.judge_deadlines();
    }
}
