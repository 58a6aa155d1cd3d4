//! What a coordinator knows.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::metrics::TaskMetrics;
use super::operators::OperatorMetrics;
use super::rows::RowCounts;
use super::task::Task;
use super::{AskedNotice, Catalogue, Checked, InputVersion, JobRun, Live, Runs, SessionRows, pairs};
use crate::graph::StageGraph;
use crate::interval;
use crate::{Attempt, BlobHash, Epoch, Error, ExecutorId, Millis, Principal, RunId, SessionId, StageId, TaskId};

/// Everything a coordinator knows, rebuilt by applying its records in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// The current term of office.
    pub epoch: Option<Epoch>,
    /// What the current leader was built from: plans of others may not decode.
    pub build: String,
    /// Attempts launched in this epoch.
    pub attempts: u64,
    /// When this epoch began.
    pub claimed_at: Millis,
    /// Executors of earlier epochs that have not answered yet. While there are any, nothing is launched: what they hold
    /// and run must not be done twice.
    pub awaited: BTreeSet<ExecutorId>,
    /// Every executor that was not forgotten.
    pub executors: BTreeMap<ExecutorId, Executor>,
    /// Executors that may be given work now, by free slots: the emptiest comes last, of equals the first by name.
    pub idle: BTreeSet<(u32, Reverse<ExecutorId>)>,
    /// When an executor that might be given work was last suspected or lost.
    pub served_until: Millis,
    /// Runs in the order of submission, finished ones up to the history's limit.
    pub runs: Runs,
    /// Runs that are not finished, in the order of submission.
    pub live: Live,
    /// How many runs have finished so far.
    #[serde(default)]
    pub finished: u64,
    /// Names that all clients share.
    pub catalogue: Catalogue,
    /// What is kept for sessions that have temporary tables with rows.
    #[serde(default)]
    pub sessions: BTreeMap<SessionId, SessionRows>,
    /// Named jobs, and what became of their intervals.
    #[serde(default)]
    pub jobs: interval::State,
    /// What somebody is to be told of jobs, and how many such notices there ever were.
    #[serde(default)]
    pub notices: BTreeMap<u64, AskedNotice>,
    #[serde(default)]
    pub noticed: u64,
    /// By how many milliseconds clocks on the wall are ahead of the leader's own, which nobody sets: schedules go by them.
    #[serde(default)]
    pub clock_ahead_ms: i64,
}

/// The endpoint of an executor inside the coordinator's process: it ends with it.
pub const LOCAL: &str = "local";

/// What an executor offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// How many tasks it runs at once.
    pub slots: u32,
    /// Bytes that the operators of all its tasks share.
    pub memory: u64,
}

/// An executor process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executor {
    /// Where its Flight service listens: `http://host:port`, or [`LOCAL`] in the coordinator's own process.
    pub endpoint: String,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// Bytes that the operators of all its tasks share.
    pub memory: u64,
    /// Whether it may be given work.
    pub state: ExecutorState,
    /// The attempts it runs.
    #[serde(with = "pairs")]
    pub running: BTreeMap<Attempt, RunningAttempt>,
    /// Slots in use by the attempts it runs.
    pub held_slots: u32,
    /// When it joined.
    pub joined_at: Millis,
}

impl Executor {
    /// Slots that are not in use.
    #[must_use]
    pub const fn free_slots(&self) -> u32 {
        self.slots.saturating_sub(self.held_slots)
    }
}

/// An attempt that holds slots of an executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningAttempt {
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// The slots it holds.
    pub slots: u32,
}

/// Whether an executor may be given work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecutorState {
    /// It may.
    Alive,
    /// Its control stream closed; it may come back.
    Suspected {
        /// Since when.
        since: Millis,
    },
    /// It is gone and will not come back under this name.
    Lost,
}

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunSpec {
    /// The statement as the client typed it.
    pub statement: String,
    /// The statement and its settings as a blob, unless it holds a secret: whoever leads can plan it.
    pub request: Option<BlobHash>,
    /// Whether the coordinator can answer it alone, as far as the text tells: then it does not queue behind those that
    /// need executors.
    pub express: bool,
    /// Whether it may change something outside, as far as the text tells: its end is durable before its client hears of it.
    #[serde(default)]
    pub may_change: bool,
    /// Who asked for it, where the cluster knows its users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Principal>,
    /// Which interval of which job it computes, if a job submitted it. The statement is the job's own then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRun>,
}

/// One execution of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What was asked for.
    pub spec: RunSpec,
    /// Where it stands.
    pub state: RunState,
    /// Why it failed.
    pub error: Option<Error>,
    /// When it was accepted.
    pub submitted_at: Millis,
    /// When planning began.
    pub started_at: Option<Millis>,
    /// When it reached its terminal state.
    pub finished_at: Option<Millis>,
    /// How many runs had reached theirs then: leaders' clocks differ.
    #[serde(default)]
    pub finished_as: u64,
    /// Rows of the result.
    pub rows: Option<u64>,
    /// Where the result can be fetched again.
    pub kept: Option<Kept>,
    /// The version of a dataset that it made.
    #[serde(default)]
    pub version: Option<u64>,
    /// What became of its checks, before it was published or refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Checked>,
    /// Whether it has no stages, and its client is slow to read the coordinator's own rows.
    #[serde(default)]
    pub unread: bool,
    /// Its stages; absent until it is planned.
    pub graph: Option<StageGraph>,
    /// What else its plan says.
    pub sheet: Option<Sheet>,
    /// Who planned it: no attempt of an earlier epoch belongs to this plan.
    pub planned_by: Option<(Epoch, String)>,
    /// How often it began again under another build.
    pub restarts: u32,
    /// Objects that hold some of its outputs.
    pub packs: Vec<Pack>,
    /// What is about to be published; nothing else can happen to the run then.
    pub intent: Option<Intent>,
    /// Progress per stage, beside the graph's stages.
    pub stages: Vec<Stage>,
    /// When indeterminate stages last lost an output: what leaders of earlier epochs launched behind them may have read
    /// rows that will never come again.
    pub changed: BTreeMap<StageId, Epoch>,
    /// Ready tasks: (not before, stage, index).
    pub ready: BTreeSet<(Millis, TaskId)>,
    /// Slots that its attempts hold.
    pub held_slots: u32,
    /// Sums over the winners' metrics, and over all attempts for time.
    pub totals: RunTotals,
}

/// What the shell needs to carry a planned run on, whoever leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sheet {
    /// The columns, and what becomes of the result, as a blob.
    pub blob: BlobHash,
    /// What all tasks share, as a blob.
    pub session: BlobHash,
    /// Whether it changes anything outside: its decisions are durable before they are acted on.
    pub effects: bool,
    /// The versions of datasets that it reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputVersion>,
}

/// What a run with effects is about to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The root's winning attempts, by task.
    pub winners: Vec<Attempt>,
    /// Rows that they wrote.
    pub rows: u64,
}

/// Where a finished run's result is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// A small one: a blob of the log.
    Blob(BlobHash),
    /// An object of its own.
    Object(Pack),
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunState {
    /// Accepted; other runs have the planner's turn.
    Queued,
    /// Its plan is being made.
    Planning,
    /// Its tasks run, or its result is being read.
    Running,
    /// The client has all rows.
    Succeeded,
    /// It ended with an error.
    Failed,
    /// The client ended it.
    Cancelled,
}

impl RunState {
    /// Whether the run can never change again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The name in `system.runs`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Planning => "planning",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Sums over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunTotals {
    /// Milliseconds that attempts held a slot, repeated ones included.
    pub task_millis: u64,
    /// Milliseconds of attempts that had succeeded and whose outputs were lost.
    pub repeated_millis: u64,
    /// Leaders that took the run over.
    pub recoveries: u32,
    /// Sums over winning attempts; the requests are also those of whoever passed the result on.
    pub metrics: TaskMetrics,
}

/// Progress of one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Tasks by index.
    pub tasks: Vec<Task>,
    /// How many of them have an available output.
    pub complete: u32,
}

impl Stage {
    /// Whether every task's output is available.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete as usize == self.tasks.len()
    }
}

/// An output by the task and the attempt that wrote it; mostly one that a reader could not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LostOutput {
    /// The task whose output it was.
    pub task: TaskId,
    /// The attempt that wrote it.
    pub attempt: Attempt,
}

/// What a winning attempt left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The attempt that wrote it.
    pub attempt: Attempt,
    /// Who holds it.
    pub executor: ExecutorId,
    /// What is in it.
    pub footer: Footer,
    /// What it cost.
    pub metrics: TaskMetrics,
    /// The same by operator, where the run asked for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<OperatorMetrics>,
    /// What became of its rows; none where it does not tell, and in records of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowCounts>,
    /// Where else it is, outside of all processes: the position among the run's packs.
    pub durable: Option<usize>,
}

/// An object of the store that holds many blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pack {
    /// Its name below `--state`.
    pub name: String,
    /// CRC32C over its index.
    pub crc: u32,
    /// Its size.
    pub bytes: u64,
    /// Requests that it took to write it.
    pub puts: u64,
}

/// A short form of an output's footer, against which readers check the footer itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Footer {
    /// CRC32C over the footer's encoding.
    pub crc: u32,
    /// Rows over all blocks.
    pub rows: u64,
    /// Arrow in-memory bytes over all blocks.
    pub bytes: u64,
    /// What the rows are, in any order, as far as they must be the same when the task is repeated.
    pub checksum: Option<u64>,
}
