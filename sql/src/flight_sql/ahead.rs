//! Reads a result a little ahead of its client.
//!
//! ```text
//! run ──► a task that reads ──► up to AHEAD_BYTES that wait ──► client, who comes later
//! ```
//!
//! A run goes on until its rows are taken, and only so many runs go on at once: a small result that waits for its client
//! must not keep others from running.
//!
//! Invariant: no more than [`AHEAD_BYTES`] and one batch wait; dropping the result drops the run; a result ends with all
//! rows or with an error.

use std::pin::pin;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tidemill_core::{Error, Result};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of a result that wait for its client.
const AHEAD_BYTES: u32 = 256 << 10;

/// What comes next of a result.
enum Next {
    /// Rows, or an error, and the room that they take until the client has them.
    Batch(Result<RecordBatch>, OwnedSemaphorePermit),
    /// Nothing: these were all.
    End,
}

/// The same batches, read ahead.
pub(super) fn read_ahead(
    batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
) -> BoxStream<'static, Result<RecordBatch>> {
    let (to_client, waiting) = unbounded_channel();
    tokio::spawn(async move {
        tokio::select! {
            () = to_client.closed() => {}
            () = pass_on(batches, &to_client) => {}
        }
    });
    let waiting = futures::stream::unfold(Some(waiting), |waiting| async move {
        let mut waiting = waiting?;
        match waiting.recv().await {
            Some(Next::Batch(batch, _room)) => Some((batch, Some(waiting))),
            Some(Next::End) => None,
            None => Some((Err(Error::internal("a result that was read ahead has no end")), None)),
        }
    });
    waiting.boxed()
}

async fn pass_on(batches: impl Stream<Item = Result<RecordBatch>> + Send, to_client: &UnboundedSender<Next>) {
    let room = Arc::new(Semaphore::new(AHEAD_BYTES as usize));
    let mut batches = pin!(batches);
    while let Some(batch) = batches.next().await {
        let bytes = batch.as_ref().map_or(0, RecordBatch::get_array_memory_size);
        // One without any takes room, too: there may be any number of them.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, AHEAD_BYTES);
        // Nobody closes it.
        let Ok(room) = Arc::clone(&room).acquire_many_owned(bytes).await else { return };
        if to_client.send(Next::Batch(batch, room)).is_err() {
            return;
        }
    }
    // A client that went away needs no end.
    let _ = to_client.send(Next::End);
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    /// Batches of 64 KiB that are counted when they are read.
    fn batches(many: usize, read: &Arc<AtomicUsize>) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1; 8 << 10]));
        let batch = RecordBatch::try_from_iter([("x", column)]).expect("a batch");
        let read = Arc::clone(read);
        futures::stream::iter(0..many).map(move |_| {
            read.fetch_add(1, Ordering::Relaxed);
            Ok(batch.clone())
        })
    }

    #[tokio::test]
    async fn a_small_result_is_read_to_its_end_and_a_large_one_only_as_far_as_there_is_room() {
        let (small, large) = (Arc::default(), Arc::default());
        let (of_small, of_large) = (read_ahead(batches(3, &small)), read_ahead(batches(100, &large)));
        while small.load(Ordering::Relaxed) < 3 || large.load(Ordering::Relaxed) < 4 {
            tokio::task::yield_now().await;
        }
        assert!(large.load(Ordering::Relaxed) <= 5);
        assert_eq!(of_small.collect::<Vec<_>>().await.len(), 3);
        assert_eq!(of_large.collect::<Vec<_>>().await.len(), 100);
    }

    #[tokio::test]
    async fn batches_without_bytes_are_bounded_too() {
        let read = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&read);
        let empty = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
        let ahead = read_ahead(futures::stream::iter(0..usize::MAX).map(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(empty.clone())
        }));
        while read.load(Ordering::Relaxed) <= AHEAD_BYTES as usize {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(read.load(Ordering::Relaxed), AHEAD_BYTES as usize + 1, "one more waits for room");
        drop(ahead);
    }
}
