//! Results that are published, or become a table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use tidemill_core::record::Intent;
use tidemill_core::schedule::Event;
use tidemill_core::{Error, ErrorKind, Result};
use tidemill_engine::planner::{Commit, Keep};

use super::{Delivery, Next, count};
use crate::driver::Input;

/// How long publishing is tried.
struct Patience {
    /// After the first try; four times as long after each other one, up to [`LONGEST_PAUSE`].
    first_pause: Duration,
    /// A store that is away comes back, and what was computed need not be computed again. Meanwhile the run shows what it
    /// waits for.
    within: Duration,
}

const PATIENCE: Patience = Patience { first_pause: Duration::from_millis(200), within: Duration::from_secs(30 * 60) };
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Tries after which an error other than that the store is away is believed.
const REFUSALS: u32 = 5;

/// Publishes what was decided to be published. Nothing is taken back any more: what failed may have been done all the same.
async fn publish(commit: &dyn Commit, intent: &Intent, mut again: bool, patience: &Patience) -> Result<()> {
    let (began, mut pause, mut refusals) = (Instant::now(), patience.first_pause, 0);
    loop {
        let Err(error) = commit.commit(&intent.winners, again).await else { return Ok(()) };
        refusals += u32::from(error.kind != ErrorKind::Unavailable);
        if refusals == REFUSALS || began.elapsed() >= patience.within {
            return Err(error);
        }
        tracing::warn!(%error, "publishing is tried again");
        tokio::time::sleep(pause).await;
        pause = (pause * 4).min(LONGEST_PAUSE);
        again = true;
    }
}

impl Delivery {
    /// Counts what was written, asks whether it may be published, and publishes it; `None` if the run ended first.
    pub(super) async fn commit(&mut self, commit: Box<dyn Commit>) -> Result<Option<u64>> {
        let again = match self.count().await {
            Ok(Next::All) => false,
            // A leader that took over a run past that point says so instead.
            Ok(Next::Gone) if self.reading.is_committing() => true,
            Ok(Next::Abandoned) => return Ok(None),
            Ok(Next::Gone | Next::Batch(_)) => {
                commit.abort().await;
                return Ok(None);
            }
            Err(error) => {
                self.say(Event::ResultFailed { run: self.run.clone(), error }, None).await;
                // Until the log says that the run failed, whoever leads next may publish what was written.
                if matches!(self.reading.permission().await, Err(Next::Gone)) {
                    commit.abort().await;
                }
                return Ok(None);
            }
        };
        let intent = match self.reading.permission().await {
            Ok(intent) => intent,
            Err(Next::Gone) => {
                commit.abort().await;
                return Ok(None);
            }
            Err(_) => return Ok(None),
        };
        publish(commit.as_ref(), &intent, again, &PATIENCE).await?;
        // Whoever listens then is told the count when the run has ended.
        self.keeper.push(&count(intent.rows)?).await;
        Ok(Some(1))
    }

    /// Adds up what the tasks wrote and asks whether it may be published.
    async fn count(&mut self) -> Result<Next> {
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
                let expected = keep.expected();
                self.inbox.send(Input::Kept { run, number, record, expected, blob, rows, answer }).await;
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

    use super::*;

    /// Fails so often, and remembers how it was asked.
    struct Failing {
        times: usize,
        kind: ErrorKind,
        asked: Mutex<Vec<bool>>,
    }

    #[async_trait]
    impl Commit for Failing {
        async fn commit(&self, _: &[Attempt], again: bool) -> Result<()> {
            let mut asked = self.asked.lock().unwrap();
            asked.push(again);
            if asked.len() > self.times { Ok(()) } else { Err(Error::new(self.kind, "no")) }
        }

        async fn abort(&self) {}
    }

    async fn tries(kind: ErrorKind, times: usize, within: Duration) -> (bool, Vec<bool>) {
        let commit = Failing { times, kind, asked: Mutex::default() };
        let intent = Intent { winners: Vec::new(), rows: 0 };
        let patience = Patience { first_pause: Duration::ZERO, within };
        let published = publish(&commit, &intent, false, &patience).await;
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
}
