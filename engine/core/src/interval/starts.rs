//! Which intervals begin: those of the jobs themselves first, then those of backfills and of late data as far as these are let.

use std::collections::BTreeSet;
use std::ops::Range;

use super::decide::Decider;
use super::names::{Cause, JobName};
use super::record::Record;
use super::spans::Ranges;
use super::spec::{Overlap, Trigger};
use super::stale::Inherited;
use super::state::{Job, Order, Reprocess, State};
use super::{Action, coverage, lateness};
use crate::Millis;

impl Decider<'_> {
    pub(super) fn start_runs(&mut self) {
        let waits = |job: &Job| !(job.due.is_empty() && job.again.is_empty() && job.requested.is_empty());
        for job in self.jobs_where(waits) {
            self.start_of_job(&job);
        }
        self.start_of_backfills();
    }

    fn start_of_job(&mut self, name: &JobName) {
        let Some(job) = self.state.jobs.get(name) else { return };
        let free = most_runs(job).saturating_sub(job.running(Cause::is_live));
        let (mut chosen, mut empty) = (Vec::new(), Ranges::default());
        let mut again = job.again.clone();
        again.remove_all(&job.due);
        // What is new does not wait until all that is late was computed again.
        let own = automatic(job);
        for (cause, waiting) in [(Cause::Manual, &job.requested), (own, &job.due), (own, &again)] {
            if waiting.is_empty() || chosen.len() >= free || !job.may_start(cause) {
                continue;
            }
            let mut ready = ready(self.state, job, waiting, self.now);
            chosen.iter().for_each(|(index, _): &(u64, Cause)| ready.remove(*index..*index + 1));
            for index in ready.numbers() {
                if chosen.len() >= free {
                    break;
                }
                if job.calendar.interval(index).is_empty() {
                    empty.insert(index..index + 1);
                } else {
                    chosen.push((index, cause));
                }
            }
        }
        self.skip_empty(name, empty);
        for (index, cause) in chosen {
            let generation = self.generation(name, index) + 1;
            self.start(name, index, generation, 1, cause);
        }
    }

    /// Those with the fewest runs first, so that none waits for another to end.
    fn start_of_backfills(&mut self) {
        let is_backfill = |cause: Cause| !cause.is_live();
        let mut running: usize = self.state.jobs.values().map(|job| job.running(is_backfill)).sum();
        let mut exhausted: BTreeSet<u64> = BTreeSet::new();
        for name in self.jobs_where(|job| !job.backfills.is_empty()) {
            self.narrow_backfills(&name);
        }
        if running >= self.limits.backfill_runs {
            return;
        }
        let mut late = lateness::next(self.state, self.limits.backfill_runs, self.now).into_iter();
        while running < self.limits.backfill_runs {
            let next = next_backfill(self.state, &exhausted);
            // Of those with equally many runs what people asked for goes first.
            if next.as_ref().is_none_or(|(runs, ..)| *runs > 0)
                && let Some((name, index)) = late.next()
            {
                let generation = self.generation(&name, index) + 1;
                self.start(&name, index, generation, 1, Cause::Late);
                running += 1;
                continue;
            }
            let Some((_, name, id)) = next else { return };
            match self.next_of_backfill(&name, id) {
                Some(index) => {
                    let floor =
                        self.state.jobs.get(&name).and_then(|job| job.backfills.get(&id)).map_or(0, |b| b.generation);
                    let generation = floor.max(self.generation(&name, index) + 1);
                    self.start(&name, index, generation, 1, Cause::Backfill { backfill: id });
                    running += 1;
                }
                None => _ = exhausted.insert(id),
            }
        }
    }

    fn next_of_backfill(&mut self, name: &JobName, id: u64) -> Option<u64> {
        let job = self.state.jobs.get(name)?;
        let backfill = job.backfills.get(&id)?;
        let mut ready = ready(self.state, job, &backfill.remaining, self.now);
        if backfill.request.reprocess == Reprocess::Stale && !ready.is_empty() {
            // Computed before what they read, they would be stale again.
            ready.remove_all(&Inherited::of(self.state).intervals(name));
        }
        let mut empty = Ranges::default();
        let mut is_real = |index: &u64| {
            let is_empty = job.calendar.interval(*index).is_empty();
            if is_empty {
                empty.insert(*index..*index + 1);
            }
            !is_empty
        };
        let next = match backfill.request.order {
            Order::Forward => ready.numbers().find(&mut is_real),
            Order::Reverse => ready.numbers().rev().find(&mut is_real),
        };
        self.skip_empty(name, empty);
        next
    }

    fn skip_empty(&mut self, job: &JobName, skipped: Ranges) {
        if !skipped.is_empty() {
            self.record(Record::EmptySkipped { job: job.clone(), skipped });
        }
    }

    fn generation(&self, name: &JobName, index: u64) -> u32 {
        self.state.jobs.get(name).map_or(0, |job| job.ledger.generation(index))
    }

    /// The only place where an attempt begins.
    pub(super) fn start(&mut self, name: &JobName, index: u64, generation: u32, attempt: u32, cause: Cause) {
        self.record(Record::RunStarted { job: name.clone(), index, generation, attempt, cause, at: self.now });
        self.submit(name, index);
    }

    /// Submits the run of an interval in progress, perhaps again.
    pub(super) fn submit(&mut self, name: &JobName, index: u64) {
        let Some(job) = self.state.jobs.get(name) else { return };
        let Some(active) = job.active.get(&index) else { return };
        let (run, interval) = (job.key(name, index, active), job.calendar.interval(index));
        let (cause, revision) = (active.cause, job.revision);
        self.act(Action::Submit { run, interval, cause, revision });
    }
}

/// Of all backfills that may begin an interval that with the fewest in progress, of equals the one that has begun the fewest; behind how
/// many it has.
fn next_backfill(state: &State, exhausted: &BTreeSet<u64>) -> Option<(usize, JobName, u64)> {
    let open = state.jobs.iter().flat_map(|(name, job)| job.backfills.iter().map(move |(id, b)| (name, job, *id, b)));
    let open = open.filter(|(_, _, id, backfill)| !exhausted.contains(id) && !backfill.remaining.is_empty());
    let counted = open.filter_map(|(name, job, id, backfill)| {
        let own = Cause::Backfill { backfill: id };
        let running = job.running(|cause| cause == own);
        let may_begin = job.may_start(own) && running < backfill.request.max_runs as usize;
        may_begin.then(|| (running, backfill.total.saturating_sub(backfill.remaining.count()), id, name))
    });
    counted.min().map(|(running, _, id, name)| (running, name.clone(), id))
}

/// Intervals that wait, are covered by their inputs, and are not in progress. A schedule's are over, too; an update says so
/// itself.
pub(super) fn ready(state: &State, job: &Job, waiting: &Ranges, now: Millis) -> Ranges {
    let Some(Range { start, end }) = waiting.hull() else { return Ranges::default() };
    let end = match job.spec.trigger {
        Trigger::Schedule { .. } => end.min(job.calendar.complete_to(now)),
        Trigger::Update { .. } => end,
    };
    let mut ready = coverage::ready(state, job, start..end.max(start)).intersection(waiting);
    ready.remove_all(&job.in_progress());
    ready
}

fn most_runs(job: &Job) -> usize {
    match (&job.spec.trigger, job.spec.options.overlap) {
        (Trigger::Update { .. }, Overlap::Forbid) => 1,
        (Trigger::Update { .. }, Overlap::Queue | Overlap::Replace) | (Trigger::Schedule { .. }, _) => {
            job.spec.options.max_active_runs as usize
        }
    }
}

/// What the job's own runs are caused by.
pub(super) const fn automatic(job: &Job) -> Cause {
    match job.spec.trigger {
        Trigger::Schedule { .. } => Cause::Schedule,
        Trigger::Update { .. } => Cause::Update,
    }
}
