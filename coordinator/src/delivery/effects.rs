//! Results that are published, or become a table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use tidemill_core::record::Intent;
use tidemill_core::schedule::Event;
use tidemill_core::{Error, ErrorKind, Result};
use tidemill_engine::planner::{Commit, Keep, NewEntry};

use super::removals::Removal;
use super::{Delivered, Delivery, Next, count};
use crate::driver::{Input, NewTable};

/// How long publishing is tried.
pub(super) struct Patience {
    /// After the first try; four times as long after each other one, up to [`LONGEST_PAUSE`].
    pub(super) first_pause: Duration,
    /// A store that is away comes back, and what was computed need not be computed again. Meanwhile the run shows what it
    /// waits for.
    pub(super) within: Duration,
}

pub(super) const PATIENCE: Patience =
    Patience { first_pause: Duration::from_millis(200), within: Duration::from_secs(30 * 60) };
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Tries after which an error other than that the store is away is believed.
const REFUSALS: u32 = 5;

/// Publishes what was decided to be published. Nothing is taken back any more: what failed may have been done all the same.
async fn publish(
    commit: &dyn Commit,
    intent: &Intent,
    mut again: bool,
    patience: &Patience,
    is_led: impl Fn() -> bool + Send,
) -> Result<Option<u64>> {
    let (began, mut pause, mut refusals) = (Instant::now(), patience.first_pause, 0);
    loop {
        let error = match commit.commit(&intent.winners, again).await {
            Ok(version) => return Ok(version),
            Err(error) => error,
        };
        let is_away = error.kind == ErrorKind::Unavailable;
        // One that was not answered may be there: that is looked for as long as patience lasts.
        refusals += u32::from(!is_away && !commit.rolls_forward());
        let is_final = matches!(error.kind, ErrorKind::Conflict | ErrorKind::Invalid);
        // Whoever leads next goes on with what only another try can tell.
        let goes_on = is_away && commit.rolls_forward() && is_led();
        if is_final || refusals == REFUSALS || (began.elapsed() >= patience.within && !goes_on) {
            return Err(error);
        }
        tracing::warn!(%error, "publishing is tried again");
        tokio::time::sleep(pause).await;
        pause = (pause * 4).min(LONGEST_PAUSE);
        again = true;
    }
}

/// Why nothing is known to be published.
struct Failed {
    error: Error,
    /// Whether it was to be published: then what was written may be.
    is_decided: bool,
}

impl Delivery {
    /// Publishes what was written, and gives the run its end: that is a table's beginning, where it makes one.
    pub(super) async fn publish(mut self, commit: Box<dyn Commit>, removal: &Removal) {
        let (run, number) = (self.run.clone(), self.number);
        let (entry, commit) = (commit.entry(), Arc::<dyn Commit>::from(commit));
        match (self.commit(&commit, removal, entry.is_none()).await, entry) {
            (Ok(Some((rows, version))), Some(entry)) => {
                self.note_requests().await;
                let answer = std::mem::take(&mut self.keeper).finish().await;
                let table = Box::new(NewTable { entry, blob: None, rows, answer, version });
                self.inbox.send(Input::BecameTable { run, number, table }).await;
            }
            (Ok(committed), _) => {
                let delivered = |(_, version)| Delivered { rows: 1, version };
                self.end(Ok(committed.map(delivered))).await;
            }
            (Err(Failed { error, is_decided }), _) => {
                self.end(Err(error)).await;
                // Whoever leads by then may publish what was written, until the log says that the run failed.
                if !is_decided && matches!(self.reading.ended().await, Next::Gone) {
                    removal.run(commit.as_ref()).await;
                }
            }
        }
    }

    /// Counts what was written, asks whether it may be published, and publishes it; `None` if the run ended first, or the
    /// rows that were written and the version that has them.
    async fn commit(
        &mut self,
        commit: &Arc<dyn Commit>,
        removal: &Removal,
        tells: bool,
    ) -> std::result::Result<Option<(u64, Option<u64>)>, Failed> {
        let again = match self.count(commit).await {
            Ok(Next::All) => false,
            // A leader that took over a run past that point says so instead.
            Ok(Next::Gone) if self.reading.is_committing() => true,
            Ok(Next::Abandoned) => return Ok(None),
            Ok(Next::Gone | Next::Batch(_)) => {
                removal.run(commit.as_ref()).await;
                return Ok(None);
            }
            Err(error) => return Err(Failed { error, is_decided: false }),
        };
        let intent = match self.reading.permission().await {
            Ok(intent) => intent,
            Err(Next::Gone) => {
                removal.run(commit.as_ref()).await;
                return Ok(None);
            }
            Err(_) => return Ok(None),
        };
        let failed = |error| Failed { error, is_decided: true };
        let version =
            publish(commit.as_ref(), &intent, again, &PATIENCE, || self.inbox.is_led()).await.map_err(failed)?;
        // Whoever listens then is told the count when the run has ended.
        if tells {
            self.keeper.push(&count(intent.rows).map_err(failed)?).await;
        }
        Ok(Some((intent.rows, version)))
    }

    /// Adds up what the tasks wrote, looks at it, and asks whether it may be published.
    async fn count(&mut self, commit: &Arc<dyn Commit>) -> Result<Next> {
        let mut rows = 0;
        loop {
            match self.next().await? {
                Next::Batch(batch) => {
                    let counts = batch.column(0).as_primitive_opt::<UInt64Type>();
                    rows += counts.map_or(0, |c| c.values().iter().sum::<u64>());
                }
                Next::All => break,
                ended @ (Next::Gone | Next::Abandoned) => return Ok(ended),
            }
        }
        let winners = self.reading.winners();
        if let Some(ended) = self.judge(commit, &winners, rows).await? {
            return Ok(ended);
        }
        self.say(Event::CommitReady { run: self.run.clone(), winners, rows }, None).await;
        Ok(Next::All)
    }

    /// Collects a result and hands it over as a table.
    pub(super) async fn keep(mut self, keep: Box<dyn Keep>) {
        let (run, number) = (self.run.clone(), self.number);
        let collected = self.collect(keep.as_ref()).await;
        self.note_requests().await;
        match collected {
            Ok(Some((record, blob, rows))) => {
                let answer = std::mem::take(&mut self.keeper).finish().await;
                let entry = NewEntry { record, expected: keep.expected() };
                let table = Box::new(NewTable { entry, blob: Some(blob), rows, answer, version: None });
                self.inbox.send(Input::BecameTable { run, number, table }).await;
            }
            Ok(None) => {}
            Err(error) => self.say(Event::ResultFailed { run, error }, None).await,
        }
    }

    async fn collect(&mut self, keep: &dyn Keep) -> Result<Option<Table>> {
        let (mut batches, mut bytes) = (Vec::new(), 0);
        loop {
            match self.next().await? {
                Next::Batch(batch) => {
                    bytes += batch.get_array_memory_size();
                    batches.push(batch);
                }
                Next::All => break,
                Next::Gone | Next::Abandoned => return Ok(None),
            }
            if bytes > keep.limit() {
                return Err(Error::resources_exhausted(format!(
                    "the rows of the table take more than {} MiB, the most that is kept in memory: write them with COPY and \
                     create an external table",
                    keep.limit() >> 20
                )));
            }
        }
        let (record, blob) = keep.keep(Arc::clone(&self.schema), &batches)?;
        Ok(Some((record, blob, self.reading.rows())))
    }
}

/// The change of the catalogue, the table's rows, and how many they are.
type Table = (tidemill_core::record::Record, tidemill_engine::blob::Blob, u64);

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use tidemill_core::Attempt;
    use tidemill_engine::planner::Pass;

    use super::*;

    /// Fails so often, and remembers how it was asked.
    struct Failing {
        times: usize,
        kind: ErrorKind,
        rolls_forward: bool,
        asked: Mutex<Vec<bool>>,
    }

    #[async_trait]
    impl Commit for Failing {
        async fn commit(&self, _: &[Attempt], again: bool) -> Result<Option<u64>> {
            let mut asked = self.asked.lock().unwrap();
            asked.push(again);
            if asked.len() > self.times { Ok(Some(7)) } else { Err(Error::new(self.kind, "no")) }
        }

        async fn abort(&self, _: Pass) {}

        fn rolls_forward(&self) -> bool {
            self.rolls_forward
        }
    }

    async fn tries(kind: ErrorKind, times: usize, within: Duration) -> (bool, Vec<bool>) {
        let commit = Failing { times, kind, rolls_forward: false, asked: Mutex::default() };
        let intent = Intent { winners: Vec::new(), rows: 0 };
        let patience = Patience { first_pause: Duration::ZERO, within };
        let published = publish(&commit, &intent, false, &patience, || true).await;
        (published.is_ok(), commit.asked.into_inner().unwrap())
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_waited_for_and_a_refusal_is_believed() {
        let within = PATIENCE.within;
        assert_eq!(tries(ErrorKind::Unavailable, 0, within).await, (true, vec![false]));
        let (published, asked) = tries(ErrorKind::Unavailable, 100, within).await;
        assert!(published && asked.len() == 101 && asked.iter().filter(|again| !**again).count() == 1);
        assert_eq!(tries(ErrorKind::Unavailable, 100, Duration::ZERO).await, (false, vec![false]));
        let five = vec![false, true, true, true, true];
        assert_eq!(tries(ErrorKind::Denied, 4, within).await, (true, five.clone()));
        assert_eq!(tries(ErrorKind::Denied, 100, within).await, (false, five));
    }

    #[tokio::test]
    async fn what_only_another_try_can_tell_is_tried_as_long_as_somebody_leads() {
        let published = async |rolls_forward, is_led| {
            let commit = Failing { times: 100, kind: ErrorKind::Unavailable, rolls_forward, asked: Mutex::default() };
            let intent = Intent { winners: Vec::new(), rows: 0 };
            let impatient = Patience { first_pause: Duration::ZERO, within: Duration::ZERO };
            publish(&commit, &intent, false, &impatient, || is_led).await.ok().flatten()
        };
        assert_eq!(published(true, true).await, Some(7));
        assert_eq!((published(true, false).await, published(false, true).await), (None, None));
    }
}
