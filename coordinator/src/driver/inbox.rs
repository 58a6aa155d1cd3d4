//! What reaches the driver.

use async_trait::async_trait;
use tidemill_core::record::{Kept, Outcome, Pack, RunState, State};
use tidemill_core::schedule::{Event, LostOutput, Progress};
use tidemill_core::{Error, ExecutorId, Principal, Result, RunId};
use tidemill_engine::blob::Blob;
use tidemill_engine::planner::{NewEntry, Plan, PlanRequest, StateReader};
use tidemill_engine::wire;
use tokio::sync::{mpsc, oneshot};

use super::Reply;
use crate::runs::{RunClient, StatementRequest};

/// Something for the driver.
pub(crate) enum Input {
    /// Straight to the scheduler.
    Event(Event),
    /// A client submits a statement.
    Submit { run: RunId, request: StatementRequest, client: RunClient },
    /// A client asks for the kept result of a run.
    Fetch { run: RunId, by: Principal, client: RunClient },
    /// Somebody wants a run to end.
    Cancel { run: RunId, by: Principal, reply: Reply<Result<Option<RunState>>> },
    /// Somebody asks what the planner would be asked for a statement.
    Describe { request: StatementRequest, reply: Reply<PlanRequest> },
    /// A client went away, if it is still the run's.
    Left { run: RunId, attachment: u64 },
    /// The planner answered.
    Planned { run: RunId, plan: Result<Plan> },
    /// A result was collected, or committed, to become a table.
    BecameTable { run: RunId, number: u64, table: Box<NewTable> },
    /// A run whose rows only the coordinator has is over.
    Answered { run: RunId, outcome: Outcome, blob: Option<Blob> },
    /// A run's delivery got on, and names a blob perhaps.
    Delivered { run: RunId, number: u64, event: Event, blob: Option<Blob> },
    /// A reader asks for packs of outputs.
    Locate { run: RunId, outputs: Vec<LostOutput>, reply: Reply<Vec<Option<Pack>>> },
    /// Somebody asks how far a run has come.
    Progress { run: RunId, reply: Reply<Option<Progress>> },
    /// Somebody asks for the state.
    State(Reply<State>),
    /// The same, once the log has all of it.
    DurableState(Reply<State>),
    /// An executor opened its control stream.
    Attached { register: wire::Register, to: mpsc::Sender<Result<wire::ToExecutor>>, id: u64 },
    /// An executor's control stream closed.
    Detached { executor: ExecutorId, id: u64 },
    /// A message on an executor's control stream.
    FromExecutor { executor: ExecutorId, id: u64, message: wire::FromExecutor },
}

/// A table that a run made.
pub(crate) struct NewTable {
    pub(crate) entry: NewEntry,
    /// Its rows, where the catalogue keeps them.
    pub(crate) blob: Option<Blob>,
    pub(crate) rows: u64,
    /// What is kept of the run's answer, and the rows of that.
    pub(crate) answer: (Option<Kept>, Option<Blob>),
    /// Of the dataset that has its rows.
    pub(crate) version: Option<u64>,
}

/// The driver's door.
#[derive(Debug, Clone)]
pub(crate) struct Inbox(mpsc::Sender<Input>);

/// The same, for those that must not keep the driver alive.
#[derive(Debug, Clone)]
pub(crate) struct WeakInbox(mpsc::WeakSender<Input>);

impl Inbox {
    pub(crate) const fn new(sender: mpsc::Sender<Input>) -> Self {
        Self(sender)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    pub(crate) fn downgrade(&self) -> WeakInbox {
        WeakInbox(self.0.downgrade())
    }

    pub(crate) async fn send(&self, input: Input) -> Result<()> {
        self.0.send(input).await.map_err(|_| stopping())
    }

    /// For places that cannot wait, such as `drop`.
    pub(crate) fn send_now(&self, input: Input) {
        if let Err(mpsc::error::TrySendError::Full(input)) = self.0.try_send(input) {
            let sender = self.0.clone();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move {
                    let _ = sender.send(input).await;
                });
            }
        }
    }

    /// Asks the driver and waits for its answer, which it gives at once.
    pub(crate) async fn ask<T>(&self, question: impl FnOnce(Reply<T>) -> Input) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(question(reply)).await?;
        answer.await.map_err(|_| stopping())
    }

    pub(crate) async fn locate(&self, run: RunId, outputs: Vec<LostOutput>) -> Result<Vec<Option<Pack>>> {
        self.ask(|reply| Input::Locate { run, outputs, reply }).await
    }

    pub(crate) async fn progress(&self, run: RunId) -> Result<Option<Progress>> {
        self.ask(|reply| Input::Progress { run, reply }).await
    }

    pub(crate) async fn state(&self) -> Result<State> {
        self.ask(Input::State).await
    }
}

impl WeakInbox {
    /// A copy of the state that no successor can fall behind.
    pub(crate) async fn durable_state(&self) -> Result<State> {
        let (reply, answer) = oneshot::channel();
        self.upgrade().ok_or_else(stopping)?.send(Input::DurableState(reply)).await?;
        answer.await.map_err(|_| stopping())
    }

    /// Whether the driver is there.
    pub(crate) fn is_led(&self) -> bool {
        self.upgrade().is_some_and(|inbox| !inbox.is_closed())
    }

    pub(crate) fn upgrade(&self) -> Option<Inbox> {
        self.0.upgrade().map(Inbox)
    }

    /// Sends unless the driver has ended.
    pub(crate) async fn send(&self, input: Input) {
        if let Some(inbox) = self.upgrade() {
            let _ = inbox.send(input).await;
        }
    }
}

#[async_trait]
impl StateReader for WeakInbox {
    async fn state(&self) -> Result<State> {
        self.upgrade().ok_or_else(stopping)?.state().await
    }
}

fn stopping() -> Error {
    Error::unavailable("the coordinator is stopping: try again when it is back")
}
