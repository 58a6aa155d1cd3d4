//! What the checker believes: one entry per interval, nothing compact, nothing clever.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use chrono_tz::Tz;
use tidemill_core::interval::{
    CatchUp, Cause, DatasetName, Fate, JobName, Mode, Overlap, Reprocess, Request, Spec, StopReason, SuspendReason,
    Trigger,
};

use crate::clocks::{Times, deadline};

/// A set of intervals.
pub(crate) type Set = BTreeSet<u64>;

/// Everything that the records say, as the checker understands it.
#[derive(Clone, Default)]
pub(crate) struct Model {
    /// Copied when they change, so that keeping an older state costs little.
    pub(crate) jobs: BTreeMap<JobName, Rc<JobModel>>,
    pub(crate) datasets: BTreeMap<DatasetName, Rc<Known>>,
    /// The latest that the clock showed in a record since it was set back.
    pub(crate) clock: u64,
    /// How many jobs and backfills there ever were.
    pub(crate) created: u64,
    pub(crate) backfills: u64,
}

/// What was reported of a dataset.
#[derive(Clone, Default)]
pub(crate) struct Known {
    pub(crate) ranges: Vec<(u64, u64)>,
    pub(crate) versions: Set,
}

#[derive(Clone)]
pub(crate) struct JobModel {
    pub(crate) spec: Spec,
    pub(crate) zone: Tz,
    /// Boundaries of its intervals, and all its fires.
    pub(crate) bounds: Rc<Vec<u64>>,
    pub(crate) fires: Rc<Vec<u64>>,
    pub(crate) incarnation: u64,
    pub(crate) created_at: u64,
    pub(crate) suspended: Option<SuspendReason>,
    pub(crate) fired_to: u64,
    pub(crate) scheduled_to: u64,
    pub(crate) judged_to: u64,
    pub(crate) due: Set,
    pub(crate) again: Set,
    pub(crate) requested: Set,
    pub(crate) missed: Set,
    /// By interval: the inputs that have other rows than those it was computed from.
    pub(crate) stale: BTreeMap<u64, BTreeSet<DatasetName>>,
    /// Of these, those that have run since the last of their updates.
    pub(crate) left: Set,
    pub(crate) active: BTreeMap<u64, ActiveModel>,
    pub(crate) backfills: BTreeMap<u64, BackfillModel>,
    pub(crate) failures: u32,
    pub(crate) late_failures: u32,
    pub(crate) fates: Vec<Option<FateModel>>,
}

#[derive(Clone)]
pub(crate) struct ActiveModel {
    pub(crate) generation: u32,
    pub(crate) attempt: u32,
    pub(crate) cause: Cause,
    pub(crate) since: u64,
    pub(crate) begun: bool,
    pub(crate) state: Doing,
    /// The inputs that were updated since its first attempt began.
    pub(crate) outdated: BTreeSet<DatasetName>,
}

/// What an interval in progress does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doing {
    Runs,
    Stops(StopReason),
    Waits { wait_ms: u64 },
}

#[derive(Clone)]
pub(crate) struct BackfillModel {
    pub(crate) request: Request,
    pub(crate) generation: u32,
    pub(crate) remaining: Set,
    pub(crate) failures: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FateModel {
    pub(crate) fate: Fate,
    pub(crate) generation: u32,
    pub(crate) published: u32,
}

impl Model {
    pub(crate) fn job(&mut self, job: &JobName) -> Result<&mut JobModel, String> {
        self.jobs.get_mut(job).map(Rc::make_mut).ok_or_else(|| format!("there is no job {job}"))
    }

    pub(crate) fn dataset(&mut self, dataset: &DatasetName) -> &mut Known {
        Rc::make_mut(self.datasets.entry(dataset.clone()).or_default())
    }

    /// Whether a dataset is complete at every instant of a stretch.
    fn is_covered(&self, dataset: &DatasetName, from: u64, to: u64) -> bool {
        self.looks(dataset, from, to).all(|is_complete| is_complete)
    }

    /// Whether a dataset is complete, looked at wherever in a stretch that could change.
    fn looks<'a>(&'a self, dataset: &'a DatasetName, from: u64, to: u64) -> impl Iterator<Item = bool> + 'a {
        let reported = self.datasets.get(dataset).map(|known| known.ranges.as_slice()).unwrap_or_default();
        let producers: Vec<&Rc<JobModel>> = self.jobs.values().filter(|job| job.spec.output == *dataset).collect();
        let mut turns: Vec<u64> = vec![from];
        turns.extend(reported.iter().flat_map(|(a, b)| [*a, *b]));
        for job in &producers {
            let near = job.bounds.partition_point(|b| *b <= from)..job.bounds.partition_point(|b| *b < to);
            turns.extend(&job.bounds[near.start..near.end.max(near.start)]);
        }
        turns.retain(|at| (from..to).contains(at));
        turns.into_iter().map(move |at| {
            reported.iter().any(|(a, b)| (*a..*b).contains(&at))
                || (!producers.is_empty()
                    && producers.iter().any(|job| job.holding(at).is_some())
                    && producers.iter().all(|job| job.holding(at).is_none_or(|k| job.is_published(k))))
        })
    }

    /// The intervals of a job whose windows have an instant at which an input that makes them due is complete.
    pub(crate) fn begun_by_inputs(&self, job: &JobModel) -> Set {
        let is_begun = |k: &u64| {
            let (from, to) = job.window(*k);
            job.spec.triggers().iter().any(|input| self.looks(input, from, to).any(|is_complete| is_complete))
        };
        (0..job.bounds.len() as u64 - 1).filter(|k| !job.is_empty(*k)).filter(is_begun).collect()
    }

    /// Whether all inputs of a job cover what a run of an interval reads.
    pub(crate) fn is_ready(&self, job: &JobModel, k: u64) -> bool {
        let (from, to) = job.window(k);
        job.spec.inputs().all(|input| self.is_covered(input, from, to))
    }

    /// Whether an interval that waits could begin at `now`, were there room.
    pub(crate) fn may_begin(&self, job: &JobModel, k: u64, now: u64) -> bool {
        let is_over = matches!(job.spec.trigger, Trigger::Update { .. }) || job.end(k) <= now;
        is_over && !job.active.contains_key(&k) && !job.is_empty(k) && self.is_ready(job, k)
    }
}

impl JobModel {
    pub(crate) fn start(&self, k: u64) -> u64 {
        self.bounds[usize::try_from(k).unwrap()]
    }

    pub(crate) fn end(&self, k: u64) -> u64 {
        self.start(k + 1)
    }

    pub(crate) fn is_empty(&self, k: u64) -> bool {
        self.start(k) == self.end(k)
    }

    /// How many intervals have ended.
    pub(crate) fn ended(&self, at: u64) -> u64 {
        self.bounds[1..].partition_point(|end| *end <= at) as u64
    }

    /// The interval that an instant is in.
    fn holding(&self, at: u64) -> Option<u64> {
        (at >= self.bounds[0]).then(|| self.ended(at))
    }

    pub(crate) fn window(&self, k: u64) -> (u64, u64) {
        (self.start(k.saturating_sub(self.spec.options.lookback.into())), self.end(k))
    }

    /// The intervals whose windows share an instant with a stretch of time, as far as the list of them goes.
    pub(crate) fn touched(&self, from: u64, to: u64) -> Set {
        let lookback = u64::from(self.spec.options.lookback);
        let own = (0..self.bounds.len() as u64 - 1).filter(|k| self.start(*k) < to && self.end(*k) > from);
        own.flat_map(|k| k..=k + lookback).collect()
    }

    pub(crate) fn fate(&self, k: u64) -> Option<FateModel> {
        self.fates.get(usize::try_from(k).unwrap()).copied().flatten()
    }

    pub(crate) fn set_fate(&mut self, k: u64, fate: FateModel) {
        let k = usize::try_from(k).unwrap();
        self.fates.resize(self.fates.len().max(k + 1), None);
        self.fates[k] = Some(fate);
    }

    pub(crate) fn published_intervals(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.fates.len() as u64).filter(|k| self.is_published(*k))
    }

    pub(crate) fn is_published(&self, k: u64) -> bool {
        self.fate(k).is_some_and(|fate| fate.published > 0)
    }

    pub(crate) fn generation(&self, k: u64) -> u32 {
        self.fate(k).map_or(0, |fate| fate.generation)
    }

    /// Whether a backfill has a reason to run an interval; `held` are those that read stale ones.
    pub(crate) fn is_wanted(&self, reprocess: Reprocess, k: u64, held: &Set) -> bool {
        let Some(fate) = self.fate(k) else { return reprocess != Reprocess::Stale };
        let (failed, published) = (fate.fate == Fate::Failed, fate.published > 0);
        let may_run = !published || self.spec.options.mode == Mode::ReplaceInterval;
        may_run
            && match reprocess {
                Reprocess::Missing => !published && !failed,
                Reprocess::Failed => !published || failed,
                Reprocess::Stale => published && (self.stale.contains_key(&k) || held.contains(&k)),
                Reprocess::All => true,
            }
    }

    pub(crate) fn may_start(&self, cause: Cause) -> bool {
        match self.suspended {
            None => true,
            Some(SuspendReason::ByUser) => cause == Cause::Manual,
            Some(SuspendReason::Failures(_) | SuspendReason::Ledger) => !is_automatic(cause) && cause != Cause::Late,
        }
    }

    pub(crate) fn automatic(&self) -> Cause {
        match self.spec.trigger {
            Trigger::Schedule { .. } => Cause::Schedule,
            Trigger::Update { .. } => Cause::Update,
        }
    }

    pub(crate) fn live(&self) -> usize {
        self.active.values().filter(|active| !matches!(active.cause, Cause::Backfill { .. } | Cause::Late)).count()
    }

    pub(crate) fn of_backfill(&self, id: u64) -> usize {
        self.active.values().filter(|active| active.cause == Cause::Backfill { backfill: id }).count()
    }

    pub(crate) fn most_runs(&self) -> usize {
        let updated = matches!(self.spec.trigger, Trigger::Update { .. });
        if updated && self.spec.options.overlap == Overlap::Forbid {
            1
        } else {
            self.spec.options.max_active_runs as usize
        }
    }

    /// How many deadlines have passed.
    pub(crate) fn passed(&self, now: u64) -> u64 {
        let Some(wanted) = self.spec.options.deadline else { return 0 };
        let mut passed = self.judged_to.min(self.ended(now));
        while passed > 0 && deadline(self.zone, self.end(passed - 1), wanted) > now {
            passed -= 1;
        }
        while passed < self.ended(now) && deadline(self.zone, self.end(passed), wanted) <= now {
            passed += 1;
        }
        passed
    }

    /// How many intervals of a new job nothing will make due.
    pub(crate) fn left_out(&self, now: u64) -> u64 {
        let next = self.fires.iter().find(|fire| **fire > self.fired_to);
        let by_fires = next.and_then(|next| self.fire(*next)).map_or(0, |fired| fired.skipped.len() as u64);
        match self.spec.trigger {
            _ if self.spec.catch_up == CatchUp::All => 0,
            Trigger::Schedule { .. } => by_fires,
            Trigger::Update { .. } => self.ended(now),
        }
    }

    /// What the last fire until now makes due, and what it skips; nothing if none was missed.
    pub(crate) fn fire(&self, now: u64) -> Option<Fired> {
        let count = self.fires.partition_point(|at| *at <= now);
        let at = self.fires[..count].last().copied().filter(|at| *at > self.fired_to)?;
        let in_progress = self.active.values().any(|active| is_automatic(active.cause));
        let missed = in_progress && self.spec.options.overlap == Overlap::Forbid;
        let new = self.scheduled_to..if missed { self.scheduled_to } else { self.ended(at).max(self.scheduled_to) };
        // At which fire an interval was over: those that share the last one's are the latest.
        let fire_of = |k: u64| self.fires.partition_point(|fire| *fire < self.end(k));
        let (mut due, mut skipped) = (Set::new(), Set::new());
        let missed_first = self.fires.iter().find(|fire| **fire > self.fired_to);
        let is_stall = missed_first.is_some_and(|missed| now - missed <= 600_000);
        for k in new.clone() {
            match self.spec.catch_up {
                CatchUp::All => due.insert(k),
                CatchUp::Latest if fire_of(k) == fire_of(new.end - 1) => due.insert(k),
                CatchUp::Latest if is_stall && self.end(k) > self.fired_to => due.insert(k),
                CatchUp::Latest => skipped.insert(k),
            };
        }
        let waits = |k: &u64| [&self.due, &self.again, &self.requested].iter().any(|set| set.contains(k));
        due.retain(|k| !self.active.contains_key(k));
        due.retain(|k| self.fate(*k).is_none_or(|fate| fate.fate == Fate::Skipped && fate.published == 0));
        skipped.retain(|k| !self.active.contains_key(k) && self.fate(*k).is_none() && !waits(k));
        Some(Fired { at, due, skipped, scheduled_to: new.end })
    }
}

/// What a fire does.
pub(crate) struct Fired {
    pub(crate) at: u64,
    pub(crate) due: Set,
    pub(crate) skipped: Set,
    pub(crate) scheduled_to: u64,
}

pub(crate) const fn is_automatic(cause: Cause) -> bool {
    matches!(cause, Cause::Schedule | Cause::Update)
}

/// How a job's schedule fires, as long as the world stands.
pub(crate) fn fires(times: Option<&Times>, zone: Tz, from: u64, to: u64) -> Rc<Vec<u64>> {
    Rc::new(times.map(|times| times.fires(zone, from, to)).unwrap_or_default())
}
