//! Late data: which stale intervals a job with `allowed_lateness` computes again by itself.
//!
//! Nothing is kept of what waits: it is what is stale and young enough, but for what was tried since its inputs were updated last
//! ([`Job::left`]). It runs in the places of backfills, half of them at the most, and one interval of each job at once.
//!
//! Invariant: of one update an interval begins once. What fails then, or is cancelled, is left to people until another one.

use super::names::{Cause, JobName};
use super::spans::Ranges;
use super::stale::Inherited;
use super::starts::{automatic, ready};
use super::state::{Job, State};
use crate::Millis;

impl Job {
    /// The first interval that did not end longer than `allowed_lateness` ago, if the job has that.
    pub(super) fn young_from(&self, now: Millis) -> Option<u64> {
        let allowed = self.spec.options.allowed_lateness_ms?;
        Some(self.calendar.complete_to(Millis(now.0.saturating_sub(allowed.saturating_add(1)))))
    }

    /// The stale intervals that are to be computed again because of late data, and that nothing else is about to compute.
    #[must_use]
    pub fn late(&self, now: Millis) -> Ranges {
        let mut late = Ranges::default();
        if self.stale.is_empty() || !self.may_start(Cause::Late) {
            return late;
        }
        let Some(young_from) = self.young_from(now) else { return late };
        for marked in self.stale.values() {
            for piece in marked.within(young_from..u64::MAX).iter() {
                late.insert_all(&self.ledger.which(piece, |entry| entry.published > 0));
            }
        }
        let backfilled = self.backfills.values().map(|backfill| &backfill.remaining);
        for elsewhere in [&self.left, &self.due, &self.again, &self.requested].into_iter().chain(backfilled) {
            late.remove_all(elsewhere);
        }
        late.remove_all(&self.in_progress());
        late
    }

    /// An interval runs: if it is stale, that has been tried. Applies a record.
    pub(super) fn try_stale(&mut self, index: u64) {
        if self.changed(index).next().is_some() {
            self.left.insert(index..index + 1);
        }
    }

    /// Where late intervals fail one after the other, the others are not tried. Applies a record.
    pub(super) fn leave_late(&mut self) {
        let limit = self.spec.options.suspend_after_failures;
        if limit > 0 && self.late_failures >= limit {
            let marked = self.marked();
            self.left.insert_all(&marked);
            self.late_failures = 0;
        }
    }
}

/// The next intervals that may begin because of late data, at most one of each job, first the one whose time is over first; `places` are
/// those of backfills.
pub(super) fn next(state: &State, places: usize, now: Millis) -> Vec<(JobName, u64)> {
    let running = |job: &Job| job.running(|cause| cause == Cause::Late);
    let free = places.div_ceil(2).saturating_sub(state.jobs.values().map(running).sum());
    if free == 0 {
        return Vec::new();
    }
    let idle = state.jobs.iter().filter(|(_, job)| running(job) == 0);
    let late = idle.map(|(name, job)| (name, job, ready(state, job, &job.late(now), now)));
    let late: Vec<_> = late.filter(|(_, _, late)| !late.is_empty()).collect();
    if late.is_empty() {
        return Vec::new();
    }
    // Computed before what they read, they would be stale again.
    let before = Inherited::of_some(state, |job| about_to_run(state, job, now));
    let next = late.into_iter().filter_map(|(name, job, mut late)| {
        late.remove_all(&before.intervals(name));
        let index = late.numbers().find(|index| !job.calendar.interval(*index).is_empty())?;
        let (end, allowed) = (job.calendar.interval(index).end, job.spec.options.allowed_lateness_ms?);
        Some((end.0.saturating_add(allowed), name.clone(), index))
    });
    let mut next: Vec<_> = next.collect();
    next.sort_unstable();
    next.into_iter().take(free).map(|(_, name, index)| (name, index)).collect()
}

/// The stale intervals that will be computed again without anybody's asking for more. What waits for people holds up nothing.
fn about_to_run(state: &State, job: &Job, now: Millis) -> Ranges {
    if job.stale.is_empty() {
        return Ranges::default();
    }
    let own = automatic(job);
    let live = [(Cause::Manual, &job.requested), (own, &job.due), (own, &job.again)];
    let backfills = job.backfills.iter();
    let backfills = backfills.map(|(id, backfill)| (Cause::Backfill { backfill: *id }, &backfill.remaining));
    let mut waiting = job.late(now);
    for (_, asked) in live.into_iter().chain(backfills).filter(|(cause, _)| job.may_start(*cause)) {
        waiting.insert_all(asked);
    }
    let marked = job.marked();
    let mut about = ready(state, job, &waiting.intersection(&marked), now);
    about.insert_all(&job.in_progress().intersection(&marked));
    about
}
