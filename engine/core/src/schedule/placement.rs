//! Ready tasks to free slots: fairness between runs first, then stages in order, then the emptiest executor.
//!
//! A run that holds no slot does not wait until other runs' tasks end: it shares slots that they hold. A task cannot be
//! interrupted, and beside one that takes an hour a query of a second would take an hour too.

use std::cmp::Reverse;

use super::decide::Decider;
use super::{Action, Launch};
use crate::graph::TaskShape;
use crate::record::{Executor, ExecutorState, Record, Run};
use crate::{Attempt, Epoch, RunId, TaskId};

/// Tasks per slot while starved runs share them.
const SHARED: u32 = 2;
/// Queues of runs, each of which lets so many begin.
const LANES: usize = 3;

impl Decider<'_> {
    /// Fills free slots. Runs that hold the fewest slots go first, so that a short query beside a long one finds a
    /// slot as soon as one is free.
    pub(super) fn place(&mut self) {
        let Some(epoch) = self.state.epoch.filter(|_| self.state.awaited.is_empty()) else { return };
        while let Some((available, Reverse(executor))) = self.state.idle.last() {
            let Some((run, task)) = self.next_task() else { return };
            let slots = self.slots_wanted(&run, task).min(*available);
            let attempt = Attempt { epoch, counter: self.state.attempts + 1 };
            self.launch(Launch { run, task, attempt, executor: executor.clone(), slots });
        }
        while self.may_share() {
            let Some(run) = self.starved_run() else { return };
            if !self.share_slots(&run, epoch) {
                return;
            }
        }
    }

    /// Whether one more run may hold slots beside those that do: when an executor takes the results of many along that nobody
    /// had read, no more of them work at once than could before.
    fn may_share(&self) -> bool {
        let runs = self.state.live.iter().filter_map(|id| self.state.runs.get(id));
        runs.filter(|run| run.held_slots > 0).count() < self.settings.active_runs.saturating_mul(LANES)
    }

    /// The oldest run that has work and holds nothing.
    fn starved_run(&self) -> Option<RunId> {
        let runs = self.state.live.iter().filter_map(|id| Some((id, self.state.runs.get(id)?)));
        let mut starved = runs.filter(|(_, run)| run.held_slots == 0 && self.next_of(run).is_some());
        starved.next().map(|(id, _)| id.clone())
    }

    /// Gives a starved run slots that others hold: a new one as many as the cluster has, others their even part, while no
    /// executor has more than [`SHARED`] tasks per slot; and one in any case. So there are never more tasks than
    /// [`SHARED`] per slot and one per active run. Whether it got any.
    fn share_slots(&mut self, run: &RunId, epoch: Epoch) -> bool {
        let alive = self.state.executors.values().filter(|e| e.state == ExecutorState::Alive);
        let total: u32 = alive.map(|e| e.slots).sum();
        let is_new = self.state.runs.get(run).is_some_and(|r| r.stages.iter().all(|s| s.complete == 0));
        let working = self.state.live.iter().filter_map(|id| self.state.runs.get(id));
        let working = working.filter(|run| run.held_slots > 0 || !run.ready.is_empty()).count();
        let share = if is_new { total } else { total / u32::try_from(working.max(1)).unwrap_or(u32::MAX) };
        let mut given = 0;
        while given < share.max(1) {
            let Some(task) = self.state.runs.get(run).and_then(|r| self.next_of(r)) else { break };
            let has_room = |e: &Executor| given == 0 || e.held_slots < e.slots * SHARED;
            let executors = self.state.executors.iter();
            let executors = executors.filter(|(_, e)| e.state == ExecutorState::Alive && has_room(e));
            let emptiest = executors.min_by_key(|(_, e)| e.held_slots.saturating_mul(1_000) / e.slots.max(1));
            let Some((executor, slots)) = emptiest.map(|(id, e)| (id.clone(), e.slots)) else { break };
            let slots = self.slots_wanted(run, task).min(slots).max(1);
            let attempt = Attempt { epoch, counter: self.state.attempts + 1 };
            self.launch(Launch { run: run.clone(), task, attempt, executor, slots });
            given += slots;
        }
        given > 0
    }

    /// The run's first task that may start now.
    fn next_of(&self, run: &Run) -> Option<TaskId> {
        run.ready.first().filter(|(not_before, _)| *not_before <= self.now).map(|(_, task)| *task)
    }

    fn next_task(&self) -> Option<(RunId, TaskId)> {
        let ready = self.state.live.iter().filter_map(|id| {
            let run = self.state.runs.get(id)?;
            Some((run.held_slots, id, self.next_of(run)?))
        });
        let (_, run, task) = ready.min()?;
        Some((run.clone(), task))
    }

    /// A whole stage uses as many slots as it has partitions, or as many as are free.
    fn slots_wanted(&self, run: &RunId, task: TaskId) -> u32 {
        let graph = self.state.runs.get(run).and_then(|r| r.graph.as_ref());
        match graph.and_then(|g| g.stages.get(task.stage.index())).map(|s| s.shape) {
            Some(TaskShape::Whole(partitions)) => partitions.max(1),
            _ => 1,
        }
    }

    pub(super) fn launch(&mut self, launch: Launch) {
        let Launch { run, task, attempt, executor, slots } = launch.clone();
        self.record(Record::AttemptStarted { run, task, attempt, executor, slots, at: self.now });
        self.act(Action::Launch(launch));
    }
}
