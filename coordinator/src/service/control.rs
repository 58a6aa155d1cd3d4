//! Control streams and blobs for executors.

use futures::StreamExt;
use futures::stream::BoxStream;
use tidemill_core::schedule::LostOutput;
use tidemill_core::{BlobHash, RunId};
use tidemill_engine::wire::control_server::{Control, ControlServer};
use tidemill_engine::wire::{self, MAX_MESSAGE_BYTES, status_of, statuses};
use tonic::{Request, Response, Status, Streaming};

use crate::Coordinator;
use crate::link::{attach, read_blob};

/// Bytes of one chunk of a blob.
const CHUNK_BYTES: usize = 1 << 20;

/// Serves executors.
#[derive(Debug, Clone)]
pub struct ControlService(Coordinator);

impl ControlService {
    /// The service of a coordinator, for a tonic server.
    #[must_use]
    pub fn server(coordinator: Coordinator) -> ControlServer<Self> {
        ControlServer::new(Self(coordinator))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    type AttachStream = BoxStream<'static, Result<wire::ToExecutor, Status>>;
    type FetchBlobStream = BoxStream<'static, Result<wire::BlobChunk, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<wire::FromExecutor>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let messages = request.into_inner().map(|m| m.map_err(|s| statuses(&s))).boxed();
        let answers = attach(self.0.inbox().downgrade(), messages);
        Ok(Response::new(answers.map(|m| m.map_err(|e| status_of(&e))).boxed()))
    }

    async fn locate(&self, request: Request<wire::LocateRequest>) -> Result<Response<wire::Located>, Status> {
        let request = request.into_inner();
        let outputs = request.outputs.iter().map(LostOutput::try_from).collect::<Result<_, _>>();
        let outputs = outputs.map_err(|e| status_of(&e))?;
        let packs = self.0.inbox().locate(RunId(request.run), outputs).await.map_err(|e| status_of(&e))?;
        let packs = packs.iter().map(|pack| pack.as_ref().map(wire::Pack::from).unwrap_or_default()).collect();
        Ok(Response::new(wire::Located { packs }))
    }

    async fn fetch_blob(&self, request: Request<wire::BlobRequest>) -> Result<Response<Self::FetchBlobStream>, Status> {
        let hash = BlobHash(request.into_inner().hash);
        let mut bytes = read_blob(&self.0, &hash).map_err(|e| status_of(&e))?;
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK_BYTES));
            chunks.push(Ok(wire::BlobChunk { data: chunk.to_vec() }));
        }
        Ok(Response::new(futures::stream::iter(chunks).boxed()))
    }
}
