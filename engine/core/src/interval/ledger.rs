//! What became of each interval of a job.
//!
//! Invariant: its size follows the pieces of equal fate, not the intervals: years of minutes without a failure are one
//! piece. Versions and failures are kept for the latest only; the dataset's own history has the others.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::spans::{Ranges, Spans};
use crate::{Error, Millis};

/// A job whose ledger has more pieces than this is suspended: it is not working, and its state would grow.
pub(super) const MOST_PIECES: usize = 10_000;
/// Above so many pieces the oldest are joined.
const JOINED_FROM: usize = 5_000;
/// Pieces of versions kept per job: the oldest intervals' go first.
const VERSION_PIECES: usize = 1_000;
/// Failures kept per job: the oldest go first.
const FAILURES: usize = 100;
/// Intervals per job of which it is kept how many rows they have: the earliest go first.
pub const MOST_COUNTED: usize = 400;

/// How an interval's newest generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// It was published.
    Published,
    /// It failed and is not tried again by itself.
    Failed,
    /// A user cancelled it.
    Cancelled,
    /// Its fire was missed, or a newer run took its place.
    Skipped,
}

/// What is known of an interval that is not in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// How the newest generation ended.
    pub fate: Fate,
    /// The newest generation; 0 if it never ran.
    pub generation: u32,
    /// The generation whose rows are published; 0 if none is.
    pub published: u32,
}

/// Why an interval failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The generation that failed.
    pub generation: u32,
    /// Its last attempt.
    pub attempt: u32,
    /// Why.
    pub error: Error,
    /// When.
    pub at: Millis,
}

/// What became of each interval of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    entries: Spans<Entry>,
    /// A version less its interval's position: the same for all that were published in order.
    versions: Spans<i64>,
    /// The latest failures, by interval.
    failures: BTreeMap<u64, Failure>,
    /// With how many rows the latest intervals were published.
    #[serde(default)]
    rows: BTreeMap<u64, u64>,
}

impl Ledger {
    /// What is known of an interval.
    #[must_use]
    pub fn entry(&self, index: u64) -> Option<Entry> {
        self.entries.get(index)
    }

    /// The newest generation of an interval; 0 if it never ran.
    #[must_use]
    pub fn generation(&self, index: u64) -> u32 {
        self.entry(index).map_or(0, |entry| entry.generation)
    }

    /// Whether rows of an interval are published, whatever became of later generations.
    #[must_use]
    pub fn is_published(&self, index: u64) -> bool {
        self.entry(index).is_some_and(|entry| entry.published > 0)
    }

    /// The dataset's version with which an interval was published last, if it is still known.
    #[must_use]
    pub fn version(&self, index: u64) -> Option<u64> {
        let offset = self.versions.get(index)?;
        u64::try_from(offset.checked_add(i64::try_from(index).ok()?)?).ok()
    }

    /// With how many rows an interval was published last, if that is still known.
    #[must_use]
    pub fn rows(&self, index: u64) -> Option<u64> {
        self.rows.get(&index).copied()
    }

    /// The rows of the last published intervals before one, the nearest first, as far as they are known.
    pub fn rows_before(&self, index: u64) -> impl Iterator<Item = u64> + '_ {
        self.rows.range(..index).rev().map(|(_, rows)| *rows)
    }

    /// Why an interval's newest generation failed, if it is still known.
    #[must_use]
    pub fn failure(&self, index: u64) -> Option<&Failure> {
        self.failures.get(&index)
    }

    /// The intervals of a range with an equal fate, in order.
    pub fn pieces_in(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, Entry)> + '_ {
        self.entries.iter_in(range)
    }

    /// How many pieces of equal fate there are.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.entries.pieces()
    }

    /// The intervals of a range whose entry is such.
    pub(super) fn which(&self, range: Range<u64>, is_such: impl Fn(Entry) -> bool) -> Ranges {
        self.pieces_in(range).filter(|(_, entry)| is_such(*entry)).map(|(piece, _)| piece).collect()
    }

    /// Lets a fire look at intervals again that were not published: they were not over.
    pub(super) fn reopen(&mut self, range: Range<u64>) {
        let unpublished: Vec<_> = self.pieces_in(range).filter(|(_, entry)| entry.published == 0).collect();
        for (piece, entry) in unpublished {
            self.failures.retain(|index, _| !piece.contains(index));
            self.entries.set(piece, Entry { fate: Fate::Skipped, ..entry });
        }
    }

    /// Joins the oldest published intervals that were computed anew more or less often: the generation is the highest of them,
    /// so that the next one of each is new.
    fn join_oldest(&mut self) {
        if self.entries.pieces() <= JOINED_FROM {
            return;
        }
        let pieces: Vec<_> = self.entries.iter().take(JOINED_FROM / 2).collect();
        let mut joined: Option<(Range<u64>, u32, usize)> = None;
        for (piece, entry) in pieces {
            let is_plain = entry.fate == Fate::Published && entry.published == entry.generation;
            joined = match joined {
                Some((before, generation, pieces)) if is_plain && before.end == piece.start => {
                    Some((before.start..piece.end, generation.max(entry.generation), pieces + 1))
                }
                before => {
                    self.join(before);
                    is_plain.then_some((piece, entry.generation, 1))
                }
            };
        }
        self.join(joined);
    }

    fn join(&mut self, joined: Option<(Range<u64>, u32, usize)>) {
        if let Some((piece, generation, 2..)) = joined {
            self.entries.set(piece, Entry { fate: Fate::Published, generation, published: generation });
        }
    }

    pub(super) fn publish(&mut self, index: u64, generation: u32, version: u64) {
        self.entries.set(index..index + 1, Entry { fate: Fate::Published, generation, published: generation });
        self.failures.remove(&index);
        self.join_oldest();
        if let (Ok(version), Ok(position)) = (i64::try_from(version), i64::try_from(index)) {
            self.versions.set(index..index + 1, version - position);
        }
        let excess = self.versions.pieces().saturating_sub(VERSION_PIECES);
        let oldest: Vec<_> = self.versions.iter().take(excess).map(|(piece, _)| piece).collect();
        oldest.into_iter().for_each(|piece| self.versions.clear(piece));
    }

    /// What is not known of the rows that an interval has now was of rows that it had.
    pub(super) fn count_rows(&mut self, index: u64, rows: Option<u64>) {
        match rows {
            Some(rows) => self.rows.insert(index, rows),
            None => self.rows.remove(&index),
        };
        while self.rows.len() > MOST_COUNTED {
            self.rows.pop_first();
        }
    }

    pub(super) fn fail(&mut self, index: u64, failure: Failure) {
        self.end(index, Fate::Failed, failure.generation);
        self.failures.insert(index, failure);
        while self.failures.len() > FAILURES
            && let Some(oldest) = self.failures.iter().min_by_key(|(_, f)| f.at).map(|(index, _)| *index)
        {
            self.failures.remove(&oldest);
        }
    }

    /// Ends a generation that published nothing: what an earlier one published stands.
    pub(super) fn end(&mut self, index: u64, fate: Fate, generation: u32) {
        let published = self.entry(index).map_or(0, |entry| entry.published);
        self.entries.set(index..index + 1, Entry { fate, generation, published });
    }

    /// Intervals that nothing is known of are skipped.
    pub(super) fn skip(&mut self, skipped: &Ranges) {
        for range in skipped.iter() {
            self.entries.set(range, Entry { fate: Fate::Skipped, generation: 0, published: 0 });
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets the unexpected should say so and end")]
mod tests {
    use super::*;

    fn failure(at: u64) -> Failure {
        Failure { generation: 1, attempt: 1, error: Error::internal("x"), at: Millis(at) }
    }

    #[test]
    fn years_of_minutes_are_one_piece() {
        let mut ledger = Ledger::default();
        for index in 0..100_000 {
            ledger.publish(index, 1, index + 7);
        }
        assert_eq!((ledger.pieces(), ledger.versions.pieces()), (1, 1));
        assert_eq!((ledger.version(4_711), ledger.version(100_000)), (Some(4_718), None));
        assert!(serde_json::to_string(&ledger).unwrap().len() < 200);
    }

    #[test]
    fn a_generation_that_fails_leaves_what_was_published() {
        let mut ledger = Ledger::default();
        ledger.publish(3, 1, 10);
        ledger.fail(3, Failure { generation: 2, ..failure(5) });
        assert_eq!(ledger.entry(3), Some(Entry { fate: Fate::Failed, generation: 2, published: 1 }));
        assert!(ledger.is_published(3) && ledger.failure(3).is_some());
        assert_eq!(ledger.version(3), Some(10));
        ledger.publish(3, 3, 11);
        assert_eq!((ledger.failure(3), ledger.version(3)), (None, Some(11)));
    }

    #[test]
    fn hours_that_were_computed_anew_do_not_pile_up() {
        let mut ledger = Ledger::default();
        for index in 0..100_000 {
            ledger.publish(index, 1, index);
            if index % 10 == 9 {
                ledger.publish(index, 3, index);
            }
        }
        assert!(ledger.pieces() <= JOINED_FROM + 1, "{} pieces", ledger.pieces());
        let lowest = |index: u64| if index % 10 == 9 { 3 } else { 1 };
        assert!((0..100_000).all(|index| ledger.generation(index) >= lowest(index) && ledger.is_published(index)));
        assert_eq!([99_998, 99_999].map(|index| ledger.generation(index)), [1, 3]);
    }

    #[test]
    fn what_failed_is_never_joined() {
        let mut ledger = Ledger::default();
        for index in 0..2 * JOINED_FROM as u64 {
            match index % 2 {
                0 => ledger.publish(index, 1, index),
                _ => ledger.fail(index, failure(index)),
            }
        }
        assert!((0..2 * JOINED_FROM as u64).all(|index| ledger.is_published(index) == (index % 2 == 0)));
    }

    #[test]
    fn rows_are_known_of_the_latest_intervals() {
        let mut ledger = Ledger::default();
        for index in [3, 1, 2, 7] {
            ledger.count_rows(index, Some(10 * index));
        }
        assert_eq!(ledger.rows_before(7).collect::<Vec<_>>(), [30, 20, 10]);
        assert_eq!((ledger.rows(7), ledger.rows_before(1).next()), (Some(70), None));
        ledger.count_rows(2, None);
        assert_eq!(ledger.rows_before(9).take(2).collect::<Vec<_>>(), [70, 30]);
        (0..1_000).for_each(|index| ledger.count_rows(index, Some(1)));
        assert_eq!((ledger.rows.len(), ledger.rows(599), ledger.rows(600)), (MOST_COUNTED, None, Some(1)));
    }

    #[test]
    fn details_are_kept_for_the_latest() {
        let mut ledger = Ledger::default();
        for index in 0..300 {
            ledger.fail(index, failure(1_000 + index));
        }
        assert_eq!((ledger.failures.len(), ledger.failure(199), ledger.failure(200).is_some()), (FAILURES, None, true));
        for index in 0..3_000 {
            ledger.publish(index, 1, 10_000 - 2 * index);
        }
        assert_eq!(
            (ledger.versions.pieces(), ledger.version(0), ledger.version(2_999)),
            (VERSION_PIECES, None, Some(4_002))
        );
        assert_eq!(serde_json::from_str::<Ledger>(&serde_json::to_string(&ledger).unwrap()).unwrap(), ledger);
    }
}
