//! Tasks: ready, succeeded, failed, lost, repeated.

use super::decide::Decider;
use super::{Action, Lost, LostOutput, needed_stages};
use crate::graph::Determinism;
use crate::record::{Footer, Loss, OperatorMetrics, Outcome, Output, Record, RowCounts, TaskMetrics, TaskState};
use crate::{Attempt, Error, ErrorKind, ExecutorId, Millis, RunId, StageId, TaskId};

/// What a finished attempt tells.
pub(super) struct Done {
    pub(super) footer: Footer,
    pub(super) metrics: TaskMetrics,
    pub(super) operators: Vec<OperatorMetrics>,
    pub(super) rows: Option<RowCounts>,
}

impl Decider<'_> {
    pub(super) fn task_succeeded(&mut self, run: &RunId, task: TaskId, attempt: Attempt, done: Done) {
        let footer = done.footer;
        let Some(executor) = self.running_on(run, task, attempt) else { return };
        let other = self.state.task(run, task).and_then(|t| t.other_than(attempt));
        if let Some((executor, attempt)) = &other {
            // What it wrote goes with its run.
            self.act(Action::Stop { executor: executor.clone(), attempt: *attempt });
        }
        if self.differs(run, task, footer) {
            self.record(Record::StageDiffers { run: run.clone(), stage: task.stage });
            // All that may have read it starts again before it does: no attempt goes on.
            for attempt in [attempt].into_iter().chain(other.map(|(_, other)| other)) {
                self.record(Record::AttemptLost {
                    run: run.clone(),
                    task,
                    attempt,
                    cause: Loss::Differs,
                    at: self.now,
                });
            }
            self.refresh(run);
            return;
        }
        let Done { footer, metrics, operators, rows } = done;
        let output = Output { attempt, executor, footer, metrics, operators, rows, durable: None };
        self.record(Record::AttemptSucceeded { run: run.clone(), task, attempt, output, at: self.now });
        if self.stage_is_complete(run, task.stage) {
            self.refresh(run);
        }
    }

    pub(super) fn task_failed(&mut self, run: &RunId, task: TaskId, attempt: Attempt, error: Error, lost: &Lost) {
        if self.running_on(run, task, attempt).is_none() {
            return;
        }
        let rival = self.state.task(run, task).and_then(|t| t.rival.as_ref());
        // While the first attempt goes on, what befalls a second one is no matter.
        let is_spare = rival.is_some_and(|rival| rival.attempt == attempt);
        if error.kind == ErrorKind::LostInput && !lost.outputs.is_empty() {
            self.record(Record::AttemptLost { run: run.clone(), task, attempt, cause: Loss::Input, at: self.now });
            if is_spare {
                return;
            }
            let losses = self.state.task(run, task).map_or(0, |t| t.input_losses);
            if losses >= self.settings.task_input_losses {
                let message = format!("task {task} could not read its inputs {losses} times: {}", error.message);
                self.finish(run, Outcome::Failed { error: Error::unavailable(message) });
                return;
            }
            self.lose_outputs(run, lost);
            self.refresh(run);
            return;
        }
        let may_retry = matches!(error.kind, ErrorKind::Unavailable | ErrorKind::LostInput);
        self.record(Record::AttemptFailed { run: run.clone(), task, attempt, error: error.clone(), at: self.now });
        if is_spare {
            return;
        }
        let failures = self.state.task(run, task).map_or(0, |t| t.failures);
        if may_retry && failures < self.settings.task_attempts {
            self.refresh(run);
        } else {
            self.finish(run, Outcome::Failed { error });
        }
    }

    /// Whether a repeated task gave other rows than those that were read before, where they should be the same.
    fn differs(&self, run: &RunId, task: TaskId, footer: Footer) -> bool {
        let graph = self.live_run(run).and_then(|r| r.graph.as_ref());
        let stage = graph.and_then(|g| g.stages.get(task.stage.index()));
        let before = self.state.task(run, task).and_then(|t| t.checksum);
        let comparable = stage.is_some_and(|s| s.determinism != Determinism::RowIndeterminate);
        comparable && before.zip(footer.checksum).is_some_and(|(before, now)| before != now)
    }

    /// The executor of the attempt, if it is one that the state names; anything else is late or doubled.
    fn running_on(&self, run: &RunId, task: TaskId, attempt: Attempt) -> Option<ExecutorId> {
        self.live_run(run)?;
        self.state.task(run, task)?.runner(attempt).cloned()
    }

    fn stage_is_complete(&self, run: &RunId, stage: StageId) -> bool {
        self.live_run(run).and_then(|r| r.stages.get(stage.index())).is_some_and(|s| s.is_complete())
    }

    /// Marks outputs lost that are still those which the reader meant. One that is in the store, where the reader did not
    /// look, is there for the next.
    pub(super) fn lose_outputs(&mut self, run: &RunId, lost: &Lost) {
        for LostOutput { task, attempt } in &lost.outputs {
            let current = self.state.task(run, *task).and_then(|t| t.output.as_ref());
            let meant = current.filter(|o| o.attempt == *attempt);
            if meant.is_some_and(|o| lost.looked_in_packs || o.durable.is_none()) {
                self.lose_output(run, *task);
            }
        }
    }

    pub(super) fn lose_output(&mut self, run: &RunId, task: TaskId) {
        self.record(Record::OutputLost { run: run.clone(), task });
    }

    /// A repeated task of an indeterminate stage may give other rows: whoever may have read the old ones, and whoever
    /// read those, starts again too. Complete stages as well, because a result that reads some stages of before and
    /// some of after mixes both.
    fn roll_back_readers_of_lost_rows(&mut self, run: &RunId) {
        // A discarded stage needs its inputs again, among them perhaps other lost rows.
        loop {
            let stale = self.readers_of_lost_rows(run);
            if stale.is_empty() {
                return;
            }
            for stage in stale {
                self.discard_stage(run, stage);
            }
        }
    }

    /// The stages with work to discard because they may have read, at first or second hand, rows of an indeterminate
    /// stage that will run again.
    fn readers_of_lost_rows(&self, run: &RunId) -> Vec<StageId> {
        let Some(live) = self.live_run(run) else { return Vec::new() };
        let Some(graph) = live.graph.as_ref() else { return Vec::new() };
        let needed = needed_stages(graph, |s| live.stages.get(s.index()).is_some_and(|s| s.is_complete()));
        let mut stale = Vec::new();
        let mut spreads = vec![false; graph.stages.len()];
        for ((stage, progress), needed) in graph.stages.iter().zip(&live.stages).zip(needed) {
            let reads_lost = stage.inputs.iter().any(|i| spreads.get(i.stage.index()) == Some(&true));
            if reads_lost && progress.tasks.iter().any(|t| t.state == TaskState::Running || t.output.is_some()) {
                stale.push(stage.id);
            }
            let repeats = needed && stage.determinism == Determinism::RowIndeterminate;
            let lost = repeats && progress.tasks.iter().any(|t| t.state == TaskState::Lost);
            if let Some(spreads) = spreads.get_mut(stage.id.index()) {
                *spreads = reads_lost || lost;
            }
        }
        stale
    }

    fn discard_stage(&mut self, run: &RunId, stage: StageId) {
        let Some(progress) = self.live_run(run).and_then(|r| r.stages.get(stage.index())) else { return };
        let tasks = progress.tasks.clone();
        self.record(Record::StageDiscarded { run: run.clone(), stage });
        for (index, state) in (0u32..).zip(tasks) {
            let task = TaskId { stage, index };
            let first = state.attempt.zip(state.executor).filter(|_| state.state == TaskState::Running);
            let second = state.rival.map(|rival| (rival.attempt, rival.executor));
            for (attempt, executor) in first.into_iter().chain(second) {
                self.act(Action::Stop { executor, attempt });
                self.record(Record::AttemptLost {
                    run: run.clone(),
                    task,
                    attempt,
                    cause: Loss::Rollback,
                    at: self.now,
                });
            }
            if state.output.is_some() {
                self.record(Record::OutputLost { run: run.clone(), task });
            }
        }
    }

    /// Fails the run if one of its tasks was running on too many executors when they died.
    pub(super) fn fail_if_poisoned(&mut self, run: &RunId) {
        let limit = self.settings.task_executor_losses;
        let Some(live) = self.live_run(run) else { return };
        let poisoned = (0u32..).zip(&live.stages).find_map(|(s, stage)| {
            let index = stage.tasks.iter().position(|t| t.executor_losses >= limit)?;
            Some((s, index, stage.tasks.get(index)?.executor.clone()?))
        });
        if let Some((stage, index, executor)) = poisoned {
            let error = Error::resources_exhausted(format!(
                "task {stage}.{index} was running on {limit} executors when they died, the last was {executor}: it may \
                 need more memory than they have; set more partitions or give executors more memory"
            ));
            self.finish(run, Outcome::Failed { error });
        }
    }

    /// Brings tasks' states in line with what is needed and available, and delivers a complete root.
    pub(super) fn refresh(&mut self, run: &RunId) {
        if self.live_run(run).is_none_or(|r| r.intent.is_some()) {
            return;
        }
        self.roll_back_readers_of_lost_rows(run);
        let Some(live) = self.live_run(run) else { return };
        let Some(graph) = live.graph.as_ref() else { return };
        let complete = |s: StageId| live.stages.get(s.index()).is_some_and(|s| s.is_complete());
        let needed = needed_stages(graph, complete);
        let root_complete = complete(graph.root());
        let mut records = Vec::new();
        for stage in graph.stages.iter().filter(|s| !complete(s.id)) {
            let needed = needed.get(stage.id.index()) == Some(&true);
            let startable = needed && stage.inputs.iter().all(|i| complete(i.stage));
            let Some(progress) = live.stages.get(stage.id.index()) else { continue };
            for (index, task) in (0u32..).zip(&progress.tasks) {
                let id = TaskId { stage: stage.id, index };
                match (task.state, startable) {
                    (TaskState::Waiting | TaskState::Lost | TaskState::Failed, true) => {
                        // The first lost input is an executor's death, mostly; whose peer cannot be reached loses more.
                        let setbacks = task.failures + task.input_losses.saturating_sub(1);
                        let backoff = self.settings.retry_backoff_ms * u64::from(setbacks);
                        let not_before = Millis(self.now.0 + backoff);
                        records.push(Record::TaskReady { run: run.clone(), task: id, not_before });
                    }
                    // Its inputs are gone, or its last reader finished without it.
                    (TaskState::Ready, false) => records.push(Record::TaskWaiting { run: run.clone(), task: id }),
                    (TaskState::Lost | TaskState::Failed, false) if needed => {
                        records.push(Record::TaskWaiting { run: run.clone(), task: id });
                    }
                    // Nobody needs it now. Who needs it later must know that rows which others read are lost.
                    (TaskState::Lost | TaskState::Failed, false) => {}
                    // It was launched with an input that is gone. It goes on: what it reads may be elsewhere, and if
                    // not it says so itself.
                    (TaskState::Running, _) | (TaskState::Waiting, false) | (TaskState::Ready, true) => {}
                    (TaskState::Succeeded | TaskState::Cancelled, _) => {}
                }
            }
        }
        for record in records {
            self.record(record);
        }
        if root_complete {
            self.act(Action::Deliver { run: run.clone() });
        }
    }
}
