//! Virtual time: what happens when, and the coordinator's shell around the scheduler.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_core::record::{ExecutorState, RunSpec, State};
use tidemill_core::schedule::{Event, Watch, step, waiting_for};
use tidemill_core::{Attempt, Error, ExecutorId, Millis, RunId, Settings, TaskId};

use crate::content::Contents;
use crate::executor::ModelExecutor;
use crate::graphs;
use crate::happening::{Happening, Message, Plan};
use crate::jobs::Datasets;
use crate::leader::HOUR_MS;
use crate::ledger::Ledger;
use crate::log::Log;
use crate::points::{Deaths, Points};
use crate::results::Delivery;
use crate::rng::Rng;
use crate::weather::{Counts, Weather, settings};

/// What a broken invariant says.
pub(crate) type Check = Result<(), String>;

/// After faults end, runs must end within this virtual time.
const PATIENCE_MS: u64 = 300_000;

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
    pub(crate) closed: BTreeMap<ExecutorId, u64>,
    pub(crate) log: Log,
    /// What the leader's clock is ahead of the world's.
    pub(crate) ahead: u64,
    pub(crate) points: Points,
    /// What runs with effects published.
    pub(crate) published: BTreeMap<RunId, Vec<Attempt>>,
    /// What the coordinator hears of attempts on each stream.
    pub(crate) watches: BTreeMap<(ExecutorId, u64), Watch>,
    pub(crate) contents: Contents,
    /// Outputs in the store, and the packs they are in.
    pub(crate) packs: BTreeMap<Attempt, String>,
    pub(crate) deliveries: BTreeMap<RunId, Delivery>,
    /// Runs whose clients read nothing before all others have ended.
    pub(crate) reluctant: BTreeSet<RunId>,
    /// Runs that jobs submitted.
    pub(crate) runs_of_jobs: BTreeSet<RunId>,
    pub(crate) datasets: Datasets,
    trace: Trace,
}

/// Whether a seed prints what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    Silent,
    Printed,
}

/// Runs one seed to its end.
pub(crate) fn run_seed(seed: u64, trace: Trace) -> Result<(Counts, Deaths), String> {
    let mut world = World::new(seed, trace);
    world.after(0, Happening::LeaderStarts);
    while let Some(((at, _), happening)) = world.queue.pop_first() {
        world.now = at;
        world.happen(happening)?;
        if at > world.weather.calm_at + PATIENCE_MS {
            return Err(world.stuck());
        }
    }
    world.check_published()?;
    world.check_jobs()?;
    // One whose acceptance was lost may never have been there.
    let of_clients = world.plans.iter().filter(|(run, _)| !world.runs_of_jobs.contains(*run));
    let of_clients = of_clients.map(|(run, plan)| (run.clone(), plan.clone())).collect();
    world.ledger.check_end(&world.state, &of_clients, &world.weather)?;
    Ok((world.ledger.counts, world.points.deaths))
}

impl World {
    fn new(seed: u64, trace: Trace) -> Self {
        let mut rng = Rng::new(seed);
        let weather = Weather::draw(&mut rng);
        let settings = settings(&mut rng);
        let points = if weather.is_calm() { Points::default() } else { Points::draw(&mut rng) };
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
            log: Log::new(),
            ahead: 2 * HOUR_MS,
            points,
            published: BTreeMap::new(),
            watches: BTreeMap::new(),
            contents: Contents::default(),
            packs: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            reluctant: BTreeSet::new(),
            runs_of_jobs: BTreeSet::new(),
            datasets: Datasets::default(),
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
            } else if self.rng.chance(100) {
                Plan::Change
            } else if self.rng.chance(300) {
                Plan::Sink(graphs::random(&mut self.rng))
            } else {
                Plan::Stages(Ok(graphs::random(&mut self.rng)))
            };
            let may_wait = matches!(plan, Plan::Stages(Ok(_))) && self.reluctant.len() < self.settings.unread_runs;
            if may_wait && self.rng.chance(200) {
                self.reluctant.insert(run.clone());
            }
            self.plans.insert(run, plan);
        }
        if self.rng.chance(300) {
            self.set_up_jobs();
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
                let (express, may_change) = (self.rng.chance(5), self.plans[&run].may_change());
                let spec = RunSpec {
                    statement: format!("select {run}"),
                    request: None,
                    express,
                    may_change,
                    by: None,
                    job: None,
                };
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
            Happening::Flush { epoch } => {
                if epoch == self.log.epoch && !self.log.is_down {
                    self.flush();
                }
            }
            Happening::Put { batch, lands, lies } => self.put_arrives(batch, lands, lies)?,
            Happening::LookedBack { writer } if !self.log.is_down => self.looked_back(writer)?,
            Happening::LookedBack { .. } => {}
            Happening::Renew { epoch } => self.renew(epoch),
            Happening::Beat(executor) => self.beat(&executor),
            Happening::Heartbeat { executor, stream, attempts } => self.heartbeat(executor, stream, &attempts)?,
            Happening::PackWritten { executor, run, output } => self.pack_written(&executor, run, output),
            Happening::LeaderStarts => self.leader_starts()?,
            Happening::Publish(run) => self.publish(&run)?,
            Happening::Calm => self.calm(),
            Happening::Tick => {
                if !self.log.is_down {
                    self.step(Event::Tick)?;
                }
                if !self.log.is_down {
                    self.step(Event::JobsTick)?;
                }
                if self.now < self.weather.calm_at || self.is_busy() {
                    self.after(1_000, Happening::Tick);
                }
            }
        }
        Ok(())
    }

    /// Sends a message to the coordinator, perhaps twice.
    pub(crate) fn tell_coordinator(&mut self, stream: Option<(ExecutorId, u64)>, event: &Event) {
        for _ in 0..self.copies() {
            let heard_at = stream.as_ref().map_or(0, |(executor, _)| self.executors[executor].heard_at);
            let delay = self.delay().max(heard_at.saturating_sub(self.now));
            self.after(delay, Happening::ToCoordinator { stream: stream.clone(), event: event.clone() });
        }
    }

    fn copies(&mut self) -> u64 {
        let doubled = u64::from(self.rng.chance(self.weather.doubled));
        self.ledger.counts.duplicates += doubled;
        1 + doubled
    }

    /// Sends a message to an executor; it is lost where the stream is broken, noticed or not.
    pub(crate) fn tell_executor(&mut self, executor: &ExecutorId, message: &Message) {
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
        if self.log.is_down {
            // Clients try again; executors will.
            if stream.is_none() {
                self.after(500, Happening::ToCoordinator { stream, event });
            }
            return Ok(());
        }
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
        if let Event::Submitted { run, .. } = &event
            && self.state.runs.get(run).is_some_and(|known| known.state.is_terminal())
            && self.ledger.is_unheard(run)
            && (self.log.store.ended.contains(run) || !self.plans[run].may_change())
        {
            return self.announce(&run.clone());
        }
        let done = match &event {
            Event::TaskSucceeded { attempt, .. } | Event::TaskFailed { attempt, .. } => Some(*attempt),
            _ => None,
        };
        self.step(event)?;
        if let (Some(attempt), Some((executor, _))) = (done, stream) {
            self.acknowledge(executor, attempt);
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

    pub(crate) fn step(&mut self, event: Event) -> Check {
        if !matches!(event, Event::Tick | Event::JobsTick) {
            self.trace(|| format!("{event:?}"));
        }
        let now = Millis(self.clock());
        let step = step(&mut self.state, &self.settings, event.clone(), now);
        self.note_runs_of_jobs(&step.records);
        for record in &step.records {
            self.trace(|| format!("    {record:?}"));
        }
        self.ledger.observe(&event, &step, &self.state, self.now)?;
        let effects = step.actions.into_iter().map(|action| self.prepare(action)).collect();
        for effect in self.append(step.records, step.urgent, effects) {
            self.carry_out(effect)?;
        }
        Ok(())
    }

    /// Whether a client waits for its run, a job has something to do, or nobody knows.
    pub(crate) fn is_busy(&self) -> bool {
        let waits = |run: &RunId| !self.runs_of_jobs.contains(run) && !self.ledger.has_ended(run);
        self.log.is_down || self.plans.keys().any(waits) || self.jobs_go_on()
    }

    fn stuck(&self) -> String {
        let mut waits: Vec<String> =
            self.state.jobs.jobs.iter().map(|(name, job)| format!("job {name}: {job:?}")).collect();
        for id in &self.state.live {
            let run = &self.state.runs[id];
            waits.push(format!("run {id} is {}", run.state.name()));
            for (stage, progress) in (0u32..).zip(&run.stages) {
                for (index, task) in (0u32..).zip(&progress.tasks) {
                    let task_id = TaskId { stage: tidemill_core::StageId(stage), index };
                    let reason = waiting_for(&self.state, run, task_id, Millis(self.clock())).unwrap_or_default();
                    waits.push(format!("  task {task_id} is {} {reason}", task.state.name()));
                }
            }
        }
        format!("runs did not end {} s after the last fault:\n{}", PATIENCE_MS / 1_000, waits.join("\n"))
    }
}
