//! What a run wrote is looked at before it is decided that it is published.

use std::sync::Arc;
use std::time::Instant;

use tidemill_core::schedule::Event;
use tidemill_core::{Attempt, Error, ErrorKind, Result};
use tidemill_engine::planner::{Commit, Judgement};

use super::effects::{LONGEST_PAUSE, PATIENCE, Patience};
use super::{Delivery, Next};

impl Delivery {
    /// Lets the rows be looked at on the cpu runtime, and tells what was found; `Some` if the run ended meanwhile.
    ///
    /// # Errors
    /// They are not as they should be, or nobody can tell.
    pub(super) async fn judge(
        &mut self,
        commit: &Arc<dyn Commit>,
        winners: &[Attempt],
        rows: u64,
    ) -> Result<Option<Next>> {
        let (looked_at, winners) = (Arc::clone(commit), winners.to_vec());
        let mut judging = self.cpu.spawn(async move { judged(looked_at.as_ref(), &winners, rows, &PATIENCE).await });
        let judged = tokio::select! {
            judged = &mut judging => judged,
            ended = self.reading.ended() => {
                judging.abort();
                return Ok(Some(ended));
            }
        };
        let panicked = |e| Err(Error::internal(format!("the checks of what was written panicked: {e}")));
        let Judgement { checks, refused } = judged.unwrap_or_else(panicked)?;
        if !checks.is_empty() {
            self.say(Event::Checked { run: self.run.clone(), checks }, None).await;
        }
        refused.map_or(Ok(None), Err)
    }
}

/// Looks again as long as the store is away: what was computed need not be computed again.
async fn judged(commit: &dyn Commit, winners: &[Attempt], rows: u64, patience: &Patience) -> Result<Judgement> {
    let (began, mut pause) = (Instant::now(), patience.first_pause);
    loop {
        let error = match commit.check(winners, rows).await {
            Err(error) if error.kind == ErrorKind::Unavailable && began.elapsed() < patience.within => error,
            judged => return judged,
        };
        tracing::warn!(%error, "what was written is looked at again");
        tokio::time::sleep(pause).await;
        pause = (pause * 4).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use tidemill_engine::planner::Pass;

    use super::*;

    /// Cannot be looked at so often.
    struct Away {
        times: usize,
        kind: ErrorKind,
        asked: AtomicUsize,
    }

    #[async_trait]
    impl Commit for Away {
        async fn check(&self, _: &[Attempt], _: u64) -> Result<Judgement> {
            match self.asked.fetch_add(1, Ordering::Relaxed) {
                asked if asked < self.times => Err(Error::new(self.kind, "no")),
                _ => Ok(Judgement::default()),
            }
        }

        async fn commit(&self, _: &[Attempt], _: bool) -> Result<Option<u64>> {
            Ok(None)
        }

        async fn abort(&self, _: Pass) {}
    }

    async fn looks(kind: ErrorKind, times: usize, within: Duration) -> (bool, usize) {
        let away = Away { times, kind, asked: AtomicUsize::new(0) };
        let patience = Patience { first_pause: Duration::ZERO, within };
        let judged = judged(&away, &[], 0, &patience).await;
        (judged.is_ok(), away.asked.into_inner())
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_waited_for_and_what_is_wrong_is_told_at_once() {
        assert_eq!(looks(ErrorKind::Unavailable, 20, PATIENCE.within).await, (true, 21));
        assert_eq!(looks(ErrorKind::Unavailable, 20, Duration::ZERO).await, (false, 1));
        assert_eq!(looks(ErrorKind::ResourcesExhausted, 20, PATIENCE.within).await, (false, 1));
    }
}
