//! Where an interval stands, for those who look.

use std::collections::BTreeSet;

use super::calendar::Interval;
use super::check::duration;
use super::coverage;
use super::ledger::Fate;
use super::names::{Cause, DatasetName, JobName, RunKey};
use super::spans::Ranges;
use super::spec::Trigger;
use super::state::{ActiveState, Job, State, StopReason};
use crate::{Error, Millis};

/// Where an interval stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is not over, or its fire is to come.
    Future,
    /// Nothing has asked for it.
    Missing,
    /// It is due, and these inputs do not cover it yet.
    Waiting { inputs: Vec<DatasetName> },
    /// It could run, and waits for others, or for its job to be resumed.
    Queued,
    /// A run of it is in progress.
    Running { generation: u32, attempt: u32, cause: Cause },
    /// Its run was told to end.
    Stopping { generation: u32, reason: StopReason },
    /// It failed, and is tried again.
    Retrying { generation: u32, attempt: u32, error: Error },
    /// It is in the dataset since a version, if that is still known.
    Published { generation: u32, version: Option<u64> },
    /// Its newest generation failed; an older one may be published.
    Failed { generation: u32, published: Option<u32>, error: Option<Error> },
    /// A user cancelled its newest generation.
    Cancelled { published: Option<u32> },
    /// Its fire was missed, or a newer run took its place.
    Skipped { published: Option<u32> },
}

impl Standing {
    /// The name in `system.intervals`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Future => "future",
            Self::Missing => "missing",
            Self::Waiting { .. } => "waiting",
            Self::Queued => "queued",
            Self::Running { .. } => "running",
            Self::Stopping { .. } => "stopping",
            Self::Retrying { .. } => "retrying",
            Self::Published { .. } => "published",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
            Self::Skipped { .. } => "skipped",
        }
    }
}

/// Where an interval of a job stands at `now`.
#[must_use]
pub fn standing(state: &State, job: &Job, index: u64, now: Millis) -> Standing {
    if let Some(active) = job.active.get(&index) {
        let (generation, attempt) = (active.generation, active.attempt);
        return match &active.state {
            ActiveState::Running => Standing::Running { generation, attempt, cause: active.cause },
            ActiveState::Stopping { reason } => Standing::Stopping { generation, reason: *reason },
            ActiveState::Retrying { error, .. } => Standing::Retrying { generation, attempt, error: error.clone() },
        };
    }
    let backfilled = job.backfills.values().any(|backfill| backfill.remaining.contains(index));
    if backfilled || [&job.due, &job.again, &job.requested].iter().any(|waiting| waiting.contains(index)) {
        let inputs = waits_for(state, job, index);
        return if inputs.is_empty() { Standing::Queued } else { Standing::Waiting { inputs } };
    }
    let Some(entry) = job.ledger.entry(index) else {
        let looked_at = match job.spec.trigger {
            Trigger::Schedule { .. } => now.min(job.cursor.fired_to),
            Trigger::Update { .. } => now,
        };
        return if job.calendar.interval(index).end > looked_at { Standing::Future } else { Standing::Missing };
    };
    let published = Some(entry.published).filter(|generation| *generation > 0);
    match entry.fate {
        Fate::Published => Standing::Published { generation: entry.generation, version: job.ledger.version(index) },
        Fate::Failed => {
            let error = job.ledger.failure(index).map(|failure| failure.error.clone());
            Standing::Failed { generation: entry.generation, published, error }
        }
        Fate::Cancelled => Standing::Cancelled { published },
        Fate::Skipped => Standing::Skipped { published },
    }
}

impl Job {
    /// Whether one of its intervals that waits does so because the job is suspended.
    #[must_use]
    pub fn holds_back(&self, index: u64) -> bool {
        let requested = self.requested.contains(index).then_some(Cause::Manual);
        let is_due = self.due.contains(index) || self.again.contains(index);
        let due = is_due.then_some(match self.spec.trigger {
            Trigger::Schedule { .. } => Cause::Schedule,
            Trigger::Update { .. } => Cause::Update,
        });
        let backfills = self.backfills.iter().filter(|(_, backfill)| backfill.remaining.contains(index));
        let mut causes =
            requested.into_iter().chain(due).chain(backfills.map(|(id, _)| Cause::Backfill { backfill: *id }));
        self.suspended.is_some() && !causes.any(|cause| self.may_start(cause))
    }
}

/// Why a run in progress was told to end, if no user did.
pub(crate) fn why_stopped(state: &State, run: &RunKey) -> Option<Error> {
    let job = state.jobs.get(&run.job).filter(|job| job.incarnation == run.incarnation)?;
    let active = job.active.get(&run.index)?;
    let is_it = active.generation == run.generation && active.attempt == run.attempt;
    let why = match active.state {
        ActiveState::Stopping { reason: StopReason::TimedOut } if is_it => {
            format!("timed out after {}: its job's timeout", duration(job.spec.options.timeout_ms))
        }
        ActiveState::Stopping { reason: StopReason::Replaced } if is_it => {
            "a newer run of its job took its place".to_owned()
        }
        ActiveState::Running | ActiveState::Stopping { .. } | ActiveState::Retrying { .. } => return None,
    };
    Some(Error::cancelled(why))
}

/// The inputs that do not cover what a run of an interval reads.
#[must_use]
pub fn waits_for(state: &State, job: &Job, index: u64) -> Vec<DatasetName> {
    let window = job.window(index);
    let is_missing = |window: Interval, input: &DatasetName| {
        coverage::covered(state, input, window).count() < window.end.since(window.start)
    };
    let inputs: BTreeSet<&DatasetName> = job.spec.inputs().filter(|input| is_missing(window, input)).collect();
    inputs.into_iter().cloned().collect()
}

/// The job that should publish what an input lacks first of what a run of an interval reads, and which interval of its; none if
/// somebody else says when the input is complete.
#[must_use]
pub fn held_up_by<'a>(
    state: &'a State,
    job: &Job,
    index: u64,
    input: &DatasetName,
) -> Option<(&'a JobName, &'a Job, u64)> {
    let window = job.window(index);
    let mut missing = Ranges::from(window.start.0..window.end.0);
    missing.remove_all(&coverage::covered(state, input, window));
    let first = Millis(missing.hull()?.start);
    state.producing(input).find_map(|(name, producer)| {
        let index = producer.calendar.containing(first)?;
        (!producer.ledger.is_published(index)).then_some((name, producer, index))
    })
}
