//! The rows of a root's outputs, task by task.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use tidemill_core::record::{Intent, Requests};
use tidemill_core::schedule::Lost;
use tidemill_core::{Attempt, Error, ErrorKind, Result, RunId, TaskId};
use tidemill_engine::exchange::{BlockRequest, BlockSource, BlockStream, IoMetrics, Manifest};
use tokio::sync::mpsc;

use super::{Next, Order};

/// Reads what the latest manifest names, and obeys orders meanwhile.
pub(super) struct Reading {
    run: RunId,
    purpose: Purpose,
    schema: SchemaRef,
    source: Arc<dyn BlockSource>,
    /// What reading costs.
    metrics: Arc<IoMetrics>,
    orders: mpsc::Receiver<Order>,
    /// What may be published.
    intent: Option<Intent>,
    /// Whether the run has ended.
    ended: bool,
    /// The latest manifest; none while the root is not complete.
    manifest: Option<Manifest>,
    /// The block being read, and its batches.
    block: Option<BlockStream>,
    /// What was passed on of it.
    part: Part,
    /// Attempts whose blocks were passed on whole.
    delivered: Vec<Attempt>,
    /// Rows of these.
    rows: u64,
}

/// What rows are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be passed on: none can be taken back.
    PassOn,
    /// To be counted: where others take the place of some, the count begins anew.
    Count,
}

/// How much of a block was passed on.
#[derive(Debug, Default)]
struct Part {
    attempt: Option<Attempt>,
    frames: usize,
    rows: u64,
    /// Frames that come again and are not passed on again.
    skip: usize,
}

/// Why there is no next batch.
pub(super) enum Failed {
    /// An output cannot be read; it may be, after the driver was told.
    Lost(Lost),
    For(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::For(error)
    }
}

impl Reading {
    pub(super) fn new(
        run: RunId,
        purpose: Purpose,
        schema: SchemaRef,
        source: Arc<dyn BlockSource>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        Self {
            run,
            purpose,
            schema,
            source,
            metrics: Arc::default(),
            orders,
            intent: None,
            ended: false,
            manifest: None,
            block: None,
            part: Part::default(),
            delivered: Vec::new(),
            rows: 0,
        }
    }

    /// Requests to the store since this was last asked.
    pub(super) fn take_requests(&self) -> Requests {
        self.metrics.take_requests()
    }

    /// Rows of the blocks that were passed on whole.
    pub(super) const fn rows(&self) -> u64 {
        self.rows
    }

    /// Attempts of these.
    pub(super) fn winners(&self) -> Vec<Attempt> {
        self.delivered.clone()
    }

    /// Whether the run is past the point where it could be taken back.
    pub(super) const fn is_committing(&self) -> bool {
        self.intent.is_some()
    }

    /// The next batch of the root's blocks, in the order of its tasks.
    pub(super) async fn next(&mut self) -> Result<Next, Failed> {
        loop {
            let Some(batches) = &mut self.block else {
                match self.open_block().await? {
                    Some(ended) => return Ok(ended),
                    None => continue,
                }
            };
            match batches.next().await {
                Some(Ok(_)) if self.part.skip > 0 => self.part.skip -= 1,
                Some(Ok(batch)) => {
                    self.part.frames += 1;
                    self.part.rows += batch.num_rows() as u64;
                    return Ok(Next::Batch(batch));
                }
                Some(Err(error)) if error.error.kind == ErrorKind::LostInput => {
                    self.block = None;
                    self.manifest = None;
                    return Err(Failed::Lost(error.lost));
                }
                Some(Err(error)) => return Err(self.interrupted(error.error).into()),
                None => {
                    let part = std::mem::take(&mut self.part);
                    self.rows += part.rows;
                    self.delivered.extend(part.attempt);
                    self.block = None;
                }
            }
        }
    }

    /// Starts to read the next block, or the rest of one, when there is a manifest that names it.
    async fn open_block(&mut self) -> Result<Option<Next>> {
        while self.manifest.is_none() && self.intent.is_none() && !self.ended {
            if !self.obey().await {
                return Ok(Some(Next::Abandoned));
            }
        }
        while let Ok(newer) = self.orders.try_recv() {
            self.take(newer);
        }
        if self.intent.is_some() || self.ended {
            return Ok(Some(Next::Gone));
        }
        let Some(manifest) = &self.manifest else { return Ok(Some(Next::Gone)) };
        if !self.is_still_right(manifest) {
            if self.purpose == Purpose::PassOn {
                let changed = "a part that was shown had to be computed again and may differ";
                return Err(self.interrupted(Error::lost_input(changed)));
            }
            (self.delivered, self.rows, self.part) = (Vec::new(), 0, Part::default());
        }
        let Some(block) = block(manifest, self.delivered.len()) else { return Ok(Some(Next::All)) };
        self.part.attempt = Some(block.attempt);
        self.part.skip = self.part.frames;
        let metrics = Arc::clone(&self.metrics);
        self.block = Some(self.source.read(&self.run, vec![block], Arc::clone(&self.schema), metrics));
        Ok(None)
    }

    /// Waits for an order; `false` if nobody gives any more.
    async fn obey(&mut self) -> bool {
        let order = self.orders.recv().await;
        let given = order.is_some();
        order.into_iter().for_each(|order| self.take(order));
        given
    }

    /// Waits until what is to be published is durable; or says that the run, or its driver, ended otherwise.
    pub(super) async fn permission(&mut self) -> std::result::Result<Intent, Next> {
        loop {
            if let Some(intent) = self.intent.take() {
                return Ok(intent);
            }
            if !self.obey().await {
                return Err(Next::Abandoned);
            }
            if self.ended {
                return Err(Next::Gone);
            }
        }
    }

    /// Waits until the run, or its driver, ended; what else is told meanwhile is kept.
    pub(super) async fn ended(&mut self) -> Next {
        while !self.ended {
            if !self.obey().await {
                return Next::Abandoned;
            }
        }
        Next::Gone
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Read(manifest) => self.manifest = Some(manifest),
            Order::Publish(intent) => self.intent = Some(intent),
            Order::Ended => self.ended = true,
        }
    }

    /// Whether what was passed on is still part of the result.
    fn is_still_right(&self, manifest: &Manifest) -> bool {
        let part = self.part.attempt.filter(|_| self.part.frames > 0);
        let mut passed_on = self.delivered.iter().copied().chain(part);
        let mut now = manifest.outputs.iter().map(|o| o.attempt);
        passed_on.all(|then| now.next() == Some(then))
    }

    fn interrupted(&self, error: Error) -> Error {
        match self.rows + self.part.rows {
            0 => error,
            _ => Error { message: format!("{}: submit the run again", error.message), ..error },
        }
    }
}

fn block(manifest: &Manifest, index: usize) -> Option<BlockRequest> {
    let output = manifest.outputs.get(index)?;
    Some(BlockRequest {
        task: TaskId { stage: manifest.stage, index: u32::try_from(index).ok()? },
        attempt: output.attempt,
        partition: 0,
        holder: output.holder.clone(),
        footer: output.footer,
        pack: output.pack.clone(),
    })
}
