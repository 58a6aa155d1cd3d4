//! Results on their way to clients, or to a commit.
//!
//! Invariant: a block's rows come from one attempt. A block that is lost after some of its rows were passed on goes on
//! where the same attempt's output is to be had; otherwise the run fails, and the client says how many rows were shown.

mod effects;
mod judging;
mod kept;
mod reading;
mod removals;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::UInt64Array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use tidemill_core::record::{Intent, Requests};
use tidemill_core::schedule::Event;
use tidemill_core::{Error, Result, RunId};
use tidemill_engine::blob::Blob;
use tidemill_engine::exchange::{BlockSource, Manifest, PondSlot};
use tidemill_engine::planner::Finish;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::driver::{Input, WeakInbox};
use crate::runs::{BATCHES_AHEAD, RunMessage};
pub(crate) use kept::{Asked, Keeper, answer_again};
use reading::{Purpose, Reading};
use removals::Removal;
pub(crate) use removals::Removals;

/// Orders that wait for one delivery: a newer manifest replaces what an older one said.
const ORDERS_AHEAD: usize = 64;

/// Deliveries by run. A client that comes back gets a new one, and what the old one says is heard no more.
#[derive(Debug)]
pub(crate) struct Deliveries {
    source: Arc<dyn BlockSource>,
    pond: PondSlot,
    /// Where what computes runs.
    cpu: Handle,
    removals: Removals,
    started: u64,
    runs: BTreeMap<RunId, (u64, mpsc::Sender<Order>)>,
}

/// What the driver tells a delivery.
#[derive(Debug)]
enum Order {
    /// The root's outputs are available, perhaps again.
    Read(Manifest),
    /// What was counted may be published.
    Publish(Intent),
    /// The run has ended.
    Ended,
}

/// A planned result.
pub(crate) struct Expected {
    pub(crate) run: RunId,
    pub(crate) schema: SchemaRef,
    pub(crate) finish: Finish,
    /// Whether it is kept for those who ask again.
    pub(crate) keep: bool,
}

impl Deliveries {
    pub(crate) const fn new(source: Arc<dyn BlockSource>, pond: PondSlot, cpu: Handle, removals: Removals) -> Self {
        Self { source, pond, cpu, removals, started: 0, runs: BTreeMap::new() }
    }

    /// Prepares to deliver a run's result.
    pub(crate) fn expect(&mut self, expected: Expected, client: mpsc::Sender<RunMessage>, inbox: WeakInbox) {
        let Expected { run, schema, finish, keep } = expected;
        let (orders, from) = mpsc::channel(ORDERS_AHEAD);
        self.started += 1;
        self.runs.insert(run.clone(), (self.started, orders));
        let schema = match finish {
            Finish::Commit(_) => count_schema(),
            Finish::Deliver | Finish::Keep(_) | Finish::Report(_) => schema,
        };
        let keeper = if keep { Keeper::begin(&run, &finish.columns(&schema), &self.pond) } else { Keeper::default() };
        let purpose = match finish {
            Finish::Report(_) => Purpose::Count,
            Finish::Deliver | Finish::Commit(_) | Finish::Keep(_) => Purpose::PassOn,
        };
        let reading = Reading::new(run.clone(), purpose, Arc::clone(&schema), Arc::clone(&self.source), from);
        let (pond, cpu) = (self.pond.clone(), self.cpu.clone());
        let delivery = Delivery { run, number: self.started, schema, client, inbox, reading, keeper, pond, cpu };
        let removal = self.removals.begin();
        tokio::spawn(delivery.finish(finish, removal));
    }

    /// Whether that is the run's latest delivery.
    pub(crate) fn is_current(&self, run: &RunId, number: u64) -> bool {
        self.runs.get(run).is_some_and(|(current, _)| *current == number)
    }

    /// The root's outputs are available, perhaps again.
    pub(crate) fn outputs(&self, run: &RunId, manifest: Manifest) {
        self.order(run, Order::Read(manifest));
    }

    /// What a run wrote may be published: that is durable now, and nothing else can happen to the run.
    pub(crate) fn commit(&self, run: &RunId, intent: Intent) {
        self.order(run, Order::Publish(intent));
    }

    /// Whether a delivery of the run is under way.
    pub(crate) fn is_under_way(&self, run: &RunId) -> bool {
        self.runs.get(run).is_some_and(|(_, delivery)| !delivery.is_closed())
    }

    /// The run has ended. A delivery that only loses its driver must leave everything for the next leader's.
    pub(crate) fn forget(&mut self, run: &RunId) {
        self.order(run, Order::Ended);
        self.runs.remove(run);
    }

    fn order(&self, run: &RunId, order: Order) {
        if let Some((_, delivery)) = self.runs.get(run) {
            // One that is behind by many orders has ended.
            let _ = delivery.try_send(order);
        }
    }
}

/// The one row that a statement that writes answers.
pub(crate) fn count(rows: u64) -> Result<RecordBatch> {
    let counts = Arc::new(UInt64Array::from(vec![rows]));
    RecordBatch::try_new(count_schema(), vec![counts]).map_err(|e| Error::internal(e.to_string()))
}

/// The result of a statement that writes.
fn count_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)]))
}

async fn note_requests(run: &RunId, requests: Requests, inbox: &WeakInbox) {
    if requests != Requests::default() {
        inbox.send(Input::Event(Event::ResultRead { run: run.clone(), requests })).await;
    }
}

struct Delivery {
    run: RunId,
    number: u64,
    schema: SchemaRef,
    client: mpsc::Sender<RunMessage>,
    inbox: WeakInbox,
    reading: Reading,
    keeper: Keeper,
    pond: PondSlot,
    cpu: Handle,
}

/// What has become of a result.
struct Delivered {
    rows: u64,
    /// The version of a dataset that has it.
    version: Option<u64>,
}

/// What comes next of a result.
enum Next {
    Batch(RecordBatch),
    /// All blocks, all rows were read.
    All,
    /// The run ended first, or is past what this delivery was to do.
    Gone,
    /// The driver ended first: the run may go on without it.
    Abandoned,
}

impl Delivery {
    async fn finish(mut self, finish: Finish, removal: Removal) {
        let rows = |ended: Result<Option<u64>>| ended.map(|rows| rows.map(|rows| Delivered { rows, version: None }));
        let ended = match finish {
            Finish::Deliver => rows(self.deliver().await),
            Finish::Commit(commit) => return self.publish(commit, &removal).await,
            Finish::Keep(keep) => return self.keep(keep).await,
            Finish::Report(report) => rows(self.report(report.as_ref()).await),
        };
        self.end(ended).await;
    }

    /// Gives the run its end; `None` leaves that to others.
    async fn end(&mut self, ended: Result<Option<Delivered>>) {
        let run = self.run.clone();
        match ended {
            Ok(Some(Delivered { rows, version })) => {
                let (kept, blob) = std::mem::take(&mut self.keeper).finish().await;
                self.say(Event::ResultDelivered { run, rows, kept, version }, blob).await;
            }
            Ok(None) => {
                std::mem::take(&mut self.keeper).abort();
                self.note_requests().await;
            }
            Err(error) => {
                std::mem::take(&mut self.keeper).abort();
                self.say(Event::ResultFailed { run, error }, None).await;
            }
        }
    }

    /// Lets the run count what the store was asked for. It is told before anything that came of it, so that whoever hears
    /// of that sees it counted; also if this is no longer the run's delivery, or the run has ended.
    async fn note_requests(&mut self) {
        note_requests(&self.run, self.reading.take_requests(), &self.inbox).await;
    }

    async fn say(&mut self, event: Event, blob: Option<Blob>) {
        self.note_requests().await;
        let (run, number) = (self.run.clone(), self.number);
        self.inbox.send(Input::Delivered { run, number, event, blob }).await;
    }

    /// The next batch of the result. Outputs that cannot be read are reported, and read again where they are then.
    async fn next(&mut self) -> Result<Next> {
        loop {
            match self.reading.next().await {
                Ok(next) => return Ok(next),
                Err(reading::Failed::Lost(lost)) => {
                    self.say(Event::ResultLost { run: self.run.clone(), lost }, None).await;
                }
                Err(reading::Failed::For(error)) => return Err(error),
            }
        }
    }

    /// Passes all rows on to the client; `None` if the run ended first, or the client did.
    async fn deliver(&mut self) -> Result<Option<u64>> {
        loop {
            match self.next().await? {
                Next::Batch(batch) => {
                    self.keeper.push(&batch).await;
                    if self.client.send(RunMessage::Batch(batch)).await.is_err() {
                        return Ok(None);
                    }
                }
                Next::All => return Ok(self.has_taken_all().await.then_some(self.reading.rows())),
                Next::Gone | Next::Abandoned => return Ok(None),
            }
        }
    }

    /// Waits until the client has taken what was sent: the run is not over while rows wait here, as they would be lost with
    /// this process.
    async fn has_taken_all(&mut self) -> bool {
        self.client.reserve_many(BATCHES_AHEAD).await.is_ok()
    }
}
