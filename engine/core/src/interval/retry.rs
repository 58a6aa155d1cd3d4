//! Which failures are worth another attempt, and when.

use super::zone::HOUR_MS;
use crate::ErrorKind;

/// No retry waits longer, whatever its number.
const LONGEST_WAIT_MS: u64 = HOUR_MS;

/// Whether a run that failed like this may succeed if nobody changes anything.
///
/// A request that must be fixed, and something that must exist or be permitted, stay what they are until a person has looked.
/// What is busy, lost or too small now may not be later; where somebody was first, another attempt begins behind them. A bug of ours may be one of timing;
/// another attempt does no harm, because nothing was published.
#[must_use]
pub const fn is_retried(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Unavailable
        | ErrorKind::LostInput
        | ErrorKind::ResourcesExhausted
        | ErrorKind::Conflict
        | ErrorKind::Internal => true,
        ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Cancelled => false,
    }
}

/// How long to wait after attempt number `failed`: twice as long each time.
pub(super) fn wait_ms(backoff_ms: u64, failed: u32) -> u64 {
    let doublings = failed.saturating_sub(1).min(32);
    backoff_ms.saturating_mul(1 << doublings).min(LONGEST_WAIT_MS.max(backoff_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour() {
        assert_eq!([1, 2, 3, 4].map(|failed| wait_ms(30_000, failed)), [30_000, 60_000, 120_000, 240_000]);
        assert_eq!((wait_ms(30_000, 100), wait_ms(2 * HOUR_MS, 3)), (HOUR_MS, 2 * HOUR_MS));
    }

    #[test]
    fn every_kind_is_retried_or_not() {
        let retried: Vec<_> = ErrorKind::ALL.into_iter().filter(|kind| is_retried(*kind)).collect();
        use ErrorKind::{Conflict, Internal, LostInput, ResourcesExhausted, Unavailable};
        assert_eq!(retried, [Conflict, Unavailable, LostInput, ResourcesExhausted, Internal]);
    }
}
