//! Runs in the order of submission. Copies of a state share them: each question to a system table is answered from a copy, and
//! most of a state is what became of runs that have ended.

use std::ops::Index;
use std::sync::Arc;

use indexmap::{IndexMap, map};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::state::Run;
use crate::RunId;

/// Runs by name, in the order of submission. A run that changes is copied first where a copy of the state shares it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Runs(IndexMap<RunId, Arc<Run>>);

type Kept<'a> = (&'a RunId, &'a Arc<Run>);
type Shown<'a> = (&'a RunId, &'a Run);

fn shown((id, run): Kept<'_>) -> Shown<'_> {
    (id, run.as_ref())
}

impl Runs {
    /// A run, if it is known.
    #[must_use]
    pub fn get(&self, run: &RunId) -> Option<&Run> {
        self.0.get(run).map(Arc::as_ref)
    }

    /// Whether a run is known.
    #[must_use]
    pub fn contains_key(&self, run: &RunId) -> bool {
        self.0.contains_key(run)
    }

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their names.
    pub fn keys(&self) -> impl Iterator<Item = &RunId> {
        self.0.keys()
    }

    /// The runs.
    pub fn values(&self) -> impl Iterator<Item = &Run> {
        self.0.values().map(Arc::as_ref)
    }

    /// The runs and their names.
    pub fn iter(&self) -> impl Iterator<Item = Shown<'_>> {
        self.0.iter().map(shown)
    }

    /// A run, to be changed.
    pub(super) fn get_mut(&mut self, run: &RunId) -> Option<&mut Run> {
        self.0.get_mut(run).map(Arc::make_mut)
    }

    pub(super) fn insert(&mut self, run: RunId, accepted: Run) {
        self.0.insert(run, Arc::new(accepted));
    }

    pub(super) fn remove(&mut self, run: &RunId) {
        self.0.shift_remove(run);
    }
}

impl Index<&RunId> for Runs {
    type Output = Run;

    /// # Panics
    /// It is not known.
    fn index(&self, run: &RunId) -> &Run {
        &self.0[run]
    }
}

impl<'a> IntoIterator for &'a Runs {
    type Item = Shown<'a>;
    type IntoIter = std::iter::Map<map::Iter<'a, RunId, Arc<Run>>, fn(Kept<'a>) -> Shown<'a>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(shown as fn(Kept<'a>) -> Shown<'a>)
    }
}

/// As a list of pairs: JSON has no order of keys.
impl Serialize for Runs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de> Deserialize<'de> for Runs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let runs = Vec::<(RunId, Run)>::deserialize(deserializer)?;
        Ok(Self(runs.into_iter().map(|(id, run)| (id, Arc::new(run))).collect()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::super::{Record, RunSpec, RunState, State};
    use super::*;
    use crate::Millis;

    fn accepted(state: &mut State, run: &str) -> RunId {
        let spec = RunSpec { statement: run.to_owned(), ..RunSpec::default() };
        let run = RunId(run.to_owned());
        state.apply(&Record::RunAccepted { run: run.clone(), spec, at: Millis(0) });
        run
    }

    #[test]
    fn copies_share_runs_until_one_changes() {
        let mut state = State::default();
        let (still, changed) = (accepted(&mut state, "still"), accepted(&mut state, "changed"));
        let copy = state.clone();
        state.apply(&Record::RunPlanning { run: changed.clone(), at: Millis(1) });
        let states = |run: &RunId| (copy.runs[run].state, state.runs[run].state);
        assert_eq!(states(&changed), (RunState::Queued, RunState::Planning));
        assert!(std::ptr::eq(&copy.runs[&still], &state.runs[&still]), "a run that did not change was copied");
        assert!(!std::ptr::eq(&copy.runs[&changed], &state.runs[&changed]));
    }

    #[test]
    fn they_are_written_as_pairs_in_their_order() {
        let mut state = State::default();
        ["b", "a", "c"].into_iter().for_each(|run| drop(accepted(&mut state, run)));
        let written = serde_json::to_value(&state.runs).unwrap();
        assert_eq!(
            (&written[0][0], &written[1][0], &written[2][1]["spec"]["statement"]),
            (&"b".into(), &"a".into(), &"c".into())
        );
        let read: Runs = serde_json::from_value(written).unwrap();
        assert_eq!(read, state.runs);
        assert!(read.keys().eq(state.runs.keys()));
    }
}
