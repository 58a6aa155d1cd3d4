//! The leader's log and the leader's end. Records are durable a while after they were applied; those that were not are
//! lost with the leader, and the next one starts from what is left.

use std::collections::BTreeMap;

use tidemill_core::record::{Pack, Record, State};
use tidemill_core::schedule::{Event, Step};
use tidemill_core::{Attempt, Epoch, ExecutorId, RunId};

use crate::executor::{Life, Link};
use crate::happening::{Happening, Message};
use crate::invariants::ensure;
use crate::world::{Check, World};

/// How long records wait for others.
const FLUSH_MS: u64 = 200;
const HOUR_MS: u64 = 3_600_000;

/// What the leader wrote.
#[derive(Debug, Default)]
pub(crate) struct Log {
    records: Vec<Record>,
    /// How many of them are durable.
    durable: usize,
    /// Completions that are acknowledged when this many records are durable.
    unheard: Vec<(usize, ExecutorId, Attempt)>,
    /// Outputs that are released then: the next leader would have to make them again.
    releases: Vec<(ExecutorId, RunId)>,
    discards: Vec<Pack>,
    flushing: bool,
    pub(crate) epoch: u64,
    /// Whether nobody leads.
    pub(crate) is_down: bool,
    /// What the leader's clock is ahead of the world's.
    ahead: u64,
    /// What runs with effects published.
    published: BTreeMap<RunId, Vec<Attempt>>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { epoch: 1, ahead: 2 * HOUR_MS, ..Self::default() }
    }
}

impl World {
    /// Writes what a step decided: at once if something must not be lost, otherwise soon.
    pub(crate) fn append(&mut self, step: &Step) {
        self.log.records.extend(step.records.iter().cloned());
        if step.records.iter().any(|record| self.state.is_urgent(record)) {
            self.flush();
        } else if !self.log.flushing && self.log.durable < self.log.records.len() {
            self.log.flushing = true;
            self.after(FLUSH_MS, Happening::Flush { epoch: self.log.epoch });
        }
    }

    pub(crate) fn flush(&mut self) {
        self.log.flushing = false;
        self.log.durable = self.log.records.len();
        for (_, executor, attempt) in std::mem::take(&mut self.log.unheard) {
            self.tell_executor(&executor, &Message::Acknowledge(attempt));
        }
        for pack in std::mem::take(&mut self.log.discards) {
            self.packs.retain(|_, name| *name != pack.name);
        }
        for (executor, run) in std::mem::take(&mut self.log.releases) {
            self.tell_executor(&executor, &Message::Release(run));
        }
    }

    pub(crate) fn discard(&mut self, pack: Pack) {
        self.log.discards.push(pack);
        if self.log.durable == self.log.records.len() {
            self.flush();
        }
    }

    pub(crate) fn release(&mut self, executor: ExecutorId, run: RunId) {
        self.log.releases.push((executor, run));
        if self.log.durable == self.log.records.len() {
            self.flush();
        }
    }

    /// What the leader takes for the time. Each has a clock of its own.
    pub(crate) const fn clock(&self) -> u64 {
        self.now + self.log.ahead
    }

    /// An executor may forget a completion when it cannot be lost any more.
    pub(crate) fn acknowledge(&mut self, executor: ExecutorId, attempt: Attempt) {
        self.log.unheard.push((self.log.records.len(), executor, attempt));
        if self.log.durable == self.log.records.len() {
            self.flush();
        }
    }

    /// The leader's process ends, with all it had not written.
    pub(crate) fn leader_crashes(&mut self) {
        if std::mem::replace(&mut self.log.is_down, true) {
            return;
        }
        self.trace(|| "-- the leader crashes".to_owned());
        self.ledger.counts.leader_crashes += 1;
        self.ledger.counts.lost_records += (self.log.records.len() - self.log.durable) as u64;
        let rng = &mut self.rng;
        self.queue.retain(|_, happening| match happening {
            Happening::ToCoordinator { stream: None, event } => {
                matches!(event, Event::Submitted { .. } | Event::Cancelled { .. })
            }
            Happening::ToCoordinator { .. } | Happening::StreamClosed { .. } | Happening::ReadResult(_) => false,
            Happening::Publish(_) => false,
            Happening::ToExecutor { .. } => rng.chance(500),
            _ => true,
        });
        self.deliveries.clear();
        self.streams.clear();
        self.closed.clear();
        for executor in self.executors.values_mut() {
            executor.link = Link::Broken;
        }
        let delay = *self.rng.pick(&[100, 1_000, 5_000, 20_000]).unwrap();
        self.after(delay, Happening::LeaderStarts);
    }

    /// The next leader: replays what is durable, then hears executors and clients.
    pub(crate) fn leader_starts(&mut self) -> Check {
        self.log.is_down = false;
        self.log.flushing = false;
        self.log.unheard.clear();
        self.log.releases.clear();
        self.log.discards.clear();
        self.log.records.truncate(self.log.durable);
        self.log.epoch += 1;
        self.log.ahead = *self.rng.pick(&[2 * HOUR_MS, HOUR_MS, 3 * HOUR_MS]).unwrap();
        self.state = State::default();
        for record in &self.log.records {
            self.state.apply(record);
        }
        self.ledger.rewind(&self.log.records);
        let living: Vec<ExecutorId> =
            self.executors.iter().filter(|(_, e)| e.life == Life::Running).map(|(id, _)| id.clone()).collect();
        for executor in living {
            let delay = self.rng.between(1, 1_500);
            self.after(delay, Happening::Connect(executor));
        }
        self.submit_again();
        let build = self.rng.pick(&["1", "1", "1", "2"]).unwrap().to_string();
        self.step(Event::Elected { epoch: Epoch(self.log.epoch), build })
    }

    /// Clients whose runs were lost with the leader submit them again.
    fn submit_again(&mut self) {
        let submitted = |run: &RunId| {
            self.queue.values().any(|happening| match happening {
                Happening::Submit(other) => other == run,
                Happening::ToCoordinator { event: Event::Submitted { run: other, .. }, .. } => other == run,
                _ => false,
            })
        };
        let lost = self.plans.keys().filter(|run| !self.state.runs.contains_key(*run) && !self.ledger.has_ended(run));
        let lost: Vec<RunId> = lost.filter(|run| !submitted(run)).cloned().collect();
        for run in lost {
            self.ledger.counts.resubmitted += 1;
            let delay = self.delay();
            self.after(delay, Happening::Submit(run));
        }
    }

    /// Publishes what a run wrote, perhaps once more.
    pub(crate) fn publish(&mut self, run: &RunId) -> Check {
        let Some(intent) = self.state.runs.get(run).and_then(|r| r.intent.clone()) else { return Ok(()) };
        let published = self.log.published.entry(run.clone()).or_insert_with(|| intent.winners.clone());
        ensure!(*published == intent.winners, "run {run} published {published:?} and then {:?}", intent.winners);
        self.ledger.counts.published += 1;
        self.tell_coordinator(None, &Event::ResultDelivered { run: run.clone(), rows: intent.rows, kept: None });
        Ok(())
    }

    /// A run with effects has published exactly when it succeeded.
    pub(crate) fn check_published(&self) -> Check {
        for (run, plan) in &self.plans {
            let published = self.log.published.contains_key(run);
            let expected = plan.has_effects() && self.ledger.has_succeeded(run);
            ensure!(published == expected, "run {run} has published: {published}, it should be {expected}");
        }
        Ok(())
    }
}
