//! The scheduler: `step(state, event, now) → records, actions`.
//!
//! One file per kind of event. A `Decider` collects what was decided; it changes the state only by applying the
//! records it emits, so that a replay of the log ends in the same state.
//!
//! Invariant: a task is launched only while every input's output is available, and nothing waits for a task that has
//! no slot.

mod accounts;
mod decide;
mod executors;
mod jobs;
mod placement;
mod progress;
mod recovery;
mod results;
mod runs;
mod sessions;
mod stragglers;
mod tasks;
mod waiting;
mod watch;

use crate::graph::StageGraph;
use crate::interval::{self, JobName};
pub use crate::record::LostOutput;
use crate::record::{
    AskedNotice, Capacity, Checked, Footer, Kept, OperatorMetrics, Outcome, Pack, Record, Requests, RowCounts, RunSpec,
    Sheet, State, TaskMetrics,
};
use crate::{Attempt, BlobHash, Epoch, Error, ExecutorId, Millis, RunId, SessionId, Settings, StageId, TaskId};
use decide::Decider;
pub use jobs::{rival, tried_again};
pub use progress::{Flow, Progress, progress};
use tasks::Done;
pub use waiting::waiting_for;
pub use watch::Watch;

/// Something that happened outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This process, of this build, leads from now on.
    Elected { epoch: Epoch, build: String },
    /// An executor opened a control stream, the first of its life or another one after the last broke. It says which
    /// attempts it runs, and which it finished without having heard that the coordinator knows; of these it sends
    /// [`Event::TaskSucceeded`] or [`Event::TaskFailed`] again.
    ExecutorConnected {
        executor: ExecutorId,
        endpoint: String,
        capacity: Capacity,
        running: Vec<Reported>,
        holding: Vec<Reported>,
    },
    /// An executor lives and has said nothing of these attempts for so long that it does not know them.
    AttemptsForgotten { executor: ExecutorId, attempts: Vec<Attempt> },
    /// An executor's control stream closed.
    ExecutorDisconnected { executor: ExecutorId },
    /// An executor is known to be gone: its data port refused, or it was silent for too long.
    ExecutorDead { executor: ExecutorId },
    /// A client asks for a run.
    Submitted { run: RunId, spec: RunSpec },
    /// The planner answered.
    Planned { run: RunId, graph: Result<StageGraph, Error>, sheet: Option<Sheet> },
    /// The client of a run without stages is slow to read its rows.
    Unread { run: RunId },
    /// A run without stages has its effect or its rows.
    Answered { run: RunId, outcome: Outcome },
    /// An attempt wrote its output.
    TaskSucceeded {
        run: RunId,
        task: TaskId,
        attempt: Attempt,
        footer: Footer,
        metrics: TaskMetrics,
        operators: Vec<OperatorMetrics>,
        /// What became of its rows, if it tells.
        rows: Option<RowCounts>,
    },
    /// An attempt failed.
    TaskFailed { run: RunId, task: TaskId, attempt: Attempt, error: Error, lost: Lost },
    /// The reader of the result could not read an output.
    ResultLost { run: RunId, lost: Lost },
    /// Whoever passes a result on asked the store for some of it, also after the run's end.
    ResultRead { run: RunId, requests: Requests },
    /// The client has all rows of the result, or the effect is in place, in a version of a dataset perhaps.
    ResultDelivered { run: RunId, rows: u64, kept: Option<Kept>, version: Option<u64> },
    /// The result cannot be delivered.
    ResultFailed { run: RunId, error: Error },
    /// An executor put outputs into the store.
    PackDurable { run: RunId, pack: Pack, outputs: Vec<LostOutput> },
    /// What a run of a job wrote was looked at: whether it is published is said next.
    Checked { run: RunId, checks: Vec<Checked> },
    /// All that a run with effects wrote was counted: it may be published.
    CommitReady { run: RunId, winners: Vec<Attempt>, rows: u64 },
    /// The client ended the run or went away.
    Cancelled { run: RunId },
    /// A session goes on.
    SessionHeard { session: SessionId },
    /// A session has ended.
    SessionEnded { session: SessionId },
    /// A run changed the catalogue or its session, if it had to, and is over: both or neither. `version` is that of a dataset
    /// that it made.
    CatalogueChanged { run: RunId, record: Option<Box<Record>>, rows: u64, kept: Option<Kept>, version: Option<u64> },
    /// What a run's statement asks of jobs or of another run happens, and the run is over; or it fails, and nothing happens.
    Commanded { run: RunId, command: Command, kept: Option<Kept> },
    /// Clocks on the wall are so far ahead of the leader's own, which nobody sets.
    ClockSet { ahead_ms: i64 },
    /// Whoever asked for a notice has it, or nobody can be told.
    NoticeEnded { id: u64 },
    /// Time passed, for jobs: every second or so.
    JobsTick,
    /// Time passed.
    Tick,
}

/// What a statement asks of jobs or of another run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Something of a job.
    Job {
        /// What.
        event: Box<interval::Event>,
        /// The job that it was planned for; another one by now, or none, is a conflict.
        basis: Option<Basis>,
    },
    /// `CANCEL RUN`.
    CancelRun {
        /// Which.
        run: RunId,
    },
}

impl Command {
    /// Whether it answers a row: the others answer nothing.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.backfill().is_some() || self.execution().is_some()
    }

    /// The job of which it asks for an interval, and where that begins.
    #[must_use]
    pub fn execution(&self) -> Option<(&JobName, Millis)> {
        let Self::Job { event, .. } = self else { return None };
        match event.as_ref() {
            interval::Event::Requested { job, start } => Some((job, *start)),
            _ => None,
        }
    }

    /// The backfill that it asks for, and of which job.
    #[must_use]
    pub fn backfill(&self) -> Option<(&JobName, &interval::Request)> {
        let Self::Job { event, .. } = self else { return None };
        match event.as_ref() {
            interval::Event::BackfillRequested { job, request } => Some((job, request)),
            _ => None,
        }
    }
}

/// A job as somebody saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    /// Its name.
    pub job: JobName,
    /// Which of all jobs that ever had the name.
    pub incarnation: u64,
    /// Which of its clauses.
    pub revision: u64,
}

/// Outputs that a reader could not get.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lost {
    /// Which.
    pub outputs: Vec<LostOutput>,
    /// Whether it looked for them in their packs, too. Otherwise those that have one are not lost: the reader was told
    /// before they had.
    pub looked_in_packs: bool,
}

/// An attempt that an executor says it runs, or has finished unheard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// This try of it.
    pub attempt: Attempt,
    /// Slots that it holds.
    pub slots: u32,
}

/// Something for the shell to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Plan the run; answer with [`Event::Planned`] or [`Event::Answered`].
    Plan { run: RunId },
    /// Send the attempt to its executor.
    Launch(Launch),
    /// Tell the executor to stop the attempt.
    Stop { executor: ExecutorId, attempt: Attempt },
    /// Tell the executor to drop every output of the run.
    Release { executor: ExecutorId, run: RunId },
    /// Delete the object: nobody will read it.
    Discard { pack: Pack },
    /// Forget a blob that held a result or a temporary table: nobody will read it.
    Forget { blob: BlobHash },
    /// Dial the executor's data port; answer with [`Event::ExecutorDead`] if it refuses.
    Probe { executor: ExecutorId },
    /// The root's outputs are available: stream them to the client.
    Deliver { run: RunId },
    /// Publish what the run wrote, even if that was tried before; answer with [`Event::ResultDelivered`].
    Commit { run: RunId },
    /// The run reached its terminal state: tell whoever waits, even if the history has forgotten it by then. `published`
    /// are the rows that a run with effects wrote.
    Finished { run: RunId, outcome: Outcome, published: Option<u64> },
    /// Tell whoever asked to be told of a job, perhaps again; answer with [`Event::NoticeEnded`].
    Notify { id: u64, asked: AskedNotice },
}

/// An attempt for an executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The run.
    pub run: RunId,
    /// The task.
    pub task: TaskId,
    /// This try of it.
    pub attempt: Attempt,
    /// Who runs it.
    pub executor: ExecutorId,
    /// Slots that it holds.
    pub slots: u32,
}

/// What one event led to: records in the order they were applied, actions to carry out after they are durable.
#[derive(Debug, Default)]
#[must_use = "records must be logged and actions carried out"]
pub struct Step {
    /// Applied to the state already.
    pub records: Vec<Record>,
    /// Whether a record must be durable before any of the actions.
    pub urgent: bool,
    /// For the shell.
    pub actions: Vec<Action>,
}

/// Decides what `event` means in `state` at `now`.
pub fn step(state: &mut State, settings: &Settings, event: Event, now: Millis) -> Step {
    let mut d = Decider::new(state, settings, now);
    let is_tick = event == Event::Tick;
    match event {
        Event::Elected { epoch, build } => {
            d.elected(epoch, build);
            d.jobs_restarted();
        }
        Event::ExecutorConnected { executor, endpoint, capacity, running, holding } => {
            d.executor_connected(&executor, endpoint, capacity);
            d.reconcile(&executor, &running, &holding);
        }
        Event::AttemptsForgotten { executor, attempts } => d.attempts_forgotten(&executor, &attempts),
        Event::ExecutorDisconnected { executor } => d.executor_disconnected(executor),
        Event::ExecutorDead { executor } => d.executors_dead(&[executor]),
        Event::Submitted { run, spec } => d.submitted(run, spec),
        Event::Planned { run, graph, sheet } => d.planned(run, graph, sheet),
        Event::Unread { run } => d.unread(run),
        Event::Answered { run, outcome } => d.finish(&run, outcome),
        Event::TaskSucceeded { run, task, attempt, footer, metrics, operators, rows } => {
            d.task_succeeded(&run, task, attempt, Done { footer, metrics, operators, rows });
        }
        Event::TaskFailed { run, task, attempt, error, lost } => d.task_failed(&run, task, attempt, error, &lost),
        Event::ResultLost { run, lost } => d.result_lost(&run, &lost),
        Event::PackDurable { run, pack, outputs } => d.pack_durable(run, pack, outputs),
        Event::ResultRead { run, requests } => d.result_read(run, requests),
        Event::ResultDelivered { run, rows, kept, version } => {
            d.finish(&run, Outcome::Succeeded { rows, kept, version });
        }
        Event::ResultFailed { run, error } => d.finish(&run, Outcome::Failed { error }),
        Event::Checked { run, checks } => d.checked(run, checks),
        Event::CommitReady { run, winners, rows } => d.commit_ready(run, winners, rows),
        Event::Cancelled { run } => d.cancelled_by_client(&run),
        Event::CatalogueChanged { run, record, rows, kept, version } => {
            d.catalogue_changed(&run, record.map(|record| *record), Outcome::Succeeded { rows, kept, version });
        }
        Event::SessionHeard { session } => d.session_heard(session),
        Event::SessionEnded { session } => d.session_ended(session),
        Event::Commanded { run, command, kept } => d.commanded(&run, command, kept),
        Event::ClockSet { ahead_ms } => d.clock_set(ahead_ms),
        Event::NoticeEnded { id } => d.notice_ended(id),
        Event::JobsTick => d.of_jobs(interval::Event::Tick),
        Event::Tick => d.deadlines(),
    }
    d.plan_queued();
    d.place();
    if is_tick {
        d.race_stragglers();
    }
    d.into_step()
}

/// The stages whose output somebody still needs: the root until its rows are delivered, and the inputs of every
/// needed stage that is not complete.
fn needed_stages(graph: &StageGraph, is_complete: impl Fn(StageId) -> bool) -> Vec<bool> {
    let mut needed = vec![false; graph.stages.len()];
    if let Some(root) = needed.last_mut() {
        *root = true;
    }
    for stage in graph.stages.iter().rev() {
        if needed.get(stage.id.index()) == Some(&true) && !is_complete(stage.id) {
            for input in &stage.inputs {
                if let Some(producer) = needed.get_mut(input.stage.index()) {
                    *producer = true;
                }
            }
        }
    }
    needed
}
