//! The control stream between an executor and its coordinator, and its twin inside one process.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tidemill_core::record::Pack;
use tidemill_core::schedule::LostOutput;
use tidemill_core::{BlobHash, Result, RunId};
use tokio::sync::mpsc;

use crate::wire;

/// Messages that wait to be sent to one executor or from it. A full queue blocks the sender.
pub const CONTROL_QUEUE: usize = 4096;

/// An executor's way to its coordinator.
#[async_trait]
pub trait ControlLink: fmt::Debug + Send + Sync {
    /// Opens the stream. `from` ends when the executor leaves; the answer ends when the coordinator does.
    ///
    /// # Errors
    /// `Unavailable` while no coordinator answers.
    async fn attach(
        &self,
        from: mpsc::Receiver<wire::FromExecutor>,
    ) -> Result<BoxStream<'static, Result<wire::ToExecutor>>>;

    /// The content of a blob.
    ///
    /// # Errors
    /// `NotFound`, or `Unavailable` while no coordinator answers.
    async fn fetch_blob(&self, hash: &BlobHash) -> Result<Bytes>;

    /// The packs of outputs, where they have one by now.
    ///
    /// # Errors
    /// `Unavailable` while no coordinator answers.
    async fn locate(&self, run: &RunId, outputs: &[LostOutput]) -> Result<Vec<Option<Pack>>>;
}
