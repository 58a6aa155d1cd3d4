//! How far a run has come, in numbers for whoever watches it.

use super::waiting_for;
use crate::record::{RunState, State, Task, TaskState};
use crate::{Attempt, ExecutorId, Millis, RunId};

/// What a run waits for that has done all its work.
const UNREAD: &str = "its rows to be read";

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Milliseconds since it was accepted.
    pub elapsed_ms: u64,
    /// Its stages, and those whose tasks have all succeeded.
    pub stages: u64,
    /// See [`Self::stages`].
    pub stages_done: u64,
    /// Its tasks.
    pub tasks: u64,
    /// Tasks whose output is there.
    pub tasks_done: u64,
    /// Tasks that run.
    pub tasks_running: u64,
    /// Rows that finished attempts have read, and so far those that run.
    pub rows: u64,
    /// Arrow bytes that they wrote to exchanges.
    pub exchanged_bytes: u64,
    /// Bytes that they wrote to local disk.
    pub spilled_bytes: u64,
    /// Executors and coordinators that were lost under it.
    pub recoveries: u32,
    /// What it waits for, where none of its tasks runs.
    pub waits_for: Option<String>,
}

/// What an attempt that runs has done so far, as its executor says now and then. It stands in no record, and nothing is decided
/// by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Rows that it has read.
    pub rows: u64,
    /// Arrow bytes that it wrote to exchanges.
    pub exchanged_bytes: u64,
    /// Bytes that it wrote to local disk.
    pub spilled_bytes: u64,
}

/// How far a run has come; `None` if it is not known (any longer). `flow` tells what an attempt has done so far, if that was
/// heard of.
#[must_use]
pub fn progress(
    state: &State,
    id: &RunId,
    now: Millis,
    flow: impl Fn(&ExecutorId, Attempt) -> Option<Flow>,
) -> Option<Progress> {
    let run = state.runs.get(id)?;
    // The driver answers this, between other things: complete stages are not looked through.
    let going_on = run.stages.iter().filter(|stage| !stage.is_complete()).flat_map(|stage| &stage.tasks);
    let (mut tasks_running, mut so_far) = (0, Flow::default());
    for task in going_on.filter(|task| task.state == TaskState::Running) {
        tasks_running += 1;
        so_far.add(furthest(task, &flow));
    }
    let waits_for = match run.state {
        RunState::Queued => Some("runs before it, which are being planned".to_owned()),
        RunState::Planning if run.unread => Some(UNREAD.to_owned()),
        RunState::Planning => Some("its plan".to_owned()),
        RunState::Running if tasks_running == 0 => first_wait(state, id, now),
        RunState::Running | RunState::Succeeded | RunState::Failed | RunState::Cancelled => None,
    };
    Some(Progress {
        elapsed_ms: run.finished_at.unwrap_or(now).since(run.submitted_at),
        stages: run.stages.len() as u64,
        stages_done: run.stages.iter().filter(|stage| stage.is_complete()).count() as u64,
        tasks: run.stages.iter().map(|stage| stage.tasks.len() as u64).sum(),
        tasks_done: run.stages.iter().map(|stage| u64::from(stage.complete)).sum(),
        tasks_running,
        rows: run.totals.metrics.rows_in.saturating_add(so_far.rows),
        exchanged_bytes: run.totals.metrics.bytes_out.saturating_add(so_far.exchanged_bytes),
        spilled_bytes: run.totals.metrics.spilled_bytes.saturating_add(so_far.spilled_bytes),
        recoveries: run.totals.recoveries,
        waits_for,
    })
}

impl Flow {
    /// Adds what others say of themselves, whatever that is.
    const fn add(&mut self, other: Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.exchanged_bytes = self.exchanged_bytes.saturating_add(other.exchanged_bytes);
        self.spilled_bytes = self.spilled_bytes.saturating_add(other.spilled_bytes);
    }
}

/// What the attempt of a task has done that has come furthest: one of two counts in the end.
fn furthest(task: &Task, flow: impl Fn(&ExecutorId, Attempt) -> Option<Flow>) -> Flow {
    let first = task.executor.as_ref().zip(task.attempt);
    let second = task.rival.as_ref().map(|rival| (&rival.executor, rival.attempt));
    let flows = first.into_iter().chain(second).filter_map(|(executor, attempt)| flow(executor, attempt));
    flows.max_by_key(|flow| flow.rows).unwrap_or_default()
}

/// What the first task waits for that could run next.
fn first_wait(state: &State, id: &RunId, now: Millis) -> Option<String> {
    let run = state.runs.get(id)?;
    match run.ready.first() {
        Some((_, task)) => waiting_for(state, run, *task, now),
        None if run.intent.is_some() => Some("its result to be published".to_owned()),
        None => Some(UNREAD.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Determinism, Stage, StageGraph, TaskShape};
    use crate::record::{Capacity, Footer, Output, Record, RunSpec, TaskMetrics};
    use crate::{Attempt, BlobHash, Epoch, ExecutorId, StageId, TaskId};

    fn run() -> RunId {
        RunId("r".to_owned())
    }

    fn accepted() -> Vec<Record> {
        let spec = RunSpec { statement: String::new(), ..RunSpec::default() };
        vec![
            Record::EpochClaimed { epoch: Epoch(1), build: String::new(), at: Millis(0) },
            Record::RunAccepted { run: run(), spec, at: Millis(500) },
        ]
    }

    fn planned() -> Vec<Record> {
        let stage = Stage {
            id: StageId(0),
            plan: BlobHash("plan".to_owned()),
            shape: TaskShape::PerPartition(2),
            output_partitions: 1,
            scans: vec![None; 2],
            inputs: Vec::new(),
            determinism: Determinism::Exact,
        };
        let mut records = accepted();
        records.push(Record::RunPlanned { run: run(), graph: StageGraph { stages: vec![stage] }, sheet: None });
        records
    }

    fn seen(records: &[Record]) -> Option<Progress> {
        let mut state = State::default();
        records.iter().for_each(|record| state.apply(record));
        // The second task's attempt was heard of, and one that nobody waits for.
        progress(&state, &run(), Millis(2500), |executor, attempt| {
            let flow = Flow { rows: 100, exchanged_bytes: 200, spilled_bytes: 300 };
            (executor.0 == "e" && attempt.counter != 0).then_some(flow)
        })
    }

    #[test]
    fn a_run_waits_for_its_plan_then_for_an_executor() {
        assert_eq!(seen(&[]), None);
        let waits = |records: &[Record]| seen(records).and_then(|progress| progress.waits_for);
        assert!(waits(&accepted()).is_some());
        let mut records = planned();
        let task = TaskId { stage: StageId(0), index: 0 };
        records.push(Record::TaskReady { run: run(), task, not_before: Millis(0) });
        assert_eq!(waits(&records).as_deref(), Some("an executor: none is connected"));
    }

    #[test]
    fn tasks_are_counted_by_where_they_stand() {
        let executor = ExecutorId("e".to_owned());
        let mut records = planned();
        let capacity = Capacity { slots: 2, memory: 1 };
        let endpoint = String::new();
        records.push(Record::ExecutorJoined { executor: executor.clone(), endpoint, capacity, at: Millis(600) });
        for index in 0..2 {
            let (task, attempt) =
                (TaskId { stage: StageId(0), index }, Attempt { epoch: Epoch(1), counter: u64::from(index) });
            let (run, executor) = (run(), executor.clone());
            records.push(Record::AttemptStarted { run, task, attempt, executor, slots: 1, at: Millis(1000) });
        }
        let metrics = TaskMetrics { rows_in: 7, bytes_out: 8, ..TaskMetrics::default() };
        let attempt = Attempt { epoch: Epoch(1), counter: 0 };
        let (footer, operators) = (Footer::default(), Vec::new());
        let output = Output { attempt, executor, footer, metrics, operators, rows: None, durable: None };
        let task = TaskId { stage: StageId(0), index: 0 };
        records.push(Record::AttemptSucceeded { run: run(), task, attempt, output, at: Millis(2000) });
        let expected = Progress {
            elapsed_ms: 2000,
            stages: 1,
            stages_done: 0,
            tasks: 2,
            tasks_done: 1,
            tasks_running: 1,
            rows: 107,
            exchanged_bytes: 208,
            spilled_bytes: 300,
            recoveries: 0,
            waits_for: None,
        };
        assert_eq!(seen(&records), Some(expected));
    }
}
