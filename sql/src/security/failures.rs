//! Counts of failed attempts to sign in, by address and by name: guessing becomes slow, whoever guesses and whatever.
//!
//! A count falls by one every [`FORGIVEN_AFTER`]; beyond [`MOST`] nothing is tried any more until it has fallen. An attempt
//! is charged before it is checked and refunded if it was right, so that many at once gain nothing.
//!
//! Invariant: there are never more than [`KEPT`] counts of each kind; room is made by forgetting the lowest.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures that are free.
const MOST: f64 = 10.0;
/// After so long one of them is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(6);
/// Counts that are kept, of addresses and of names.
const KEPT: usize = 10_000;

/// Counts of failures.
#[derive(Default)]
pub(super) struct Failures {
    addresses: Mutex<Counts<IpAddr>>,
    /// By hash: names are as long as callers like.
    names: Mutex<Counts<[u8; 32]>>,
}

/// Who tries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) address: Option<IpAddr>,
    pub(super) name: Option<&'a str>,
}

impl Attempt<'_> {
    /// Who has a network of IPv6 has all of its addresses.
    fn address(&self) -> Option<IpAddr> {
        self.address.map(|address| match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            v4 @ IpAddr::V4(_) => v4,
        })
    }

    fn name(&self) -> Option<[u8; 32]> {
        self.name.map(|name| *blake3::hash(name.as_bytes()).as_bytes())
    }
}

fn lock<K>(counts: &Mutex<Counts<K>>) -> MutexGuard<'_, Counts<K>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Failures {
    /// How long to wait before another attempt; `None` if it may be made now.
    pub(super) fn wait(&self, attempt: &Attempt<'_>, now: Instant) -> Option<Duration> {
        let by_address = attempt.address().and_then(|address| lock(&self.addresses).wait(&address, now));
        let by_name = attempt.name().and_then(|name| lock(&self.names).wait(&name, now));
        by_address.max(by_name)
    }

    /// Counts an attempt as a failure, until it is refunded.
    pub(super) fn charge(&self, attempt: &Attempt<'_>, now: Instant) {
        if let Some(address) = attempt.address() {
            lock(&self.addresses).add(address, 1.0, now);
        }
        if let Some(name) = attempt.name() {
            lock(&self.names).add(name, 1.0, now);
        }
    }

    /// An attempt was right.
    pub(super) fn refund(&self, attempt: &Attempt<'_>, now: Instant) {
        if let Some(address) = attempt.address() {
            lock(&self.addresses).add(address, -1.0, now);
        }
        if let Some(name) = attempt.name() {
            lock(&self.names).add(name, -1.0, now);
        }
    }
}

/// How many failures there were, as of when.
struct Counts<K>(HashMap<K, (f64, Instant)>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Copy> Counts<K> {
    fn level((count, at): (f64, Instant), now: Instant) -> f64 {
        let forgiven = now.saturating_duration_since(at).as_secs_f64() / FORGIVEN_AFTER.as_secs_f64();
        (count - forgiven).max(0.0)
    }

    fn wait(&self, key: &K, now: Instant) -> Option<Duration> {
        let above = Self::level(*self.0.get(key)?, now) + 1.0 - MOST;
        (above > 0.0).then(|| FORGIVEN_AFTER.mul_f64(above))
    }

    fn add(&mut self, key: K, many: f64, now: Instant) {
        if !self.0.contains_key(&key) && self.0.len() >= KEPT {
            self.forget_lowest(now);
        }
        let count = self.0.get(&key).map_or(0.0, |count| Self::level(*count, now));
        self.0.insert(key, ((count + many).max(0.0), now));
    }

    /// Many at once, so that a flood of callers does not cost a look at all counts for each.
    fn forget_lowest(&mut self, now: Instant) {
        let mut levels: Vec<f64> = self.0.values().map(|count| Self::level(*count, now)).collect();
        let lowest = *levels.select_nth_unstable_by(KEPT / 10, f64::total_cmp).1;
        self.0.retain(|_, count| Self::level(*count, now) > lowest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: [u8; 4], name: &str) -> Attempt<'_> {
        Attempt { address: Some(address.into()), name: Some(name) }
    }

    #[test]
    fn failures_are_limited_by_address_and_by_name_and_forgiven_with_time() {
        let (failures, start) = (Failures::default(), Instant::now());
        for tried in 0..10u8 {
            // From everywhere: the name is what is guessed.
            let attempt = of([10, 0, 0, tried], "ann");
            assert_eq!(failures.wait(&attempt, start), None, "{tried}");
            failures.charge(&attempt, start);
        }
        assert!(failures.wait(&of([10, 0, 0, 99], "ann"), start).is_some());
        assert_eq!(failures.wait(&of([10, 0, 0, 99], "bob"), start), None);
        assert_eq!(failures.wait(&of([10, 0, 0, 99], "ann"), start + FORGIVEN_AFTER), None);
        for tried in 0..10u8 {
            failures.charge(&of([10, 9, 9, 9], &format!("user {tried}")), start);
        }
        assert!(failures.wait(&of([10, 9, 9, 9], "bob"), start).is_some());
        assert_eq!(failures.wait(&of([10, 9, 9, 9], "bob"), start + FORGIVEN_AFTER * 2), None);
    }

    #[test]
    fn right_attempts_cost_nothing() {
        let (failures, start) = (Failures::default(), Instant::now());
        for _ in 0..100 {
            let attempt = of([10, 0, 0, 1], "ann");
            failures.charge(&attempt, start);
            failures.refund(&attempt, start);
        }
        assert_eq!(failures.wait(&of([10, 0, 0, 1], "ann"), start), None);
    }

    #[test]
    fn memory_is_bounded_and_the_guilty_are_not_forgotten() {
        let (mut counts, start) = (Counts::default(), Instant::now());
        for _ in 0..10 {
            counts.add(u64::MAX, 1.0, start);
        }
        for key in 0..2 * KEPT as u64 {
            counts.add(key, 1.0, start);
        }
        assert!(counts.0.len() <= KEPT);
        assert!(counts.wait(&u64::MAX, start).is_some());
    }
}
