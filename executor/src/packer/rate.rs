//! How fast the store is: what `auto` holds against the time that an output took to make.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Arrow bytes a second, with their encoding, until something was measured.
const EXPECTED: u64 = 100 << 20;
/// The variable that says otherwise: for tests, whose machines are busy.
const EXPECTED_VARIABLE: &str = "TIDEMILL_STORE_RATE";
/// Packs with fewer bytes say more of the store's delay than of its speed.
const LEAST: u64 = 1 << 20;

/// Arrow bytes that the store takes in a second, over the last packs.
#[derive(Debug)]
pub(crate) struct StoreRate(AtomicU64);

impl Default for StoreRate {
    fn default() -> Self {
        Self(AtomicU64::new(EXPECTED))
    }
}

impl StoreRate {
    /// What is expected of a store that nothing was written to.
    pub(crate) fn expected() -> Self {
        match std::env::var(EXPECTED_VARIABLE).map(|bytes| bytes.parse()) {
            Ok(Ok(bytes)) => Self(AtomicU64::new(bytes)),
            Err(_) => Self::default(),
            Ok(Err(error)) => {
                tracing::warn!(%error, "{EXPECTED_VARIABLE} is no number of bytes: it is not used");
                Self::default()
            }
        }
    }

    /// A pack of so many bytes took so long.
    pub(super) fn note(&self, bytes: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        if bytes >= LEAST {
            let measured = (bytes.saturating_mul(1_000_000) / micros).max(1);
            let before = self.0.load(Ordering::Relaxed);
            // One pack on a busy machine does not change much.
            self.0.store(before - before / 4 + measured / 4, Ordering::Relaxed);
        }
    }

    /// How long so many bytes will take.
    pub(super) fn time_for(&self, bytes: u64) -> Duration {
        Duration::from_micros(bytes.saturating_mul(1_000_000) / self.0.load(Ordering::Relaxed).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_is_measured() {
        let rate = StoreRate::default();
        assert_eq!(rate.time_for(EXPECTED), Duration::from_secs(1));
        rate.note(LEAST - 1, Duration::from_secs(100));
        assert_eq!(rate.time_for(EXPECTED), Duration::from_secs(1), "too small to count");
        (0..50).for_each(|_| rate.note(10 << 20, Duration::from_secs(1)));
        let slow = rate.time_for(EXPECTED).as_secs_f64();
        assert!((9.0..11.0).contains(&slow), "{slow} s at a tenth of the speed");
    }
}
