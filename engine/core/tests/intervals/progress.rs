//! Checks of runs: how they begin, stop and end.

use tidemill_core::interval::{
    Cause, Ended, Event, Fate, JobName, Mode, Overlap, Record, StopReason, SuspendReason, Trigger, is_retried,
};

use crate::check::{Check, Context, ensure};
use crate::model::{ActiveModel, Doing, FateModel, JobModel, Model, is_automatic};

impl Model {
    pub(crate) fn check_started(&mut self, record: &Record, x: &Context) -> Check {
        let Record::RunStarted { job: name, index, generation, attempt, cause, .. } = record else { return Ok(()) };
        let job = self.jobs.get(name).ok_or("a run of an unknown job")?;
        // What has begun goes on.
        ensure(*attempt > 1 || job.may_start(*cause), || format!("{name} is suspended"))?;
        ensure(!job.is_empty(*index), || format!("{index} of {name} is empty"))?;
        if *attempt == 1 {
            self.check_first(job, *index, *generation, *cause, x)?;
        } else {
            let active = job.active.get(index).ok_or("a retry of nothing")?;
            let Doing::Waits { wait_ms } = active.state else { return Err("a retry of what runs".to_owned()) };
            let same = active.generation == *generation && active.attempt + 1 == *attempt && active.cause == *cause;
            ensure(same, || format!("another retry than of {}-{}", active.generation, active.attempt))?;
            ensure(active.since + wait_ms <= x.now, || format!("a retry at {} before its time", x.now))?;
        }
        if let Cause::Backfill { backfill } = cause
            && *attempt == 1
        {
            let reprocess = job.backfills.get(backfill).ok_or("no such backfill")?.request.reprocess;
            let held = self.held(name, reprocess);
            ensure(!held.contains(index), || format!("{index} of {name} begins before what it reads"))?;
        }
        if *cause == Cause::Late && *attempt == 1 {
            self.check_late(name, *index, x)?;
        }
        let job = self.job(name)?;
        // A retry may say that what an earlier attempt read is published.
        let before = job.active.get(index).filter(|_| *attempt > 1);
        let outdated = before.map(|active| active.outdated.clone()).unwrap_or_default();
        let begun = ActiveModel {
            generation: *generation,
            attempt: *attempt,
            cause: *cause,
            since: x.now,
            begun: false,
            state: Doing::Runs,
            outdated,
        };
        job.active.insert(*index, begun);
        if *attempt == 1 {
            for waiting in [&mut job.due, &mut job.again, &mut job.requested, &mut job.missed] {
                waiting.remove(index);
            }
            if let Cause::Backfill { backfill } = cause {
                job.backfills.get_mut(backfill).ok_or("no such backfill")?.remaining.remove(index);
            }
            if job.stale.contains_key(index) {
                job.left.insert(*index);
            }
        }
        Ok(())
    }

    fn check_first(&self, job: &JobModel, k: u64, generation: u32, cause: Cause, x: &Context) -> Check {
        ensure(self.is_ready(job, k), || format!("inputs do not cover {k}"))?;
        ensure(!job.active.contains_key(&k), || format!("{k} runs already"))?;
        ensure(job.spec.options.mode != Mode::Append || !job.is_published(k), || format!("{k} would be added twice"))?;
        if matches!(job.spec.trigger, Trigger::Schedule { .. }) {
            ensure(job.end(k) <= x.now, || format!("{k} is not over at {}", x.now))?;
        }
        let mut least = job.generation(k) + 1;
        if let Cause::Backfill { backfill: id } = cause {
            let backfill = job.backfills.get(&id).ok_or("no such backfill")?;
            ensure(backfill.remaining.contains(&k), || format!("{k} is not left to backfill {id}"))?;
            ensure(job.of_backfill(id) < backfill.request.max_runs as usize, || {
                "too many runs of a backfill".to_owned()
            })?;
            least = least.max(backfill.generation);
        } else if cause != Cause::Late {
            ensure(job.live() < job.most_runs(), || "too many runs of a job".to_owned())?;
            let waits = job.due.contains(&k) || job.again.contains(&k);
            let asked =
                if cause == Cause::Manual { job.requested.contains(&k) } else { waits && cause == job.automatic() };
            ensure(asked, || format!("{cause:?} has no reason to run {k}"))?;
            // What somebody asked for goes before the rest, what is due before what runs again, and the older first.
            let mut asked = job.requested.iter().take(8).filter(|_| is_automatic(cause));
            let passed_over = asked.find(|asked| self.may_begin(job, **asked, x.now));
            ensure(passed_over.is_none(), || format!("{passed_over:?} was asked for, and would be before {k}"))?;
            let is_due = job.due.contains(&k);
            let before = if is_due { job.due.range(..k) } else { job.due.range(..) };
            let mut older = before.chain(job.again.range(..k).filter(|_| !is_due)).take(8);
            let passed_over = older.find(|older| is_automatic(cause) && self.may_begin(job, **older, x.now));
            ensure(passed_over.is_none(), || format!("{passed_over:?} would be before {k}"))?;
        }
        ensure(generation == least, || format!("generation {generation} of {k} should be {least}"))
    }

    /// The interval that the event says a run of has ended, unless it is no longer in progress.
    fn ended<'a>(&self, job: &JobName, k: u64, x: &'a Context) -> Result<(&'a Ended, ActiveModel), String> {
        let Event::RunEnded { run, ended } = x.event else { return Err("no run has ended".to_owned()) };
        let active = self.jobs.get(job).and_then(|job| job.active.get(&k)).ok_or("nothing is in progress")?;
        let same =
            run.job == *job && run.index == k && run.generation == active.generation && run.attempt == active.attempt;
        ensure(same, || format!("another run than {run} ends"))?;
        Ok((ended, active.clone()))
    }

    pub(crate) fn check_published(&mut self, name: &JobName, k: u64, x: &mut Context) -> Check {
        let (ended, active) = self.ended(name, k, x)?;
        ensure(matches!(ended, Ended::Published { .. }), || format!("{ended:?} is no publication"))?;
        let job = self.job(name)?;
        job.active.remove(&k);
        let generation = active.generation;
        job.set_fate(k, FateModel { fate: Fate::Published, generation, published: generation });
        job.failures = 0;
        job.count_failures(active.cause, |_| 0);
        job.computed_without(k, active.outdated);
        job.keep_what_was_added();
        let (output, from, to) = (job.spec.output.clone(), job.start(k), job.end(k));
        x.changed = self.left_behind(&output, from, to);
        x.owed = self.owed(&output, from, to, x.now);
        Ok(())
    }

    pub(crate) fn check_failed(&mut self, record: &Record, x: &Context) -> Check {
        let (Record::AttemptFailed { job: name, index, error, .. }
        | Record::IntervalFailed { job: name, index, error, .. }) = record
        else {
            return Ok(());
        };
        let (ended, active) = self.ended(name, *index, x)?;
        let timed_out = active.state == Doing::Stops(StopReason::TimedOut) && !matches!(ended, Ended::Published { .. });
        let failed = active.state == Doing::Runs && *ended == Ended::Failed { error: error.clone() };
        ensure(timed_out || failed, || format!("{ended:?} while it {:?}", active.state))?;
        let job = self.job(name)?;
        let again = is_retried(error.kind) && active.attempt <= job.spec.options.retries;
        if let Record::AttemptFailed { wait_ms, .. } = record {
            let mut expected = job.spec.options.retry_backoff_ms;
            (1..active.attempt).for_each(|_| expected = (2 * expected).min(3_600_000));
            ensure(again, || format!("{index} is not tried again"))?;
            ensure(*wait_ms == expected, || format!("waits {wait_ms}, not {expected}"))?;
            let waits = ActiveModel { state: Doing::Waits { wait_ms: *wait_ms }, since: x.now, ..active };
            job.active.insert(*index, waits);
            return Ok(());
        }
        ensure(!again, || format!("{index} is tried again"))?;
        job.failures += u32::from(is_automatic(active.cause));
        job.count_failures(active.cause, |failures| failures + 1);
        job.end_with(*index, Fate::Failed);
        job.leave_late();
        Ok(())
    }

    pub(crate) fn check_suspended(&mut self, name: &JobName, reason: SuspendReason, x: &Context) -> Check {
        let job = self.job(name)?;
        let limit = job.spec.options.suspend_after_failures;
        let fits = match reason {
            SuspendReason::ByUser => matches!(x.event, Event::JobSuspended { job } if job == name),
            SuspendReason::Failures(count) => {
                count == job.failures && limit > 0 && count >= limit && job.suspended.is_none()
            }
            SuspendReason::Ledger => false,
        };
        ensure(fits, || format!("{name} is suspended for no reason"))?;
        job.suspended = Some(reason);
        Ok(())
    }

    pub(crate) fn check_stopping(&mut self, name: &JobName, k: u64, reason: StopReason, x: &Context) -> Check {
        let job = self.job(name)?;
        let timeout = job.spec.options.timeout_ms;
        let replaces = job.spec.options.overlap == Overlap::Replace;
        let active = job.active.get_mut(&k).ok_or("what is not in progress stops")?;
        let fits = match reason {
            StopReason::TimedOut => active.begun && active.state == Doing::Runs && x.now >= active.since + timeout,
            StopReason::Cancelled => {
                matches!(x.event, Event::RunCancelled { run } if run.index == k && run.job == *name)
            }
            StopReason::Replaced => replaces && is_automatic(active.cause) && active.state == Doing::Runs,
        };
        ensure(fits, || format!("{k} of {name} stops for no reason"))?;
        active.state = Doing::Stops(reason);
        active.since = x.now;
        Ok(())
    }

    pub(crate) fn check_cancelled(&mut self, name: &JobName, k: u64, x: &Context) -> Check {
        let job = self.job(name)?;
        let state = job.active.get(&k).ok_or("what is not in progress is cancelled")?.state;
        let fits = match x.event {
            Event::RunCancelled { .. } => matches!(state, Doing::Waits { .. }),
            Event::RunEnded { ended: Ended::Cancelled, .. } => {
                matches!(state, Doing::Runs | Doing::Stops(StopReason::Cancelled))
            }
            Event::RunEnded { .. } => state == Doing::Stops(StopReason::Cancelled),
            _ => false,
        };
        ensure(fits, || format!("{k} of {name} is cancelled by nobody"))?;
        job.end_with(k, Fate::Cancelled);
        Ok(())
    }

    pub(crate) fn check_replaced(&mut self, name: &JobName, k: u64, x: &Context) -> Check {
        let job = self.job(name)?;
        let active = job.active.get(&k).ok_or("what is not in progress is replaced")?;
        let fits = match (x.event, active.state) {
            (Event::RunEnded { ended, .. }, Doing::Stops(StopReason::Replaced)) => {
                !matches!(ended, Ended::Published { .. })
            }
            (_, Doing::Waits { .. }) => job.spec.options.overlap == Overlap::Replace && is_automatic(active.cause),
            (_, Doing::Runs | Doing::Stops(_)) => false,
        };
        ensure(fits, || format!("{k} of {name} is replaced by nothing"))?;
        job.end_with(k, Fate::Skipped);
        Ok(())
    }
}

impl JobModel {
    fn count_failures(&mut self, cause: Cause, count: impl FnOnce(u32) -> u32) {
        if let Cause::Backfill { backfill } = cause
            && let Some(backfill) = self.backfills.get_mut(&backfill)
        {
            backfill.failures = count(backfill.failures);
        } else if cause == Cause::Late {
            self.late_failures = count(self.late_failures);
        }
    }

    /// What was added is not added again.
    pub(crate) fn keep_what_was_added(&mut self) {
        if self.spec.options.mode == Mode::Append {
            let published: Vec<u64> = self.published_intervals().collect();
            for waiting in [&mut self.due, &mut self.again, &mut self.requested, &mut self.missed] {
                published.iter().for_each(|k| _ = waiting.remove(k));
            }
            for k in published {
                if self.active.get(&k).is_some_and(|active| matches!(active.state, Doing::Waits { .. })) {
                    self.end_with(k, Fate::Cancelled);
                }
            }
        }
    }

    fn end_with(&mut self, k: u64, fate: Fate) {
        let published = self.fate(k).map_or(0, |fate| fate.published);
        if let Some(ActiveModel { generation, .. }) = self.active.remove(&k) {
            self.set_fate(k, FateModel { fate, generation, published });
        }
    }
}
