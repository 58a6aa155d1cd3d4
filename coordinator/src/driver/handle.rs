//! The handle to a running coordinator: what the rest of its process asks of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidemill_core::record::{RunState, State};
use tidemill_core::schedule::{Event, Progress};
use tidemill_core::{Epoch, Error, Principal, Result, RunId};
use tidemill_engine::planner::PlanRequest;
use tidemill_engine::sessions::{conceal, session_id};
use tokio::sync::{mpsc, watch};

use super::journal::Journal;
use super::{CoordinatorConfig, Driver, INBOX, Inbox, Input, NEWS, now};
use crate::blobs::Blobs;
use crate::delivery::{Deliveries, Removals};
use crate::executors::Executors;
use crate::log::{Log, Recovered};
use crate::manifests::Manifests;
use crate::runs::{BATCHES_AHEAD, Clients, RunClient, RunStream, StatementRequest};
use crate::webhooks::Webhooks;

/// Numbers clients' connections to runs.
static ATTACHMENTS: AtomicU64 = AtomicU64::new(1);

/// A cheap handle to a running coordinator. The coordinator ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Coordinator {
    inbox: Inbox,
    blobs: Arc<Blobs>,
    traffic: Arc<AtomicU64>,
    losses: Arc<AtomicU64>,
    deposed: watch::Receiver<Option<Error>>,
    removals: Removals,
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
        let losses = Arc::new(AtomicU64::new(0));
        let removals = Removals::default();
        let (to_driver, news) = mpsc::channel(NEWS);
        let journal = log.map_or_else(Journal::default, |log| Journal::of(log, to_driver));
        let (depose, deposed) = watch::channel(None);
        let mut driver = Driver {
            state: recovered.state,
            journal,
            depose,
            catalogue: Arc::default(),
            executors: Executors::new(
                inbox.downgrade(),
                Arc::clone(&traffic),
                config.state.clone(),
                config.tickets.clone(),
            ),
            losses: Arc::clone(&losses),
            manifests: Manifests::default(),
            deliveries: Deliveries::new(
                Arc::clone(&config.source),
                config.pond.clone(),
                config.cpu.clone(),
                removals.clone(),
            ),
            clients: Clients::new(),
            unclaimed: BTreeMap::new(),
            unheard: BTreeSet::new(),
            answers: BTreeMap::new(),
            tables: BTreeSet::new(),
            requests: BTreeMap::new(),
            inbox: inbox.downgrade(),
            blobs: Arc::clone(&blobs),
            webhooks: Webhooks::default(),
            jobs_ticked: None,
            config,
        };
        driver.restore(&recovered.blobs);
        tokio::spawn(driver.run(epoch, inputs, news));
        Self { inbox, blobs, traffic, losses, deposed, removals }
    }

    /// Waits until this coordinator must not lead any more, and says why.
    pub async fn deposed(&self) -> Error {
        let mut deposed = self.deposed.clone();
        let why = deposed.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_else(|| Error::unavailable("the coordinator has ended"))
    }

    /// Waits until what runs write is published, or removed where they failed or were cancelled. From then on removals take no
    /// time for tasks that stop late: it is the last that is asked before the process ends.
    pub async fn finish_removals(&self) {
        self.removals.finish().await;
    }

    /// Submits one statement and waits until it is planned.
    ///
    /// # Errors
    /// The statement is wrong, or the coordinator is stopping.
    pub async fn submit(&self, mut request: StatementRequest) -> Result<RunStream> {
        conceal(&mut request.settings);
        let run = request.run.clone().unwrap_or_else(|| RunId(ulid::Ulid::new().to_string()));
        self.attach(run.clone(), |client| Input::Submit { run, request, client }).await
    }

    /// The kept result of a run that has finished.
    ///
    /// # Errors
    /// There is none, or the run failed, or it is not of `by`.
    pub async fn fetch(&self, run: RunId, by: Principal) -> Result<RunStream> {
        self.attach(run.clone(), |client| Input::Fetch { run, by, client }).await
    }

    async fn attach(&self, run: RunId, ask: impl FnOnce(RunClient) -> Input) -> Result<RunStream> {
        let (client, messages) = mpsc::channel(BATCHES_AHEAD);
        let attachment = ATTACHMENTS.fetch_add(1, Ordering::Relaxed);
        self.inbox.send(ask(RunClient { attachment, messages: client })).await?;
        RunStream::open(run, attachment, self.inbox.clone(), messages).await
    }

    /// Ends a run, unless it has ended or is being published. Answers the state it is in then, if the run is known.
    ///
    /// # Errors
    /// The run is not of `by`, or the coordinator is stopping.
    pub async fn cancel(&self, run: RunId, by: Principal) -> Result<Option<RunState>> {
        self.inbox.ask(|reply| Input::Cancel { run, by, reply }).await?
    }

    /// What the planner would be asked for a statement, which is not run.
    ///
    /// # Errors
    /// The coordinator is stopping.
    pub async fn plan_request(&self, mut request: StatementRequest) -> Result<PlanRequest> {
        conceal(&mut request.settings);
        self.inbox.ask(|reply| Input::Describe { request, reply }).await
    }

    /// The session of this secret name goes on: what is kept for it stays.
    ///
    /// # Errors
    /// The coordinator is stopping.
    pub async fn session_heard(&self, name: &str) -> Result<()> {
        self.inbox.send(Input::Event(Event::SessionHeard { session: session_id(name) })).await
    }

    /// The session of this secret name has ended: what is kept for it goes.
    ///
    /// # Errors
    /// The coordinator is stopping.
    pub async fn session_ended(&self, name: &str) -> Result<()> {
        self.inbox.send(Input::Event(Event::SessionEnded { session: session_id(name) })).await
    }

    /// How far a run has come; `None` if it is not known (any longer).
    ///
    /// # Errors
    /// The coordinator is stopping.
    pub async fn progress(&self, run: RunId) -> Result<Option<Progress>> {
        self.inbox.progress(run).await
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

    /// How many executors were lost so far.
    pub(crate) const fn losses(&self) -> &Arc<AtomicU64> {
        &self.losses
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
