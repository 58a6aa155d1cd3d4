//! Readers that lose a block's holder, or its file, go on in its pack at the next frame.
//!
//! Invariant: an output is reported lost only where no pack is known of it, or where the pack was looked into as well.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use tidemill_core::record::Pack;
use tidemill_core::schedule::{Lost, LostOutput};
use tidemill_core::{ErrorKind, RunId};

use super::{BlockRequest, BlockStream, IoMetrics, PondSlot};
use crate::error::TaskError;

/// How long the coordinator may take to say where outputs are.
const LOCATE_WITHIN: Duration = Duration::from_secs(5);

/// A block of which some frames were passed on.
#[derive(Debug, Clone)]
pub(super) struct Unfinished {
    pub(super) block: BlockRequest,
    pub(super) frames: usize,
    pub(super) rows: u64,
}

impl Unfinished {
    /// A block of which nothing was passed on.
    pub(super) const fn new(block: BlockRequest) -> Self {
        Self { block, frames: 0, rows: 0 }
    }
}

impl PondSlot {
    /// What is left of a run's blocks that failed with `error`: from their packs, if all have one by now.
    pub(super) fn go_on(
        &self,
        run: &RunId,
        mut left: Vec<Unfinished>,
        error: TaskError,
        schema: SchemaRef,
        metrics: Arc<IoMetrics>,
    ) -> BlockStream {
        let (slot, run) = (self.clone(), run.clone());
        let opened = async move {
            slot.locate(&run, &mut left).await;
            let packed: Option<Vec<(Unfinished, Arc<Pack>)>> =
                left.iter().map(|left| Some((left.clone(), left.block.pack.clone()?))).collect();
            match (slot.get(), packed) {
                (Some(pond), Some(packed)) => {
                    tracing::debug!(error = %error.error, "going on from packs");
                    let read = move |(left, pack): (Unfinished, Arc<Pack>)| {
                        Arc::clone(&pond).read(left, Pack::clone(&pack), Arc::clone(&schema), Arc::clone(&metrics))
                    };
                    futures::stream::iter(packed).map(read).flatten().boxed()
                }
                (_, packed) => {
                    // Those with a pack are not lost, whatever became of their holder; unless nobody here can read packs.
                    let unread = |left: &&Unfinished| packed.is_some() || left.block.pack.is_none();
                    let outputs: Vec<LostOutput> = left.iter().filter(unread).map(|left| left.block.output()).collect();
                    let lost = Lost { outputs, looked_in_packs: packed.is_some() };
                    futures::stream::iter([Err(TaskError { lost, ..error })]).boxed()
                }
            }
        };
        futures::stream::once(opened).flatten().boxed()
    }

    /// Asks for packs that were written after the readers were told where their blocks are.
    async fn locate(&self, run: &RunId, left: &mut [Unfinished]) {
        let unknown: Vec<&mut Unfinished> = left.iter_mut().filter(|left| left.block.pack.is_none()).collect();
        let (Some(link), false) = (self.link(), unknown.is_empty()) else { return };
        let outputs: Vec<LostOutput> = unknown.iter().map(|left| left.block.output()).collect();
        match tokio::time::timeout(LOCATE_WITHIN, link.locate(run, &outputs)).await {
            Ok(Ok(packs)) => {
                for (left, pack) in unknown.into_iter().zip(packs) {
                    left.block.pack = pack.map(Arc::new);
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "nobody says whether lost blocks are in the store"),
            Err(_) => tracing::warn!("nobody says in time whether lost blocks are in the store"),
        }
    }
}

/// Where the rest of a block comes from.
enum Source {
    Here(BlockStream, Unfinished),
    /// Or an error, and then nothing.
    Pack(BlockStream),
}

/// The frames of a block that this process holds, and from its pack those that cannot be read here.
pub(super) fn or_pack(
    run: &RunId,
    frames: BlockStream,
    block: BlockRequest,
    pond: PondSlot,
    schema: SchemaRef,
    metrics: Arc<IoMetrics>,
) -> BlockStream {
    let (here, run) = (Source::Here(frames, Unfinished::new(block)), run.clone());
    futures::stream::unfold(here, move |from| {
        let (pond, run) = (pond.clone(), run.clone());
        let (schema, metrics) = (Arc::clone(&schema), Arc::clone(&metrics));
        async move {
            let mut rest = match from {
                Source::Here(mut frames, mut passed) => match frames.next().await? {
                    Ok(batch) => {
                        passed.frames += 1;
                        passed.rows += batch.num_rows() as u64;
                        return Some((Ok(batch), Source::Here(frames, passed)));
                    }
                    Err(error) if error.error.kind == ErrorKind::LostInput => {
                        pond.go_on(&run, vec![passed], error, schema, metrics)
                    }
                    Err(error) => futures::stream::iter([Err(error)]).boxed(),
                },
                Source::Pack(rest) => rest,
            };
            let next = rest.next().await?;
            Some((next, Source::Pack(rest)))
        }
    })
    .boxed()
}
