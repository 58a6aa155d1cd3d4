//! Executors that come and go.

use std::collections::BTreeSet;

use super::decide::Decider;
use super::{Action, Reported};
use crate::record::{Capacity, ExecutorState, Loss, Output, Record, RunningAttempt};
use crate::{Attempt, ExecutorId, RunId, TaskId};

/// How many lost executors stay visible in `system.executors`.
const LOST_EXECUTORS_KEPT: usize = 100;

impl Decider<'_> {
    pub(super) fn executor_connected(&mut self, executor: &ExecutorId, endpoint: String, capacity: Capacity) {
        let executor = executor.clone();
        match self.state.executors.get(&executor).map(|e| e.state) {
            None => self.record(Record::ExecutorJoined { executor, endpoint, capacity, at: self.now }),
            Some(ExecutorState::Suspected { .. }) => self.record(Record::ExecutorReturned { executor }),
            // The last stream's end was not noticed yet, or the executor was given up: its next life has another name.
            Some(ExecutorState::Alive | ExecutorState::Lost) => {}
        }
    }

    /// Messages of the last stream may be lost, so what the executor says of itself decides: attempts it does not know
    /// are given out again, attempts and runs that ended meanwhile are stopped and released.
    pub(super) fn reconcile(&mut self, executor: &ExecutorId, running: &[Reported], holding: &[Reported]) {
        for reported in running.iter().chain(holding) {
            self.adopt(executor, reported);
        }
        let known = self.state.executors.get(executor).filter(|e| e.state == ExecutorState::Alive);
        let Some(known) = known.map(|e| e.running.clone()) else { return };
        for reported in running.iter().filter(|r| !known.contains_key(&r.attempt)) {
            self.act(Action::Stop { executor: executor.clone(), attempt: reported.attempt });
        }
        let held: BTreeSet<&RunId> = holding.iter().map(|r| &r.run).collect();
        for run in held.into_iter().filter(|run| self.live_run(run).is_none()).cloned().collect::<Vec<_>>() {
            self.act(Action::Release { executor: executor.clone(), run });
        }
        let reported: BTreeSet<Attempt> = running.iter().chain(holding).map(|r| r.attempt).collect();
        let missing: Vec<Attempt> = known.into_keys().filter(|attempt| !reported.contains(attempt)).collect();
        self.attempts_forgotten(executor, &missing);
    }

    /// Gives out again what an executor does not know.
    pub(super) fn attempts_forgotten(&mut self, executor: &ExecutorId, attempts: &[Attempt]) {
        let mut runs = BTreeSet::new();
        for attempt in attempts {
            let known = self.state.executors.get(executor).and_then(|e| e.running.get(attempt));
            let Some(RunningAttempt { run, task, .. }) = known.cloned() else { continue };
            // Its launch may still be on its way.
            self.act(Action::Stop { executor: executor.clone(), attempt: *attempt });
            let (attempt, cause, at) = (*attempt, Loss::Message, self.now);
            self.record(Record::AttemptLost { run: run.clone(), task, attempt, cause, at });
            runs.insert(run);
        }
        for run in runs {
            self.refresh(&run);
        }
    }

    pub(super) fn executor_disconnected(&mut self, executor: ExecutorId) {
        if self.state.executors.get(&executor).map(|e| e.state) == Some(ExecutorState::Alive) {
            self.record(Record::ExecutorSuspected { executor: executor.clone(), at: self.now });
            self.act(Action::Probe { executor });
        }
    }

    /// The single path on which executors are lost. Those that are lost at once are lost before anything else is
    /// decided, so that nobody is told of an output which the next of them takes along.
    pub(super) fn executors_dead(&mut self, executors: &[ExecutorId]) {
        let mut dead = BTreeSet::new();
        for executor in executors {
            let Some(known) = self.state.executors.get(executor).filter(|e| e.state != ExecutorState::Lost) else {
                continue;
            };
            let running = known.running.clone();
            self.record(Record::ExecutorLost { executor: executor.clone(), at: self.now });
            for (attempt, RunningAttempt { run, task, .. }) in running {
                self.record(Record::AttemptLost { run, task, attempt, cause: Loss::Executor, at: self.now });
            }
            dead.insert(executor);
        }
        if dead.is_empty() {
            return;
        }
        let live: Vec<RunId> = self.state.live.iter().cloned().collect();
        for run in live {
            // What is being published was read already.
            if self.live_run(&run).is_some_and(|r| r.intent.is_some()) {
                continue;
            }
            self.fail_if_poisoned(&run);
            for task in self.outputs_held_by(&run, &dead) {
                self.lose_output(&run, task);
            }
            self.refresh(&run);
        }
        self.forget_lost_executors();
    }

    fn outputs_held_by(&self, run: &RunId, executors: &BTreeSet<&ExecutorId>) -> Vec<TaskId> {
        let Some(run) = self.live_run(run) else { return Vec::new() };
        let lost = |o: &Output| o.durable.is_none() && executors.contains(&o.executor);
        let held = |t: &crate::record::Task| t.output.as_ref().is_some_and(lost);
        (0u32..)
            .zip(&run.stages)
            .flat_map(|(s, stage)| {
                let tasks = (0u32..).zip(&stage.tasks).filter(|(_, t)| held(t));
                tasks.map(move |(index, _)| TaskId { stage: crate::StageId(s), index })
            })
            .collect()
    }

    fn forget_lost_executors(&mut self) {
        let lost: Vec<ExecutorId> = self
            .state
            .executors
            .iter()
            .filter(|(_, e)| e.state == ExecutorState::Lost)
            .map(|(id, _)| id.clone())
            .collect();
        for executor in lost.iter().take(lost.len().saturating_sub(LOST_EXECUTORS_KEPT)) {
            self.record(Record::ExecutorForgotten { executor: executor.clone() });
        }
    }
}
