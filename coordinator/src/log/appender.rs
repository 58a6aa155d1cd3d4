//! Hands records to the log in batches and says when they are durable.

use std::time::Duration;

use tidemill_core::Error;
use tidemill_core::record::Record;
use tidemill_engine::blob::Blob;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Log;
use crate::driver::{Input, WeakInbox};

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
}

impl Entry {
    fn bytes(&self) -> usize {
        self.records.len() * RECORD_BYTES + self.blobs.iter().map(|b| b.bytes.len()).sum::<usize>()
    }
}

/// The door to the task that writes. Bounded by what the driver lets wait.
#[derive(Debug)]
pub(crate) struct Appender {
    entries: mpsc::UnboundedSender<Entry>,
}

impl Appender {
    /// Starts to write to `log`; `inbox` hears [`Input::Durable`], and [`Input::Deposed`] at the end of all writing.
    pub(crate) fn start(log: Log, inbox: WeakInbox) -> Self {
        let (entries, from) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            if let Err(error) = write(log, from, &inbox).await {
                inbox.send(Input::Deposed(error)).await;
            }
        });
        Self { entries }
    }

    pub(crate) fn append(&self, entry: Entry) {
        // The writer ends only after it said so.
        let _ = self.entries.send(entry);
    }
}

async fn write(mut log: Log, mut from: mpsc::UnboundedReceiver<Entry>, inbox: &WeakInbox) -> Result<(), Error> {
    while let Some(first) = from.recv().await {
        let deadline = Instant::now() + FLUSH_AFTER;
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
        inbox.send(Input::Durable(position)).await;
    }
    Ok(())
}
