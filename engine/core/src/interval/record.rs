//! What the log will hold of jobs. Every change of a [`State`](super::State) is one of these, live and in replay alike.
//!
//! Invariant: a record says what was decided, in positions and instants. Applying it looks at no clock, calendar or cron:
//! a build with newer rules of time zones replays to the same state.

use serde::{Deserialize, Serialize};

use super::names::{Cause, DatasetName, JobName};
use super::spans::Ranges;
use super::spec::Spec;
use super::state::{Backfill, StopReason, SuspendReason};
use super::zone::Local;
use crate::{Error, Millis};

/// One change of the state of jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The clock is behind what it was: what waits for it is set back, too.
    ClockSetBack { at: Millis, jobs: Vec<(JobName, Cursor)> },
    /// A job is there.
    JobCreated { job: JobName, incarnation: u64, spec: Spec, start: Local, cursor: Cursor, at: Millis },
    /// A job has other clauses, and the same intervals.
    JobAltered { job: JobName, spec: Spec, cursor: Cursor, at: Millis },
    /// A job is gone. What it alone had published into its dataset stays complete.
    JobDropped { job: JobName, covered: Ranges, at: Millis },
    /// A job starts nothing by itself any more.
    JobSuspended { job: JobName, reason: SuspendReason, at: Millis },
    /// A job goes on; of the updates that it missed these are due, and those are skipped.
    JobResumed { job: JobName, due: Ranges, skipped: Ranges, cursor: Cursor, at: Millis },
    /// A schedule was looked at: these intervals are due, those are skipped.
    Fired { job: JobName, due: Ranges, skipped: Ranges, cursor: Cursor, at: Millis },
    /// An input was updated: these intervals are due, and these again, or were missed by a suspended job.
    InputUpdated { job: JobName, due: Ranges, again: Ranges, missed: Ranges, at: Millis },
    /// An input has other rows than before: those of these intervals that are published, or in progress, were made without them.
    InputChanged { job: JobName, input: DatasetName, stale: Ranges, at: Millis },
    /// `EXECUTE JOB`.
    Requested { job: JobName, index: u64, at: Millis },
    /// Intervals that contain no instant, because clocks skipped it.
    EmptySkipped { job: JobName, skipped: Ranges },
    /// `BACKFILL JOB`.
    BackfillAccepted { job: JobName, id: u64, backfill: Backfill },
    /// Intervals of a backfill that it has no more reason to run.
    BackfillNarrowed { job: JobName, id: u64, done: Ranges },
    /// A backfill has run all it had to, or was cancelled.
    BackfillEnded { job: JobName, id: u64 },
    /// An attempt begins: the first of a generation, or a retry.
    RunStarted { job: JobName, index: u64, generation: u32, attempt: u32, cause: Cause, at: Millis },
    /// A run has its turn.
    RunBegan { job: JobName, index: u64, at: Millis },
    /// A run was told to end.
    RunStopping { job: JobName, index: u64, reason: StopReason, at: Millis },
    /// An attempt failed, and there will be another.
    AttemptFailed { job: JobName, index: u64, error: Error, wait_ms: u64, at: Millis },
    /// An interval was published, with so many rows if that is known.
    IntervalPublished {
        job: JobName,
        index: u64,
        version: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rows: Option<u64>,
        at: Millis,
    },
    /// An interval failed.
    IntervalFailed { job: JobName, index: u64, error: Error, at: Millis },
    /// An interval in progress was cancelled by a user.
    IntervalCancelled { job: JobName, index: u64, at: Millis },
    /// An interval in progress gave way to a newer run.
    IntervalReplaced { job: JobName, index: u64, at: Millis },
    /// Deadlines have passed, those of these intervals without a publication.
    DeadlinesPassed { job: JobName, judged_to: u64, late: Ranges, at: Millis },
    /// Somebody who knows says that a dataset is complete for a stretch of time, in a version.
    DatasetCovered { dataset: DatasetName, from: Millis, to: Millis, version: u64, at: Millis },
    /// A dataset is gone.
    DatasetDropped { dataset: DatasetName, at: Millis },
}

/// How far a job's clock has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Fires until here, and including it, were looked at.
    pub fired_to: Millis,
    /// The next one.
    pub next_fire: Option<Millis>,
    /// Intervals before this position were looked at by a fire.
    pub scheduled_to: u64,
    /// The deadlines of intervals before this position were looked at.
    pub judged_to: u64,
}

impl Record {
    /// Whether it must be durable before anything it led to is done: what a client was told, and which runs there are.
    /// Any other that is lost is decided again.
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        match self {
            Self::JobCreated { .. }
            | Self::JobAltered { .. }
            | Self::JobDropped { .. }
            | Self::JobSuspended { .. }
            | Self::JobResumed { .. }
            | Self::Requested { .. }
            | Self::BackfillAccepted { .. }
            | Self::BackfillEnded { .. }
            | Self::RunStarted { .. }
            | Self::RunStopping { .. }
            | Self::IntervalCancelled { .. }
            | Self::DatasetDropped { .. } => true,
            Self::ClockSetBack { .. }
            | Self::Fired { .. }
            | Self::InputUpdated { .. }
            | Self::InputChanged { .. }
            | Self::EmptySkipped { .. }
            | Self::BackfillNarrowed { .. }
            | Self::RunBegan { .. }
            | Self::AttemptFailed { .. }
            | Self::IntervalPublished { .. }
            | Self::IntervalFailed { .. }
            | Self::IntervalReplaced { .. }
            | Self::DeadlinesPassed { .. }
            | Self::DatasetCovered { .. } => false,
        }
    }

    /// When it was decided, where that is said.
    #[must_use]
    pub const fn at(&self) -> Option<Millis> {
        match self {
            Self::ClockSetBack { at, .. }
            | Self::JobCreated { at, .. }
            | Self::JobAltered { at, .. }
            | Self::JobDropped { at, .. }
            | Self::JobSuspended { at, .. }
            | Self::JobResumed { at, .. }
            | Self::Fired { at, .. }
            | Self::InputUpdated { at, .. }
            | Self::InputChanged { at, .. }
            | Self::Requested { at, .. }
            | Self::RunStarted { at, .. }
            | Self::RunBegan { at, .. }
            | Self::RunStopping { at, .. }
            | Self::AttemptFailed { at, .. }
            | Self::IntervalPublished { at, .. }
            | Self::IntervalFailed { at, .. }
            | Self::IntervalCancelled { at, .. }
            | Self::IntervalReplaced { at, .. }
            | Self::DeadlinesPassed { at, .. }
            | Self::DatasetCovered { at, .. }
            | Self::DatasetDropped { at, .. } => Some(*at),
            Self::BackfillAccepted { backfill, .. } => Some(backfill.at),
            Self::EmptySkipped { .. } | Self::BackfillNarrowed { .. } | Self::BackfillEnded { .. } => None,
        }
    }
}
