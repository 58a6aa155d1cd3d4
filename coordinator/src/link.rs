//! Control streams, from other processes and from this one.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use tidemill_core::record::Pack;
use tidemill_core::schedule::LostOutput;
use tidemill_core::{BlobHash, Error, ExecutorId, Result, RunId};
use tidemill_engine::control::{CONTROL_QUEUE, ControlLink};
use tidemill_engine::planner::BlobReader;
use tidemill_engine::wire::{self, from_executor, missing};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use crate::Coordinator;
use crate::driver::{Input, WeakInbox};

/// Numbers streams, so that a late end of an old one is not taken for the end of its successor.
static STREAMS: AtomicU64 = AtomicU64::new(1);

/// The coordinator in the same process.
#[derive(Debug, Clone)]
pub struct LocalLink(Coordinator);

impl LocalLink {
    /// A link without sockets.
    #[must_use]
    pub const fn new(coordinator: Coordinator) -> Self {
        Self(coordinator)
    }
}

#[async_trait]
impl ControlLink for LocalLink {
    async fn attach(
        &self,
        from: mpsc::Receiver<wire::FromExecutor>,
    ) -> Result<BoxStream<'static, Result<wire::ToExecutor>>> {
        let messages = ReceiverStream::new(from).map(Ok);
        Ok(attach(self.0.inbox().downgrade(), messages.boxed()).boxed())
    }

    async fn fetch_blob(&self, hash: &BlobHash) -> Result<Bytes> {
        read_blob(&self.0, hash)
    }

    async fn locate(&self, run: &RunId, outputs: &[LostOutput]) -> Result<Vec<Option<Pack>>> {
        self.0.inbox().locate(run.clone(), outputs.to_vec()).await
    }
}

/// The content of a blob.
pub(crate) fn read_blob(coordinator: &Coordinator, hash: &BlobHash) -> Result<Bytes> {
    let missing = || Error::not_found(format!("blob {hash} is not kept: its run has ended"));
    let content = coordinator.blobs().read(hash).ok_or_else(missing)?;
    coordinator.traffic().fetch_add(content.len() as u64, Ordering::Relaxed);
    Ok(content)
}

/// Serves one control stream: what the executor says goes to the driver, what the driver says comes back.
pub(crate) fn attach(
    inbox: WeakInbox,
    mut messages: BoxStream<'static, Result<wire::FromExecutor>>,
) -> impl Stream<Item = Result<wire::ToExecutor>> + Send {
    let (to, from) = mpsc::channel(CONTROL_QUEUE);
    // Dropped with the answers: nobody listens any more.
    let (listening, mut hung_up) = oneshot::channel::<()>();
    let id = STREAMS.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(async move {
        let register = match messages.next().await {
            Some(Ok(wire::FromExecutor { message: Some(from_executor::Message::Register(register)), .. })) => register,
            _ => {
                let _ = to.send(Err(missing("FromExecutor.register"))).await;
                return;
            }
        };
        let executor = ExecutorId(register.executor.clone());
        inbox.send(Input::Attached { register, to, id }).await;
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(Ok(message)) => {
                        inbox.send(Input::FromExecutor { executor: executor.clone(), id, message }).await;
                    }
                    Some(Err(_)) | None => break,
                },
                _ = &mut hung_up => break,
            }
        }
        inbox.send(Input::Detached { executor, id }).await;
    });
    ReceiverStream::new(from).inspect(move |_| {
        let _ = &listening;
    })
}
