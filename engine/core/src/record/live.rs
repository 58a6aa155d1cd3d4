//! The runs that are not finished, in the order in which they were accepted: what their names are does not matter.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::RunId;

/// Runs in the order in which they came.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<RunId>", into = "Vec<RunId>")]
pub struct Live {
    by_number: BTreeMap<u64, RunId>,
    numbers: BTreeMap<RunId, u64>,
}

impl Live {
    /// Whether a run is among them.
    #[must_use]
    pub fn contains(&self, run: &RunId) -> bool {
        self.numbers.contains_key(run)
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The oldest first.
    pub fn iter(&self) -> std::collections::btree_map::Values<'_, u64, RunId> {
        self.by_number.values()
    }

    /// Adds a run behind all others, unless it is there.
    pub(super) fn insert(&mut self, run: RunId) {
        if self.contains(&run) {
            return;
        }
        let number = self.by_number.last_key_value().map_or(0, |(last, _)| last + 1);
        self.by_number.insert(number, run.clone());
        self.numbers.insert(run, number);
    }

    pub(super) fn remove(&mut self, run: &RunId) {
        if let Some(number) = self.numbers.remove(run) {
            self.by_number.remove(&number);
        }
    }
}

/// The numbers are nobody's business: after a snapshot they begin anew.
impl PartialEq for Live {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Live {}

impl<'a> IntoIterator for &'a Live {
    type Item = &'a RunId;
    type IntoIter = std::collections::btree_map::Values<'a, u64, RunId>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<Vec<RunId>> for Live {
    fn from(runs: Vec<RunId>) -> Self {
        let mut live = Self::default();
        runs.into_iter().for_each(|run| live.insert(run));
        live
    }
}

impl From<Live> for Vec<RunId> {
    fn from(live: Live) -> Self {
        live.by_number.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_stand_in_the_order_in_which_they_came_whatever_they_are_called() {
        let run = |name: &str| RunId(name.to_owned());
        let mut live = Live::default();
        ["job-z-1", "01ABC", "job-a-2"].into_iter().for_each(|name| live.insert(run(name)));
        live.insert(run("job-z-1"));
        live.remove(&run("01ABC"));
        live.insert(run("00FIRST"));
        let names = |live: &Live| live.iter().map(|run| run.0.clone()).collect::<Vec<_>>();
        assert_eq!(names(&live), ["job-z-1", "job-a-2", "00FIRST"]);
        let read = Live::from(Vec::from(live.clone()));
        assert_eq!((read.len(), &read), (3, &live));
        assert!(!read.contains(&run("01ABC")));
    }
}
