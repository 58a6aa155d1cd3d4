//! Collects what is decided.

use super::{Action, Step};
use crate::interval;
use crate::record::{Record, Run, State};
use crate::{Millis, RunId, Settings};

/// A decision in the making.
pub(super) struct Decider<'a> {
    pub(super) state: &'a mut State,
    pub(super) settings: &'a Settings,
    pub(super) now: Millis,
    step: Step,
}

impl<'a> Decider<'a> {
    pub(super) fn new(state: &'a mut State, settings: &'a Settings, now: Millis) -> Self {
        Self { state, settings, now, step: Step::default() }
    }

    /// Applies a record and keeps it for the log.
    pub(super) fn record(&mut self, record: Record) {
        self.state.apply(&record);
        // Now: the next record may take away what tells.
        self.step.urgent |= self.state.is_urgent(&record);
        self.step.records.push(record);
    }

    /// Keeps records for the log that the interval machine has applied already.
    pub(super) fn applied(&mut self, records: Vec<interval::Record>, urgent: bool) {
        self.step.urgent |= urgent;
        self.step.records.extend(records.into_iter().map(Record::Jobs));
    }

    /// Asks the shell to do something.
    pub(super) fn act(&mut self, action: Action) {
        self.step.actions.push(action);
    }

    /// The run, unless it is unknown or finished: late messages find nothing here.
    pub(super) fn live_run(&self, run: &RunId) -> Option<&Run> {
        self.state.runs.get(run).filter(|r| !r.state.is_terminal())
    }

    pub(super) fn into_step(self) -> Step {
        self.step
    }
}
