//! Results kept for those who ask again: clients that lost the answer, and `tidemill sql --run`.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use tidemill_core::record::Kept;
use tidemill_core::{Error, Result, RunId};
use tidemill_engine::blob::Blob;
use tidemill_engine::crash;
use tidemill_engine::exchange::{IoMetrics, KeptRows, PondSlot, ResultKeeper, read_kept_blob, result_name};
use tidemill_engine::planner::BlobReader;
use tokio::sync::mpsc;

use super::note_requests;
use crate::driver::WeakInbox;
use crate::runs::RunMessage;

/// How long the store may take for a part of a result: its client waits.
const KEEP_WITHIN: Duration = Duration::from_secs(10);

/// The same answer, or that the store took too long.
async fn in_time<T>(kept: impl Future<Output = Result<T>> + Send) -> Result<T> {
    let late = |_| Err(Error::unavailable("the store took too long"));
    tokio::time::timeout(KEEP_WITHIN, kept).await.unwrap_or_else(late)
}

/// Keeps a result if it can; a result that cannot be kept is delivered all the same.
#[derive(Default)]
pub(crate) struct Keeper(Option<ResultKeeper>);

impl Keeper {
    pub(crate) fn begin(run: &RunId, schema: &SchemaRef, pond: &PondSlot) -> Self {
        let name = result_name(run, &ulid::Ulid::new().to_string());
        match ResultKeeper::begin(name, schema, pond) {
            Ok(keeper) => Self(keeper),
            Err(error) => {
                tracing::warn!(%run, %error, "the result is not kept");
                Self(None)
            }
        }
    }

    /// The answer of a statement that has no rows, but these columns.
    pub(crate) fn nothing(columns: &SchemaRef, pond: &PondSlot) -> (Option<Kept>, Option<Blob>) {
        match ResultKeeper::begin(String::new(), columns, pond).ok().flatten().map(ResultKeeper::finish_small) {
            Some((kept, blob)) => (Some(kept), Some(blob)),
            None => (None, None),
        }
    }

    /// The answer of a statement that is one small batch.
    pub(crate) fn batch(batch: &RecordBatch, pond: &PondSlot) -> (Option<Kept>, Option<Blob>) {
        let keeper = ResultKeeper::begin(String::new(), &batch.schema(), pond).ok().flatten();
        match keeper.map(|keeper| keeper.finish_with(batch)) {
            Some(Ok((kept, blob))) => (Some(kept), Some(blob)),
            Some(Err(error)) => {
                tracing::warn!(%error, "the result is not kept");
                (None, None)
            }
            None => (None, None),
        }
    }

    pub(crate) async fn push(&mut self, batch: &RecordBatch) {
        if let Some(keeper) = &mut self.0
            && let Err(error) = in_time(keeper.push(batch)).await
        {
            tracing::warn!(%error, "the result is not kept");
            std::mem::take(self).abort();
        }
    }

    /// Where the result is, and the blob that this names.
    pub(crate) async fn finish(self) -> (Option<Kept>, Option<Blob>) {
        let Some(keeper) = self.0 else { return (None, None) };
        crash::before("result.keep");
        match in_time(keeper.finish()).await {
            Ok((kept, blob)) => {
                crash::after("result.keep");
                (Some(kept), blob)
            }
            Err(error) => {
                tracing::warn!(%error, "the result is not kept");
                (None, None)
            }
        }
    }

    pub(crate) fn abort(self) {
        if let Some(keeper) = self.0 {
            // Behind the run: a store that does not answer would hold it up.
            tokio::spawn(keeper.abort());
        }
    }
}

/// Who asks for a kept result, and where it is told what it cost.
pub(crate) struct Asked {
    pub(crate) run: RunId,
    pub(crate) client: mpsc::Sender<RunMessage>,
    pub(crate) inbox: WeakInbox,
}

/// Sends a kept result to a client, from its beginning.
pub(crate) fn answer_again(kept: Kept, blobs: &dyn BlobReader, pond: &PondSlot, asked: Asked) {
    let blob = match &kept {
        Kept::Blob(hash) => blobs.read(hash),
        Kept::Object(_) => None,
    };
    let pond = pond.get();
    let Asked { run, client, inbox } = asked;
    tokio::spawn(async move {
        let metrics = Arc::new(IoMetrics::default());
        let rows = match (kept, blob, pond) {
            (Kept::Blob(_), Some(blob), _) => read_kept_blob(&blob),
            (Kept::Object(pack), _, Some(pond)) => pond.read_kept(pack, Arc::clone(&metrics)).await,
            _ => Err(Error::not_found("the run's result is kept no longer: submit the statement again")),
        };
        let sent = send(rows, &client).await;
        // First: whoever has all of it sees it counted.
        note_requests(&run, metrics.take_requests(), &inbox).await;
        // A client that went away needs no message.
        let _ = client.send(sent.map_or_else(RunMessage::Failed, |()| RunMessage::Done)).await;
    });
}

async fn send(rows: Result<KeptRows>, client: &mpsc::Sender<RunMessage>) -> Result<()> {
    let (schema, mut batches) = rows?;
    let mut listens = client.send(RunMessage::Schema(schema)).await.is_ok();
    while listens {
        let Some(batch) = batches.next().await else { break };
        listens = client.send(RunMessage::Batch(batch?)).await.is_ok();
    }
    Ok(())
}
