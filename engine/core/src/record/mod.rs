//! What the log holds. Every change of a coordinator's state is one of these, applied live and in replay alike.
//!
//! Invariant: [`State`] changes only in [`State::apply`].

mod apply;
mod catalogue;
mod checks;
mod inputs;
mod jobs;
mod live;
mod metrics;
mod operators;
mod pairs;
mod queries;
mod rows;
mod run;
mod runs;
mod sessions;
mod state;
mod task;

use serde::{Deserialize, Serialize};

pub use catalogue::{Catalogue, CatalogueEntry, CatalogueKind, Change, DEFAULT_SCHEMA};
pub(crate) use checks::bounded;
pub use checks::{Checked, MOST_CHECKS, Verdict};
pub use inputs::InputVersion;
pub use jobs::{AskedNotice, JobRun};
pub use live::Live;
pub use metrics::{Requests, TaskMetrics};
pub use operators::OperatorMetrics;
pub use rows::{RowCounts, RowsDiffer, RowsRead};
pub use runs::Runs;
pub use sessions::{SessionRows, TableRows};
pub use state::{
    Capacity, Executor, ExecutorState, Footer, Intent, Kept, LOCAL, LostOutput, Output, Pack, Run, RunSpec, RunState,
    RunTotals, RunningAttempt, Sheet, Stage, State,
};
pub use task::{Rival, Task, TaskState};

use crate::graph::{Determinism, StageGraph};
use crate::interval;
use crate::{Attempt, Epoch, Error, ExecutorId, Millis, RunId, SessionId, StageId, TaskId};

/// The version of the record encoding. A reader refuses versions it does not know, by name.
pub const RECORD_VERSION: u32 = 2;

/// One change of a coordinator's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A new term of office begins. Executors of earlier ones are suspected until they connect again.
    EpochClaimed { epoch: Epoch, build: String, at: Millis },
    /// The executors of earlier terms have answered, or had their time: work is given out again.
    RegistrationClosed,
    /// An executor may be given work.
    ExecutorJoined { executor: ExecutorId, endpoint: String, capacity: Capacity, at: Millis },
    /// An executor's control stream closed; it is given no work until it answers or is declared dead.
    ExecutorSuspected { executor: ExecutorId, at: Millis },
    /// A suspected executor came back in the same life.
    ExecutorReturned { executor: ExecutorId },
    /// An executor is gone, with all that only it held.
    ExecutorLost { executor: ExecutorId, at: Millis },
    /// A lost executor leaves the history.
    ExecutorForgotten { executor: ExecutorId },
    /// A run was accepted and waits for its turn.
    RunAccepted { run: RunId, spec: RunSpec, at: Millis },
    /// A run is being planned.
    RunPlanning { run: RunId, at: Millis },
    /// A run's stages are known.
    RunPlanned { run: RunId, graph: StageGraph, sheet: Option<Sheet> },
    /// Only the coordinator has a run's rows, and its client is slow to read them.
    RunUnread { run: RunId },
    /// A run that another build planned begins again from its statement.
    RunRestarted { run: RunId },
    /// A task may start: its inputs are complete.
    TaskReady { run: RunId, task: TaskId, not_before: Millis },
    /// A task waits for inputs, again or for the first time.
    TaskWaiting { run: RunId, task: TaskId },
    /// An attempt was given to an executor; a second one if the task runs already.
    AttemptStarted { run: RunId, task: TaskId, attempt: Attempt, executor: ExecutorId, slots: u32, at: Millis },
    /// An attempt produced the task's output; a second one that runs is of no use any more.
    AttemptSucceeded { run: RunId, task: TaskId, attempt: Attempt, output: Output, at: Millis },
    /// An attempt failed by itself.
    AttemptFailed { run: RunId, task: TaskId, attempt: Attempt, error: Error, at: Millis },
    /// An attempt ended through no fault of its own: its executor died, or an input vanished.
    AttemptLost { run: RunId, task: TaskId, attempt: Attempt, cause: Loss, at: Millis },
    /// A repeated task gave other rows than before: from now on nothing is taken for granted of its stage.
    StageDiffers { run: RunId, stage: StageId },
    /// A stage starts again with other inputs: its rows may be others.
    StageDiscarded { run: RunId, stage: StageId },
    /// A finished task's output is gone.
    OutputLost { run: RunId, task: TaskId },
    /// Outputs of a run are in an object of the store, too.
    PackDurable { run: RunId, pack: Pack, outputs: Vec<LostOutput> },
    /// Whoever passes a result on read some of it from the store. A kept one is read after its run's end, too.
    ResultRead { run: RunId, requests: Requests },
    /// What a run of a job wrote was checked, again perhaps: a leader that takes over does so, too.
    RunChecked { run: RunId, checks: Vec<Checked> },
    /// Everything that a run with effects wrote is there: from now on it can only be published.
    RunCommitting { run: RunId, winners: Vec<Attempt>, rows: u64 },
    /// The client has all rows, or the effect is in place.
    RunFinished { run: RunId, outcome: Outcome, at: Millis },
    /// A finished run's result is kept no longer.
    ResultExpired { run: RunId },
    /// A finished run leaves the history.
    RunForgotten { run: RunId },
    /// A catalogue entry was created or replaced.
    CatalogueSet { name: String, entry: CatalogueEntry },
    /// A catalogue entry was dropped.
    CatalogueDropped { name: String },
    /// A run made rows of a session's temporary table, in the place of those of another run perhaps.
    SessionRowsKept { session: SessionId, run: RunId, rows: TableRows, replaces: Option<RunId>, at: Millis },
    /// The temporary table of these rows was dropped.
    SessionRowsDropped { session: SessionId, run: RunId },
    /// A session goes on.
    SessionHeard { session: SessionId, at: Millis },
    /// A session has ended.
    SessionEnded { session: SessionId },
    /// Clocks on the wall were set: they are so far ahead of the leader's own now.
    ClockSet { ahead_ms: i64 },
    /// Somebody is to be told of a job.
    NoticeAsked { id: u64, asked: AskedNotice },
    /// They were, or nobody can be told, or too many wait.
    NoticeDone { id: u64 },
    /// Something of a named job.
    Jobs(interval::Record),
}

impl Record {
    /// The point around its way into the log, besides `log.append`.
    #[must_use]
    pub const fn point(&self) -> &'static str {
        match self {
            Self::RunAccepted { .. } => "log.accept",
            Self::RunPlanned { .. } => "log.plan",
            Self::AttemptStarted { .. } => "log.start",
            Self::AttemptSucceeded { .. } => "log.success",
            Self::AttemptLost { .. } | Self::OutputLost { .. } | Self::ExecutorLost { .. } => "log.lost",
            Self::PackDurable { .. } => "log.pack",
            Self::RunCommitting { .. } => "log.intent",
            Self::RunFinished { .. } => "log.finish",
            Self::CatalogueSet { .. } | Self::CatalogueDropped { .. } => "log.catalogue",
            _ => "log.append",
        }
    }
}

impl State {
    /// Whether a record that was just applied must be durable before anything it led to is done: effects outside,
    /// and rows that cannot be made again.
    #[must_use]
    pub(crate) fn is_urgent(&self, record: &Record) -> bool {
        let effects = |run: &RunId| self.runs.get(run).and_then(|r| r.sheet.as_ref()).is_some_and(|s| s.effects);
        match record {
            // A leader that cannot write this leads no more.
            Record::EpochClaimed { .. }
            | Record::CatalogueSet { .. }
            | Record::CatalogueDropped { .. }
            | Record::RunCommitting { .. } => true,
            Record::Jobs(record) => record.is_urgent(),
            Record::RunPlanned { run, .. } => effects(run),
            // One that ended unplanned would be planned again by a leader that does not know of its end.
            Record::RunFinished { run, .. } => effects(run) || self.runs.get(run).is_some_and(|r| r.spec.may_change),
            Record::AttemptSucceeded { run, task, .. } => {
                let graph = self.runs.get(run).and_then(|r| r.graph.as_ref());
                let stage = graph.and_then(|g| g.stages.get(task.stage.index()));
                stage.is_some_and(|s| s.determinism == Determinism::RowIndeterminate)
            }
            _ => false,
        }
    }
}

/// Why an attempt ended through no fault of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// Its executor died.
    Executor,
    /// An input was lost under it.
    Input,
    /// Its executor does not know it: the launch was lost on a stream that broke, or something else lost the attempt.
    Message,
    /// Its stage starts again because an indeterminate producer did.
    Rollback,
    /// Its rows are not those that the task gave before.
    Differs,
}

/// The one terminal state of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// All rows were delivered.
    Succeeded {
        /// Rows of the result.
        rows: u64,
        /// Where it can be fetched again.
        kept: Option<Kept>,
        /// The version of a dataset that it made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
    },
    /// It ended with an error.
    Failed {
        /// What the user sees.
        error: Error,
    },
    /// Its client cancelled it or went away.
    Cancelled,
}
