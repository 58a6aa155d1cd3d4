//! Runs: how they end, and what follows.

use super::check::duration;
use super::decide::Decider;
use super::ledger::MOST_PIECES;
use super::names::{Cause, JobName, RunKey};
use super::record::Record;
use super::retry::{is_retried, wait_ms};
use super::state::{Active, ActiveState, Job, StopReason, SuspendReason};
use super::{Action, Ended, Notice};
use crate::{Error, ErrorKind, Millis};

impl Decider<'_> {
    /// The interval in progress that a run belongs to. Late messages, and those of jobs that are gone, find nothing here.
    pub(super) fn in_progress(&self, run: &RunKey) -> Option<&Active> {
        let job = self.state.jobs.get(&run.job).filter(|job| job.incarnation == run.incarnation)?;
        let active = job.active.get(&run.index)?;
        (active.generation == run.generation && active.attempt == run.attempt).then_some(active)
    }

    pub(super) fn run_ended(&mut self, run: &RunKey, ended: Ended) {
        let Some(active) = self.in_progress(run) else { return };
        let (cause, Some(expected)) = (active.cause, stop_reason(active)) else { return };
        let before = self.pieces(&run.job);
        match (ended, expected) {
            // Past the point where it could be stopped.
            (Ended::Published { version, rows }, Expected(_)) => self.published(run, version, rows),
            (Ended::Failed { error }, Expected(None)) => self.failed(run, error),
            (Ended::Cancelled, Expected(None)) => {
                self.record(Record::IntervalCancelled { job: run.job.clone(), index: run.index, at: self.now })
            }
            // It failed by itself before it could be stopped, and would again.
            (Ended::Failed { error }, Expected(Some(StopReason::TimedOut)))
                if !is_retried(error.kind) && error.kind != ErrorKind::Cancelled =>
            {
                self.failed(run, error);
            }
            (Ended::Failed { .. } | Ended::Cancelled, Expected(Some(reason))) => self.stopped(run, reason),
        }
        self.end_backfills(&run.job);
        self.check_ledger(&run.job, cause, before);
    }

    fn published(&mut self, run: &RunKey, version: u64, rows: Option<u64>) {
        let (job, index) = (run.job.clone(), run.index);
        self.record(Record::IntervalPublished { job, index, version, rows, at: self.now });
        let Some(job) = self.state.jobs.get(&run.job) else { return };
        let (output, interval) = (job.spec.output.clone(), job.calendar.interval(index));
        let notice = Notice::Published { run: run.clone(), interval, version };
        self.notify(&run.job, job.spec.options.on_success.clone(), notice);
        self.updated(&output, interval);
    }

    fn failed(&mut self, run: &RunKey, error: Error) {
        let Some(job) = self.state.jobs.get(&run.job) else { return };
        let options = &job.spec.options;
        let (name, index, at) = (run.job.clone(), run.index, self.now);
        if is_retried(error.kind) && run.attempt <= options.retries {
            let wait_ms = wait_ms(options.retry_backoff_ms, run.attempt);
            self.record(Record::AttemptFailed { job: name, index, error, wait_ms, at });
            return;
        }
        let (to, limit) = (options.on_failure.clone(), options.suspend_after_failures);
        let notice = Notice::Failed { run: run.clone(), interval: job.calendar.interval(index), error: error.clone() };
        self.record(Record::IntervalFailed { job: name.clone(), index, error, at });
        self.notify(&name, to, notice);
        if limit > 0 {
            self.give_up(&name, limit);
        }
    }

    /// Suspends a job, and ends its backfills, whose intervals fail one after the other.
    fn give_up(&mut self, name: &JobName, limit: u32) {
        let Some(job) = self.state.jobs.get(name) else { return };
        let failed = job.backfills.iter().filter(|(_, backfill)| backfill.failures >= limit).map(|(id, _)| *id);
        let (failed, failures, is_suspended) = (failed.collect::<Vec<_>>(), job.failures, job.suspended.is_some());
        for id in failed {
            self.record(Record::BackfillEnded { job: name.clone(), id });
        }
        if failures >= limit && !is_suspended {
            self.suspend(name, SuspendReason::Failures(failures));
        }
    }

    fn stopped(&mut self, run: &RunKey, reason: StopReason) {
        let (job, index, at) = (run.job.clone(), run.index, self.now);
        match reason {
            StopReason::Cancelled => self.record(Record::IntervalCancelled { job, index, at }),
            StopReason::Replaced => self.record(Record::IntervalReplaced { job, index, at }),
            StopReason::TimedOut => {
                let timeout_ms = self.state.jobs.get(&job).map_or(0, |job| job.spec.options.timeout_ms);
                let timeout = duration(timeout_ms);
                let why = format!("run {run} took longer than the timeout of its job, {timeout}, and was cancelled");
                self.failed(run, Error::unavailable(why));
            }
        }
    }

    /// Tells a run to end; one that waits for a retry ends at once.
    pub(super) fn stop(&mut self, name: &JobName, index: u64, reason: StopReason) {
        let Some((key, state)) = self.state.jobs.get(name).and_then(|job| keyed(job, name, index)) else { return };
        match state {
            ActiveState::Running => {
                self.record(Record::RunStopping { job: name.clone(), index, reason, at: self.now });
                self.act(Action::Cancel { run: key });
            }
            ActiveState::Retrying { .. } => {
                self.stopped(&key, reason);
                self.end_backfills(name);
            }
            ActiveState::Stopping { .. } => {}
        }
    }

    pub(super) fn end_overdue_runs(&mut self) {
        let now = self.now;
        let is_overdue = |job: &Job, active: &Active| {
            active.state == ActiveState::Running
                && active.begun
                && now.since(active.since) >= job.spec.options.timeout_ms
        };
        for name in self.jobs_where(|job| job.active.values().any(|active| is_overdue(job, active))) {
            let Some(job) = self.state.jobs.get(&name) else { continue };
            let overdue = job.active.iter().filter(|(_, active)| is_overdue(job, active)).map(|(index, _)| *index);
            for index in overdue.collect::<Vec<_>>() {
                self.stop(&name, index, StopReason::TimedOut);
            }
        }
    }

    pub(super) fn run_began(&mut self, run: &RunKey) {
        if self.in_progress(run).is_some_and(|active| active.state == ActiveState::Running) {
            self.record(Record::RunBegan { job: run.job.clone(), index: run.index, at: self.now });
        }
    }

    /// Begins attempts whose wait is over, those of suspended jobs, too: what has begun goes on. The inputs covered the first
    /// one.
    pub(super) fn retry_runs(&mut self) {
        for name in self.jobs_where(|job| !job.active.is_empty()) {
            let Some(job) = self.state.jobs.get(&name) else { continue };
            let due = job.active.iter().filter(|(_, active)| is_due(active, self.now));
            let due: Vec<(u64, Active)> = due.map(|(index, active)| (*index, active.clone())).collect();
            for (index, Active { generation, attempt, cause, .. }) in due {
                self.start(&name, index, generation, attempt + 1, cause);
            }
        }
    }

    fn pieces(&self, name: &JobName) -> usize {
        self.state.jobs.get(name).map_or(0, |job| job.ledger.pieces())
    }

    /// A job that ends no two intervals alike is not working. Suspended it goes on with backfills, but for one that makes that
    /// worse.
    fn check_ledger(&mut self, name: &JobName, cause: Cause, before: usize) {
        let pieces = self.pieces(name);
        let Some(job) = self.state.jobs.get(name).filter(|_| pieces > MOST_PIECES) else { return };
        let is_suspended = job.suspended.is_some();
        if let Cause::Backfill { backfill: id } = cause
            && pieces > before
            && job.backfills.contains_key(&id)
        {
            self.record(Record::BackfillEnded { job: name.clone(), id });
        }
        if !is_suspended {
            self.suspend(name, SuspendReason::Ledger);
        }
    }
}

/// Why a run that has ended was told to, if it was.
struct Expected(Option<StopReason>);

fn stop_reason(active: &Active) -> Option<Expected> {
    match active.state {
        ActiveState::Running => Some(Expected(None)),
        ActiveState::Stopping { reason } => Some(Expected(Some(reason))),
        ActiveState::Retrying { .. } => None,
    }
}

fn is_due(active: &Active, now: Millis) -> bool {
    match active.state {
        ActiveState::Retrying { wait_ms, .. } => now.since(active.since) >= wait_ms,
        ActiveState::Running | ActiveState::Stopping { .. } => false,
    }
}

fn keyed(job: &Job, name: &JobName, index: u64) -> Option<(RunKey, ActiveState)> {
    job.active.get(&index).map(|active| (job.key(name, index, active), active.state.clone()))
}
