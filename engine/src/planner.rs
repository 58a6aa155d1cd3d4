//! The seam between deciding and planning: the coordinator asks, whoever composes the process answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use tidemill_core::graph::StageGraph;
use tidemill_core::record::{
    Catalogue, CatalogueEntry, Checked, InputVersion, JobRun, Record, Run, SessionRows, State,
};
use tidemill_core::schedule::Command;
use tidemill_core::{BlobHash, Error, Millis, Principal, Result, RunId};

use crate::blob::Blob;

/// Turns statements into what the coordinator can carry out.
#[async_trait]
pub trait Planner: Send + Sync {
    /// Plans one statement.
    ///
    /// # Errors
    /// The statement is wrong, names what does not exist, or cannot be planned safely.
    async fn plan(&self, request: PlanRequest) -> Result<Plan>;

    /// The statement as it may be recorded and shown: without secrets.
    fn redact(&self, statement: &str) -> String;

    /// What to do with a run's result, from what its plan said.
    ///
    /// # Errors
    /// The plan is of another build, or names a store that is not served.
    fn finish(&self, run: &RunId, spec: &[u8]) -> Result<Finish>;

    /// Whether the statement's text looks as if the coordinator answers it alone. A wrong guess costs only a place in
    /// the queue.
    fn is_express(&self, statement: &str) -> bool;

    /// Whether the text looks as if it may change anything outside: files, tables, the catalogue.
    fn may_change(&self, statement: &str) -> bool;

    /// Whether what a session sends with its statements holds a secret, which is written nowhere.
    fn holds_secret(&self, settings: &BTreeMap<String, String>) -> bool;
}

/// One statement and what it may refer to.
#[derive(Debug, Clone)]
pub struct PlanRequest {
    /// The run.
    pub run: RunId,
    /// The statement's text: exactly one statement, unless there is a plan, which it then only shows.
    pub statement: String,
    /// Values of its placeholders, or the rows that it takes, as an Arrow IPC stream; empty where there are none.
    pub parameters: bytes::Bytes,
    /// The interval to compute, if a job asks. The statement is the job's own then.
    pub job: Option<JobRun>,
    /// The client's own plan: a [`ReceivedPlan`](crate::codec::logical::ReceivedPlan) in bytes.
    pub plan: Option<bytes::Bytes>,
    /// The client's settings, over the server's.
    pub settings: BTreeMap<String, String>,
    /// Who asks: what they may not do is refused.
    pub by: Principal,
    /// Names that all clients share.
    pub catalogue: Arc<Catalogue>,
    /// What is kept for the client's session.
    pub session: SessionRows,
    /// What system tables show.
    pub state: Arc<dyn StateReader>,
    /// The time of the request.
    pub now: Millis,
    /// Slots of all executors; 0 while none is connected.
    pub slots: u32,
    /// Bytes that the operators of one task may use on any executor; `None` while none is connected.
    pub task_memory: Option<u64>,
    /// Blobs that catalogue entries name.
    pub blobs: Arc<dyn BlobReader>,
}

/// Shows what a coordinator knows.
#[async_trait]
pub trait StateReader: std::fmt::Debug + Send + Sync {
    /// A copy of the state as it is now.
    ///
    /// # Errors
    /// The coordinator is stopping.
    async fn state(&self) -> Result<State>;
}

/// Reads blobs that the coordinator keeps.
pub trait BlobReader: std::fmt::Debug + Send + Sync {
    /// The bytes of a blob; `None` if it is not kept.
    fn read(&self, hash: &BlobHash) -> Option<bytes::Bytes>;
}

/// What a statement means.
pub enum Plan {
    /// Stages to run, and what to do with the root's output.
    Stages(StagedPlan),
    /// Rows that the coordinator itself produces: `EXPLAIN`, `SHOW`, system tables.
    Rows(SendableRecordBatchStream),
    /// A change of the catalogue, and blobs it names.
    Change {
        /// Applied when nothing failed.
        record: Option<Box<Record>>,
        /// The entry that the change was planned for; another one by now is a conflict.
        expected: Option<CatalogueEntry>,
        /// Kept as long as the entry.
        blobs: Vec<Blob>,
    },
    /// Nothing to do: what the run of a job would write is in a dataset, since this version or before.
    Published {
        /// A version that has it.
        version: u64,
    },
    /// Something that jobs or another run are asked for.
    Command(Command),
    /// A change of the client's session, which the client remembers itself.
    Session {
        /// Columns whose metadata tells the client what changes; there are no rows.
        answer: SchemaRef,
        /// What changes here.
        record: Option<Box<Record>>,
        /// Kept as long as the session's table.
        blobs: Vec<Blob>,
    },
}

/// Stages, ready to be scheduled.
pub struct StagedPlan {
    /// The stages.
    pub graph: StageGraph,
    /// What they refer to by hash.
    pub blobs: Vec<Blob>,
    /// The blob that all tasks share.
    pub session: BlobHash,
    /// The result's columns.
    pub schema: SchemaRef,
    /// What to do with the root's output, for [`Planner::finish`], whoever leads by then.
    pub finish: Vec<u8>,
    /// Whether that changes anything outside: then its decisions are durable before they are acted on.
    pub effects: bool,
    /// Whether the result is kept for those who ask again.
    pub keep: bool,
    /// The versions of datasets that they read, for the run's record.
    pub inputs: Vec<InputVersion>,
}

/// What to do with the root's output.
pub enum Finish {
    /// Stream it to the client.
    Deliver,
    /// It counts written rows: commit the files and deliver the sum.
    Commit(Box<dyn Commit>),
    /// Keep it as a table.
    Keep(Box<dyn Keep>),
    /// Count it, and tell the client how the run went instead.
    Report(Box<dyn Report>),
}

impl Finish {
    /// The columns that the client is told, where the root's are `root`.
    #[must_use]
    pub fn columns(&self, root: &SchemaRef) -> SchemaRef {
        match self {
            Self::Report(report) => report.columns(),
            Self::Keep(keep) => keep.told(),
            // It makes a table: what was written is the table's.
            Self::Commit(commit) if commit.entry().is_some() => Arc::new(Schema::empty()),
            Self::Deliver | Self::Commit(_) => Arc::clone(root),
        }
    }

    /// Whether it is done from its beginning for each client that comes: an effect happens once.
    #[must_use]
    pub const fn is_for_each_client(&self) -> bool {
        match self {
            Self::Deliver | Self::Report(_) => true,
            Self::Commit(_) | Self::Keep(_) => false,
        }
    }
}

/// A change of the catalogue.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// The change.
    pub record: Record,
    /// The entry that it was planned to replace; another one by now is a conflict.
    pub expected: Option<CatalogueEntry>,
}

/// What was found when a run's rows were looked at before they are published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    /// What became of each check.
    pub checks: Vec<Checked>,
    /// Why nothing of it is published, if so.
    pub refused: Option<Error>,
}

/// Which of the times it is that a failed run's files are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Others follow.
    Early,
    /// Nobody writes any more.
    Last,
}

/// Publishes what sink tasks wrote.
#[async_trait]
pub trait Commit: Send + Sync {
    /// Looks at what the winners wrote, which they say are so many rows, while nothing is decided yet: what is refused is never
    /// published. May be asked again, by another coordinator too, and changes nothing.
    ///
    /// # Errors
    /// It could not be looked at. `Unavailable` may pass.
    async fn check(&self, winners: &[tidemill_core::Attempt], rows: u64) -> Result<Judgement> {
        let _ = (winners, rows);
        Ok(Judgement::default())
    }

    /// Makes exactly the winners' files visible, after every task succeeded. `again` if that may have been
    /// done before, by a coordinator that could not say so: then what is done already is no error. Answers the version that
    /// has them, where the target has versions.
    ///
    /// # Errors
    /// The store refused: nothing is published. `Conflict` and `Invalid` are final.
    async fn commit(&self, winners: &[tidemill_core::Attempt], again: bool) -> Result<Option<u64>>;

    /// Whether a try that failed may be found to have published, by another try only: then it is tried until somebody answers.
    fn rolls_forward(&self) -> bool {
        false
    }

    /// Removes what losers and failed runs left. Called when the run ended without a commit, several times: a task that was
    /// told to stop may just then have finished a file.
    async fn abort(&self, pass: Pass);

    /// The table that stands in the catalogue once this is committed, and not before.
    fn entry(&self) -> Option<NewEntry> {
        None
    }
}

/// Keeps a result as a table.
pub trait Keep: Send + Sync {
    /// The entry that the table was planned to replace; another one by now is a conflict.
    fn expected(&self) -> Option<CatalogueEntry>;

    /// The most bytes it takes.
    fn limit(&self) -> usize;

    /// What the client is told: no columns, as the rows are the table's.
    fn told(&self) -> SchemaRef {
        Arc::new(Schema::empty())
    }

    /// The change of the catalogue for these rows.
    ///
    /// # Errors
    /// The rows cannot be encoded.
    fn keep(&self, schema: SchemaRef, batches: &[arrow::record_batch::RecordBatch]) -> Result<(Record, Blob)>;
}

/// Tells how a run went.
pub trait Report: Send + Sync {
    /// The columns of what it tells.
    fn columns(&self) -> SchemaRef;

    /// What there is to tell when all rows are counted.
    ///
    /// # Errors
    /// The rows of the report cannot be made.
    fn report(&self, counted: &Counted<'_>) -> Result<arrow::record_batch::RecordBatch>;
}

/// A run whose rows are counted.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'a> {
    /// The run, as it is now.
    pub run: &'a Run,
    /// Its rows.
    pub rows: u64,
    /// The time.
    pub now: Millis,
    /// Whether there is a store that outputs can go to.
    pub has_store: bool,
}
