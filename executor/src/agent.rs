//! Speaks with the coordinator: registers, launches and stops attempts, reports how they ended, says that it lives.
//!
//! Completions are kept until the coordinator acknowledges them, and sent again after a reconnection.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::future::{AbortHandle, abortable};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tidemill_core::{Attempt, Error, ErrorKind, Result, RunId};
use tidemill_engine::control::{CONTROL_QUEUE, ControlLink};
use tidemill_engine::crash;
use tidemill_engine::error::TaskError;
use tidemill_engine::wire::{self, BUILD, from_executor, to_executor};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::journal::AttemptJournal;
use crate::process::ExecutorShared;
use crate::task::{self, AttemptSpec, SoFar};
use crate::trim;
use crate::waiting::{Joined, Waiting};

/// How often freed memory is given back, at the most.
const TRIM_EVERY: Duration = Duration::from_secs(1);
/// What is said of a coordinator that let go of an executor which it had not taken in.
const ENDED: &str = "the coordinator ended the connection before it took this executor in";
/// Between two tries.
const RETRY: Duration = Duration::from_millis(250);

/// How one session with a coordinator ended.
enum Ended {
    /// This executor was told to stop.
    Stopped,
    /// The stream broke: try again.
    Broken,
}

/// Whether the stream took a message.
type Sent = std::result::Result<(), mpsc::error::SendError<wire::FromExecutor>>;

/// Serves the coordinator that leads, whichever that is, until this executor is told to stop.
///
/// # Errors
/// It was refused, or none took it in.
pub(crate) async fn serve(
    shared: Arc<ExecutorShared>,
    link: Arc<dyn ControlLink>,
    joined: &watch::Sender<bool>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let (finished, mut finishes) = mpsc::channel(CONTROL_QUEUE);
    let packs = shared.packs.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut packs = packs.ok_or_else(|| Error::internal("an executor is served twice"))?;
    let mut agent = Agent {
        shared,
        epoch: 0,
        running: BTreeMap::new(),
        unacknowledged: BTreeMap::new(),
        packs: BTreeMap::new(),
        early: Vec::new(),
        finished,
        joined: joined.clone(),
        journal: AttemptJournal::open()?,
        trimmed: Instant::now(),
    };
    let mut waiting = Waiting::begin();
    loop {
        if *stop.borrow() {
            return Ok(());
        }
        let (to, from) = mpsc::channel(CONTROL_QUEUE);
        to.send(agent.register()).await.map_err(|_| Error::internal("the control queue is closed"))?;
        let attached = tokio::select! {
            attached = link.attach(from) => attached,
            _ = stop.changed() => return Ok(()),
        };
        let has_joined = || if *joined.borrow() { Joined::Before } else { Joined::Never };
        match attached {
            Ok(messages) => match agent.session(messages, &to, &mut finishes, &mut packs, &mut stop).await? {
                Ended::Stopped => return Ok(()),
                Ended::Broken if has_joined() == Joined::Before => waiting = Waiting::begin(),
                Ended::Broken => waiting.goes_on(Joined::Never, &Error::unavailable(ENDED))?,
            },
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => waiting.goes_on(has_joined(), &error)?,
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Whether trying again cannot help.
const fn is_final(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::Invalid | ErrorKind::Denied | ErrorKind::Conflict)
}

/// An attempt that runs; dropped, it stops where it next waits.
struct Running {
    reference: wire::AttemptRef,
    stop: AbortHandle,
    so_far: Arc<SoFar>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.abort();
    }
}

struct Agent {
    shared: Arc<ExecutorShared>,
    epoch: u64,
    running: BTreeMap<Attempt, Running>,
    unacknowledged: BTreeMap<Attempt, wire::FromExecutor>,
    /// Packs of which the log may not know, by name.
    packs: BTreeMap<String, wire::FromExecutor>,
    /// Packs with outputs of attempts that are not reported yet.
    early: Vec<wire::PackDurable>,
    finished: mpsc::Sender<(Attempt, wire::FromExecutor)>,
    /// Becomes true when a coordinator has taken this executor in.
    joined: watch::Sender<bool>,
    journal: AttemptJournal,
    /// When freed memory was last given back.
    trimmed: Instant,
}

impl Agent {
    fn register(&self) -> wire::FromExecutor {
        let config = &self.shared.config;
        self.message(from_executor::Message::Register(wire::Register {
            executor: config.executor.0.clone(),
            build: BUILD.to_owned(),
            endpoint: config.endpoint.clone(),
            slots: config.slots,
            memory: config.memory.operators as u64,
            ticket_key: config.peers.tickets().known(),
            running: self.running.values().map(|r| r.reference.clone()).collect(),
            runs: self.shared.store.runs().into_iter().map(|run| run.0).collect(),
            holding: self.unacknowledged.values().filter_map(attempt_of).collect(),
        }))
    }

    const fn message(&self, message: from_executor::Message) -> wire::FromExecutor {
        wire::FromExecutor { epoch: self.epoch, message: Some(message) }
    }

    async fn session(
        &mut self,
        mut messages: BoxStream<'static, Result<wire::ToExecutor>>,
        to: &mpsc::Sender<wire::FromExecutor>,
        finishes: &mut mpsc::Receiver<(Attempt, wire::FromExecutor)>,
        packs: &mut mpsc::Receiver<wire::PackDurable>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Ended> {
        let mut heartbeat = tokio::time::interval(Duration::from_secs(1));
        // Until then the coordinator may not know of outputs that packs hold.
        let mut is_registered = false;
        loop {
            tokio::select! {
                _ = stop.changed() => return Ok(Ended::Stopped),
                message = messages.next() => match message {
                    Some(Ok(message)) => {
                        if let Some(to_executor::Message::Registered(registered)) = &message.message {
                            heartbeat = tokio::time::interval(Duration::from_millis(registered.heartbeat_ms.max(10)));
                            if self.taken_in(registered, to).await?.is_err() {
                                return Ok(Ended::Broken);
                            }
                            is_registered = true;
                        }
                        self.obey(message)?;
                    }
                    Some(Err(error)) if is_final(&error) => return Err(error),
                    Some(Err(_)) | None => return Ok(Ended::Broken),
                },
                Some((attempt, completion)) = finishes.recv() => {
                    self.note(&completion);
                    self.running.remove(&attempt);
                    self.unacknowledged.insert(attempt, completion.clone());
                    crash::before("task.report");
                    if to.send(completion).await.is_err() {
                        return Ok(Ended::Broken);
                    }
                    crash::after("task.report");
                    if is_registered && self.report_packs(to).await.is_err() {
                        return Ok(Ended::Broken);
                    }
                }
                Some(durable) = packs.recv() => {
                    self.early.push(durable);
                    if is_registered && self.report_packs(to).await.is_err() {
                        return Ok(Ended::Broken);
                    }
                }
                _ = heartbeat.tick() => {
                    // A full queue means that the stream is stuck; the coordinator will notice the silence.
                    let _ = to.try_send(self.message(from_executor::Message::Heartbeat(self.heartbeat())));
                }
            }
        }
    }

    /// A coordinator took this executor in: it is told what none has acknowledged.
    async fn taken_in(&mut self, registered: &wire::Registered, to: &mpsc::Sender<wire::FromExecutor>) -> Result<Sent> {
        self.shared.pond.open(&registered.state)?;
        self.shared.config.peers.tickets().take(&registered.ticket_key);
        for unheard in self.unacknowledged.values().chain(self.packs.values()) {
            if let Err(gone) = to.send(unheard.clone()).await {
                return Ok(Err(gone));
            }
        }
        self.joined.send_replace(true);
        Ok(self.report_packs(to).await)
    }

    fn heartbeat(&self) -> wire::Heartbeat {
        let known = self.running.keys().chain(self.unacknowledged.keys());
        let flow = |(attempt, running): (&Attempt, &Running)| Some(wire::Flow::of(*attempt, running.so_far.flow()?));
        wire::Heartbeat {
            attempts: known.map(|attempt| (*attempt).into()).collect(),
            flows: self.running.iter().filter_map(flow).collect(),
        }
    }

    /// Reports packs of outputs that are reported.
    async fn report_packs(&mut self, to: &mpsc::Sender<wire::FromExecutor>) -> Sent {
        let runs_still = |output: &wire::LostOutput| {
            output.attempt.is_some_and(|attempt| self.running.contains_key(&Attempt::from(attempt)))
        };
        let packs = std::mem::take(&mut self.early).into_iter();
        let (early, ready): (_, Vec<_>) = packs.partition(|pack| pack.outputs.iter().any(runs_still));
        self.early = early;
        let ready = ready.into_iter().map(|durable| {
            let name = durable.pack.as_ref().map(|p| p.name.clone()).unwrap_or_default();
            (name, self.message(from_executor::Message::PackDurable(durable)))
        });
        let ready: Vec<(String, wire::FromExecutor)> = ready.collect();
        self.packs.extend(ready.iter().cloned());
        for (_, message) in ready {
            crash::before("pack.report");
            to.send(message).await?;
            crash::after("pack.report");
        }
        Ok(())
    }

    fn obey(&mut self, message: wire::ToExecutor) -> Result<()> {
        if message.epoch < self.epoch {
            tracing::warn!(epoch = message.epoch, newest = self.epoch, "a message of an older epoch was refused");
            return Ok(());
        }
        self.epoch = message.epoch;
        match message.message {
            Some(to_executor::Message::Refused(error)) => return Err(Error::from(&error)),
            Some(to_executor::Message::Launch(launch)) => self.launch(launch)?,
            Some(to_executor::Message::Stop(attempt)) => self.stop(attempt.into()),
            Some(to_executor::Message::ReleaseRun(run)) => self.release(&RunId(run)),
            Some(to_executor::Message::Acknowledge(attempt)) => {
                self.unacknowledged.remove(&Attempt::from(attempt));
            }
            Some(to_executor::Message::AcknowledgePack(name)) => {
                self.packs.remove(&name);
            }
            Some(to_executor::Message::Registered(_)) | None => {}
        }
        Ok(())
    }

    fn launch(&mut self, launch: wire::Launch) -> Result<()> {
        let spec = AttemptSpec::new(launch)?;
        let attempt = spec.attempt;
        if self.running.contains_key(&attempt) || self.unacknowledged.contains_key(&attempt) {
            return Ok(()); // A doubled message.
        }
        let Some(reference) = spec.launch.attempt.clone() else { return Ok(()) };
        self.journal.note("started", &reference);
        self.shared.store.open(&spec.run);
        let (finished, epoch) = (self.finished.clone(), self.epoch);
        let named = reference.clone();
        let so_far = Arc::<SoFar>::default();
        let work = task::run(Arc::clone(&self.shared), spec, Arc::clone(&so_far));
        let work = std::panic::AssertUnwindSafe(work).catch_unwind();
        let (work, stop) = abortable(work);
        let cpu = self.shared.cpu.clone();
        // A thread of its own, which the system interrupts: operators may compute for seconds between two awaits, and
        // on a shared thread nothing else would run meanwhile.
        self.shared.cpu.spawn_blocking(move || {
            cpu.block_on(async move {
                let Ok(outcome) = work.await else { return }; // Stopped: nobody waits for it.
                // A panic in an operator fails its attempt, not the executor.
                let outcome = outcome.unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
                let message = completion(named, outcome);
                // The receiver lives as long as the executor.
                let _ = finished.send((attempt, wire::FromExecutor { epoch, message: Some(message) })).await;
            });
        });
        self.running.insert(attempt, Running { reference, stop, so_far });
        Ok(())
    }

    fn note(&mut self, completion: &wire::FromExecutor) {
        match &completion.message {
            Some(from_executor::Message::TaskSucceeded(wire::TaskSucceeded { attempt: Some(attempt), .. })) => {
                self.journal.note("succeeded", attempt);
            }
            Some(from_executor::Message::TaskFailed(wire::TaskFailed { attempt: Some(attempt), .. })) => {
                self.journal.note("failed", attempt);
            }
            _ => {}
        }
    }

    fn stop(&mut self, attempt: Attempt) {
        self.running.remove(&attempt);
        self.unacknowledged.remove(&attempt);
    }

    fn release(&mut self, run: &RunId) {
        let attempts: Vec<Attempt> =
            self.running.iter().filter(|(_, r)| r.reference.run == run.0).map(|(attempt, _)| *attempt).collect();
        for attempt in attempts {
            self.stop(attempt);
        }
        self.unacknowledged.retain(|_, message| attempt_of(message).is_none_or(|r| r.run != run.0));
        crash::before("output.release");
        self.shared.store.release(run);
        crash::after("output.release");
        if self.running.is_empty() && self.trimmed.elapsed() > TRIM_EVERY {
            self.trimmed = Instant::now();
            tokio::task::spawn_blocking(trim::trim);
        }
    }
}

fn attempt_of(message: &wire::FromExecutor) -> Option<wire::AttemptRef> {
    match &message.message {
        Some(from_executor::Message::TaskSucceeded(done)) => done.attempt.clone(),
        Some(from_executor::Message::TaskFailed(failed)) => failed.attempt.clone(),
        _ => None,
    }
}

fn completion(
    attempt: wire::AttemptRef,
    outcome: std::result::Result<task::Done, TaskError>,
) -> from_executor::Message {
    match outcome {
        Ok(done) => from_executor::Message::TaskSucceeded(wire::TaskSucceeded {
            attempt: Some(attempt),
            footer: Some(done.footer.into()),
            metrics: Some(done.metrics.into()),
            operators: done.operators.into_iter().map(Into::into).collect(),
            rows: done.rows.map(Into::into),
        }),
        Err(failed) => {
            let mut error = wire::Error::from(&failed.error);
            error.lost = Some((&failed.lost).into());
            from_executor::Message::TaskFailed(wire::TaskFailed { attempt: Some(attempt), error: Some(error) })
        }
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> TaskError {
    let text =
        panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    Error::internal(format!("a task panicked: {}", text.unwrap_or_else(|| "no message".to_owned()))).into()
}
