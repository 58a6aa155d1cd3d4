//! What waits until the log has it.
//!
//! Invariant: actions are carried out in the order of the steps that asked for them; those of a step that must be durable,
//! and all behind it, wait for the log. An executor is told that its completion is known, and that a run's outputs are not
//! needed any more, when that cannot be lost: the next leader would have to make them again.

use std::collections::VecDeque;

use tidemill_core::ExecutorId;
use tidemill_core::record::{Record, State};
use tidemill_core::schedule::Action;
use tidemill_engine::blob::Blob;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::actions::Effect;
use super::{Reply, answer};
use crate::executors::Acknowledgement;
use crate::log::{Appender, Entry, Lease, Log, News};

/// Entries that may wait for the store before the driver takes nothing more to decide.
const MOST_WAITING: usize = 4 << 10;
/// Bytes of theirs.
const MOST_WAITING_BYTES: usize = 32 << 20;

/// The driver's side of the log. Without one everything is done at once.
#[derive(Debug, Default)]
pub(super) struct Journal {
    log: Option<(Appender, Lease)>,
    /// The last entry that was handed over, and the last that is durable.
    position: u64,
    durable: u64,
    /// Blobs that the next entry's records name.
    blobs: Vec<Blob>,
    effects: VecDeque<(u64, Vec<Effect>)>,
    /// Releases of outputs and packs, which no other action waits for.
    releases: VecDeque<(u64, Effect)>,
    acknowledgements: VecDeque<(u64, ExecutorId, Acknowledgement)>,
    /// Copies of the state for those who must not be told what may be forgotten.
    states: VecDeque<(u64, State, Reply<State>)>,
    /// Entries that are not durable, and their sizes.
    waiting: VecDeque<(u64, usize)>,
    waiting_bytes: usize,
}

/// What can be done now.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) effects: Vec<Effect>,
    pub(super) acknowledgements: Vec<(ExecutorId, Acknowledgement)>,
}

impl Journal {
    pub(super) fn of(log: Log, news: mpsc::Sender<News>) -> Self {
        let lease = log.lease(news.clone());
        Self { log: Some((Appender::start(log, news), lease)), ..Self::default() }
    }

    /// Whether the store is so far behind that nothing more may be decided until it has caught up.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MOST_WAITING || self.waiting_bytes >= MOST_WAITING_BYTES
    }

    /// Blobs that must be durable with the records that come next.
    pub(super) fn keep(&mut self, blobs: impl IntoIterator<Item = Blob>) {
        if self.log.is_some() {
            self.blobs.extend(blobs);
        }
    }

    /// Takes what a step decided; gives back what may be done already.
    pub(super) fn append(&mut self, records: Vec<Record>, urgent: bool, mut effects: Vec<Effect>) -> Vec<Effect> {
        let Some((appender, _)) = &self.log else { return effects };
        if !records.is_empty() || !self.blobs.is_empty() {
            self.position += 1;
            let blobs = std::mem::take(&mut self.blobs);
            let entry = Entry { position: self.position, records, blobs, urgent, since: Instant::now() };
            self.waiting.push_back((self.position, entry.bytes()));
            self.waiting_bytes += entry.bytes();
            appender.append(entry);
        }
        if self.position > self.durable {
            let is_release =
                |effect: &mut Effect| matches!(effect, Effect::Act(Action::Release { .. } | Action::Discard { .. }));
            let releases = effects.extract_if(.., is_release);
            self.releases.extend(releases.map(|release| (self.position, release)));
        }
        let waits_for = if urgent { self.position } else { 0 };
        if waits_for <= self.durable && self.effects.is_empty() {
            return effects;
        }
        self.effects.push_back((waits_for, effects));
        Vec::new()
    }

    /// Whether something was decided that nobody has been told of yet.
    pub(super) fn holds_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// Takes an acknowledgement that depends on what was appended so far; gives it back if that is durable.
    pub(super) fn acknowledge(
        &mut self,
        executor: ExecutorId,
        what: Acknowledgement,
    ) -> Option<(ExecutorId, Acknowledgement)> {
        if self.position <= self.durable {
            return Some((executor, what));
        }
        self.acknowledgements.push_back((self.position, executor, what));
        None
    }

    /// Replies with a state, which is that after all that was appended so far, when the log has all of it.
    pub(super) fn reply_when_durable(&mut self, state: State, reply: Reply<State>) {
        self.states.push_back((self.position, state, reply));
        self.reply(self.durable);
    }

    fn reply(&mut self, position: u64) {
        while let Some((_, state, reply)) = self.states.pop_front_if(|(waits_for, ..)| *waits_for <= position) {
            answer(reply, state);
        }
    }

    /// The log has everything up to `position`.
    pub(super) fn durable(&mut self, position: u64) -> Due {
        self.durable = position;
        self.reply(position);
        while let Some((_, bytes)) = self.waiting.pop_front_if(|(p, _)| *p <= position) {
            self.waiting_bytes -= bytes;
        }
        let mut due = Due::default();
        while let Some((_, effects)) = self.effects.pop_front_if(|(waits_for, _)| *waits_for <= position) {
            due.effects.extend(effects);
        }
        while let Some((_, release)) = self.releases.pop_front_if(|(waits_for, _)| *waits_for <= position) {
            due.effects.push(release);
        }
        while let Some((_, executor, what)) = self.acknowledgements.pop_front_if(|(p, _, _)| *p <= position) {
            due.acknowledgements.push((executor, what));
        }
        due
    }
}
