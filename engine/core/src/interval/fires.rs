//! Schedules: what a fire makes due, and what becomes of fires that were missed.

use std::ops::Range;

use super::cron::Fires;
use super::decide::Decider;
use super::ledger::Fate;
use super::names::JobName;
use super::record::{Cursor, Record};
use super::spans::Ranges;
use super::spec::{CatchUp, Overlap, Trigger};
use super::state::{Job, StopReason};
use super::zone::MINUTE_MS;
use crate::Millis;

/// Fires that were missed by less are made up for, whatever the job's catch-up is.
const GRACE_MS: u64 = 10 * MINUTE_MS;

/// The last fire until now, and the one behind it.
struct Fire {
    at: Millis,
    next: Option<Millis>,
}

/// What fires make of the intervals that were not looked at.
#[derive(Default)]
struct Outcome {
    due: Range<u64>,
    skipped: Range<u64>,
    scheduled_to: u64,
}

impl Decider<'_> {
    pub(super) fn fire_schedules(&mut self) {
        let now = self.now;
        let has_fired = |job: &Job| job.suspended.is_none() && job.cursor.next_fire.is_some_and(|next| next <= now);
        for job in self.jobs_where(has_fired) {
            self.fire(job);
        }
    }

    fn fire(&mut self, name: JobName) {
        let Some(job) = self.state.jobs.get(&name) else { return };
        let Trigger::Schedule { cron } = &job.spec.trigger else { return };
        let Some(cron) = cron.read() else { return };
        let Some(fire) = last_fire(job, &cron, self.now) else { return };
        let in_progress = job.running(|cause| cause.is_automatic()) > 0;
        let outcome = match job.spec.options.overlap {
            // The next fire that finds the job idle looks at them.
            Overlap::Forbid if in_progress => Outcome { scheduled_to: job.cursor.scheduled_to, ..Outcome::default() },
            Overlap::Forbid | Overlap::Queue | Overlap::Replace => outcome(job, &cron, fire.at, self.now),
        };
        let due = not_done(job, outcome.due);
        let mut skipped = Ranges::from(outcome.skipped.clone());
        skipped.remove_all(&job.ledger.which(outcome.skipped, |_| true));
        for elsewhere in [&job.due, &job.again, &job.requested, &job.in_progress()] {
            skipped.remove_all(elsewhere);
        }
        let cursor =
            Cursor { fired_to: fire.at, next_fire: fire.next, scheduled_to: outcome.scheduled_to, ..job.cursor };
        let replaces = in_progress && job.spec.options.overlap == Overlap::Replace && !due.is_empty();
        self.record(Record::Fired { job: name.clone(), due, skipped, cursor, at: self.now });
        if replaces {
            self.replace_runs(&name, |_| true);
        }
    }

    /// Ends runs that the job started by itself, so that newer ones take their places.
    pub(super) fn replace_runs(&mut self, name: &JobName, which: impl Fn(u64) -> bool) {
        let Some(job) = self.state.jobs.get(name) else { return };
        let replaced = job.active.iter().filter(|(index, active)| active.cause.is_automatic() && which(**index));
        for index in replaced.map(|(index, _)| *index).collect::<Vec<_>>() {
            self.stop(name, index, StopReason::Replaced);
        }
    }
}

fn last_fire(job: &Job, cron: &Fires, now: Millis) -> Option<Fire> {
    let zone = job.spec.zone;
    let foretold = job.cursor.next_fire?;
    // Rules of zones may have changed since it was foretold.
    let at = cron.last(zone, now).map_or(foretold, |last| last.max(foretold));
    Some(Fire { at, next: cron.next(zone, now.max(at)) })
}

fn outcome(job: &Job, cron: &Fires, at: Millis, now: Millis) -> Outcome {
    let from = job.cursor.scheduled_to;
    let to = job.calendar.complete_to(at).max(from);
    let due_from = match job.spec.catch_up {
        CatchUp::All => from,
        CatchUp::Latest => latest(job, cron, to).min(stalled(job, now)).clamp(from, to),
    };
    Outcome { due: due_from..to, skipped: from..due_from, scheduled_to: to }
}

/// The first interval that the next fire of a job will make due.
pub(super) fn first_due(job: &Job) -> u64 {
    let (Trigger::Schedule { cron }, Some(at)) = (&job.spec.trigger, job.cursor.next_fire) else { return 0 };
    cron.read().map_or(0, |cron| outcome(job, &cron, at, at).due.start)
}

/// The first interval that was not over at the last fire that was looked at, if the one behind it was missed by less than
/// [`GRACE_MS`]: a leader that changes, or a store that stalls, leaves no hole.
fn stalled(job: &Job, now: Millis) -> u64 {
    let is_short = job.cursor.next_fire.is_some_and(|missed| now.since(missed) <= GRACE_MS);
    if is_short { job.calendar.complete_to(job.cursor.fired_to) } else { u64::MAX }
}

/// The first interval that was over only at the same fire as the last one: a fire makes due what ended since the fire
/// before. Fires after it that found nothing new do not count.
fn latest(job: &Job, cron: &Fires, to: u64) -> u64 {
    let (zone, end) = (job.spec.zone, job.calendar.boundary(to));
    let fire = cron.next(zone, Millis(end.0.saturating_sub(1)));
    let before = fire.and_then(|fire| cron.last(zone, Millis(fire.0.saturating_sub(1))));
    before.map_or(0, |before| job.calendar.complete_to(before))
}

/// The intervals of a range that a fire has a reason to run: neither published, failed or cancelled, nor in progress.
fn not_done(job: &Job, range: Range<u64>) -> Ranges {
    let mut due = Ranges::from(range.clone());
    due.remove_all(&job.ledger.which(range, |entry| entry.published > 0 || entry.fate != Fate::Skipped));
    due.remove_all(&job.in_progress());
    due
}
