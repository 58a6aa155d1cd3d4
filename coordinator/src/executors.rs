//! Executors' control streams: who is attached, when it was heard of last, and how to reach it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prost::Message as _;
use tidemill_core::record::{Capacity, ExecutorState, LOCAL, Pack};
use tidemill_core::schedule::{Event, Flow, Lost, LostOutput, Reported, Watch};
use tidemill_core::{Attempt, Epoch, Error, ExecutorId, Result, RunId, Settings};
use tidemill_engine::tickets::TicketKeys;
use tidemill_engine::wire::{self, BUILD, from_executor, missing, to_executor};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::driver::{Input, WeakInbox, now};

/// An executor that is silent for this long is suspected.
const SUSPECT_AFTER: Duration = Duration::from_secs(5);
/// How long a data port may take to accept or refuse.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pauses before each dial of a port that may be closing.
const PROBE_AFTER: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(300), Duration::from_millis(1500)];

/// Attached executors.
#[derive(Debug)]
pub(crate) struct Executors {
    attached: BTreeMap<ExecutorId, Attached>,
    inbox: WeakInbox,
    /// Bytes of messages to and from executors.
    traffic: Arc<AtomicU64>,
    /// Where they put packs.
    state: String,
    /// What they sign exchange tickets with.
    tickets: TicketKeys,
}

#[derive(Debug)]
struct Attached {
    to: mpsc::Sender<Result<wire::ToExecutor>>,
    /// Which of the executor's streams this is: late messages of an older one are ignored.
    id: u64,
    heard: Instant,
    /// Inside the coordinator's own process, where only the end of the stream means anything.
    is_local: bool,
    /// What it should have.
    watch: Watch,
    /// What its attempts have done so far, as it last said: of those that it named.
    flows: BTreeMap<Attempt, Flow>,
}

impl Executors {
    pub(crate) const fn new(inbox: WeakInbox, traffic: Arc<AtomicU64>, state: String, tickets: TicketKeys) -> Self {
        Self { attached: BTreeMap::new(), inbox, traffic, state, tickets }
    }

    /// An executor registers: welcomed, or refused with a reason.
    pub(crate) fn attached(
        &mut self,
        register: wire::Register,
        to: mpsc::Sender<Result<wire::ToExecutor>>,
        id: u64,
        epoch: Epoch,
        known: Option<ExecutorState>,
        settings: &Settings,
    ) -> Option<Event> {
        let say = |message| wire::ToExecutor { epoch: epoch.0, message: Some(message) };
        if register.build != BUILD {
            let error = Error::invalid(format!(
                "executor {} is of build {}, this coordinator of {BUILD}: run the same build everywhere",
                register.executor, register.build
            ));
            tracing::warn!(executor = register.executor, %error, "an executor was refused");
            let _ = to.try_send(Ok(say(to_executor::Message::Refused(wire::Error::from(&error)))));
            return None;
        }
        if known == Some(ExecutorState::Lost) {
            let error = Error::conflict(format!(
                "executor {} was silent for too long and given up, and its work was given to others: it must join under a new name",
                register.executor
            ));
            let _ = to.try_send(Ok(say(to_executor::Message::Refused(wire::Error::from(&error)))));
            return None;
        }
        let ticket_key = match self.tickets.hand_out(&register.ticket_key) {
            Ok(key) => key,
            Err(error) => {
                tracing::error!(executor = register.executor, %error, "an executor cannot be given its keys");
                let _ = to.try_send(Err(error));
                return None;
            }
        };
        let welcome = wire::Registered { heartbeat_ms: settings.heartbeat_ms, state: self.state.clone(), ticket_key };
        let _ = to.try_send(Ok(say(to_executor::Message::Registered(welcome))));
        let executor = ExecutorId(register.executor);
        let is_local = register.endpoint == LOCAL;
        let (heard, watch, flows) = (Instant::now(), Watch::default(), BTreeMap::new());
        self.attached.insert(executor.clone(), Attached { to, id, heard, is_local, watch, flows });
        let reported = |a: &wire::AttemptRef| {
            let (run, task, attempt) = (RunId(a.run.clone()), a.task?.into(), a.attempt?.into());
            Some(Reported { run, task, attempt, slots: a.slots })
        };
        Some(Event::ExecutorConnected {
            executor,
            endpoint: register.endpoint,
            capacity: Capacity { slots: register.slots, memory: register.memory },
            running: register.running.iter().filter_map(reported).collect(),
            holding: register.holding.iter().filter_map(reported).collect(),
        })
    }

    pub(crate) fn detached(&mut self, executor: &ExecutorId, id: u64) -> Option<Event> {
        self.attached.get(executor).filter(|a| a.id == id)?;
        self.attached.remove(executor);
        Some(Event::ExecutorDisconnected { executor: executor.clone() })
    }

    /// An executor said something. `given` tells what it was given and should have, if that can be told now.
    pub(crate) fn received(
        &mut self,
        executor: &ExecutorId,
        id: u64,
        message: wire::FromExecutor,
        given: impl FnOnce() -> Vec<Attempt>,
    ) -> Option<(Event, Option<Acknowledgement>)> {
        let attached = self.attached.get_mut(executor).filter(|a| a.id == id)?;
        attached.heard = Instant::now();
        self.traffic.fetch_add(message.encoded_len() as u64, Ordering::Relaxed);
        let event = match message.message? {
            from_executor::Message::Register(_) => return None,
            from_executor::Message::Heartbeat(heartbeat) => {
                let named: BTreeSet<_> = heartbeat.attempts.into_iter().map(Attempt::from).collect();
                let flows = heartbeat.flows.iter().filter_map(wire::Flow::of_attempt);
                attached.flows = flows.filter(|(attempt, _)| named.contains(attempt)).collect();
                let attempts = attached.watch.missing(given(), &named, now());
                let event = Event::AttemptsForgotten { executor: executor.clone(), attempts: attempts.clone() };
                return (!attempts.is_empty()).then_some((event, None));
            }
            from_executor::Message::TaskSucceeded(done) => succeeded(done),
            from_executor::Message::TaskFailed(failed) => self::failed(failed),
            from_executor::Message::PackDurable(durable) => packed(durable),
        };
        match event {
            Ok((acknowledgement, event)) => Some((event, Some(acknowledgement))),
            Err(error) => {
                tracing::error!(%executor, %error, "a completion cannot be read");
                None
            }
        }
    }

    /// What an attempt that runs has done so far, as its executor last said.
    pub(crate) fn flow(&self, executor: &ExecutorId, attempt: Attempt) -> Option<Flow> {
        self.attached.get(executor)?.flows.get(&attempt).copied()
    }

    /// Tells an executor that what it said cannot be lost any more.
    pub(crate) fn acknowledge(&mut self, executor: &ExecutorId, what: Acknowledgement, epoch: Epoch) {
        let message = match what {
            Acknowledgement::Completion(attempt) => to_executor::Message::Acknowledge(attempt.into()),
            Acknowledgement::Pack(name) => to_executor::Message::AcknowledgePack(name),
        };
        self.send(executor, epoch, message);
    }

    /// Sends a message; an executor that does not take it is treated as gone.
    pub(crate) fn send(&mut self, executor: &ExecutorId, epoch: Epoch, message: to_executor::Message) {
        let Some(attached) = self.attached.get(executor) else { return };
        let message = wire::ToExecutor { epoch: epoch.0, message: Some(message) };
        self.traffic.fetch_add(message.encoded_len() as u64, Ordering::Relaxed);
        if attached.to.try_send(Ok(message)).is_err() {
            let (inbox, executor, id) = (self.inbox.clone(), executor.clone(), attached.id);
            tokio::spawn(async move { inbox.send(Input::Detached { executor, id }).await });
        }
    }

    /// Counts everybody's silence from now on: they may have spoken, and nobody listened.
    pub(crate) fn pardon(&mut self) {
        for attached in self.attached.values_mut() {
            (attached.heard, attached.watch) = (Instant::now(), Watch::default());
        }
    }

    /// Executors that were not heard of for too long.
    pub(crate) fn silent(&mut self) -> Vec<Event> {
        let silent = self.attached.iter().filter(|(_, a)| !a.is_local && a.heard.elapsed() > SUSPECT_AFTER);
        let silent: Vec<ExecutorId> = silent.map(|(executor, _)| executor.clone()).collect();
        // Dropping the stream makes the executor register again if it lives.
        silent
            .into_iter()
            .inspect(|e| drop(self.attached.remove(e)))
            .map(|executor| Event::ExecutorDisconnected { executor })
            .collect()
    }

    /// Dials the executor's data port: a refusal means that the process is gone.
    pub(crate) fn probe(&self, executor: ExecutorId, endpoint: Option<String>) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let dead = match endpoint.as_deref() {
                Some(LOCAL) => true,
                Some(endpoint) => refuses_in_the_end(endpoint).await,
                None => false,
            };
            if dead {
                inbox.send(Input::Event(Event::ExecutorDead { executor })).await;
            }
        });
    }
}

/// A process that dies closes its streams one after the other, perhaps its port last: it is dialled more than once.
async fn refuses_in_the_end(endpoint: &str) -> bool {
    for pause in PROBE_AFTER {
        tokio::time::sleep(pause).await;
        if refuses(endpoint).await {
            return true;
        }
    }
    false
}

async fn refuses(endpoint: &str) -> bool {
    let address = endpoint.trim_start_matches("http://").trim_start_matches("https://").trim_end_matches('/');
    match tokio::time::timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        Ok(Ok(_)) | Err(_) => false,
    }
}

/// What an executor says again until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Acknowledgement {
    /// How an attempt ended.
    Completion(Attempt),
    /// That a pack is durable.
    Pack(String),
}

fn packed(durable: wire::PackDurable) -> Result<(Acknowledgement, Event)> {
    let pack = durable.pack.as_ref().map(Pack::from).ok_or_else(|| missing("PackDurable.pack"))?;
    let outputs = durable.outputs.iter().map(LostOutput::try_from).collect::<Result<_>>()?;
    let name = pack.name.clone();
    Ok((Acknowledgement::Pack(name), Event::PackDurable { run: RunId(durable.run), pack, outputs }))
}

fn succeeded(done: wire::TaskSucceeded) -> Result<(Acknowledgement, Event)> {
    let reference = done.attempt.ok_or_else(|| missing("TaskSucceeded.attempt"))?;
    let attempt = reference.attempt.ok_or_else(|| missing("AttemptRef.attempt"))?.into();
    let event = Event::TaskSucceeded {
        run: RunId(reference.run),
        task: reference.task.ok_or_else(|| missing("AttemptRef.task"))?.into(),
        attempt,
        footer: done.footer.ok_or_else(|| missing("TaskSucceeded.footer"))?.into(),
        metrics: done.metrics.ok_or_else(|| missing("TaskSucceeded.metrics"))?.into(),
        operators: done.operators.into_iter().map(Into::into).collect(),
        rows: done.rows.map(Into::into),
    };
    Ok((Acknowledgement::Completion(attempt), event))
}

fn failed(failed: wire::TaskFailed) -> Result<(Acknowledgement, Event)> {
    let reference = failed.attempt.ok_or_else(|| missing("TaskFailed.attempt"))?;
    let error = failed.error.ok_or_else(|| missing("TaskFailed.error"))?;
    let attempt = reference.attempt.ok_or_else(|| missing("AttemptRef.attempt"))?.into();
    let event = Event::TaskFailed {
        run: RunId(reference.run),
        task: reference.task.ok_or_else(|| missing("AttemptRef.task"))?.into(),
        attempt,
        error: Error::from(&error),
        lost: error.lost.as_ref().map(Lost::try_from).transpose()?.unwrap_or_default(),
    };
    Ok((Acknowledgement::Completion(attempt), event))
}
