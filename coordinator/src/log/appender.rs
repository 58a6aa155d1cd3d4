//! Hands records to the log in batches and says when they are durable.

use std::time::Duration;

use tidemill_core::Error;
use tidemill_core::record::Record;
use tidemill_engine::blob::Blob;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Log;

/// How long a record waits for others.
const FLUSH_AFTER: Duration = Duration::from_millis(200);
/// Bytes of blobs and records after which a batch is written at once.
const FLUSH_BYTES: usize = 1 << 20;
/// A record's bytes, about.
const RECORD_BYTES: usize = 256;

/// What one step of the scheduler decided.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Grows with every entry.
    pub(crate) position: u64,
    pub(crate) records: Vec<Record>,
    pub(crate) blobs: Vec<Blob>,
    /// Somebody waits for it.
    pub(crate) urgent: bool,
    /// Since when it waits.
    pub(crate) since: Instant,
}

impl Entry {
    /// About as many as it takes in memory and in the log.
    pub(crate) fn bytes(&self) -> usize {
        self.records.len() * RECORD_BYTES + self.blobs.iter().map(|b| b.bytes.len()).sum::<usize>()
    }
}

/// What the log tells the driver.
#[derive(Debug)]
pub(crate) enum News {
    /// It has everything up to here.
    Durable(u64),
    /// It can no longer be written: another coordinator leads, or its store is lost.
    Deposed(Error),
}

/// The door to the task that writes. The driver takes nothing more to decide while too much waits here.
#[derive(Debug)]
pub(crate) struct Appender {
    entries: mpsc::UnboundedSender<Entry>,
}

impl Appender {
    /// Starts to write to `log`; [`News::Deposed`] is the end of all writing.
    pub(crate) fn start(log: Log, news: mpsc::Sender<News>) -> Self {
        let (entries, from) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            if let Err(error) = write(log, from, &news).await {
                // A driver that has ended needs no news.
                let _ = news.send(News::Deposed(error)).await;
            }
        });
        Self { entries }
    }

    pub(crate) fn append(&self, entry: Entry) {
        // The writer ends only after it said so.
        let _ = self.entries.send(entry);
    }
}

async fn write(mut log: Log, mut from: mpsc::UnboundedReceiver<Entry>, news: &mpsc::Sender<News>) -> Result<(), Error> {
    while let Some(first) = from.recv().await {
        // It may have waited for the batch before it.
        let deadline = first.since + FLUSH_AFTER;
        let (mut bytes, mut urgent, mut position) = (first.bytes(), first.urgent, first.position);
        let (mut records, mut blobs) = (first.records, first.blobs);
        loop {
            let next = match urgent || bytes > FLUSH_BYTES {
                // Whatever came meanwhile goes with it.
                true => from.try_recv().ok(),
                false => tokio::time::timeout_at(deadline, from.recv()).await.ok().flatten(),
            };
            let Some(next) = next else { break };
            bytes += next.bytes();
            urgent |= next.urgent;
            position = next.position;
            records.extend(next.records);
            blobs.extend(next.blobs);
        }
        log.append(records, blobs).await?;
        // As above.
        let _ = news.send(News::Durable(position)).await;
    }
    Ok(())
}
