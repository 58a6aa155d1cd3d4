//! The store below the log: objects that are created once. It is late, it loses replies, it says "conflict" where nothing
//! landed, and what a dead leader sent may land long after its death.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_core::record::{Record, State};
use tidemill_core::{Attempt, RunId};

use crate::invariants::ensure;
use crate::world::Check;

/// A batch of the log by epoch and sequence number.
pub(crate) type Place = (u64, u64);

/// An object of the log.
#[derive(Debug, Clone)]
pub(crate) enum Object {
    Batch { writer: u64, records: Vec<Record> },
    Seal,
}

/// A snapshot, and whether it can be read.
#[derive(Debug)]
struct Snapshot {
    state: String,
    whole: bool,
}

/// What is in the store.
#[derive(Debug, Default)]
pub(crate) struct Store {
    log: BTreeMap<Place, Object>,
    snapshots: BTreeMap<Place, Snapshot>,
    pub(crate) epochs: BTreeSet<u64>,
    /// All records that ever landed, in their order: what any replay must give.
    pub(crate) history: Vec<Record>,
    /// Of these, what something else must not go ahead of.
    pub(crate) planned: BTreeSet<RunId>,
    pub(crate) intended: BTreeSet<RunId>,
    pub(crate) ended: BTreeSet<RunId>,
    pub(crate) succeeded: BTreeSet<Attempt>,
}

impl Store {
    /// Creates a batch unless something is there. Whether it landed.
    pub(crate) fn create(&mut self, place: Place, writer: u64, records: &[Record]) -> bool {
        if self.log.contains_key(&place) {
            return false;
        }
        self.history.extend_from_slice(records);
        records.iter().for_each(|record| self.note(record));
        self.log.insert(place, Object::Batch { writer, records: records.to_vec() });
        true
    }

    fn note(&mut self, record: &Record) {
        match record {
            Record::RunPlanned { run, .. } => self.planned.insert(run.clone()),
            Record::RunCommitting { run, .. } => self.intended.insert(run.clone()),
            Record::RunFinished { run, .. } => self.ended.insert(run.clone()),
            Record::AttemptSucceeded { attempt, .. } => self.succeeded.insert(*attempt),
            _ => false,
        };
    }

    /// Whose batch is there.
    pub(crate) fn writer(&self, place: Place) -> Option<u64> {
        match self.log.get(&place)? {
            Object::Batch { writer, .. } => Some(*writer),
            Object::Seal => Some(u64::MAX),
        }
    }

    /// Where an epoch's seal has to be, if it has none.
    pub(crate) fn unsealed(&self, epoch: u64) -> Option<Place> {
        match self.log.range((epoch, 0)..(epoch + 1, 0)).next_back() {
            Some((_, Object::Seal)) => None,
            Some((place, Object::Batch { .. })) => Some((epoch, place.1 + 1)),
            // Its first batch, unless a snapshot of it stands further on and the log before it is gone.
            None => {
                Some((epoch, self.snapshots.range((epoch, 0)..(epoch + 1, 0)).map(|(p, _)| p.1).max().unwrap_or(0)))
            }
        }
    }

    pub(crate) fn seal(&mut self, place: Place) {
        self.log.entry(place).or_insert(Object::Seal);
    }

    pub(crate) fn snapshot(&mut self, place: Place, state: &State, whole: bool) -> Check {
        let state = serde_json::to_string(state).map_err(|e| e.to_string())?;
        self.snapshots.insert(place, Snapshot { state, whole });
        Ok(())
    }

    /// Deletes what stands before a snapshot, but for the seals of earlier epochs.
    pub(crate) fn collect(&mut self, own: u64, kept: Place) {
        let is_seal = |object: &Object| matches!(object, Object::Seal);
        self.log.retain(|place, object| *place >= kept || (place.0 != own && is_seal(object)));
        self.snapshots.retain(|place, _| *place >= kept);
    }

    /// The newest snapshot that can be read, where it stands, and all batches behind it. Counts those that cannot be read.
    pub(crate) fn replay(&self, unreadable: &mut u64) -> Result<(State, Option<Place>), String> {
        let damaged = self.snapshots.values().rev().take_while(|s| !s.whole).count();
        *unreadable += damaged as u64;
        let newest = self.snapshots.iter().rev().nth(damaged);
        let mut state = State::default();
        if let Some((_, snapshot)) = newest {
            state = serde_json::from_str(&snapshot.state).map_err(|e| e.to_string())?;
        }
        let found = newest.map(|(place, _)| *place);
        let mut next = found.unwrap_or((1, 0));
        for (place, object) in self.log.range(next..) {
            if place.0 > next.0 {
                next = (place.0, 0);
            }
            ensure!(*place == next, "batch {next:?} is missing before {place:?}");
            next.1 += 1;
            if let Object::Batch { records, .. } = object {
                records.iter().for_each(|record| state.apply(record));
            }
        }
        Ok((state, found))
    }
}
