//! What people ask for, one interval or run at a time.

use super::decide::Decider;
use super::names::{JobName, RunKey};
use super::record::Record;
use super::spec::Mode;
use super::state::{ActiveState, Job, StopReason};
use crate::{Error, Millis, Result};

impl Decider<'_> {
    pub(super) fn requested(&mut self, name: JobName, start: Millis) -> Result<()> {
        let job = self.job(&name)?;
        let index = self.complete_interval(&name, job, start)?;
        if job.requested.contains(index) {
            return Ok(());
        }
        if job.spec.options.mode == Mode::Append && (job.ledger.is_published(index) || job.active.contains_key(&index))
        {
            let when = job.spec.zone.show(start);
            return Err(Error::conflict(format!(
                "the interval of {when} of job {name} is published or in progress, and mode = 'append' would add its rows twice"
            )));
        }
        if job.requested.count() >= self.limits.requests {
            return Err(Error::resources_exhausted(format!(
                "{} intervals of job {name} were asked for and have not begun: use BACKFILL JOB for many",
                self.limits.requests
            )));
        }
        self.record(Record::Requested { job: name, index, at: self.now });
        Ok(())
    }

    fn complete_interval(&self, name: &JobName, job: &Job, start: Millis) -> Result<u64> {
        let (zone, calendar) = (job.spec.zone, &job.calendar);
        let Some(index) = calendar.containing(start) else {
            let (when, first) = (zone.show(start), calendar.boundary(0));
            return Err(Error::invalid(format!("{when} is before the START of job {name}, {}", zone.show(first))));
        };
        let interval = calendar.interval(index);
        if interval.start != start || interval.is_empty() {
            let (begin, end) = (zone.show(interval.start), zone.show(interval.end));
            return Err(Error::invalid(format!(
                "no interval of job {name} begins at {}: one goes from {begin} to {end}",
                zone.show(start)
            )));
        }
        if interval.end > self.now {
            return Err(Error::invalid(format!(
                "the interval of {} of job {name} is not over before {}",
                zone.show(start),
                zone.show(interval.end)
            )));
        }
        Ok(index)
    }

    pub(super) fn run_cancelled(&mut self, run: &RunKey) -> Result<()> {
        let active = self.in_progress(run).map(|active| active.state.clone());
        match active {
            Some(ActiveState::Running | ActiveState::Retrying { .. }) => {
                self.stop(&run.job, run.index, StopReason::Cancelled);
                Ok(())
            }
            Some(ActiveState::Stopping { reason: StopReason::Cancelled | StopReason::Replaced }) => Ok(()),
            // It would be tried again.
            Some(ActiveState::Stopping { reason: StopReason::TimedOut }) => {
                let (job, index, reason) = (run.job.clone(), run.index, StopReason::Cancelled);
                self.record(Record::RunStopping { job, index, reason, at: self.now });
                Ok(())
            }
            None => Err(Error::not_found(format!("run {run} is not in progress"))),
        }
    }
}
