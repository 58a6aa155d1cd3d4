//! Ready tasks to free slots: fairness between runs first, then stages in order, then the emptiest executor.

use std::cmp::Reverse;

use super::decide::Decider;
use super::{Action, Launch};
use crate::graph::TaskShape;
use crate::record::Record;
use crate::{Attempt, RunId, TaskId};

impl Decider<'_> {
    /// Fills free slots. Runs that hold the fewest slots go first, so that a short query beside a long one finds a
    /// slot as soon as one is free.
    pub(super) fn place(&mut self) {
        let Some(epoch) = self.state.epoch else { return };
        while let Some((available, Reverse(executor))) = self.state.idle.last() {
            let Some((run, task)) = self.next_task() else { return };
            let slots = self.slots_wanted(&run, task).min(*available);
            let attempt = Attempt { epoch, counter: self.state.attempts + 1 };
            self.launch(Launch { run, task, attempt, executor: executor.clone(), slots });
        }
    }

    fn next_task(&self) -> Option<(RunId, TaskId)> {
        let ready = self.state.live.iter().filter_map(|id| {
            let run = self.state.runs.get(id)?;
            let (_, task) = run.ready.first().filter(|(not_before, _)| *not_before <= self.now)?;
            Some((run.held_slots, id, *task))
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

    fn launch(&mut self, launch: Launch) {
        let Launch { run, task, attempt, executor, slots } = launch.clone();
        self.record(Record::AttemptStarted { run, task, attempt, executor, slots, at: self.now });
        self.act(Action::Launch(launch));
    }
}
