//! The way to a coordinator in another process.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use tidemill_core::record::Pack;
use tidemill_core::schedule::LostOutput;
use tidemill_core::{BlobHash, Result, RunId};
use tidemill_engine::control::ControlLink;
use tidemill_engine::coordinators::{Coordinator, Coordinators};
use tidemill_engine::peers::{PeerChannel, Peers};
use tidemill_engine::wire::control_client::ControlClient;
use tidemill_engine::wire::{self, MAX_MESSAGE_BYTES, statuses};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// gRPC to the coordinator that leads.
#[derive(Debug, Clone)]
pub struct GrpcLink {
    coordinators: Coordinators,
}

impl GrpcLink {
    /// A link to the coordinators at `urls`, divided by commas; connects when it is used.
    ///
    /// # Errors
    /// One is no URL.
    pub fn new(urls: &str) -> Result<Self> {
        Self::through(urls, &Peers::default())
    }

    /// The same, spoken to as `peers` says.
    ///
    /// # Errors
    /// One is no URL, or a secret would travel unencrypted.
    pub fn through(urls: &str, peers: &Peers) -> Result<Self> {
        Ok(Self { coordinators: Coordinators::through(urls, peers)? })
    }

    fn current(&self) -> (Coordinator, ControlClient<PeerChannel>) {
        let current = self.coordinators.current();
        let client = ControlClient::new(current.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        (current, client)
    }
}

#[async_trait]
impl ControlLink for GrpcLink {
    async fn attach(
        &self,
        from: mpsc::Receiver<wire::FromExecutor>,
    ) -> Result<BoxStream<'static, Result<wire::ToExecutor>>> {
        let (current, mut client) = self.current();
        match client.attach(ReceiverStream::new(from)).await {
            Ok(messages) => Ok(messages.into_inner().map(|m| m.map_err(|s| statuses(&s))).boxed()),
            Err(status) => {
                // The next try goes to the next.
                self.coordinators.turn_from(&current);
                Err(current.error(&status))
            }
        }
    }

    async fn fetch_blob(&self, hash: &BlobHash) -> Result<Bytes> {
        let request = wire::BlobRequest { hash: hash.0.clone() };
        let (current, mut client) = self.current();
        let mut chunks = client.fetch_blob(request).await.map_err(|s| current.error(&s))?.into_inner();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.message().await.map_err(|s| statuses(&s))? {
            bytes.extend_from_slice(&chunk.data);
        }
        Ok(bytes.freeze())
    }

    async fn locate(&self, run: &RunId, outputs: &[LostOutput]) -> Result<Vec<Option<Pack>>> {
        let outputs = outputs.iter().copied().map(Into::into).collect();
        let request = wire::LocateRequest { run: run.0.clone(), outputs };
        let (current, mut client) = self.current();
        let located = client.locate(request).await.map_err(|s| current.error(&s))?.into_inner();
        Ok(located.packs.iter().map(|pack| (!pack.name.is_empty()).then(|| Pack::from(pack))).collect())
    }
}
