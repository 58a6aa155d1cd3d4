//! Streams of blocks: merged from several holders, and checked against their footers.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::SelectAll;
use tidemill_core::Error;
use tidemill_core::schedule::Lost;

use super::{BlockRequest, BlockStream, OutputFooter};
use crate::error::TaskError;

/// Reads several streams at once, in the order their batches arrive.
pub(super) fn merge(mut streams: Vec<BlockStream>) -> BlockStream {
    match streams.len() {
        1 => streams.remove(0),
        _ => streams.into_iter().collect::<SelectAll<_>>().boxed(),
    }
}

/// An input that cannot be read: its producer must run again.
pub(super) fn lost(block: &BlockRequest, why: &str) -> TaskError {
    TaskError {
        error: Error::lost_input(format!(
            "the output of task {} (attempt {}) on executor {} cannot be read: {why}",
            block.task, block.attempt, block.holder.executor
        )),
        lost: Lost { outputs: vec![block.output()], looked_in_packs: false },
    }
}

/// Checks a footer against the recorded one.
pub(super) fn check_footer(block: &BlockRequest, footer: &OutputFooter) -> Result<(), TaskError> {
    if footer.summary() == block.footer && footer.blocks.len() > block.partition as usize {
        return Ok(());
    }
    Err(lost(block, "its footer is not the recorded one"))
}

/// Passes on a block's frames and fails at the end if rows are missing or too many.
pub(super) fn checked(frames: BlockStream, block: BlockRequest, footer: Arc<OutputFooter>) -> BlockStream {
    if let Err(error) = check_footer(&block, &footer) {
        return futures::stream::iter([Err(error)]).boxed();
    }
    let expected = footer.blocks.get(block.partition as usize).copied().unwrap_or_default().rows;
    counted(frames, block, 0, expected)
}

/// The same, behind `before` rows that were passed on already.
pub(super) fn counted(frames: BlockStream, block: BlockRequest, before: u64, expected: u64) -> BlockStream {
    let state = (frames, before, false);
    futures::stream::unfold(state, move |(mut frames, rows, ended)| {
        let block = block.clone();
        async move {
            if ended {
                return None;
            }
            match frames.next().await {
                Some(Ok(batch)) => {
                    let rows = rows + batch.num_rows() as u64;
                    Some((Ok(batch), (frames, rows, false)))
                }
                Some(Err(error)) => Some((Err(error), (frames, rows, true))),
                None if rows == expected => None,
                None => {
                    let why = format!("it has {rows} rows where its footer says {expected}");
                    Some((Err(lost(&block, &why)), (frames, rows, true)))
                }
            }
        }
    })
    .boxed()
}
