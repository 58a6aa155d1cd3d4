//! A new leader: what the last one left, and what executors of before say of themselves.
//!
//! Invariant: work that an executor runs or has finished is taken over, even where the record of its launch was lost
//! with the last leader. Until those executors have answered or had their time, nothing is launched.

use std::collections::BTreeSet;

use super::decide::Decider;
use super::{Action, Reported, needed_stages};
use crate::graph::StageGraph;
use crate::record::{LOCAL, Record, Run, RunState, TaskState};
use crate::{Epoch, ExecutorId, RunId, StageId};

impl Decider<'_> {
    pub(super) fn elected(&mut self, epoch: Epoch, build: String) {
        self.record(Record::EpochClaimed { epoch, build, at: self.now });
        let awaited: Vec<ExecutorId> = self.state.awaited.iter().cloned().collect();
        let is_local = |id: &ExecutorId| self.state.executors.get(id).is_some_and(|e| e.endpoint == LOCAL);
        let (local, remote): (Vec<_>, Vec<_>) = awaited.into_iter().partition(is_local);
        self.executors_dead(&local);
        for executor in remote {
            self.act(Action::Probe { executor });
        }
        let live: Vec<RunId> = self.state.live.iter().cloned().collect();
        for run in live {
            let Some(state) = self.live_run(&run).map(|r| (r.state, r.intent.is_some())) else { continue };
            match state {
                (_, true) => self.act(Action::Commit { run }),
                (RunState::Running, false) if self.is_of_another_build(&run) => self.restart(run),
                (RunState::Planning, false) => self.act(Action::Plan { run }),
                (RunState::Running, false) => self.refresh(&run),
                (RunState::Queued | RunState::Succeeded | RunState::Failed | RunState::Cancelled, false) => {}
            }
        }
    }

    fn is_of_another_build(&self, run: &RunId) -> bool {
        let planned_by = self.live_run(run).and_then(|r| r.planned_by.as_ref());
        planned_by.is_some_and(|(_, build)| *build != self.state.build)
    }

    /// Nothing of what was done by another build's plan is of use: it is planned again from its statement.
    fn restart(&mut self, run: RunId) {
        for pack in self.live_run(&run).map(|r| r.packs.clone()).unwrap_or_default() {
            self.act(Action::Discard { pack });
        }
        self.record(Record::RunRestarted { run: run.clone() });
        self.act(Action::Plan { run });
    }

    /// Ends the wait for executors of earlier epochs.
    pub(super) fn close_registration(&mut self) {
        if !self.state.awaited.is_empty() && self.now.since(self.state.claimed_at) >= self.settings.registration_ms {
            self.record(Record::RegistrationClosed);
        }
    }

    /// Takes over what an earlier leader launched and nobody recorded, if its task still waits for somebody to do it.
    /// An attempt that is no newer than the task's last one was given up.
    pub(super) fn adopt(&mut self, executor: &ExecutorId, reported: &Reported) {
        let Reported { run, task, attempt, slots } = reported.clone();
        if Some(attempt.epoch) >= self.state.epoch {
            return;
        }
        let Some(live) = self.live_run(&run).filter(|r| r.intent.is_none()) else { return };
        let Some(graph) = live.graph.as_ref() else { return };
        // Of a plan that was given up: its tasks are others.
        if live.planned_by.as_ref().is_some_and(|(planned_in, _)| attempt.epoch < *planned_in) {
            return;
        }
        if reads_changed_rows(live, graph, task.stage, attempt.epoch) {
            return;
        }
        let needed = needed_stages(graph, |s| live.stages.get(s.index()).is_some_and(|s| s.is_complete()));
        let open = self.state.task(&run, task).is_some_and(|t| {
            let undone = matches!(t.state, TaskState::Waiting | TaskState::Ready | TaskState::Lost);
            undone && t.newest.max(t.attempt).is_none_or(|newest| newest < attempt)
        });
        if open && needed.get(task.stage.index()) == Some(&true) {
            let executor = executor.clone();
            self.record(Record::AttemptStarted { run, task, attempt, executor, slots, at: self.now });
        }
    }
}

/// Whether an attempt of `epoch` may have read, at first or second hand, rows that were lost since and come out differently.
/// A loss in its own epoch was recorded before it was launched, or the state would know it.
fn reads_changed_rows(run: &Run, graph: &StageGraph, stage: StageId, epoch: Epoch) -> bool {
    let changed = |input: &StageId| run.changed.get(input).is_some_and(|lost| *lost > epoch);
    let mut reads = BTreeSet::new();
    for known in &graph.stages {
        if known.inputs.iter().any(|i| changed(&i.stage) || reads.contains(&i.stage)) {
            reads.insert(known.id);
        }
    }
    reads.contains(&stage)
}
