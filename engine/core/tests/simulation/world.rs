//! Virtual time: what happens when, and the coordinator's shell around the scheduler.

use std::collections::BTreeMap;

use tidemill_core::graph::StageGraph;
use tidemill_core::record::{ExecutorState, Outcome, RunSpec, State};
use tidemill_core::schedule::{Action, Event, Launch, step, waiting_for};
use tidemill_core::{Attempt, Epoch, Error, ExecutorId, Millis, RunId, Settings, TaskId};

use crate::content::{Contents, Named, inputs_of};
use crate::executor::ModelExecutor;
use crate::graphs;
use crate::ledger::Ledger;
use crate::results::Delivery;
use crate::rng::Rng;
use crate::weather::{Counts, Weather, settings};

/// What a broken invariant says.
pub(crate) type Check = Result<(), String>;

/// After faults end, runs must end within this virtual time.
const PATIENCE_MS: u64 = 300_000;

/// Something that is going to happen.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    Submit(RunId),
    Cancel(RunId),
    /// A message reaches the coordinator, perhaps over an executor's stream.
    ToCoordinator {
        stream: Option<(ExecutorId, u64)>,
        event: Event,
    },
    /// The coordinator notices that a stream is closed.
    StreamClosed {
        executor: ExecutorId,
        stream: u64,
    },
    ToExecutor {
        executor: ExecutorId,
        stream: u64,
        message: Message,
    },
    AttemptEnds {
        executor: ExecutorId,
        attempt: Attempt,
    },
    /// An executor process starts.
    Join {
        slots: u32,
    },
    /// An executor opens a stream.
    Connect(ExecutorId),
    ReadResult(RunId),
    Fault,
    /// No faults from now on.
    Calm,
    Tick,
}

/// What the coordinator tells an executor.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Launch { launch: Launch, inputs: Vec<(Named, ExecutorId)> },
    Stop(Attempt),
    Release(RunId),
    Acknowledge(Attempt),
}

/// What the planner is going to answer.
#[derive(Debug, Clone)]
pub(crate) enum Plan {
    Stages(Result<StageGraph, Error>),
    /// A statement without stages.
    Answer,
}

/// One seed's cluster.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) weather: Weather,
    pub(crate) settings: Settings,
    pub(crate) now: u64,
    pub(crate) queue: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    pub(crate) state: State,
    pub(crate) ledger: Ledger,
    pub(crate) plans: BTreeMap<RunId, Plan>,
    pub(crate) executors: BTreeMap<ExecutorId, ModelExecutor>,
    /// The stream of each executor that the coordinator knows, and those it saw closed.
    pub(crate) streams: BTreeMap<ExecutorId, u64>,
    closed: BTreeMap<ExecutorId, u64>,
    pub(crate) contents: Contents,
    pub(crate) deliveries: BTreeMap<RunId, Delivery>,
    trace: Trace,
}

/// Whether a seed prints what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    Silent,
    Printed,
}

/// Runs one seed to its end.
pub(crate) fn run_seed(seed: u64, trace: Trace) -> Result<Counts, String> {
    let mut world = World::new(seed, trace);
    world.step(Event::Elected { epoch: Epoch(1) })?;
    while let Some(((at, _), happening)) = world.queue.pop_first() {
        world.now = at;
        world.happen(happening)?;
        if at > world.weather.calm_at + PATIENCE_MS {
            return Err(world.stuck());
        }
    }
    world.ledger.check_end(&world.state, &world.plans, &world.weather)?;
    Ok(world.ledger.counts)
}

impl World {
    fn new(seed: u64, trace: Trace) -> Self {
        let mut rng = Rng::new(seed);
        let weather = Weather::draw(&mut rng);
        let settings = settings(&mut rng);
        let mut world = Self {
            ledger: Ledger::new(settings.clone()),
            rng,
            weather,
            settings,
            now: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            state: State::default(),
            plans: BTreeMap::new(),
            executors: BTreeMap::new(),
            streams: BTreeMap::new(),
            closed: BTreeMap::new(),
            contents: Contents::default(),
            deliveries: BTreeMap::new(),
            trace,
        };
        world.trace(|| format!("seed {seed}: {:?} {:?}", world.weather, world.settings));
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        for _ in 0..self.rng.between(1, 4) {
            let (at, slots) = (self.rng.between(0, 5_000), self.rng.count(1, 4));
            self.after(at, Happening::Join { slots });
        }
        for name in 0..self.rng.between(1, 5) {
            let run = RunId(format!("run-{name}"));
            let submitted = self.rng.between(0, self.weather.calm_at / 2);
            self.after(submitted, Happening::Submit(run.clone()));
            if self.rng.chance(150) {
                let at = submitted + self.rng.between(0, 10_000);
                self.after(at, Happening::Cancel(run.clone()));
            }
            let plan = if self.rng.chance(self.weather.failing_runs) {
                Plan::Stages(Err(Error::invalid(format!("the plan of {run} was to fail"))))
            } else if self.rng.chance(50) {
                Plan::Answer
            } else {
                Plan::Stages(Ok(graphs::random(&mut self.rng)))
            };
            self.plans.insert(run, plan);
        }
        if self.weather.fault_every > 0 {
            self.after(0, Happening::Fault);
        }
        self.after(self.weather.calm_at + 1, Happening::Calm);
        self.after(0, Happening::Tick);
    }

    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.trace == Trace::Printed {
            println!("{:>7} {}", self.now, line());
        }
    }

    pub(crate) fn after(&mut self, delay: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), happening);
    }

    /// How long a message takes: mostly milliseconds, sometimes seconds, so that later ones overtake it.
    pub(crate) fn delay(&mut self) -> u64 {
        if self.rng.chance(30) { self.rng.between(30, 3_000) } else { self.rng.between(1, 30) }
    }

    fn happen(&mut self, happening: Happening) -> Check {
        match happening {
            Happening::Submit(run) => {
                let spec = RunSpec { statement: format!("select {run}"), express: self.rng.chance(5) };
                self.tell_coordinator(None, &Event::Submitted { run, spec });
            }
            Happening::Cancel(run) => self.tell_coordinator(None, &Event::Cancelled { run }),
            Happening::ToCoordinator { stream, event } => self.receive(stream, event)?,
            Happening::StreamClosed { executor, stream } => self.stream_closed(executor, stream)?,
            Happening::ToExecutor { executor, stream, message } => self.executor_receives(&executor, stream, message),
            Happening::AttemptEnds { executor, attempt } => self.attempt_ends(&executor, attempt),
            Happening::Join { slots } => self.join(slots),
            Happening::Connect(executor) => self.connect(&executor),
            Happening::ReadResult(run) => self.read_result(&run)?,
            Happening::Fault => {
                if !self.state.live.is_empty() {
                    self.fault();
                }
                let delay = self.rng.between(1, 2 * self.weather.fault_every);
                if self.now + delay < self.weather.calm_at {
                    self.after(delay, Happening::Fault);
                }
            }
            Happening::Calm => self.calm(),
            Happening::Tick => {
                self.step(Event::Tick)?;
                if self.now < self.weather.calm_at || self.ledger.ended() < self.plans.len() {
                    self.after(1_000, Happening::Tick);
                }
            }
        }
        Ok(())
    }

    /// Sends a message to the coordinator, perhaps twice.
    pub(crate) fn tell_coordinator(&mut self, stream: Option<(ExecutorId, u64)>, event: &Event) {
        for _ in 0..self.copies() {
            let delay = self.delay();
            self.after(delay, Happening::ToCoordinator { stream: stream.clone(), event: event.clone() });
        }
    }

    fn copies(&mut self) -> u64 {
        let doubled = u64::from(self.rng.chance(self.weather.doubled));
        self.ledger.counts.duplicates += doubled;
        1 + doubled
    }

    /// Sends a message to an executor; it is lost where the stream is broken, noticed or not.
    fn tell_executor(&mut self, executor: &ExecutorId, message: &Message) {
        let stream = self.streams.get(executor).copied();
        let open = self.executors.get(executor).filter(|e| e.is_connected()).map(|e| e.stream);
        let Some(stream) = stream.filter(|s| Some(*s) == open) else {
            self.ledger.counts.lost_messages += 1;
            self.trace(|| format!("lost on the way to {executor}: {message:?}"));
            return;
        };
        for _ in 0..self.copies() {
            let delay = self.delay();
            let (executor, message) = (executor.clone(), message.clone());
            self.after(delay, Happening::ToExecutor { executor, stream, message });
        }
    }

    fn receive(&mut self, stream: Option<(ExecutorId, u64)>, event: Event) -> Check {
        if let (Event::ExecutorConnected { executor, .. }, Some((_, stream))) = (&event, &stream) {
            let newest = self.streams.get(executor).copied().max(self.closed.get(executor).copied());
            if newest >= Some(*stream) {
                return Ok(());
            }
            if self.state.executors.get(executor).is_some_and(|e| e.state == ExecutorState::Lost) {
                self.dismiss(&executor.clone());
                return Ok(());
            }
            self.streams.insert(executor.clone(), *stream);
        }
        if let Event::Submitted { run, .. } = &event
            && self.ledger.has_forgotten(run, &self.state)
        {
            return Ok(()); // A client repeats a request within the history.
        }
        let done = match &event {
            Event::TaskSucceeded { attempt, .. } | Event::TaskFailed { attempt, .. } => Some(*attempt),
            _ => None,
        };
        self.step(event)?;
        if let (Some(attempt), Some((executor, _))) = (done, stream) {
            self.tell_executor(&executor, &Message::Acknowledge(attempt));
        }
        Ok(())
    }

    fn stream_closed(&mut self, executor: ExecutorId, stream: u64) -> Check {
        let newest = self.closed.entry(executor.clone()).or_default();
        *newest = stream.max(*newest);
        if self.streams.get(&executor) == Some(&stream) {
            self.step(Event::ExecutorDisconnected { executor })?;
        }
        Ok(())
    }

    fn step(&mut self, event: Event) -> Check {
        if event != Event::Tick {
            self.trace(|| format!("{event:?}"));
        }
        let step = step(&mut self.state, &self.settings, event.clone(), Millis(self.now));
        for record in &step.records {
            self.trace(|| format!("    {record:?}"));
        }
        self.ledger.observe(&event, &step, &self.state, self.now)?;
        for action in step.actions {
            self.trace(|| format!("      {action:?}"));
            self.carry_out(action);
        }
        Ok(())
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Plan { run } => {
                let event = match self.plans[&run].clone() {
                    Plan::Stages(graph) => Event::Planned { run, graph },
                    Plan::Answer => Event::Answered { run, outcome: Outcome::Succeeded { rows: 1 } },
                };
                self.tell_coordinator(None, &event);
            }
            Action::Launch(launch) => {
                let inputs = self.named_inputs(&launch.run, launch.task);
                self.tell_executor(&launch.executor.clone(), &Message::Launch { launch, inputs });
            }
            Action::Stop { executor, attempt } => self.tell_executor(&executor, &Message::Stop(attempt)),
            Action::Release { executor, run } => self.tell_executor(&executor, &Message::Release(run)),
            Action::Probe { executor } => {
                // A refused connection is certain; sometimes the host is gone too and nobody refuses.
                if !self.executors[&executor].is_up() && self.rng.chance(800) {
                    self.tell_coordinator(None, &Event::ExecutorDead { executor });
                }
            }
            Action::Deliver { run } => self.deliver(run),
            Action::Finished { .. } => {}
        }
    }

    /// The outputs that the state names now.
    fn named_inputs(&self, run: &RunId, task: TaskId) -> Vec<(Named, ExecutorId)> {
        let graph = self.state.runs[run].graph.as_ref().unwrap();
        let output = |input| self.state.task(run, input).and_then(|t| t.output.as_ref()).unwrap();
        let named = |input| ((input, output(input).attempt), output(input).executor.clone());
        inputs_of(graph, task.stage).into_iter().map(named).collect()
    }

    fn stuck(&self) -> String {
        let mut waits = Vec::new();
        for id in &self.state.live {
            let run = &self.state.runs[id];
            waits.push(format!("run {id} is {}", run.state.name()));
            for (stage, progress) in (0u32..).zip(&run.stages) {
                for (index, task) in (0u32..).zip(&progress.tasks) {
                    let task_id = TaskId { stage: tidemill_core::StageId(stage), index };
                    let reason = waiting_for(&self.state, run, task_id, Millis(self.now)).unwrap_or_default();
                    waits.push(format!("  task {task_id} is {} {reason}", task.state.name()));
                }
            }
        }
        format!("runs did not end {} s after the last fault:\n{}", PATIENCE_MS / 1_000, waits.join("\n"))
    }
}
