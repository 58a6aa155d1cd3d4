//! Model executors: they run attempts, hold outputs, and say again what was not acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_core::graph::Determinism;
use tidemill_core::record::{Capacity, Footer, Pack, TaskMetrics};
use tidemill_core::schedule::{Event, Launch, Lost, LostOutput, Reported};
use tidemill_core::{Attempt, Error, ExecutorId, RunId};

use crate::content::Named;
use crate::happening::{Happening, Message, Place};
use crate::points::Side;
use crate::world::World;

/// How often an executor says that it lives.
const BEAT_MS: u64 = 2_000;

/// One executor process.
#[derive(Debug)]
pub(crate) struct ModelExecutor {
    pub(crate) slots: u32,
    /// Counts the streams it opened.
    pub(crate) stream: u64,
    /// When the coordinator hears of the newest: nothing on a stream overtakes its beginning.
    pub(crate) heard_at: u64,
    pub(crate) life: Life,
    pub(crate) link: Link,
    running: BTreeMap<Attempt, Work>,
    outputs: BTreeMap<Attempt, RunId>,
    /// What it finished without having heard that the coordinator knows.
    unacknowledged: BTreeMap<Attempt, (Launch, Event)>,
    /// Attempts it was ever told to run or to stop: a launch of them is a doubled or a late one.
    seen: BTreeSet<Attempt>,
}

/// What an executor's process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    /// It does nothing until then.
    Frozen {
        until: u64,
    },
    Dead,
}

/// An executor's side of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Open,
    Broken,
}

/// An attempt in progress.
#[derive(Debug)]
struct Work {
    launch: Launch,
    /// Inputs still to read.
    unread: Vec<Place>,
    read: Vec<Named>,
    lost: Vec<Place>,
}

/// What a reader meets.
pub(crate) enum Reading {
    Done,
    Gone,
    /// The holder does not answer.
    Silence,
}

impl ModelExecutor {
    fn new(slots: u32) -> Self {
        Self {
            slots,
            stream: 0,
            heard_at: 0,
            life: Life::Running,
            link: Link::Broken,
            running: BTreeMap::new(),
            outputs: BTreeMap::new(),
            unacknowledged: BTreeMap::new(),
            seen: BTreeSet::new(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.life != Life::Dead
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.life == Life::Running && self.link == Link::Open
    }

    /// The process ends, with everything in it.
    pub(crate) fn die(&mut self) {
        self.life = Life::Dead;
        self.running.clear();
        self.outputs.clear();
        self.unacknowledged.clear();
    }

    pub(crate) fn read(&self, attempt: Attempt) -> Reading {
        match self.life {
            Life::Running if self.outputs.contains_key(&attempt) => Reading::Done,
            Life::Running | Life::Dead => Reading::Gone,
            Life::Frozen { .. } => Reading::Silence,
        }
    }
}

impl World {
    pub(crate) fn join(&mut self, slots: u32) {
        let id = ExecutorId(format!("executor-{}", self.executors.len() + 1));
        self.executors.insert(id.clone(), ModelExecutor::new(slots));
        self.after(0, Happening::Beat(id.clone()));
        self.after(0, Happening::Connect(id));
    }

    /// Opens a stream: registers, then says again what was not acknowledged.
    pub(crate) fn connect(&mut self, id: &ExecutorId) {
        let executor = self.executors.get_mut(id).unwrap();
        if let Life::Frozen { until } = executor.life
            && until <= self.now
        {
            executor.life = Life::Running;
        }
        if executor.life != Life::Running || executor.link == Link::Open {
            return;
        }
        if self.log.is_down {
            return self.after(250, Happening::Connect(id.clone()));
        }
        executor.link = Link::Open;
        executor.stream += 1;
        let reported = |launch: &Launch| {
            let Launch { run, task, attempt, slots, .. } = launch.clone();
            Reported { run, task, attempt, slots }
        };
        let event = Event::ExecutorConnected {
            executor: id.clone(),
            endpoint: format!("http://{id}:50051"),
            capacity: Capacity { slots: executor.slots, memory: 1 << 30 },
            running: executor.running.values().map(|work| reported(&work.launch)).collect(),
            holding: executor.unacknowledged.values().map(|(launch, _)| reported(launch)).collect(),
        };
        let stream = Some((id.clone(), executor.stream));
        let again: Vec<Event> = executor.unacknowledged.values().map(|(_, event)| event.clone()).collect();
        let delay = self.delay();
        self.executors.get_mut(id).unwrap().heard_at = self.now + delay;
        self.after(delay, Happening::ToCoordinator { stream: stream.clone(), event });
        for event in again {
            self.tell_coordinator(stream.clone(), &event);
        }
    }

    pub(crate) fn executor_receives(&mut self, id: &ExecutorId, stream: u64, message: Message) {
        let executor = self.executors.get_mut(id).unwrap();
        if executor.life != Life::Running || executor.stream != stream {
            self.ledger.counts.lost_messages += 1;
            return;
        }
        match message {
            Message::Launch { launch, inputs } => self.begin(id, launch, inputs),
            Message::Stop(attempt) => {
                executor.running.remove(&attempt);
                executor.seen.insert(attempt);
            }
            Message::Release(run) => self.release(id, &run),
            Message::Acknowledge(attempt) => {
                executor.unacknowledged.remove(&attempt);
            }
        }
    }

    /// Forgets all of a run, what it is doing for it and what it has to say of it.
    fn release(&mut self, id: &ExecutorId, run: &RunId) {
        if self.executor_dies_at(id, "output.release", Side::Before) {
            return;
        }
        let executor = self.executors.get_mut(id).unwrap();
        executor.running.retain(|_, work| work.launch.run != *run);
        executor.unacknowledged.retain(|_, (launch, _)| launch.run != *run);
        executor.outputs.retain(|_, owner| owner != run);
        self.executor_dies_at(id, "output.release", Side::After);
    }

    /// Says that it lives, and with which attempts.
    pub(crate) fn beat(&mut self, id: &ExecutorId) {
        let executor = &self.executors[id];
        if !executor.is_up() || (self.now > self.weather.calm_at && !self.is_busy()) {
            return;
        }
        if executor.is_connected() {
            let attempts = executor.running.keys().chain(executor.unacknowledged.keys()).copied().collect();
            let (executor, stream) = (id.clone(), executor.stream);
            let delay = self.delay();
            self.after(delay, Happening::Heartbeat { executor, stream, attempts });
        }
        self.after(BEAT_MS, Happening::Beat(id.clone()));
    }

    fn begin(&mut self, id: &ExecutorId, launch: Launch, inputs: Vec<Place>) {
        let attempt = launch.attempt;
        if !self.executors.get_mut(id).unwrap().seen.insert(attempt) {
            return;
        }
        let mut work = Work { launch, unread: Vec::new(), read: Vec::new(), lost: Vec::new() };
        // Some attempts read everything at once, others when they end, the rest a little now and then.
        let late = *self.rng.pick(&[0, 0, 500, 1_000]).unwrap();
        for place in inputs {
            if self.rng.chance(late) {
                work.unread.push(place);
            } else {
                self.read_input(&mut work, place);
            }
        }
        if self.rng.chance(self.weather.forgets) && self.now < self.weather.calm_at {
            self.trace(|| format!("-- {id} forgets {attempt}"));
            self.ledger.counts.forgotten += 1;
            return;
        }
        let slow = self.rng.chance(self.weather.slow) && self.now < self.weather.calm_at;
        let takes = if slow { self.rng.between(500, 20_000) } else { self.rng.between(1, 300) };
        self.executors.get_mut(id).unwrap().running.insert(attempt, work);
        self.after(takes, Happening::AttemptEnds { executor: id.clone(), attempt });
    }

    fn read_input(&mut self, work: &mut Work, place: Place) {
        match self.read(&place) {
            Reading::Done => work.read.push(place.named),
            Reading::Gone => work.lost.push(place),
            Reading::Silence if self.rng.chance(300) => work.lost.push(place),
            Reading::Silence => work.unread.push(place),
        }
    }

    /// Reads an output from its holder, or from its pack if the reader knows of it.
    pub(crate) fn read(&mut self, place: &Place) -> Reading {
        match self.executors[&place.holder].read(place.named.1) {
            Reading::Gone | Reading::Silence if place.durable && self.packs.contains_key(&place.named.1) => {
                self.ledger.counts.read_from_packs += 1;
                Reading::Done
            }
            reading => reading,
        }
    }

    /// An executor has put an output into the store, and says so as soon as somebody hears it.
    pub(crate) fn pack_written(&mut self, id: &ExecutorId, run: RunId, output: LostOutput) {
        let executor = &self.executors[id];
        if executor.life != Life::Running || !executor.outputs.contains_key(&output.attempt) {
            return; // Released, or gone with its process.
        }
        if !executor.is_connected() {
            return self.after(700, Happening::PackWritten { executor: id.clone(), run, output });
        }
        let stream = Some((id.clone(), executor.stream));
        if self.executor_dies_at(id, "pack.finish", Side::Before) {
            return;
        }
        let name = format!("{id}-{}", output.attempt);
        self.packs.insert(output.attempt, name.clone());
        let points = [("pack.finish", Side::After), ("pack.report", Side::Before)];
        if points.into_iter().any(|(point, side)| self.executor_dies_at(id, point, side)) {
            return;
        }
        let pack = Pack { name, crc: 1, bytes: 8, puts: 1 };
        self.tell_coordinator(stream, &Event::PackDurable { run, pack, outputs: vec![output] });
        self.executor_dies_at(id, "pack.report", Side::After);
    }

    pub(crate) fn attempt_ends(&mut self, id: &ExecutorId, attempt: Attempt) {
        let again = Happening::AttemptEnds { executor: id.clone(), attempt };
        let executor = self.executors.get_mut(id).unwrap();
        if let Life::Frozen { until } = executor.life {
            if until != u64::MAX {
                self.after(until - self.now + 1, again);
            }
            return;
        }
        let Some(mut work) = executor.running.remove(&attempt) else { return };
        for place in std::mem::take(&mut work.unread) {
            self.read_input(&mut work, place);
        }
        if work.lost.is_empty() && !work.unread.is_empty() {
            self.executors.get_mut(id).unwrap().running.insert(attempt, work);
            self.after(1_000, again);
            return;
        }
        let launch = work.launch.clone();
        let plan = &self.plans[&launch.run];
        let writes_files = plan.has_effects() && plan.graph().is_some_and(|g| g.root() == launch.task.stage);
        let sides = [("sink.write", Side::Before), ("sink.write", Side::After)];
        if writes_files && sides.into_iter().any(|(point, side)| self.executor_dies_at(id, point, side)) {
            return;
        }
        let Some(event) = self.outcome(id, work) else { return };
        let executor = self.executors.get_mut(id).unwrap();
        executor.unacknowledged.insert(attempt, (launch, event.clone()));
        if executor.is_connected() {
            let stream = Some((id.clone(), executor.stream));
            if !self.executor_dies_at(id, "task.report", Side::Before) {
                self.tell_coordinator(stream, &event);
                self.executor_dies_at(id, "task.report", Side::After);
            }
        }
    }

    /// How an attempt ends that nobody stopped, unless its executor dies when it keeps the output.
    fn outcome(&mut self, id: &ExecutorId, work: Work) -> Option<Event> {
        let Launch { run, task, attempt, .. } = work.launch;
        // Those of which it knows a pack are not lost before it has looked there.
        let looked_in_packs = work.lost.iter().all(|place| place.durable);
        let told = work.lost.iter().filter(|place| place.durable == looked_in_packs);
        let lost = Lost { outputs: told.map(|place| lost_output(place.named)).collect(), looked_in_packs };
        let error = if let Some(first) = lost.outputs.first() {
            Some(Error::lost_input(format!("task {task} could not read task {}", first.task)))
        } else if self.rng.chance(self.weather.unavailable) && self.now < self.weather.calm_at {
            Some(Error::unavailable(format!("the store was busy for task {task}")))
        } else if self.rng.chance(self.weather.invalid) {
            Some(Error::invalid(format!("task {task} divided by zero")))
        } else {
            None
        };
        if let Some(error) = error {
            return Some(Event::TaskFailed { run, task, attempt, error, lost });
        }
        let Some(graph) = self.plans[&run].graph() else { unreachable!("run {run} has no stages") };
        let planned: Determinism = graph.stages[task.stage.index()].determinism;
        let differs = self.rng.chance(self.weather.differs);
        let determinism = if differs { Determinism::RowIndeterminate } else { planned };
        let checksum = self.contents.write(&run, task, attempt, determinism, work.read);
        if self.executor_dies_at(id, "output.insert", Side::Before) {
            return None;
        }
        self.executors.get_mut(id).unwrap().outputs.insert(attempt, run.clone());
        if self.executor_dies_at(id, "output.insert", Side::After) {
            return None;
        }
        if self.rng.chance(self.weather.durable) {
            let delay = self.rng.between(50, 2_000);
            let (executor, output) = (id.clone(), LostOutput { task, attempt });
            self.after(delay, Happening::PackWritten { executor, run: run.clone(), output });
        }
        let footer = Footer { crc: 1, rows: 1, bytes: 8, checksum: Some(checksum) };
        let metrics = TaskMetrics { rows_out: 1, ..Default::default() };
        Some(Event::TaskSucceeded { run, task, attempt, footer, metrics, operators: Vec::new(), rows: None })
    }
}

pub(crate) const fn lost_output((task, attempt): Named) -> LostOutput {
    LostOutput { task, attempt }
}
