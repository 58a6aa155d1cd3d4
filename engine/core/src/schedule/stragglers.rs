//! Tasks that take much longer than their siblings: a second executor tries, too, and the first that succeeds wins.

use std::cmp::Reverse;

use super::decide::Decider;
use super::{Launch, needed_stages};
use crate::graph::{Input, TaskShape};
use crate::record::{ExecutorState, RunningAttempt, TaskState};
use crate::{Attempt, ExecutorId, RunId, StageId, TaskId};

/// How many times as long as the median of its stage a task takes before a second attempt is begun.
const TIMES: u64 = 2;
/// The share of the cluster's slots that second attempts may hold, and one in any case.
const SHARE: usize = 10;

impl Decider<'_> {
    /// Gives stragglers to executors that have nothing else to do: called when no task waits for a slot.
    pub(super) fn race_stragglers(&mut self) {
        let Some(epoch) = self.state.epoch.filter(|_| self.state.awaited.is_empty()) else { return };
        if self.state.idle.is_empty() || self.settings.straggler_ms == 0 {
            return;
        }
        let slots: u32 =
            self.state.executors.values().filter(|e| e.state == ExecutorState::Alive).map(|e| e.slots).sum();
        let mut left = (slots as usize / SHARE).max(1).saturating_sub(self.second_attempts());
        for (run, task, executor) in self.stragglers() {
            if left == 0 {
                return;
            }
            // The emptiest that is not the one which is slow.
            let other = self.state.idle.iter().rev().find(|(_, Reverse(idle))| *idle != executor);
            let Some(executor) = other.map(|(_, Reverse(idle))| idle.clone()) else { continue };
            let attempt = Attempt { epoch, counter: self.state.attempts + 1 };
            self.launch(Launch { run, task, attempt, executor, slots: 1 });
            left -= 1;
        }
    }

    /// Tasks that run for too long, alone, and who runs them. Found by what executors run: there are fewer of these than
    /// tasks.
    fn stragglers(&self) -> Vec<(RunId, TaskId, ExecutorId)> {
        let running = self.state.executors.iter().flat_map(|(id, e)| e.running.values().map(move |r| (id, r)));
        let straggles = running.filter(|(_, r)| self.straggles(&r.run, r.task));
        straggles.map(|(id, r)| (r.run.clone(), r.task, id.clone())).collect()
    }

    fn second_attempts(&self) -> usize {
        let running = self.state.executors.values().flat_map(|e| &e.running);
        let is_second = |(attempt, r): &(&Attempt, &RunningAttempt)| {
            let rival = self.state.task(&r.run, r.task).and_then(|t| t.rival.as_ref());
            rival.is_some_and(|rival| rival.attempt == **attempt)
        };
        running.filter(is_second).count()
    }

    fn straggles(&self, run: &RunId, task: TaskId) -> bool {
        let Some(live) = self.live_run(run).filter(|r| r.intent.is_none()) else { return false };
        let Some(graph) = live.graph.as_ref() else { return false };
        // What a loser writes outside might appear after the run was published.
        if live.sheet.as_ref().is_some_and(|s| s.effects) && task.stage == graph.root() {
            return false;
        }
        let (Some(planned), Some(stage)) = (graph.stages.get(task.stage.index()), live.stages.get(task.stage.index()))
        else {
            return false;
        };
        // It may have read before it was lost what a second one could not.
        let is_there = |input: &Input| live.stages.get(input.stage.index()).is_some_and(|s| s.is_complete());
        if matches!(planned.shape, TaskShape::Whole(_)) || !planned.inputs.iter().all(is_there) {
            return false;
        }
        let known = stage.tasks.get(task.index as usize).filter(|t| t.state == TaskState::Running && t.rival.is_none());
        // One that had a second attempt, which came to nothing, has no third.
        let alone = known.filter(|t| t.newest.max(t.attempt) == t.attempt);
        let Some(began) = alone.and_then(|t| t.started_at) else { return false };
        // What earlier leaders wrote has their clocks' times.
        let ours = self.state.claimed_at;
        let elapsed = self.now.since(if began > self.now { ours } else { began.max(ours) });
        if elapsed < self.settings.straggler_ms || (stage.complete as usize) * 4 < stage.tasks.len() * 3 {
            return false;
        }
        let finished = stage.tasks.iter().filter(|t| t.output.is_some());
        let times = finished.filter_map(|t| t.started_at.zip(t.finished_at));
        let mut took: Vec<u64> =
            times.filter(|(from, to)| (*from < ours) == (*to < ours)).map(|(from, to)| to.since(from)).collect();
        took.sort_unstable();
        let is_slow = took.get(took.len() / 2).is_some_and(|median| elapsed >= median.saturating_mul(TIMES));
        let complete = |stage: StageId| live.stages.get(stage.index()).is_some_and(|s| s.is_complete());
        is_slow && needed_stages(graph, complete).get(task.stage.index()) == Some(&true)
    }
}
