//! Results that are published, or become a table.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use tidemill_core::record::Intent;
use tidemill_core::schedule::Event;
use tidemill_core::{Error, ErrorKind, Result};
use tidemill_engine::planner::{Commit, Keep};

use super::{Delivered, Delivery, Next, count};
use crate::driver::{Input, WeakInbox};

/// Between tries to publish.
const PUBLISH_PAUSES: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(15)];

/// Between tries of what must be known.
const UNANSWERED_PAUSE: Duration = Duration::from_secs(15);

/// Publishes what was decided to be published. Nothing is taken back any more: what failed may have been done all the same.
async fn publish(commit: &dyn Commit, intent: &Intent, again: bool, driver: &WeakInbox) -> Result<Option<u64>> {
    let mut published = commit.commit(&intent.winners, again).await;
    for pause in PUBLISH_PAUSES {
        let Err(error) = &published else { break };
        tracing::warn!(%error, "publishing is tried again");
        tokio::time::sleep(pause).await;
        published = commit.commit(&intent.winners, true).await;
    }
    let unanswered = |published: &Result<Option<u64>>| {
        commit.rolls_forward() && published.as_ref().is_err_and(|error| error.kind == ErrorKind::Unavailable)
    };
    // Whoever leads next goes on with it.
    while unanswered(&published) && driver.upgrade().is_some_and(|driver| !driver.is_closed()) {
        tracing::warn!("the store does not say whether a run is published: it is asked again");
        tokio::time::sleep(UNANSWERED_PAUSE).await;
        published = commit.commit(&intent.winners, true).await;
    }
    published
}

impl Delivery {
    /// Counts what was written, asks whether it may be published, and publishes it; `None` if the run ended first.
    pub(super) async fn commit(&mut self, commit: Box<dyn Commit>) -> Result<Option<Delivered>> {
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
                commit.abort().await;
                return Err(error);
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
        let version = publish(commit.as_ref(), &intent, again, &self.inbox).await?;
        // Whoever listens then is told the count when the run has ended.
        self.keeper.push(&count(intent.rows)?).await;
        Ok(Some(Delivered { rows: 1, version }))
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
