//! The way to a coordinator in another process.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use tidemill_core::record::Pack;
use tidemill_core::schedule::LostOutput;
use tidemill_core::{BlobHash, Error, Result, RunId};
use tidemill_engine::control::ControlLink;
use tidemill_engine::wire::control_client::ControlClient;
use tidemill_engine::wire::{self, MAX_MESSAGE_BYTES, statuses};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

/// How long the coordinator may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an idle connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// gRPC to a coordinator.
#[derive(Debug, Clone)]
pub struct GrpcLink {
    client: ControlClient<Channel>,
    url: String,
}

impl GrpcLink {
    /// A link to the coordinator at `url`; connects when it is used.
    ///
    /// # Errors
    /// `url` is no URL.
    pub fn new(url: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("`{url}` is not a URL: write http://HOST:PORT"));
        if !url.starts_with("http://") {
            return Err(wrong());
        }
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|_| wrong())?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let client = ControlClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { client, url: url.to_owned() })
    }

    fn unreachable(&self, status: &tonic::Status) -> Error {
        let error = statuses(status);
        match status.details().is_empty() {
            true => Error {
                message: format!("the coordinator at {} does not answer: {}", self.url, error.message),
                ..error
            },
            false => error,
        }
    }
}

#[async_trait]
impl ControlLink for GrpcLink {
    async fn attach(
        &self,
        from: mpsc::Receiver<wire::FromExecutor>,
    ) -> Result<BoxStream<'static, Result<wire::ToExecutor>>> {
        let messages = self.client.clone().attach(ReceiverStream::new(from)).await.map_err(|s| self.unreachable(&s))?;
        Ok(messages.into_inner().map(|m| m.map_err(|s| statuses(&s))).boxed())
    }

    async fn fetch_blob(&self, hash: &BlobHash) -> Result<Bytes> {
        let request = wire::BlobRequest { hash: hash.0.clone() };
        let mut chunks = self.client.clone().fetch_blob(request).await.map_err(|s| self.unreachable(&s))?.into_inner();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.message().await.map_err(|s| statuses(&s))? {
            bytes.extend_from_slice(&chunk.data);
        }
        Ok(bytes.freeze())
    }

    async fn locate(&self, run: &RunId, outputs: &[LostOutput]) -> Result<Vec<Option<Pack>>> {
        let outputs = outputs.iter().copied().map(Into::into).collect();
        let request = wire::LocateRequest { run: run.0.clone(), outputs };
        let located = self.client.clone().locate(request).await.map_err(|s| self.unreachable(&s))?.into_inner();
        Ok(located.packs.iter().map(|pack| (!pack.name.is_empty()).then(|| Pack::from(pack))).collect())
    }
}
