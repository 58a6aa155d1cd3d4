//! What a coordinator knows of jobs and of what their inputs cover.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::calendar::{Calendar, Interval};
use super::ledger::Ledger;
use super::names::{Cause, DatasetName, JobName, RunKey};
use super::record::Cursor;
use super::spans::Ranges;
use super::spec::Spec;
use crate::Millis;

/// All jobs, and the coverage of datasets. Changes only by applying records.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// The latest that the clock showed in a record since it was set back.
    pub clock: Millis,
    /// How many jobs were ever created.
    pub created: u64,
    /// How many backfills were ever accepted.
    pub backfills: u64,
    /// The jobs.
    pub jobs: BTreeMap<JobName, Job>,
    /// What was reported of datasets.
    pub datasets: BTreeMap<DatasetName, Coverage>,
    /// Which jobs publish into a dataset.
    pub producers: BTreeMap<DatasetName, BTreeSet<JobName>>,
}

impl State {
    /// The jobs that publish into a dataset.
    pub fn producing<'a>(&'a self, dataset: &DatasetName) -> impl Iterator<Item = (&'a JobName, &'a Job)> + use<'a> {
        let names = self.producers.get(dataset).into_iter().flatten();
        names.filter_map(|name| self.jobs.get_key_value(name))
    }
}

/// A named job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its clauses.
    pub spec: Spec,
    /// Its intervals.
    pub calendar: Calendar,
    /// Which of all jobs that ever had this name and other intervals.
    pub incarnation: u64,
    /// How often its clauses were given, from 1.
    pub revision: u64,
    /// When it was created.
    pub created_at: Millis,
    /// Why it starts nothing by itself, if so.
    pub suspended: Option<Suspension>,
    /// How far its clock has come.
    pub cursor: Cursor,
    /// Intervals that a fire or an update made due, and that were not published since.
    pub due: Ranges,
    /// Published intervals, or such in progress, whose inputs were updated since.
    pub again: Ranges,
    /// Intervals that somebody asked for.
    pub requested: Ranges,
    /// Intervals that were updated while the job was suspended.
    pub missed: Ranges,
    /// By input: published intervals that were computed from other rows than it has now.
    #[serde(default)]
    pub stale: BTreeMap<DatasetName, Ranges>,
    /// Of these, the intervals that have run since their inputs were updated last and were not published: they are left to people.
    #[serde(default, skip_serializing_if = "Ranges::is_empty")]
    pub left: Ranges,
    /// Intervals in progress.
    pub active: BTreeMap<u64, Active>,
    /// Backfills that are not done.
    pub backfills: BTreeMap<u64, Backfill>,
    /// Intervals that failed since one was published.
    pub failures: u32,
    /// Intervals that failed since one was published, of those that the job computed again because of late data.
    #[serde(default)]
    pub late_failures: u32,
    /// What became of all other intervals.
    pub ledger: Ledger,
}

impl Job {
    /// The run that is in progress for an interval, or was last.
    pub(super) fn key(&self, job: &JobName, index: u64, active: &Active) -> RunKey {
        let Active { generation, attempt, .. } = *active;
        RunKey { job: job.clone(), incarnation: self.incarnation, index, generation, attempt }
    }

    /// How many intervals are in progress for a cause that is such.
    pub(super) fn running(&self, is_such: impl Fn(Cause) -> bool) -> usize {
        self.active.values().filter(|active| is_such(active.cause)).count()
    }

    /// Whether a run may start for such a cause. A user's suspension holds all but what is asked for one by one; the
    /// machine's own holds what it would start by itself.
    pub(super) fn may_start(&self, cause: Cause) -> bool {
        match self.suspended.as_ref().map(|suspension| suspension.reason) {
            None => true,
            Some(SuspendReason::ByUser) => cause == Cause::Manual,
            Some(SuspendReason::Failures(_) | SuspendReason::Ledger) => cause.is_asked_for(),
        }
    }

    /// The intervals in progress.
    pub(super) fn in_progress(&self) -> Ranges {
        self.active.keys().map(|index| *index..*index + 1).collect()
    }

    /// What a run of an interval reads: the interval, and the lookback before it as far as START.
    #[must_use]
    pub fn window(&self, index: u64) -> Interval {
        let first = index.saturating_sub(self.spec.options.lookback.into());
        Interval { start: self.calendar.boundary(first), end: self.calendar.boundary(index + 1) }
    }

    /// The intervals whose window shares an instant with a stretch of time.
    pub(super) fn touched(&self, from: Millis, to: Millis) -> Range<u64> {
        let own = self.calendar.overlapping(from, to);
        if own.is_empty() { own } else { own.start..own.end.saturating_add(self.spec.options.lookback.into()) }
    }
}

/// An interval in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// How often it was computed anew, from 1.
    pub generation: u32,
    /// Which try of the generation, from 1.
    pub attempt: u32,
    /// Why.
    pub cause: Cause,
    /// Where it stands.
    pub state: ActiveState,
    /// Since when.
    pub since: Millis,
    /// Whether its run has had its turn: until then it waits for those of others.
    #[serde(default)]
    pub begun: bool,
    /// The inputs that were updated since its first attempt began: what it publishes is stale.
    #[serde(default)]
    pub outdated: BTreeSet<DatasetName>,
}

/// Where an interval in progress stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActiveState {
    /// Its run was submitted.
    Running,
    /// Its run was told to end, and has not yet.
    Stopping {
        /// Why.
        reason: StopReason,
    },
    /// Its last attempt failed; the next one follows.
    Retrying {
        /// How long after that.
        wait_ms: u64,
        /// Why it failed.
        error: crate::Error,
    },
}

/// Why a run was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// A user cancelled it.
    Cancelled,
    /// It took longer than the job's timeout.
    TimedOut,
    /// A newer run takes its place.
    Replaced,
}

/// Since when and why a job starts nothing by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Since when.
    pub since: Millis,
    /// Why.
    pub reason: SuspendReason,
}

/// Why a job was suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SuspendReason {
    /// `ALTER JOB … SUSPEND`.
    ByUser,
    /// This many of its intervals failed in a row.
    Failures(u32),
    /// Its ledger is in more pieces than are kept.
    Ledger,
}

/// A backfill that is not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    /// What was asked for.
    pub request: Request,
    /// The generation of its intervals, if none of them has a newer one by then.
    pub generation: u32,
    /// How many intervals it had to run.
    pub total: u64,
    /// Those that it has not begun.
    pub remaining: Ranges,
    /// How many of its intervals failed since one was published.
    pub failures: u32,
    /// When it was accepted.
    pub at: Millis,
}

/// `BACKFILL JOB … FROM … TO … REPROCESS … MAX RUNS … REVERSE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// No interval that begins earlier.
    pub from: Millis,
    /// None that ends later.
    pub to: Millis,
    /// Which of them.
    pub reprocess: Reprocess,
    /// How many run at once.
    pub max_runs: u32,
    /// Which of them first.
    pub order: Order,
}

/// Which intervals a backfill runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reprocess {
    /// Those that were neither published nor failed.
    Missing,
    /// Those, and the failed ones.
    Failed,
    /// The published ones that are stale, each after the stale ones that it reads.
    Stale,
    /// All.
    All,
}

/// Which intervals of a backfill run first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The oldest.
    Forward,
    /// `REVERSE`: the newest.
    Reverse,
}

/// For which time a dataset is complete, as was reported.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Coverage {
    /// The time, in milliseconds.
    pub reported: Ranges,
    /// The versions of which that was said: what is said twice is one update.
    pub versions: Ranges,
}
