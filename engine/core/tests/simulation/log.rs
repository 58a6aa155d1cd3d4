//! The leader's log: what waits for it, and how a batch gets into the store. Records are durable a while after they were
//! applied, and what must not go ahead of them waits.

use std::collections::VecDeque;

use tidemill_core::record::Record;
use tidemill_core::schedule::{Action, Launch};
use tidemill_core::{Attempt, ExecutorId};

use crate::happening::{Happening, Message, Place};
use crate::invariants::ensure;
use crate::points::Side;
use crate::store::Store;
use crate::world::{Check, World};

/// How long records wait for others.
const FLUSH_MS: u64 = 200;
/// How long a leader waits for a reply before it looks what became of its batch.
const REPLY_MS: u64 = 2_000;
/// Batches between two snapshots.
const SNAPSHOT_EVERY: u64 = 8;

/// What the shell does when the log allows it. A launch names its inputs as they were when it was decided.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    Launch(Launch, Vec<Place>),
    Other(Action),
}

/// What the leader has decided, and how far the log is.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Decided so far, and durable of that.
    position: u64,
    durable: u64,
    /// Not yet on its way.
    waiting: Vec<Record>,
    urgent: bool,
    flushing: bool,
    /// The batch on its way, and where the log is with it.
    writing: Option<Batch>,
    effects: VecDeque<(u64, Vec<Effect>)>,
    releases: VecDeque<(u64, Effect)>,
    /// Completions that are acknowledged when the log is there.
    unheard: VecDeque<(u64, ExecutorId, Attempt)>,
    next: u64,
    writers: u64,
    last_snapshot: Option<(u64, u64)>,
    last_whole: bool,
    pub(crate) store: Store,
    pub(crate) epoch: u64,
    /// Whether nobody leads.
    pub(crate) is_down: bool,
}

/// A batch on its way into the store.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) at: (u64, u64),
    pub(crate) writer: u64,
    pub(crate) records: Vec<Record>,
    position: u64,
}

impl Batch {
    fn points(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.records.iter().map(Record::point).chain(["log.append"])
    }
}

impl Log {
    /// Before anybody led.
    pub(crate) fn new() -> Self {
        Self { is_down: true, ..Self::default() }
    }

    /// How many records a death of the leader now would lose.
    pub(crate) fn at_risk(&self) -> u64 {
        (self.waiting.len() + self.writing.as_ref().map_or(0, |batch| batch.records.len())) as u64
    }

    /// A new leader's log, in an epoch of its own.
    pub(crate) fn begin(&mut self, epoch: u64, replayed_from: Option<(u64, u64)>) {
        *self = Self {
            store: std::mem::take(&mut self.store),
            writers: self.writers,
            epoch,
            last_snapshot: replayed_from,
            last_whole: true,
            is_down: self.is_down,
            ..Self::default()
        };
    }

    /// Whether something decided has not been done yet, because the log is late.
    pub(crate) fn holds_effects(&self) -> bool {
        !self.effects.is_empty()
    }
}

impl World {
    /// Takes what a step decided, and gives back what may be done now: all but what must not go ahead of its records,
    /// what comes behind that, and releases, which the next leader would have to undo.
    pub(crate) fn append(&mut self, records: Vec<Record>, urgent: bool, mut effects: Vec<Effect>) -> Vec<Effect> {
        let log = &mut self.log;
        if !records.is_empty() {
            log.position += 1;
            log.waiting.extend(records);
            log.urgent |= urgent;
        }
        if log.position > log.durable {
            let is_release =
                |effect: &Effect| matches!(effect, Effect::Other(Action::Release { .. } | Action::Discard { .. }));
            let (later, now): (Vec<_>, Vec<_>) = effects.into_iter().partition(is_release);
            effects = now;
            log.releases.extend(later.into_iter().map(|release| (log.position, release)));
        }
        let waits_for = if urgent { log.position } else { 0 };
        let may_go = waits_for <= log.durable && log.effects.is_empty();
        let due = if may_go {
            effects
        } else {
            log.effects.push_back((waits_for, effects));
            Vec::new()
        };
        if log.waiting.is_empty() || log.writing.is_some() {
            return due;
        }
        if log.urgent {
            self.after(0, Happening::Flush { epoch: self.log.epoch });
        } else if !std::mem::replace(&mut self.log.flushing, true) {
            self.after(FLUSH_MS, Happening::Flush { epoch: self.log.epoch });
        }
        due
    }

    /// Sends what waits, unless a batch is on its way.
    pub(crate) fn flush(&mut self) {
        self.log.flushing = false;
        if self.log.waiting.is_empty() || self.log.writing.is_some() {
            return;
        }
        self.log.urgent = false;
        self.log.writers += 1;
        let batch = Batch {
            at: (self.log.epoch, self.log.next),
            writer: self.log.writers,
            records: std::mem::take(&mut self.log.waiting),
            position: self.log.position,
        };
        self.log.writing = Some(batch.clone());
        let points: Vec<_> = batch.points().collect();
        if points.into_iter().any(|point| self.leader_dies_at(point, Side::Before)) {
            return;
        }
        self.put(batch);
    }

    fn put(&mut self, batch: Batch) {
        let troubled = self.now < self.weather.calm_at;
        let late = troubled && self.rng.chance(self.weather.late_store);
        let lies = troubled && self.rng.chance(self.weather.lying_store);
        // A conflict, or no answer, where nothing landed.
        let lands = !lies || self.rng.chance(500);
        let delay = if late { self.rng.between(500, 15_000) } else { self.rng.between(0, 20) };
        self.ledger.counts.late_writes += u64::from(late);
        self.ledger.counts.lying_writes += u64::from(lies);
        self.after(delay, Happening::Put { batch, lands, lies });
    }

    /// A batch reaches the store, whether its leader lives or not.
    pub(crate) fn put_arrives(&mut self, batch: Batch, lands: bool, lies: bool) -> Check {
        let at = batch.at;
        let created = lands && self.log.store.create(at, batch.writer, &batch.records);
        let is_ours = self.log.store.writer(at) == Some(batch.writer);
        let awaited = self.log.writing.as_ref().is_some_and(|writing| writing.writer == batch.writer);
        if self.log.is_down || !awaited {
            self.ledger.counts.orphaned_writes += u64::from(created);
            self.ledger.counts.fenced_writes += u64::from(lands && !is_ours);
            return Ok(());
        }
        ensure!(!lands || is_ours, "batch {at:?} of the leader is somebody else's");
        if lies {
            // It looks what is there, and writes again if that is nothing.
            self.after(REPLY_MS, Happening::LookedBack { writer: batch.writer });
            return Ok(());
        }
        self.landed(batch)
    }

    /// The leader reads a batch back of which it does not know what became.
    pub(crate) fn looked_back(&mut self, writer: u64) -> Check {
        let Some(batch) = self.log.writing.clone().filter(|batch| batch.writer == writer) else { return Ok(()) };
        match self.log.store.writer(batch.at) {
            Some(found) => {
                ensure!(found == writer, "batch {:?} of the leader is somebody else's", batch.at);
                self.landed(batch)
            }
            None => {
                self.put(batch);
                Ok(())
            }
        }
    }

    fn landed(&mut self, batch: Batch) -> Check {
        let points: Vec<_> = batch.points().collect();
        if points.into_iter().any(|point| self.leader_dies_at(point, Side::After)) {
            return Ok(());
        }
        self.log.writing = None;
        self.log.next += 1;
        self.log.durable = batch.position;
        if self.log.next.is_multiple_of(SNAPSHOT_EVERY) {
            self.write_snapshot()?;
        }
        self.due()?;
        if !self.log.is_down && !self.log.waiting.is_empty() {
            let delay = if self.log.urgent { 0 } else { FLUSH_MS };
            self.after(delay, Happening::Flush { epoch: self.log.epoch });
        }
        Ok(())
    }

    /// Does what waited for the log.
    fn due(&mut self) -> Check {
        let durable = self.log.durable;
        let mut due = Vec::new();
        while let Some((_, effects)) = self.log.effects.pop_front_if(|(waits_for, _)| *waits_for <= durable) {
            due.extend(effects);
        }
        while let Some((_, release)) = self.log.releases.pop_front_if(|(waits_for, _)| *waits_for <= durable) {
            let lives_again = |release: &Effect| matches!(release, Effect::Other(Action::Release { run, .. }) if self.state.live.contains(run));
            // Its client submitted it again meanwhile: it is released when it ends.
            if !lives_again(&release) {
                due.push(release);
            }
        }
        for effect in due {
            self.carry_out(effect)?;
        }
        while !self.log.is_down
            && let Some((_, executor, attempt)) = self.log.unheard.pop_front_if(|(waits_for, ..)| *waits_for <= durable)
        {
            self.tell_executor(&executor, &Message::Acknowledge(attempt));
        }
        Ok(())
    }

    /// An executor may forget a completion when it cannot be lost any more.
    pub(crate) fn acknowledge(&mut self, executor: ExecutorId, attempt: Attempt) {
        if self.log.position <= self.log.durable {
            return self.tell_executor(&executor, &Message::Acknowledge(attempt));
        }
        self.log.unheard.push_back((self.log.position, executor, attempt));
    }

    /// Writes what a replay up to here gives, and deletes what no replay reads any more. Never two damaged ones in a row.
    pub(crate) fn write_snapshot(&mut self) -> Check {
        if self.leader_dies_at("snapshot.write", Side::Before) {
            return Ok(());
        }
        let (state, _) = self.log.store.replay(&mut 0)?;
        let at = (self.log.epoch, self.log.next);
        let whole = !self.log.last_whole || !self.rng.chance(200);
        self.log.last_whole = whole;
        self.log.store.snapshot(at, &state, whole)?;
        if self.leader_dies_at("snapshot.write", Side::After) {
            return Ok(());
        }
        let Some(before) = self.log.last_snapshot.replace(at) else { return Ok(()) };
        if self.leader_dies_at("log.collect", Side::Before) {
            return Ok(());
        }
        self.log.store.collect(self.log.epoch, before);
        self.leader_dies_at("log.collect", Side::After);
        Ok(())
    }
}
