//! What must hold when a task has two attempts.

use tidemill_core::record::{ExecutorState, TaskState};
use tidemill_core::{Attempt, ExecutorId, RunId, TaskId};

use crate::invariants::{self, ensure};
use crate::ledger::Ledger;
use crate::world::Check;

impl Ledger {
    /// How many attempts of the task are under way.
    pub(crate) fn runs_of(&self, run: &RunId, task: TaskId) -> usize {
        let running = self.replayed.task(run, task).filter(|t| t.state == TaskState::Running);
        running.map_or(0, |t| 1 + usize::from(t.rival.is_some()))
    }

    pub(crate) fn check_inputs(&self, run: &RunId, task: TaskId) -> Check {
        for input in invariants::input_tasks(&self.replayed.runs[run], task.stage) {
            let output = self.replayed.task(run, input).and_then(|t| t.output.as_ref());
            let durable = output.is_some_and(|o| o.durable.is_some());
            let holder = output.and_then(|o| self.replayed.executors.get(&o.executor));
            let held = holder.is_some_and(|e| e.state != ExecutorState::Lost);
            ensure!(held || durable, "input {input} is not available");
        }
        Ok(())
    }

    /// A second attempt starts where nothing else is to do, and never a third.
    pub(crate) fn check_race(
        &mut self,
        run: &RunId,
        task: TaskId,
        attempt: Attempt,
        executor: &ExecutorId,
        slots: u32,
    ) -> Check {
        self.counts.raced += 1;
        ensure!(self.attempts.insert(attempt), "the attempt is not unique");
        let known = self.replayed.task(run, task).unwrap();
        ensure!(known.rival.is_none() && known.executor.as_ref() != Some(executor), "it runs there, or twice");
        let free = self.replayed.executors.get(executor).map_or(0, |e| e.free_slots());
        ensure!(free >= slots && slots > 0, "{executor} has {free} free slots");
        ensure!(self.replayed.runs[run].intent.is_none(), "the run is being published");
        self.check_inputs(run, task)
    }
}
