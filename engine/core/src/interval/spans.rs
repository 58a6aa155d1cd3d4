//! Values over ranges of numbers: as compact as they are uniform, whatever they cover.
//!
//! Invariant: pieces do not overlap, none is empty, and neighbours that touch differ.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A value for each number of some ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64, V)>", into = "Vec<(u64, u64, V)>")]
pub struct Spans<V: Copy + Eq> {
    /// By their first number: the one after the last, and the value.
    pieces: BTreeMap<u64, (u64, V)>,
}

impl<V: Copy + Eq> Default for Spans<V> {
    fn default() -> Self {
        Self { pieces: BTreeMap::new() }
    }
}

impl<V: Copy + Eq> Spans<V> {
    /// The value of a number.
    #[must_use]
    pub fn get(&self, at: u64) -> Option<V> {
        self.pieces.range(..=at).next_back().filter(|(_, (to, _))| at < *to).map(|(_, (_, value))| *value)
    }

    /// Gives all numbers of a range one value.
    pub fn set(&mut self, range: Range<u64>, value: V) {
        if range.is_empty() {
            return;
        }
        self.clear(range.clone());
        let Range { start: mut from, end: mut to } = range;
        let before = self.pieces.range(..from).next_back().filter(|(_, (end, v))| *end == from && *v == value);
        if let Some((start, _)) = before.map(|(start, piece)| (*start, *piece)) {
            self.pieces.remove(&start);
            from = start;
        }
        if self.pieces.get(&to).is_some_and(|(_, v)| *v == value)
            && let Some((end, _)) = self.pieces.remove(&to)
        {
            to = end;
        }
        self.pieces.insert(from, (to, value));
    }

    /// Takes the values of a range away.
    pub fn clear(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let before = self.pieces.range(..range.start).next_back().map(|(start, piece)| (*start, *piece));
        if let Some((start, (end, value))) = before.filter(|(_, (end, _))| *end > range.start) {
            self.pieces.insert(start, (range.start, value));
            if end > range.end {
                self.pieces.insert(range.end, (end, value));
            }
        }
        while let Some((start, (end, value))) = self.pieces.range(range.clone()).next().map(|(s, piece)| (*s, *piece)) {
            self.pieces.remove(&start);
            if end > range.end {
                self.pieces.insert(range.end, (end, value));
            }
        }
    }

    /// The pieces in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Range<u64>, V)> + '_ {
        self.pieces.iter().map(|(from, (to, value))| (*from..*to, *value))
    }

    /// The pieces of a range, cut to it, in order.
    pub fn iter_in(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, V)> + '_ {
        let before = self.pieces.range(..range.start).next_back().map_or(range.start, |(start, _)| *start);
        let end = range.end.max(before);
        self.pieces.range(before..end).filter_map(move |(from, (to, value))| {
            let cut = (*from).max(range.start)..(*to).min(range.end);
            (!cut.is_empty()).then_some((cut, *value))
        })
    }

    /// How many pieces there are.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }
}

impl<V: Copy + Eq> From<Vec<(u64, u64, V)>> for Spans<V> {
    fn from(pieces: Vec<(u64, u64, V)>) -> Self {
        let mut spans = Self::default();
        for (from, to, value) in pieces {
            spans.set(from..to, value);
        }
        spans
    }
}

impl<V: Copy + Eq> From<Spans<V>> for Vec<(u64, u64, V)> {
    fn from(spans: Spans<V>) -> Self {
        spans.iter().map(|(range, value)| (range.start, range.end, value)).collect()
    }
}

/// A set of numbers, as ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Ranges(Spans<()>);

impl Ranges {
    /// Whether a number is in it.
    #[must_use]
    pub fn contains(&self, at: u64) -> bool {
        self.0.get(at).is_some()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.pieces() == 0
    }

    /// How many numbers are in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.iter().map(|range| range.end - range.start).sum()
    }

    /// How many ranges it takes.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.0.pieces()
    }

    /// From the first number to the last.
    #[must_use]
    pub fn hull(&self) -> Option<Range<u64>> {
        Some(self.iter().next()?.start..self.iter().next_back()?.end)
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(range, ())| range)
    }

    /// Each number in order.
    pub fn numbers(&self) -> impl DoubleEndedIterator<Item = u64> + '_ {
        self.iter().flatten()
    }

    /// Puts a range in.
    pub fn insert(&mut self, range: Range<u64>) {
        self.0.set(range, ());
    }

    /// Takes a range out.
    pub fn remove(&mut self, range: Range<u64>) {
        self.0.clear(range);
    }

    /// Puts all of another set in.
    pub fn insert_all(&mut self, other: &Self) {
        other.iter().for_each(|range| self.insert(range));
    }

    /// Takes all of another set out.
    pub fn remove_all(&mut self, other: &Self) {
        other.iter().for_each(|range| self.remove(range));
    }

    /// Puts in what is between the first ones, until there are no more than so many.
    pub(super) fn join_oldest(&mut self, most: usize) {
        while self.pieces() > most.max(1) {
            let oldest: Vec<_> = self.iter().take(2).collect();
            if let [first, second] = oldest.as_slice() {
                self.insert(first.start..second.end);
            }
        }
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for range in self.iter() {
            other.0.iter_in(range).for_each(|(cut, ())| both.insert(cut));
        }
        both
    }

    /// What is in it of a range.
    #[must_use]
    pub fn within(&self, range: Range<u64>) -> Self {
        self.0.iter_in(range).map(|(cut, ())| cut).collect()
    }
}

impl From<Range<u64>> for Ranges {
    fn from(range: Range<u64>) -> Self {
        let mut ranges = Self::default();
        ranges.insert(range);
        ranges
    }
}

impl FromIterator<Range<u64>> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut all = Self::default();
        ranges.into_iter().for_each(|range| all.insert(range));
        all
    }
}

impl From<Vec<(u64, u64)>> for Ranges {
    fn from(pieces: Vec<(u64, u64)>) -> Self {
        pieces.into_iter().map(|(from, to)| from..to).collect()
    }
}

impl From<Ranges> for Vec<(u64, u64)> {
    fn from(ranges: Ranges) -> Self {
        ranges.iter().map(|range| (range.start, range.end)).collect()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that meets the unexpected should say so and end")]
mod tests {
    use super::*;

    /// Every step against a plain array.
    #[test]
    fn spans_are_what_an_array_would_be() {
        let (mut spans, mut array) = (Spans::<u8>::default(), [None; 40]);
        let mut chance = 12_345_u64;
        let mut next = |below: u64| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (chance >> 33) % below
        };
        for _ in 0..5_000 {
            let from = next(40);
            let to = from + next(41 - from);
            let value = u8::try_from(next(3)).unwrap();
            if next(3) == 0 {
                spans.clear(from..to);
                array[from as usize..to as usize].fill(None);
            } else {
                spans.set(from..to, value);
                array[from as usize..to as usize].fill(Some(value));
            }
            assert_eq!((0..40).map(|i| spans.get(i)).collect::<Vec<_>>(), array);
            let pieces: Vec<_> = spans.iter().collect();
            assert!(pieces.iter().all(|(range, _)| !range.is_empty()));
            assert!(
                pieces
                    .windows(2)
                    .all(|w| w[0].0.end < w[1].0.start || (w[0].0.end == w[1].0.start && w[0].1 != w[1].1))
            );
            let inside: Vec<u64> = spans.iter_in(10..20).flat_map(|(range, _)| range).collect();
            assert_eq!(inside, (10..20).filter(|i| array[*i as usize].is_some()).collect::<Vec<_>>());
            assert_eq!(Spans::from(Vec::from(spans.clone())), spans);
        }
    }

    #[test]
    fn ranges_are_sets() {
        let a: Ranges = [1..5, 8..9, 5..6].into_iter().collect();
        let b: Ranges = [0..2, 4..20].into_iter().collect();
        assert_eq!(Vec::from(a.intersection(&b)), [(1, 2), (4, 6), (8, 9)]);
        assert_eq!((a.count(), a.pieces(), a.hull()), (6, 2, Some(1..9)));
        assert_eq!(Vec::from(a.within(3..9)), [(3, 6), (8, 9)]);
        assert_eq!(serde_json::to_string(&a).unwrap(), "[[1,6],[8,9]]");
        assert_eq!(Ranges::default().hull(), None);
        let mut many: Ranges = (0..10).map(|i| 2 * i..2 * i + 1).collect();
        many.join_oldest(3);
        assert_eq!(Vec::from(many), [(0, 15), (16, 17), (18, 19)]);
    }
}
