//! Attempts that an executor should have, and does not name: a message was lost where none should be, or a bug lost the
//! attempt. Whatever it was, the task is given out again instead of waiting for ever.
//!
//! The shell keeps one per control stream: what it has heard there is no decision, and ends with it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Attempt, Millis};

/// An attempt that is not named for this long is not there.
const FORGOTTEN_MS: u64 = 10_000;

/// Since when attempts have not been named.
#[derive(Debug, Default)]
pub struct Watch(BTreeMap<Attempt, Millis>);

impl Watch {
    /// Of the attempts that were `given` those that were not `named` for too long. One that is named, or given no longer, is
    /// forgotten here.
    pub fn missing(&mut self, given: Vec<Attempt>, named: &BTreeSet<Attempt>, now: Millis) -> Vec<Attempt> {
        let unnamed = given.into_iter().filter(|attempt| !named.contains(attempt));
        self.0 = unnamed.map(|attempt| (attempt, self.0.get(&attempt).copied().unwrap_or(now))).collect();
        let late = self.0.iter().filter(|(_, since)| now.since(**since) > FORGOTTEN_MS);
        late.map(|(attempt, _)| *attempt).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    #[test]
    fn an_attempt_is_missed_when_it_is_not_named_for_ten_seconds() {
        let [first, second] = [1, 2].map(|counter| Attempt { epoch: Epoch(1), counter });
        let mut watch = Watch::default();
        let mut at = |seconds: u64, named: &[Attempt]| {
            watch.missing(vec![first, second], &named.iter().copied().collect(), Millis(1_000_000 + seconds * 1_000))
        };
        assert_eq!(at(0, &[second]), []);
        assert_eq!(at(9, &[second]), []);
        assert_eq!(at(10, &[]), []);
        assert_eq!(at(11, &[]), [first]);
        // Named once, its time begins anew.
        assert_eq!(at(12, &[first]), []);
        assert_eq!(at(20, &[]), []);
        assert_eq!(at(21, &[]), [second]);
    }
}
