//! How long an executor waits for its coordinator, and what it says meanwhile.

use std::time::Duration;

use tidemill_core::{Error, Result};
use tokio::time::Instant;

/// How long an executor that never joined tries. One that joined once waits without an end: its outputs are still wanted.
const FIRST_ANSWER: Duration = Duration::from_secs(120);
/// How long it says nothing: one of several addresses leads, and a restart is quick.
const QUIET: Duration = Duration::from_secs(1);
/// How often it says what it waits for.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A wait for a coordinator.
#[derive(Debug)]
pub(crate) struct Waiting {
    since: Instant,
    told: Option<Instant>,
}

/// Whether a coordinator took the executor in before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    Before,
    Never,
}

impl Waiting {
    pub(crate) fn begin() -> Self {
        Self { since: Instant::now(), told: None }
    }

    /// Says, now and then, why there is no coordinator yet.
    ///
    /// # Errors
    /// The first one did not come in time.
    pub(crate) fn goes_on(&mut self, joined: Joined, why: &Error) -> Result<()> {
        let waited = self.since.elapsed();
        if is_over(joined, waited) {
            return Err(Error::unavailable(format!(
                "no coordinator took this executor in within {} s: {}",
                FIRST_ANSWER.as_secs(),
                why.message
            )));
        }
        if waited >= QUIET && self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            tracing::warn!(error = %why, waited_s = waited.as_secs(), "waiting for the coordinator");
        }
        Ok(())
    }
}

fn is_over(joined: Joined, waited: Duration) -> bool {
    joined == Joined::Never && waited > FIRST_ANSWER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_coordinator_is_waited_for_with_an_end() {
        assert!(!is_over(Joined::Never, FIRST_ANSWER));
        assert!(is_over(Joined::Never, FIRST_ANSWER + Duration::from_secs(1)));
        assert!(!is_over(Joined::Before, FIRST_ANSWER * 100));
    }
}
