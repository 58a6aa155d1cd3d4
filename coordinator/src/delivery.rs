//! Results on their way to clients, or to a commit.
//!
//! Invariant: a block's rows come from one attempt. A block that is lost after some of its rows were passed on fails
//! the run and says how many rows were shown; before that its task simply runs again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use tidemill_core::record::Intent;
use tidemill_core::schedule::Event;
use tidemill_core::{Attempt, Error, ErrorKind, Result, RunId, TaskId};
use tidemill_engine::exchange::{BlockRequest, BlockSource, BlockStream, IoMetrics, Manifest};
use tidemill_engine::planner::{Commit, Finish, Keep};
use tokio::sync::mpsc;

use crate::driver::{Input, WeakInbox};
use crate::runs::{BATCHES_AHEAD, RunMessage};

/// Orders that wait for one delivery: a newer manifest replaces what an older one said.
const ORDERS_AHEAD: usize = 64;

/// Between tries to publish.
const PUBLISH_PAUSES: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(15)];

/// Deliveries by run.
#[derive(Debug)]
pub(crate) struct Deliveries {
    source: Arc<dyn BlockSource>,
    runs: BTreeMap<RunId, mpsc::Sender<Order>>,
}

/// What the driver tells a delivery.
#[derive(Debug)]
enum Order {
    /// The root's outputs are available, perhaps again.
    Read(Manifest),
    /// What was counted may be published.
    Publish(Intent),
    /// The client came back.
    Client(mpsc::Sender<RunMessage>),
    /// The run has ended.
    Ended,
}

impl Deliveries {
    pub(crate) const fn new(source: Arc<dyn BlockSource>) -> Self {
        Self { source, runs: BTreeMap::new() }
    }

    /// Prepares to deliver a run's result.
    pub(crate) fn expect(
        &mut self,
        run: RunId,
        schema: SchemaRef,
        finish: Finish,
        client: mpsc::Sender<RunMessage>,
        inbox: WeakInbox,
    ) {
        let (orders, from) = mpsc::channel(ORDERS_AHEAD);
        let source = Arc::clone(&self.source);
        self.runs.insert(run.clone(), orders);
        let schema = match finish {
            Finish::Commit(_) => count_schema(),
            Finish::Deliver | Finish::Keep(_) => schema,
        };
        let delivery = Delivery {
            run,
            schema,
            source,
            client,
            inbox,
            orders: from,
            intent: None,
            ended: false,
            manifest: None,
            reading: None,
            delivered: Vec::new(),
            rows: 0,
        };
        tokio::spawn(delivery.finish(finish));
    }

    /// The root's outputs are available, perhaps again.
    pub(crate) fn outputs(&self, run: &RunId, manifest: Manifest) {
        if let Some(delivery) = self.runs.get(run) {
            // A delivery that is behind by this many has ended.
            let _ = delivery.try_send(Order::Read(manifest));
        }
    }

    /// What a run wrote may be published: that is durable now, and nothing else can happen to the run.
    pub(crate) fn commit(&self, run: &RunId, intent: Intent) {
        if let Some(delivery) = self.runs.get(run) {
            let _ = delivery.try_send(Order::Publish(intent));
        }
    }

    /// Gives a delivery that is under way to another client; `false` if there is none.
    pub(crate) fn hand_over(&self, run: &RunId, client: mpsc::Sender<RunMessage>) -> bool {
        self.runs.get(run).is_some_and(|delivery| delivery.try_send(Order::Client(client)).is_ok())
    }

    /// The run has ended. A delivery that only loses its driver must leave everything for the next leader's.
    pub(crate) fn forget(&mut self, run: &RunId) {
        if let Some(delivery) = self.runs.remove(run) {
            let _ = delivery.try_send(Order::Ended);
        }
    }
}

/// Publishes what was decided to be published. Nothing is taken back any more: what failed may have been done all the same.
async fn publish(commit: &dyn Commit, intent: &Intent, again: bool) -> Result<()> {
    let mut published = commit.commit(&intent.winners, again).await;
    for pause in PUBLISH_PAUSES {
        let Err(error) = &published else { break };
        tracing::warn!(%error, "publishing is tried again");
        tokio::time::sleep(pause).await;
        published = commit.commit(&intent.winners, true).await;
    }
    published
}

/// The one row that a statement that writes answers.
pub(crate) fn count(rows: u64) -> Result<RecordBatch> {
    let counts = Arc::new(UInt64Array::from(vec![rows]));
    RecordBatch::try_new(count_schema(), vec![counts]).map_err(|e| Error::internal(e.to_string()))
}

/// The result of a statement that writes.
pub(crate) fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)]))
}

struct Delivery {
    run: RunId,
    schema: SchemaRef,
    source: Arc<dyn BlockSource>,
    client: mpsc::Sender<RunMessage>,
    inbox: WeakInbox,
    orders: mpsc::Receiver<Order>,
    /// What may be published.
    intent: Option<Intent>,
    /// Whether the run has ended.
    ended: bool,
    /// The latest manifest; none while the root is not complete.
    manifest: Option<Manifest>,
    /// The block being read, its batches, and how many of its rows were passed on.
    reading: Option<(BlockRequest, BlockStream, u64)>,
    /// Attempts whose blocks were passed on whole.
    delivered: Vec<Attempt>,
    rows: u64,
}

/// What comes next of a result.
enum Next {
    Batch(RecordBatch),
    /// All blocks, all rows were read.
    All,
    /// The run ended first.
    Gone,
    /// The driver ended first: the run may go on without it.
    Abandoned,
}

impl Delivery {
    async fn finish(mut self, finish: Finish) {
        let ended = match finish {
            Finish::Deliver => self.deliver().await,
            Finish::Commit(commit) => self.commit(commit).await,
            Finish::Keep(keep) => self.keep(keep).await,
        };
        let run = self.run.clone();
        let event = match ended {
            Ok(Next::All) => Event::ResultDelivered { run, rows: self.rows },
            Ok(Next::Gone | Next::Abandoned | Next::Batch(_)) => return,
            Err(error) => Event::ResultFailed { run, error },
        };
        self.inbox.send(Input::Event(event)).await;
    }

    async fn deliver(&mut self) -> Result<Next> {
        loop {
            match self.next().await? {
                Next::Batch(batch) => {
                    if self.client.send(RunMessage::Batch(batch)).await.is_err() {
                        return Ok(Next::Gone);
                    }
                }
                Next::All => {
                    // The run is not over while rows wait here: they would be lost with this process.
                    let taken = self.client.reserve_many(BATCHES_AHEAD).await.is_ok();
                    return Ok(if taken { Next::All } else { Next::Gone });
                }
                ended @ (Next::Gone | Next::Abandoned) => return Ok(ended),
            }
        }
    }

    async fn commit(&mut self, commit: Box<dyn Commit>) -> Result<Next> {
        let again = match self.count().await {
            Ok(Next::All) => false,
            Ok(Next::Gone) if self.intent.is_some() => true,
            Ok(Next::Abandoned) => return Ok(Next::Abandoned),
            Ok(Next::Gone | Next::Batch(_)) => {
                commit.abort().await;
                return Ok(Next::Gone);
            }
            Err(error) => {
                commit.abort().await;
                return Err(error);
            }
        };
        let intent = match self.permission().await {
            Ok(intent) => intent,
            Err(Next::Gone) => {
                commit.abort().await;
                return Ok(Next::Gone);
            }
            Err(other) => return Ok(other),
        };
        publish(commit.as_ref(), &intent, again).await?;
        self.rows = 1;
        // Whoever listens then is told the count when the run has ended.
        Ok(Next::All)
    }

    /// Adds up what the tasks wrote and asks whether it may be published. A leader that took over a run past that point
    /// says so instead: `Gone`, with an intent.
    async fn count(&mut self) -> Result<Next> {
        let mut written = 0;
        loop {
            match self.next().await? {
                Next::Batch(batch) => {
                    let counts = batch.column(0).as_primitive_opt::<UInt64Type>();
                    written += counts.map_or(0, |c| c.values().iter().sum::<u64>());
                }
                Next::All => break,
                ended @ (Next::Gone | Next::Abandoned) => return Ok(ended),
            }
        }
        let event = Event::CommitReady { run: self.run.clone(), winners: self.delivered.clone(), rows: written };
        self.inbox.send(Input::Event(event)).await;
        Ok(Next::All)
    }

    /// Waits until what is to be published is durable; or says that the run, or its driver, ended otherwise.
    async fn permission(&mut self) -> std::result::Result<Intent, Next> {
        loop {
            if let Some(intent) = self.intent.take() {
                return Ok(intent);
            }
            match self.orders.recv().await {
                Some(order) => self.take(order),
                None => return Err(Next::Abandoned),
            }
            if self.ended {
                return Err(Next::Gone);
            }
        }
    }

    async fn keep(&mut self, keep: Box<dyn Keep>) -> Result<Next> {
        let (mut batches, mut bytes) = (Vec::new(), 0);
        loop {
            match self.next().await? {
                Next::Batch(batch) => {
                    bytes += batch.get_array_memory_size();
                    batches.push(batch);
                }
                Next::All => break,
                ended @ (Next::Gone | Next::Abandoned) => return Ok(ended),
            }
            if bytes > keep.limit() {
                return Err(Error::resources_exhausted(format!(
                    "the rows of the table take more than {} MiB, the most that is kept in memory: write them with COPY and \
                     create an external table",
                    keep.limit() >> 20
                )));
            }
        }
        let (record, blob) = keep.keep(Arc::clone(&self.schema), &batches)?;
        let (run, rows, expected) = (self.run.clone(), self.rows, keep.expected());
        self.inbox.send(Input::Kept { run, record, expected, blob, rows }).await;
        Ok(Next::All)
    }

    /// The next batch of the root's blocks, in the order of its tasks.
    async fn next(&mut self) -> Result<Next> {
        loop {
            let Some((block, batches, shown)) = &mut self.reading else {
                match self.open_block().await? {
                    Some(ended) => return Ok(ended),
                    None => continue,
                }
            };
            match batches.next().await {
                Some(Ok(batch)) => {
                    *shown += batch.num_rows() as u64;
                    return Ok(Next::Batch(batch));
                }
                Some(Err(error)) if error.error.kind == ErrorKind::LostInput && *shown == 0 => {
                    let event = Event::ResultLost {
                        run: self.run.clone(),
                        lost: block.output(),
                        looked_in_pack: block.pack.is_some(),
                    };
                    self.reading = None;
                    self.manifest = None;
                    self.inbox.send(Input::Event(event)).await;
                }
                Some(Err(error)) => {
                    let shown = *shown;
                    return Err(self.interrupted(shown, error.error));
                }
                None => {
                    self.rows += *shown;
                    self.delivered.push(block.attempt);
                    self.reading = None;
                }
            }
        }
    }

    /// Starts to read the next block, when there is a manifest that names it.
    async fn open_block(&mut self) -> Result<Option<Next>> {
        while self.manifest.is_none() && self.intent.is_none() && !self.ended {
            match self.orders.recv().await {
                Some(order) => self.take(order),
                None => return Ok(Some(Next::Abandoned)),
            }
        }
        while let Ok(newer) = self.orders.try_recv() {
            self.take(newer);
        }
        if self.intent.is_some() || self.ended {
            return Ok(Some(Next::Gone));
        }
        let Some(manifest) = &self.manifest else { return Ok(Some(Next::Gone)) };
        self.check_delivered(manifest)?;
        let Some(block) = block(manifest, self.delivered.len()) else { return Ok(Some(Next::All)) };
        let metrics = Arc::new(IoMetrics::default());
        let batches = self.source.read(&self.run, vec![block.clone()], Arc::clone(&self.schema), metrics);
        self.reading = Some((block, batches, 0));
        Ok(None)
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Read(manifest) => self.manifest = Some(manifest),
            Order::Publish(intent) => self.intent = Some(intent),
            Order::Client(client) => self.client = client,
            Order::Ended => self.ended = true,
        }
    }

    /// What was passed on must still be part of the result.
    fn check_delivered(&self, manifest: &Manifest) -> Result<()> {
        let same = manifest.outputs.iter().map(|o| o.attempt).zip(&self.delivered).all(|(now, then)| now == *then);
        if same {
            return Ok(());
        }
        Err(self.interrupted(0, Error::lost_input("a part that was shown had to be computed again and may differ")))
    }

    fn interrupted(&self, shown: u64, error: Error) -> Error {
        let rows = self.rows + shown;
        match rows {
            0 => error,
            _ => Error {
                message: format!("{} after {rows} rows were returned: submit the run again", error.message),
                ..error
            },
        }
    }
}

fn block(manifest: &Manifest, index: usize) -> Option<BlockRequest> {
    let output = manifest.outputs.get(index)?;
    Some(BlockRequest {
        task: TaskId { stage: manifest.stage, index: u32::try_from(index).ok()? },
        attempt: output.attempt,
        partition: 0,
        holder: output.holder.clone(),
        footer: output.footer,
        pack: output.pack.clone(),
    })
}
