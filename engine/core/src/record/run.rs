//! How records change one run.

use super::state::{LostOutput, Pack, Run, RunState, Sheet, Stage};
use super::task::{Task, TaskState};
use crate::graph::{Determinism, StageGraph};
use crate::{Attempt, Epoch, ExecutorId, Millis, StageId, TaskId};

/// Bytes that are kept of the statement of a run that has ended, in each of a thousand.
const STATEMENT_BYTES: usize = 16 << 10;

impl Run {
    /// Its running attempts and who runs them.
    #[must_use]
    pub fn running(&self) -> Vec<(ExecutorId, Attempt)> {
        let running = self.stages.iter().flat_map(|s| &s.tasks).filter(|t| t.state == TaskState::Running);
        let of_task = |t: &Task| {
            let first = t.executor.clone().zip(t.attempt);
            first.into_iter().chain(t.rival.as_ref().map(|rival| (rival.executor.clone(), rival.attempt)))
        };
        running.flat_map(of_task).collect()
    }

    /// Whether nothing is left to do but that its client reads its rows.
    #[must_use]
    pub fn waits_for_client(&self) -> bool {
        let has_effects = self.sheet.as_ref().is_some_and(|sheet| sheet.effects);
        let is_complete = self.stages.last().is_some_and(Stage::is_complete);
        match self.state {
            RunState::Running => is_complete && !has_effects,
            RunState::Planning => self.unread,
            RunState::Queued | RunState::Succeeded | RunState::Failed | RunState::Cancelled => false,
        }
    }

    pub(super) fn planned(&mut self, graph: &StageGraph, sheet: Option<&Sheet>) {
        let task = Task {
            state: TaskState::Waiting,
            attempt: None,
            executor: None,
            not_before: Millis(0),
            output: None,
            failures: 0,
            executor_losses: 0,
            input_losses: 0,
            started_at: None,
            finished_at: None,
            error: None,
            repeats: 0,
            checksum: None,
            adopted: false,
            rival: None,
            newest: None,
        };
        self.stages = graph
            .stages
            .iter()
            .map(|s| Stage { tasks: vec![task.clone(); s.shape.tasks() as usize], complete: 0 })
            .collect();
        self.graph = Some(graph.clone());
        self.sheet = sheet.cloned();
        self.state = RunState::Running;
    }

    /// Lets go of what only a run that lives needs. What it did stays, for as long as the history has it.
    pub(super) fn leave_history(&mut self) {
        self.ready.clear();
        for stage in self.graph.iter_mut().flat_map(|graph| &mut graph.stages) {
            stage.scans = Vec::new();
        }
        let statement = &mut self.spec.statement;
        if statement.len() > STATEMENT_BYTES {
            statement.truncate(statement.floor_char_boundary(STATEMENT_BYTES));
            statement.push('…');
            statement.shrink_to_fit();
        }
    }

    pub(super) fn differs(&mut self, stage: StageId, epoch: Option<Epoch>) {
        if let Some(planned) = self.graph.as_mut().and_then(|g| g.stages.get_mut(stage.index())) {
            planned.determinism = Determinism::RowIndeterminate;
        }
        self.changed.extend(epoch.map(|epoch| (stage, epoch)));
    }

    /// Lets ready tasks start by `at`: the last leader's clock may have been ahead.
    pub(super) fn wait_until_at_most(&mut self, at: Millis) {
        self.ready = std::mem::take(&mut self.ready).into_iter().map(|(from, task)| (from.min(at), task)).collect();
        for task in self.stages.iter_mut().flat_map(|s| &mut s.tasks) {
            task.not_before = task.not_before.min(at);
        }
    }

    pub(super) fn packed(&mut self, pack: &Pack, outputs: &[LostOutput]) {
        let known = self.packs.iter().position(|p| p.name == pack.name);
        let position = known.unwrap_or(self.packs.len());
        if known.is_none() {
            self.packs.push(pack.clone());
        }
        for LostOutput { task, attempt } in outputs {
            let tasks = self.stages.get_mut(task.stage.index()).map(|s| &mut s.tasks);
            let output = tasks.and_then(|t| t.get_mut(task.index as usize)).and_then(|t| t.output.as_mut());
            if let Some(output) = output.filter(|o| o.attempt == *attempt) {
                output.durable = Some(position);
            }
        }
    }

    pub(super) fn count_complete(&mut self, task: TaskId, change: i32) {
        if let Some(stage) = self.stages.get_mut(task.stage.index()) {
            stage.complete = stage.complete.saturating_add_signed(change);
        }
    }
}
