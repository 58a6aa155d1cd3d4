//! The driver: owns the state, feeds the scheduler, carries out its actions.

mod actions;
mod clients;
mod inbox;
mod journal;
mod planning;
mod takeover;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidemill_core::record::{Catalogue, CatalogueKind, Record, State};
use tidemill_core::schedule::{Event, step};
use tidemill_core::{Epoch, Error, ExecutorId, Millis, Result, RunId, Settings};
use tidemill_engine::exchange::{BlockSource, PondSlot};
use tidemill_engine::planner::Planner;
use tidemill_engine::wire;
use tokio::sync::{mpsc, oneshot, watch};

use crate::blobs::Blobs;
use crate::delivery::Deliveries;
use crate::executors::Executors;
use crate::log::{Log, Recovered};
use crate::manifests::Manifests;
use crate::runs::{Clients, RunMessage, RunStream, StatementRequest, tell};
pub(crate) use inbox::{Inbox, Input, WeakInbox};
use journal::Journal;

/// How often the scheduler looks at the time.
const TICK: Duration = Duration::from_millis(100);
/// Inputs that wait for the driver. A full inbox blocks executors' and clients' messages.
const INBOX: usize = 16 << 10;

/// Numbers clients' connections to runs.
static ATTACHMENTS: AtomicU64 = AtomicU64::new(1);

/// What a coordinator is composed of.
pub struct CoordinatorConfig {
    /// The scheduler's limits.
    pub settings: Settings,
    /// Turns statements into stages.
    pub planner: Arc<dyn Planner>,
    /// Reads results from executors.
    pub source: Arc<dyn BlockSource>,
    /// Where plans are made.
    pub cpu: tokio::runtime::Handle,
    /// Where executors put packs: `--state`; empty where nothing outlives a process.
    pub state: String,
    /// The same, opened.
    pub pond: PondSlot,
}

/// A cheap handle to a running coordinator. The coordinator ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Coordinator {
    inbox: Inbox,
    blobs: Arc<Blobs>,
    traffic: Arc<AtomicU64>,
    deposed: watch::Receiver<Option<Error>>,
}

impl Coordinator {
    /// Starts a coordinator on the current runtime. What it knows ends with it.
    #[must_use]
    pub fn start(config: CoordinatorConfig) -> Self {
        // Later terms have higher numbers: executors that outlive a coordinator must not take its attempts for new ones.
        Self::lead(config, Epoch(now().0), None, Recovered::default())
    }

    /// Starts a coordinator that goes on where the log's last leader ended.
    #[must_use]
    pub fn resume(config: CoordinatorConfig, log: Log, recovered: Recovered) -> Self {
        Self::lead(config, log.epoch(), Some(log), recovered)
    }

    fn lead(config: CoordinatorConfig, epoch: Epoch, log: Option<Log>, recovered: Recovered) -> Self {
        let (sender, inputs) = mpsc::channel(INBOX);
        let inbox = Inbox::new(sender);
        let blobs = Arc::new(Blobs::default());
        let traffic = Arc::new(AtomicU64::new(0));
        let journal = log.map_or_else(Journal::default, |log| Journal::of(log, inbox.downgrade()));
        let (depose, deposed) = watch::channel(None);
        let mut driver = Driver {
            state: recovered.state,
            journal,
            depose,
            catalogue: Arc::default(),
            executors: Executors::new(inbox.downgrade(), Arc::clone(&traffic), config.state.clone()),
            manifests: Manifests::default(),
            deliveries: Deliveries::new(Arc::clone(&config.source)),
            clients: Clients::new(),
            attachments: BTreeMap::new(),
            unclaimed: BTreeMap::new(),
            unheard: BTreeSet::new(),
            requests: BTreeMap::new(),
            inbox: inbox.downgrade(),
            blobs: Arc::clone(&blobs),
            config,
        };
        driver.restore(&recovered.blobs);
        tokio::spawn(driver.run(epoch, inputs));
        Self { inbox, blobs, traffic, deposed }
    }

    /// Waits until this coordinator must not lead any more, and says why.
    pub async fn deposed(&self) -> Error {
        let mut deposed = self.deposed.clone();
        let why = deposed.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_else(|| Error::unavailable("the coordinator has ended"))
    }

    /// Submits one statement and waits until it is planned.
    ///
    /// # Errors
    /// The statement is wrong, or the coordinator is stopping.
    pub async fn submit(&self, request: StatementRequest) -> Result<RunStream> {
        let run = request.run.clone().unwrap_or_else(|| RunId(ulid::Ulid::new().to_string()));
        let (client, messages) = mpsc::channel(crate::runs::BATCHES_AHEAD);
        let attachment = ATTACHMENTS.fetch_add(1, Ordering::Relaxed);
        self.inbox.send(Input::Submit { run: run.clone(), request, client, attachment }).await?;
        RunStream::open(run, attachment, self.inbox.clone(), messages).await
    }

    /// A copy of the state.
    ///
    /// # Errors
    /// The coordinator is stopping.
    pub async fn state(&self) -> Result<State> {
        self.inbox.state().await
    }

    /// Whether the coordinator has ended, whatever the reason.
    pub(crate) fn has_ended(&self) -> bool {
        self.inbox.is_closed()
    }

    /// How many blobs are kept: 0 when nothing runs and no table holds rows.
    #[must_use]
    pub fn kept_blobs(&self) -> usize {
        self.blobs.len()
    }

    /// Bytes that executors and this coordinator exchanged so far: messages, plans, scans, manifests.
    #[must_use]
    pub fn control_bytes(&self) -> u64 {
        self.traffic.load(Ordering::Relaxed)
    }

    pub(crate) const fn traffic(&self) -> &Arc<AtomicU64> {
        &self.traffic
    }

    pub(crate) const fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    pub(crate) const fn blobs(&self) -> &Arc<Blobs> {
        &self.blobs
    }
}

struct Driver {
    config: CoordinatorConfig,
    state: State,
    journal: Journal,
    /// Says why this coordinator leads no more.
    depose: watch::Sender<Option<Error>>,
    /// What planners see, remade when it changes.
    catalogue: Arc<Catalogue>,
    executors: Executors,
    manifests: Manifests,
    deliveries: Deliveries,
    clients: Clients,
    /// Which of a run's clients is the latest: one that came back has another connection, and the old one may end late.
    attachments: BTreeMap<RunId, u64>,
    /// Runs of the last leader whose clients have not come back, since when.
    unclaimed: BTreeMap<RunId, Instant>,
    /// Runs whose rows only the coordinator has, and nobody was there to take them.
    unheard: BTreeSet<RunId>,
    requests: BTreeMap<RunId, StatementRequest>,
    inbox: WeakInbox,
    blobs: Arc<Blobs>,
}

impl Driver {
    async fn run(mut self, epoch: Epoch, mut inputs: mpsc::Receiver<Input>) {
        self.handle(Event::Elected { epoch });
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(Input::Deposed(error)) => {
                        tracing::error!(%error, "this coordinator leads no more");
                        self.depose.send_replace(Some(error));
                        break;
                    }
                    Some(input) => self.input(input),
                    None => break,
                },
                _ = tick.tick() => {
                    for event in self.executors.silent() {
                        self.handle(event);
                    }
                    self.handle(Event::Tick);
                    self.give_up_unclaimed();
                }
            }
        }
        for client in self.clients.values() {
            tell(client, RunMessage::Failed(Error::unavailable("the coordinator was stopped: submit the run again")));
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.handle(event),
            Input::Submit { run, request, client, attachment } => {
                self.attachments.insert(run.clone(), attachment);
                self.submitted(run, request, client);
            }
            Input::Left { run, attachment } => {
                if self.attachments.get(&run) == Some(&attachment) {
                    self.handle(Event::Cancelled { run });
                }
            }
            Input::Durable(position) => {
                let due = self.journal.durable(position);
                for action in due.actions {
                    self.carry_out(action);
                }
                for (executor, what) in due.acknowledgements {
                    self.executors.acknowledge(&executor, what, self.epoch());
                }
            }
            // The loop ends on it.
            Input::Deposed(_) => {}
            Input::Planned { run, plan } => self.planned(run, plan),
            Input::Kept { run, record, expected, blob, rows } => self.kept(run, record, expected.as_ref(), blob, rows),
            Input::State(reply) => {
                // The asker may have gone away.
                let _ = reply.send(self.state.clone());
            }
            Input::Attached { register, to, id } => self.attached(register, to, id),
            Input::Detached { executor, id } => {
                if let Some(event) = self.executors.detached(&executor, id) {
                    self.handle(event);
                }
            }
            Input::FromExecutor { executor, id, message } => {
                if let Some((event, what)) = self.executors.received(&executor, id, message) {
                    self.handle(event);
                    if let Some((executor, what)) = self.journal.acknowledge(executor, what) {
                        self.executors.acknowledge(&executor, what, self.epoch());
                    }
                }
            }
        }
    }

    fn attached(&mut self, register: wire::Register, to: mpsc::Sender<Result<wire::ToExecutor>>, id: u64) {
        let executor = ExecutorId(register.executor.clone());
        let known = self.state.executors.get(&executor).map(|e| e.state);
        let ended: Vec<String> =
            register.runs.iter().filter(|run| !self.state.live.contains(&RunId((*run).clone()))).cloned().collect();
        let epoch = self.epoch();
        let event = self.executors.attached(register, to, id, epoch, known, &self.config.settings);
        for run in ended {
            self.executors.send(&executor, epoch, wire::to_executor::Message::ReleaseRun(run));
        }
        if let Some(event) = event {
            self.handle(event);
        }
    }

    /// One step of the scheduler: records first, actions after.
    fn handle(&mut self, event: Event) {
        let step = step(&mut self.state, &self.config.settings, event, now());
        for record in &step.records {
            self.recorded(record);
        }
        let urgent = step.records.iter().any(|record| self.state.is_urgent(record));
        for action in self.journal.append(step.records, urgent, step.actions) {
            self.carry_out(action);
        }
    }

    /// Keeps what is derived from the state in line with it.
    fn recorded(&mut self, record: &Record) {
        match record {
            Record::OutputLost { run, .. } | Record::PackDurable { run, .. } => self.manifests.forget(run),
            Record::ExecutorLost { .. } => self.manifests.forget_all(),
            Record::CatalogueSet { name, .. } | Record::CatalogueDropped { name } => {
                let before = self.catalogue.entries.get(name).map(|entry| entry.kind.clone());
                if let Some(CatalogueKind::Table { rows }) = before {
                    self.blobs.release(&rows);
                }
                self.catalogue = Arc::new(self.state.catalogue.clone());
            }
            _ => {}
        }
    }

    fn epoch(&self) -> Epoch {
        self.state.epoch.unwrap_or(Epoch(0))
    }
}

/// The wall clock, read here and nowhere below.
fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Where the answer to a question goes.
pub(crate) type Reply<T> = oneshot::Sender<T>;
