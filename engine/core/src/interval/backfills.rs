//! Backfills: what one would run, and when it is done.

use std::ops::Range;

use super::calendar::{Calendar, Interval};
use super::check::MOST_RUNS;
use super::decide::Decider;
use super::ledger::{Entry, Fate};
use super::names::{Cause, JobName};
use super::record::Record;
use super::spans::Ranges;
use super::spec::Mode;
use super::stale::stale;
use super::state::{Backfill, Job, Order, Reprocess, Request, State};
use crate::{Error, Millis, Result};

/// What a backfill would run: the answer to `DRY RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which intervals, by position.
    pub intervals: Ranges,
    /// The generation they would all have, at least.
    pub generation: u32,
    /// Which first.
    pub order: Order,
    calendar: Calendar,
}

impl Plan {
    /// The intervals in the order in which they would begin.
    pub fn iter(&self) -> impl Iterator<Item = Interval> + '_ {
        let forward = (self.order == Order::Forward).then(|| self.intervals.numbers());
        let reverse = (self.order == Order::Reverse).then(|| self.intervals.numbers().rev());
        let numbers = forward.into_iter().flatten().chain(reverse.into_iter().flatten());
        numbers.map(|index| self.calendar.interval(index)).filter(|interval| !interval.is_empty())
    }
}

/// What a backfill would run if it were requested at `now`. Changes nothing.
///
/// # Errors
///
/// What would be said to the request itself.
pub fn plan(state: &State, name: &JobName, request: &Request, now: Millis) -> Result<Plan> {
    let job = state
        .jobs
        .get(name)
        .ok_or_else(|| Error::not_found(format!("there is no job {name}: SHOW JOBS lists them")))?;
    if request.from >= request.to {
        let (from, to) = (job.spec.zone.show(request.from), job.spec.zone.show(request.to));
        return Err(Error::invalid(format!("a backfill FROM {from} TO {to} has no time in it")));
    }
    if !(1..=MOST_RUNS).contains(&request.max_runs) {
        return Err(Error::invalid(format!("MAX RUNS is {} and must be between 1 and {MOST_RUNS}", request.max_runs)));
    }
    let mut range = job.calendar.inside(request.from, request.to);
    range.end = range.end.min(job.calendar.complete_to(now)).max(range.start);
    let published = job.ledger.which(range.clone(), |entry| entry.published > 0);
    if request.reprocess == Reprocess::All && job.spec.options.mode == Mode::Append && !published.is_empty() {
        return Err(Error::invalid(format!(
            "{} of the intervals are published, and mode = 'append' of job {name} would add their rows twice: REPROCESS FAILED \
             leaves them out",
            published.count()
        )));
    }
    let mut intervals = wanted(state, name, job, request.reprocess, range);
    let known = intervals.iter().flat_map(|piece| job.ledger.pieces_in(piece));
    let newest = known.map(|(_, entry)| entry.generation).max().unwrap_or(0);
    if matches!(request.reprocess, Reprocess::Missing | Reprocess::Failed) {
        // They run anyhow.
        for elsewhere in [&job.due, &job.again, &job.requested, &job.in_progress()] {
            intervals.remove_all(elsewhere);
        }
    }
    Ok(Plan { intervals, generation: newest + 1, order: request.order, calendar: job.calendar })
}

/// The intervals of a range that a backfill has a reason to run, and may.
fn wanted(state: &State, name: &JobName, job: &Job, reprocess: Reprocess, range: Range<u64>) -> Ranges {
    let mut wanted = Ranges::from(range.clone());
    wanted.remove_all(&job.ledger.which(range, |entry| !is_wanted(job, reprocess, entry)));
    match reprocess {
        Reprocess::Stale => wanted.intersection(&stale(state, name)),
        Reprocess::Missing | Reprocess::Failed | Reprocess::All => wanted,
    }
}

/// Whether a backfill has a reason to run an interval that something is known of, and may.
fn is_wanted(job: &Job, reprocess: Reprocess, entry: Entry) -> bool {
    if entry.published > 0 && job.spec.options.mode == Mode::Append {
        return false;
    }
    match reprocess {
        Reprocess::Missing => entry.published == 0 && entry.fate != Fate::Failed,
        Reprocess::Failed => entry.published == 0 || entry.fate == Fate::Failed,
        Reprocess::Stale => entry.published > 0,
        Reprocess::All => true,
    }
}

/// What becomes of a request for a backfill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its number, by which it is cancelled; none if there is nothing for it to run.
    pub id: Option<u64>,
    /// How many intervals it takes on.
    pub intervals: u64,
    /// Why it takes on none.
    pub why_none: Option<String>,
}

/// What would become of a backfill if it were requested at `now`. Changes nothing.
///
/// # Errors
///
/// What would be said to the request itself, but for how many backfills there are.
pub fn accepted(state: &State, name: &JobName, request: &Request, now: Millis) -> Result<Accepted> {
    let intervals = plan(state, name, request, now)?.intervals.count();
    let none = state.jobs.get(name).filter(|_| intervals == 0);
    let why_none = none.map(|job| why_none(name, job, request, now));
    Ok(Accepted { id: (intervals > 0).then(|| next_id(state)), intervals, why_none })
}

/// The number of the next backfill: they are counted over all jobs.
const fn next_id(state: &State) -> u64 {
    state.backfills + 1
}

fn why_none(name: &JobName, job: &Job, request: &Request, now: Millis) -> String {
    let (zone, calendar) = (job.spec.zone, &job.calendar);
    let (first, range) = (calendar.boundary(0), calendar.inside(request.from, request.to));
    if request.to <= first {
        return format!("it ends before the START of job {name}, {}", zone.show(first));
    }
    if range.is_empty() {
        let (from, to) = (zone.show(request.from), zone.show(request.to));
        return format!("no interval of job {name} lies between {from} and {to}");
    }
    if calendar.complete_to(now) <= range.start {
        let end = calendar.interval(range.start).end;
        return format!("none of its intervals is over: the first ends at {}", zone.show(end));
    }
    let why = match request.reprocess {
        Reprocess::Missing => {
            "nothing is missing there but what is due or in progress: REPROCESS FAILED takes what failed, ALL what is published"
        }
        Reprocess::Failed => "nothing failed or is missing there but what is due or in progress",
        Reprocess::Stale => "nothing is stale there",
        Reprocess::All => "there is nothing to run",
    };
    why.to_owned()
}

impl Decider<'_> {
    pub(super) fn backfill_requested(&mut self, job: JobName, request: Request) -> Result<()> {
        let plan = plan(self.state, &job, &request, self.now)?;
        if self.job(&job)?.backfills.len() >= self.limits.backfills {
            let most = self.limits.backfills;
            return Err(Error::resources_exhausted(format!(
                "job {job} has {most} backfills that are not done: wait for one of them"
            )));
        }
        if plan.intervals.is_empty() {
            return Ok(());
        }
        let (id, total) = (next_id(self.state), plan.intervals.count());
        let Plan { intervals: remaining, generation, .. } = plan;
        let backfill = Backfill { request, generation, total, remaining, failures: 0, at: self.now };
        self.record(Record::BackfillAccepted { job, id, backfill });
        Ok(())
    }

    pub(super) fn backfill_cancelled(&mut self, job: JobName, id: u64) -> Result<()> {
        if !self.job(&job)?.backfills.contains_key(&id) {
            return Err(Error::not_found(format!("job {job} has no backfill {id} that is not done")));
        }
        self.record(Record::BackfillEnded { job, id });
        Ok(())
    }

    /// What was published meanwhile is no longer missing, or stale.
    pub(super) fn narrow_backfills(&mut self, name: &JobName) {
        let Some(job) = self.state.jobs.get(name) else { return };
        let narrowed = job.backfills.iter().filter_map(|(id, backfill)| {
            let hull = backfill.remaining.hull()?;
            let mut done = backfill.remaining.clone();
            done.remove_all(&wanted(self.state, name, job, backfill.request.reprocess, hull));
            (!done.is_empty()).then_some((*id, done))
        });
        for (id, done) in narrowed.collect::<Vec<_>>() {
            self.record(Record::BackfillNarrowed { job: name.clone(), id, done });
        }
        self.end_backfills(name);
    }

    /// A backfill that has begun all its intervals is done when the last of them has ended.
    pub(super) fn end_backfills(&mut self, name: &JobName) {
        let Some(job) = self.state.jobs.get(name) else { return };
        let is_done = |id: u64, backfill: &Backfill| {
            backfill.remaining.is_empty() && job.running(|cause| cause == Cause::Backfill { backfill: id }) == 0
        };
        let done = job.backfills.iter().filter(|(id, backfill)| is_done(**id, backfill)).map(|(id, _)| *id);
        for id in done.collect::<Vec<_>>() {
            self.record(Record::BackfillEnded { job: name.clone(), id });
        }
    }
}
