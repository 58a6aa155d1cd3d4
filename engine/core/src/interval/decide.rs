//! Collects what is decided.

use super::names::JobName;
use super::record::Record;
use super::state::{Job, State};
use super::{Action, Limits, Notice, Step};
use crate::{Error, Millis, Result};

/// A decision in the making.
pub(super) struct Decider<'a> {
    pub(super) state: &'a mut State,
    pub(super) limits: &'a Limits,
    pub(super) now: Millis,
    step: Step,
}

impl<'a> Decider<'a> {
    pub(super) fn new(state: &'a mut State, limits: &'a Limits, now: Millis) -> Self {
        Self { state, limits, now, step: Step::default() }
    }

    /// Applies a record and keeps it for the log.
    pub(super) fn record(&mut self, record: Record) {
        self.state.apply(&record);
        self.step.urgent |= record.is_urgent();
        self.step.records.push(record);
    }

    /// Asks the shell to do something.
    pub(super) fn act(&mut self, action: Action) {
        self.step.actions.push(action);
    }

    /// Tells somebody, if anybody wants to be told.
    pub(super) fn notify(&mut self, job: &JobName, to: Option<String>, notice: Notice) {
        if let Some(to) = to {
            self.act(Action::Notify { job: job.clone(), to, notice });
        }
    }

    /// A job that a client named.
    pub(super) fn job(&self, job: &JobName) -> Result<&Job> {
        self.state.jobs.get(job).ok_or_else(|| Error::not_found(format!("there is no job {job}: SHOW JOBS lists them")))
    }

    /// The names of the jobs that are such: what is done to one may change another.
    pub(super) fn jobs_where(&self, is_such: impl Fn(&Job) -> bool) -> Vec<JobName> {
        self.state.jobs.iter().filter(|(_, job)| is_such(job)).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn into_step(self) -> Step {
        self.step
    }
}
