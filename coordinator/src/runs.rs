//! A run as its client sees it: a statement goes in, batches come out, and going away cancels it.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use tidemill_core::{Error, Principal, Result, RunId};
use tokio::sync::mpsc;

use crate::driver::{Inbox, Input};

/// Batches that wait for a slow client.
pub(crate) const BATCHES_AHEAD: usize = 4;

/// One statement of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatementRequest {
    /// The client's name for the run: the same name again is the same run. Without one it gets a new one.
    pub run: Option<RunId>,
    /// Exactly one statement, or a text that shows the plan.
    pub sql: String,
    /// Values of its placeholders, or the rows that it takes, as an Arrow IPC stream; empty where there are none.
    pub parameters: Bytes,
    /// The client's own plan, from [`encode_plan`](tidemill_engine::codec::logical::encode_plan).
    pub plan: Option<Bytes>,
    /// The client's settings.
    pub settings: BTreeMap<String, String>,
    /// Who asks.
    pub by: Principal,
}

/// What the coordinator tells a run's client.
#[derive(Debug)]
pub(crate) enum RunMessage {
    /// The columns; comes first.
    Schema(SchemaRef),
    /// Rows.
    Batch(RecordBatch),
    /// All rows were sent.
    Done,
    /// Nothing follows.
    Failed(Error),
}

/// A run's result. Dropping it before its end cancels the run.
#[derive(Debug)]
pub struct RunStream {
    /// The run.
    pub run: RunId,
    /// The result's columns.
    pub schema: SchemaRef,
    messages: mpsc::Receiver<RunMessage>,
    guard: CancelGuard,
}

/// Cancels a run when dropped armed.
#[derive(Debug)]
pub(crate) struct CancelGuard {
    run: RunId,
    attachment: u64,
    inbox: Inbox,
    armed: bool,
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if self.armed {
            self.inbox.send_now(Input::Left { run: self.run.clone(), attachment: self.attachment });
        }
    }
}

impl RunStream {
    /// Waits for the run to be planned.
    pub(crate) async fn open(
        run: RunId,
        attachment: u64,
        inbox: Inbox,
        mut messages: mpsc::Receiver<RunMessage>,
    ) -> Result<Self> {
        let mut guard = CancelGuard { run: run.clone(), attachment, inbox, armed: true };
        match messages.recv().await {
            Some(RunMessage::Schema(schema)) => Ok(Self { run, schema, messages, guard }),
            Some(RunMessage::Failed(error)) => {
                guard.armed = false;
                Err(error)
            }
            Some(RunMessage::Batch(_) | RunMessage::Done) => Err(Error::internal("a run began without a schema")),
            None => Err(stopped()),
        }
    }

    /// The next batch; `None` when all rows came.
    pub async fn next(&mut self) -> Option<Result<RecordBatch>> {
        if !self.guard.armed {
            return None;
        }
        match self.messages.recv().await {
            Some(RunMessage::Batch(batch)) => Some(Ok(batch)),
            Some(RunMessage::Schema(_)) => Some(Err(Error::internal("a run has two schemas"))),
            Some(RunMessage::Done) => {
                self.guard.armed = false;
                None
            }
            Some(RunMessage::Failed(error)) => {
                self.guard.armed = false;
                Some(Err(error))
            }
            None => {
                self.guard.armed = false;
                Some(Err(stopped()))
            }
        }
    }

    /// The batches as a stream.
    pub fn into_stream(self) -> impl futures::Stream<Item = Result<RecordBatch>> + Send {
        futures::stream::unfold(self, |mut run| async move { run.next().await.map(|batch| (batch, run)) })
    }

    /// All rows.
    ///
    /// # Errors
    /// The run failed.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }
}

fn stopped() -> Error {
    Error::unavailable("the coordinator stopped while the run was going: submit it again")
}

/// A run's client.
#[derive(Debug, Clone)]
pub(crate) struct RunClient {
    /// Which of the run's connections it is: one that came back has another, and the old one may end late.
    pub(crate) attachment: u64,
    /// Where rows go.
    pub(crate) messages: mpsc::Sender<RunMessage>,
}

/// Runs' clients, by run.
pub(crate) type Clients = BTreeMap<RunId, RunClient>;

/// Tells a client how its run ended, without holding up the driver.
pub(crate) fn tell(client: &mpsc::Sender<RunMessage>, message: RunMessage) {
    if let Err(mpsc::error::TrySendError::Full(message)) = client.try_send(message) {
        let client = client.clone();
        tokio::spawn(async move {
            // A client that went away needs no message.
            let _ = client.send(message).await;
        });
    }
}
