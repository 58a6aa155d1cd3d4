//! The driver: owns the state, feeds the scheduler, carries out its actions.

mod actions;
mod clients;
mod handle;
mod inbox;
mod jobs;
mod journal;
mod planning;
mod takeover;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::record_batch::RecordBatch;
use tidemill_core::record::{Catalogue, CatalogueKind, Loss, Record, State};
use tidemill_core::schedule::{Event, progress, step};
use tidemill_core::{Epoch, Error, ExecutorId, Millis, Result, RunId, Settings};
use tidemill_engine::exchange::{BlockSource, PondSlot};
use tidemill_engine::planner::Planner;
use tidemill_engine::tickets::TicketKeys;
use tidemill_engine::wire;
use tokio::sync::{mpsc, oneshot, watch};

use crate::blobs::Blobs;
use crate::delivery::Deliveries;
use crate::executors::Executors;
use crate::log::News;
use crate::manifests::Manifests;
use crate::runs::{Clients, RunMessage, StatementRequest, tell};
use crate::webhooks::Webhooks;
pub use handle::Coordinator;
pub(crate) use inbox::{Inbox, Input, NewTable, WeakInbox};
pub use jobs::answer_columns;
use journal::Journal;

/// How often the scheduler looks at the time.
const TICK: Duration = Duration::from_millis(100);
/// Inputs that wait for the driver. A full inbox blocks executors' and clients' messages.
const INBOX: usize = 16 << 10;
/// News of the log that wait for the driver.
const NEWS: usize = 64;
/// By how many milliseconds tests set a leader's clock off: the clocks of leaders differ.
const CLOCK_SKEW: &str = "TIDEMILL_TEST_CLOCK_SKEW_MILLIS";

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
    /// What signs exchange tickets, here and in executors.
    pub tickets: TicketKeys,
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
    losses: Arc<AtomicU64>,
    manifests: Manifests,
    deliveries: Deliveries,
    clients: Clients,
    /// Runs of the last leader whose clients have not come back, since when.
    unclaimed: BTreeMap<RunId, Instant>,
    /// Runs whose rows only the coordinator has, and nobody was there to take them.
    unheard: BTreeSet<RunId>,
    /// Rows that statements about jobs answer, until these have ended.
    answers: BTreeMap<RunId, RecordBatch>,
    /// Runs whose rows are a table's, until they have ended: they answer nothing.
    tables: BTreeSet<RunId>,
    requests: BTreeMap<RunId, StatementRequest>,
    inbox: WeakInbox,
    blobs: Arc<Blobs>,
    webhooks: Webhooks,
    /// When jobs were last told that time passes.
    jobs_ticked: Option<Instant>,
}

impl Driver {
    async fn run(mut self, epoch: Epoch, mut inputs: mpsc::Receiver<Input>, mut news: mpsc::Receiver<News>) {
        self.handle(Event::Elected { epoch, build: wire::BUILD.to_owned() });
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let may_decide = !self.journal.is_full();
            tokio::select! {
                Some(news) = news.recv() => match news {
                    News::Durable(position) => self.durable(position),
                    News::Deposed(error) => {
                        tracing::error!(%error, "this coordinator leads no more");
                        self.depose.send_replace(Some(error));
                        break;
                    }
                },
                input = inputs.recv(), if may_decide => match input {
                    Some(input) => self.input(input),
                    None => break,
                },
                _ = tick.tick(), if may_decide => {
                    for event in self.executors.silent() {
                        self.handle(event);
                    }
                    self.handle(Event::Tick);
                    self.jobs_tick();
                    self.give_up_unclaimed();
                }
            }
        }
        // Before anybody is told: who hears it then sees that this coordinator has ended, and asks the next one.
        drop(inputs);
        for client in self.clients.values() {
            let error = Error::unavailable("the coordinator was stopped: submit the run again");
            tell(&client.messages, RunMessage::Failed(error));
        }
    }

    fn durable(&mut self, position: u64) {
        let was_full = self.journal.is_full();
        let due = self.journal.durable(position);
        for effect in due.effects {
            self.carry_out(effect);
        }
        for (executor, what) in due.acknowledgements {
            self.executors.acknowledge(&executor, what, self.epoch());
        }
        if was_full && !self.journal.is_full() {
            // Nobody listened meanwhile.
            self.executors.pardon();
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.handle(event),
            Input::Submit { run, request, client } => self.submitted(run, request, client),
            Input::Fetch { run, by, client } => self.fetched(&run, &by, client),
            Input::Left { run, attachment } => {
                if self.clients.get(&run).is_some_and(|client| client.attachment == attachment) {
                    self.handle(Event::Cancelled { run });
                }
            }
            Input::Planned { run, plan } => self.planned(run, plan),
            Input::BecameTable { run, number, table } => {
                if self.deliveries.is_current(&run, number) {
                    self.became_table(run, *table);
                }
            }
            Input::Delivered { run, number, event, blob } => {
                if self.state.live.contains(&run) && self.deliveries.is_current(&run, number) {
                    self.keep(blob);
                    self.handle(event);
                }
            }
            Input::Answered { run, outcome, blob } => {
                if self.state.live.contains(&run) {
                    self.keep(blob);
                    self.handle(Event::Answered { run, outcome });
                }
            }
            Input::Locate { run, outputs, reply } => {
                answer(reply, outputs.iter().map(|output| self.state.pack_of(&run, *output).cloned()).collect());
            }
            Input::Cancel { run, by, reply } => answer(reply, self.cancel(&run, &by)),
            Input::Describe { request, reply } => {
                answer(reply, self.plan_request(RunId(String::new()), request));
            }
            Input::Progress { run, reply } => {
                let flow = |executor: &ExecutorId, attempt| self.executors.flow(executor, attempt);
                answer(reply, progress(&self.state, &run, now(), flow));
            }
            Input::State(reply) => answer(reply, self.state.clone()),
            Input::DurableState(reply) => self.journal.reply_when_durable(self.state.clone(), reply),
            Input::Attached { register, to, id } => self.attached(register, to, id),
            Input::Detached { executor, id } => {
                if let Some(event) = self.executors.detached(&executor, id) {
                    self.handle(event);
                }
            }
            Input::FromExecutor { executor, id, message } => {
                self.heard(executor, id, message);
            }
        }
    }

    fn heard(&mut self, executor: ExecutorId, id: u64, message: wire::FromExecutor) {
        let (executors, journal) = (&self.state.executors, &self.journal);
        // A launch that waits for the log is not known to its executor yet.
        let given = || match executors.get(&executor) {
            Some(known) if !journal.holds_effects() => known.running.keys().copied().collect(),
            _ => Vec::new(),
        };
        let Some((event, what)) = self.executors.received(&executor, id, message, given) else { return };
        if let Event::AttemptsForgotten { attempts, .. } = &event {
            tracing::warn!(%executor, ?attempts, "an executor does not know what it was given: it is given out again");
        }
        self.handle(event);
        if let Some((executor, what)) = what.and_then(|what| self.journal.acknowledge(executor, what)) {
            self.executors.acknowledge(&executor, what, self.epoch());
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
        self.handle_at(event, now());
    }

    /// The same, when what the step will decide was asked for before.
    fn handle_at(&mut self, event: Event, at: Millis) {
        let step = step(&mut self.state, &self.config.settings, event, at);
        for record in &step.records {
            self.recorded(record);
        }
        let effects = step.actions.into_iter().filter_map(|action| self.prepare(action)).collect();
        for effect in self.journal.append(step.records, step.urgent, effects) {
            self.carry_out(effect);
        }
    }

    /// Keeps what is derived from the state in line with it.
    fn recorded(&mut self, record: &Record) {
        match record {
            // The next reader is told of packs that this one was not told of.
            Record::OutputLost { run, .. } | Record::AttemptLost { run, cause: Loss::Input, .. } => {
                self.manifests.forget(run);
            }
            Record::ExecutorLost { .. } => {
                self.losses.fetch_add(1, Ordering::Relaxed);
                self.manifests.forget_all();
            }
            Record::RunRestarted { run } => {
                tracing::warn!(%run, "another build planned it: it begins again from its statement");
                self.manifests.forget(run);
            }
            Record::StageDiffers { run, stage } => {
                tracing::warn!(%run, %stage, "a repeated task gave other rows: all that read the stage starts again");
            }
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

/// The wall clock as it was when the process began, and from there on steady: who sets the clock moves no deadline. Clocks
/// are read here and nowhere below.
pub(crate) fn now() -> Millis {
    static START: OnceLock<(Millis, Instant)> = OnceLock::new();
    let (began, since) = START.get_or_init(|| (wall(), Instant::now()));
    Millis(began.0.saturating_add(millis(since.elapsed())))
}

/// What clocks on the wall show.
fn wall() -> Millis {
    static SKEW: OnceLock<i64> = OnceLock::new();
    let skew = *SKEW.get_or_init(|| std::env::var(CLOCK_SKEW).ok().and_then(|millis| millis.parse().ok()).unwrap_or(0));
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(millis(wall).saturating_add_signed(skew))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Where the answer to a question goes.
pub(crate) type Reply<T> = oneshot::Sender<T>;

/// Answers a question; whoever asked it may have gone away.
fn answer<T>(reply: Reply<T>, answer: T) {
    let _ = reply.send(answer);
}
