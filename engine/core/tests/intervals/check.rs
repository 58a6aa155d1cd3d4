//! Every record and action against what the model would have decided.

use std::rc::Rc;

use chrono_tz::Tz;
use tidemill_core::interval::{
    Action, DatasetName, Event, JobName, Limits, Options, Plan, Record, Step, SuspendReason,
};

use crate::model::{ActiveModel, Doing, Known, Model, Set};

/// A clock that is behind by less than this is not set back.
pub(crate) const SLACK_MS: u64 = 60_000;

/// What a broken rule says.
pub(crate) type Check = Result<(), String>;

pub(crate) fn ensure(holds: bool, why: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(why()) }
}

/// What a step is checked with.
pub(crate) struct Context<'a> {
    pub(crate) event: &'a Event,
    /// What the machine's clock shows.
    pub(crate) now: u64,
    pub(crate) limits: Limits,
    pub(crate) zone: Tz,
    /// Where lists of instants end.
    pub(crate) horizon: u64,
    /// The fires of a job that is created or altered.
    pub(crate) fires: Rc<Vec<u64>>,
    /// What a dry run said.
    pub(crate) plan: Option<Plan>,
    /// What updates of this step owe to jobs.
    pub(crate) owed: Vec<(JobName, [Set; 3])>,
    /// The intervals that updates of this step make stale.
    pub(crate) changed: Vec<(JobName, DatasetName, Set)>,
}

impl Model {
    /// Follows a step of the machine, record by record.
    pub(crate) fn follow(&mut self, step: &Step, x: &mut Context) -> Check {
        for record in &step.records {
            self.record(record, x).map_err(|why| format!("{why}\n  in {record:?}\n  of {:?}", x.event))?;
            if let Some(at) = record.at() {
                ensure(at.0 == x.now, || format!("{record:?} is of another time than {}", x.now))?;
                self.clock = self.clock.max(at.0);
            }
        }
        ensure(x.owed.is_empty(), || format!("an update was not passed on to {:?}", x.owed))?;
        ensure(x.changed.is_empty(), || format!("an update makes stale: {:?}", x.changed))?;
        ensure(step.urgent == step.records.iter().any(Record::is_urgent), || "urgent or not".to_owned())?;
        let submits = step.actions.iter().filter(|action| matches!(action, Action::Submit { .. })).count();
        let starts = step.records.iter().filter(|record| matches!(record, Record::RunStarted { .. })).count();
        ensure(submits == starts || *x.event == Event::Restarted, || format!("{starts} starts, {submits} submitted"))?;
        self.check_notices(step)?;
        self.nothing_is_left_out(x)
    }

    /// Whoever wants to be told is told, and nobody else.
    fn check_notices(&self, step: &Step) -> Check {
        let wants = |job: &JobName, wants: fn(&Options) -> bool| {
            self.jobs.get(job).is_some_and(|known| wants(&known.spec.options))
        };
        let asked = step.records.iter().filter(|record| match record {
            Record::IntervalPublished { job, .. } => wants(job, |o: &Options| o.on_success.is_some()),
            Record::IntervalFailed { job, .. } => wants(job, |o: &Options| o.on_failure.is_some()),
            Record::DeadlinesPassed { job, late, .. } => {
                !late.is_empty() && wants(job, |o: &Options| o.on_late.is_some())
            }
            _ => false,
        });
        let (asked, told) = (asked.count(), step.actions.iter().filter(|a| matches!(a, Action::Notify { .. })).count());
        ensure(asked == told, || format!("{told} notices, not {asked}"))
    }

    fn record(&mut self, record: &Record, x: &mut Context) -> Check {
        match record {
            Record::ClockSetBack { at, jobs } => self.check_clock(at.0, jobs),
            Record::JobCreated { .. } => self.create(record, x),
            Record::JobAltered { job, spec, cursor, .. } => {
                let known = self.job(job)?;
                let had_schedule = known.spec.triggers().is_empty();
                known.spec = spec.clone();
                known.forget_stale();
                known.keep_what_was_added();
                known.fires = Rc::clone(&x.fires);
                if !(had_schedule && spec.triggers().is_empty()) {
                    known.fired_to = x.now;
                }
                known.judged_to = known.passed(x.now);
                known.agrees(job, *cursor)?;
                if had_schedule && !spec.triggers().is_empty() {
                    let known = self.jobs.get(job).ok_or("an unknown job is altered")?;
                    x.owed.extend(self.owed_to_inputs(job, known, known.scheduled_to));
                }
                Ok(())
            }
            Record::JobDropped { job, covered, .. } => self.drop_job(job, covered),
            Record::JobSuspended { job, reason, .. } => self.check_suspended(job, *reason, x),
            Record::JobResumed { job, due, skipped, cursor, .. } => {
                self.check_resumed(job, due, skipped, *cursor, x.now)
            }
            Record::Fired { job, due, skipped, cursor, .. } => self.check_fired(job, due, skipped, *cursor, x),
            Record::InputUpdated { job, due, again, missed, .. } => self.check_updated(job, [due, again, missed], x),
            Record::InputChanged { job, input, stale, .. } => self.check_changed(job, input, stale, x),
            Record::Requested { job, index, .. } => {
                let known = self.job(job)?;
                ensure(known.end(*index) <= x.now, || format!("{index} of {job} is not over"))?;
                known.requested.insert(*index);
                Ok(())
            }
            Record::EmptySkipped { job, skipped } => self.check_empty(job, &skipped.numbers().collect()),
            Record::BackfillAccepted { job, id, backfill } => self.check_backfill(job, *id, backfill, x),
            Record::BackfillNarrowed { job, id, done } => self.check_narrowed(job, *id, done),
            Record::BackfillEnded { job, id } => self.check_backfill_ended(job, *id, x),
            Record::RunStarted { .. } => self.check_started(record, x),
            Record::RunBegan { job, index, at } => {
                let active = self.job(job)?.active.get_mut(index).ok_or("a run of nothing begins")?;
                ensure(active.state == Doing::Runs, || format!("{index} of {job} begins and does not run"))?;
                (active.since, active.begun) = (at.0, true);
                Ok(())
            }
            Record::RunStopping { job, index, reason, .. } => self.check_stopping(job, *index, *reason, x),
            Record::AttemptFailed { .. } | Record::IntervalFailed { .. } => self.check_failed(record, x),
            Record::IntervalPublished { job, index, .. } => self.check_published(job, *index, x),
            Record::IntervalCancelled { job, index, .. } => self.check_cancelled(job, *index, x),
            Record::IntervalReplaced { job, index, .. } => self.check_replaced(job, *index, x),
            Record::DeadlinesPassed { job, judged_to, late, .. } => self.check_deadlines(job, *judged_to, late, x),
            Record::DatasetCovered { dataset, from, to, version, .. } => {
                let known = self.dataset(dataset);
                let is_known = known.ranges.iter().any(|(a, b)| *a <= from.0 && to.0 <= *b);
                let is_new = known.versions.insert(*version) || !is_known;
                ensure(is_new, || format!("version {version} of {dataset} counts twice"))?;
                known.ranges.push((from.0, to.0));
                x.changed = self.left_behind(dataset, from.0, to.0);
                x.owed = self.owed(dataset, from.0, to.0, x.now);
                Ok(())
            }
            Record::DatasetDropped { dataset, .. } => {
                self.datasets.remove(dataset).map(|_| ()).ok_or_else(|| format!("{dataset} is not there"))
            }
        }
    }

    fn drop_job(&mut self, job: &JobName, covered: &tidemill_core::interval::Ranges) -> Check {
        let gone = self.jobs.remove(job).ok_or("an unknown job is dropped")?;
        let others = self.jobs.values().filter(|other| other.spec.output == gone.spec.output);
        let alone_to = others.map(|other| other.bounds[0]).min().unwrap_or(u64::MAX);
        let published = gone.published_intervals().filter(|k| gone.start(*k) < alone_to);
        let expected: tidemill_core::interval::Ranges =
            published.map(|k| gone.start(k)..gone.end(k).min(alone_to)).collect();
        ensure(expected == *covered, || format!("{job} leaves {expected:?}, not {covered:?}"))?;
        if !covered.is_empty() {
            let known: &mut Known = self.dataset(&gone.spec.output);
            known.ranges.extend(covered.iter().map(|range| (range.start, range.end)));
        }
        Ok(())
    }

    fn check_empty(&mut self, job: &JobName, skipped: &Set) -> Check {
        let known = self.job(job)?;
        ensure(skipped.iter().all(|k| known.is_empty(*k)), || format!("{skipped:?} of {job} is not empty"))?;
        for k in skipped {
            let waiting = [&mut known.due, &mut known.again, &mut known.requested, &mut known.missed];
            waiting
                .into_iter()
                .chain(known.backfills.values_mut().map(|b| &mut b.remaining))
                .for_each(|set| _ = set.remove(k));
        }
        known.skip(skipped);
        Ok(())
    }

    /// After a step nothing waits for a place that is free, and no fire that has been.
    fn nothing_is_left_out(&self, x: &Context) -> Check {
        /// Looking at all that wait after each step would take too long.
        const LOOKED_AT: usize = 12;
        let was_looked_at = *x.event != Event::Tick || x.now + SLACK_MS >= self.clock;
        ensure(was_looked_at, || format!("the clock shows {}, and {} before", x.now, self.clock))?;
        for (name, job) in &self.jobs {
            if *x.event == Event::Tick {
                let fired = job.suspended.is_some() || job.fire(x.now).is_none();
                ensure(fired, || format!("{name} should have fired before {}", x.now))?;
                let is_overdue = |active: &&ActiveModel| match active.state {
                    Doing::Runs => active.begun && x.now >= active.since + job.spec.options.timeout_ms,
                    Doing::Waits { wait_ms } => x.now >= active.since + wait_ms,
                    Doing::Stops(_) => false,
                };
                let overdue = job.active.values().find(is_overdue).map(|active| active.state);
                ensure(overdue.is_none(), || format!("an interval of {name} {overdue:?} for too long"))?;
                let is_off = job.suspended == Some(SuspendReason::ByUser);
                let judged = is_off || job.passed(x.now) <= job.judged_to;
                ensure(judged, || format!("deadlines of {name} were not looked at"))?;
            }
            if job.live() < job.most_runs() {
                let asked = job.requested.iter().filter(|_| job.may_start(tidemill_core::interval::Cause::Manual));
                let own = job.due.iter().take(LOOKED_AT).chain(job.again.iter().take(LOOKED_AT));
                let own = own.filter(|_| job.may_start(job.automatic()));
                let left = asked.take(LOOKED_AT).chain(own).find(|k| self.may_begin(job, **k, x.now));
                ensure(left.is_none(), || format!("{left:?} of {name} could begin at {}, and did not", x.now))?;
            }
        }
        self.no_backfill_is_left_out(x, LOOKED_AT)
    }

    fn no_backfill_is_left_out(&self, x: &Context, looked_at: usize) -> Check {
        let all: usize = self.jobs.values().map(|job| job.active.len() - job.live()).sum();
        ensure(all <= x.limits.backfill_runs, || format!("{all} runs of backfills"))?;
        if all == x.limits.backfill_runs {
            return Ok(());
        }
        self.nothing_late_is_left_out(x)?;
        for (name, job) in &self.jobs {
            for (id, backfill) in &job.backfills {
                let cause = tidemill_core::interval::Cause::Backfill { backfill: *id };
                if job.may_start(cause) && job.of_backfill(*id) < backfill.request.max_runs as usize {
                    let reprocess = backfill.request.reprocess;
                    let held = self.held(name, reprocess);
                    let wanted = backfill.remaining.iter().filter(|k| job.is_wanted(reprocess, **k, &held));
                    let wanted = wanted.filter(|k| !held.contains(k));
                    let left = wanted.take(looked_at).find(|k| self.may_begin(job, **k, x.now));
                    ensure(left.is_none(), || format!("{left:?} of backfill {id} of {name} could begin, and did not"))?;
                }
            }
        }
        Ok(())
    }
}
