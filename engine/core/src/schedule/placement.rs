//! Ready tasks to free slots: fairness between runs first, then stages in order, then the emptiest executor.

use std::collections::BTreeMap;

use super::decide::Decider;
use super::{Action, Launch};
use crate::graph::TaskShape;
use crate::record::{ExecutorState, Record};
use crate::{Attempt, ExecutorId, RunId, TaskId};

impl Decider<'_> {
    /// Fills free slots. Runs that hold the fewest slots go first, so that a short query beside a long one finds a
    /// slot as soon as one is free.
    pub(super) fn place(&mut self) {
        let mut free = self.free_slots();
        if free.is_empty() || self.state.live.is_empty() {
            return;
        }
        let mut held = self.slots_held();
        while let Some((run, task)) = self.next_task(&held) {
            // The emptiest executor; among equals the first by name.
            let Some((executor, slots)) = free.iter().max_by_key(|(id, n)| (**n, std::cmp::Reverse((*id).clone())))
            else {
                return;
            };
            let (executor, available) = (executor.clone(), *slots);
            let wanted = self.slots_wanted(&run, task);
            let slots = wanted.min(available);
            self.launch(&run, task, &executor, slots);
            *held.entry(run).or_default() += slots;
            if available == slots {
                free.remove(&executor);
            } else {
                free.insert(executor, available - slots);
            }
        }
    }

    fn free_slots(&self) -> BTreeMap<ExecutorId, u32> {
        let alive = self.state.executors.iter().filter(|(_, e)| e.state == ExecutorState::Alive);
        alive.map(|(id, e)| (id.clone(), e.free_slots())).filter(|(_, n)| *n > 0).collect()
    }

    fn slots_held(&self) -> BTreeMap<RunId, u32> {
        let mut held = BTreeMap::new();
        for (run, slots) in self.state.executors.values().flat_map(|e| e.running.values()) {
            *held.entry(run.clone()).or_default() += slots;
        }
        held
    }

    fn next_task(&self, held: &BTreeMap<RunId, u32>) -> Option<(RunId, TaskId)> {
        let ready = self.state.live.iter().filter_map(|id| {
            let run = self.state.runs.get(id)?;
            let (_, task) = run.ready.iter().find(|(not_before, _)| *not_before <= self.now)?;
            Some((held.get(id).copied().unwrap_or(0), id, *task))
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

    fn launch(&mut self, run: &RunId, task: TaskId, executor: &ExecutorId, slots: u32) {
        let Some(epoch) = self.state.epoch else { return };
        let attempt = Attempt { epoch, counter: self.state.attempts + 1 };
        self.record(Record::AttemptStarted {
            run: run.clone(),
            task,
            attempt,
            executor: executor.clone(),
            slots,
            at: self.now,
        });
        let executor = executor.clone();
        self.act(Action::Launch(Launch { run: run.clone(), task, attempt, executor, slots }));
    }
}
