//! Serves this executor's blocks over Arrow Flight. A block stream has Flight's record batches without their schema, which
//! readers know from their plans, and our frame headers beside them.

use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use prost::Message;
use tidemill_core::schedule::LostOutput;
use tidemill_core::{Error, Result as CoreResult, RunId};
use tidemill_engine::exchange::frame::{Compression, Frame};
use tidemill_engine::tickets::TicketKeys;
use tidemill_engine::wire::{self, MAX_MESSAGE_BYTES, frame_header::Kind, missing, status_of};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::store::{BlockStore, StoredOutput};

/// Frames encoded ahead of the network, per stream.
const FRAMES_AHEAD: usize = 2;

/// The Flight service of an executor: `DoGet` of blocks, nothing else.
#[derive(Debug, Clone)]
pub struct BlockService {
    store: Arc<BlockStore>,
    cpu: Handle,
    tickets: TicketKeys,
}

impl BlockService {
    /// Serves `store` to those whose tickets are signed; frames are encoded on the `cpu` runtime.
    #[must_use]
    pub const fn new(store: Arc<BlockStore>, cpu: Handle, tickets: TicketKeys) -> Self {
        Self { store, cpu, tickets }
    }

    /// The service for a tonic server.
    #[must_use]
    pub fn into_server(self) -> FlightServiceServer<Self> {
        FlightServiceServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn open(&self, ticket: &wire::BlockTicket) -> CoreResult<Vec<(Arc<StoredOutput>, wire::BlockRef)>> {
        use tidemill_engine::exchange::LocalBlocks;
        self.tickets.check(ticket)?;
        let ours = self.store.executor();
        if ticket.executor != ours.0 {
            return Err(Error::not_found(format!("this is executor {ours}, not {}", ticket.executor)));
        }
        let run = RunId(ticket.run.clone());
        let block = |block: &wire::BlockRef| {
            let task = block.task.ok_or_else(|| missing("BlockRef.task"))?.into();
            let attempt = block.attempt.ok_or_else(|| missing("BlockRef.attempt"))?.into();
            let stored = self.store.output(&run, LostOutput { task, attempt }).map_err(|e| e.error)?;
            Ok((stored, *block))
        };
        ticket.blocks.iter().map(block).collect()
    }
}

/// Sends all blocks; ends early when the reader is gone.
async fn send(
    blocks: Vec<(Arc<StoredOutput>, wire::BlockRef)>,
    compression: Compression,
    to: mpsc::Sender<Result<Vec<FlightData>, Status>>,
) {
    for (index, (stored, block)) in (0u32..).zip(blocks) {
        if block.want_footer {
            let footer = header(index, Kind::Footer(stored.footer().to_wire()));
            if to.send(Ok(vec![footer])).await.is_err() {
                return;
            }
        }
        let frames = BlockStore::encoded(stored, block.partition, compression).enumerate();
        let mut frames = std::pin::pin!(frames.skip(usize::try_from(block.from_frame).unwrap_or(usize::MAX)));
        let mut sent = block.from_frame;
        while let Some((number, frame)) = frames.next().await {
            let message = frame.map(|f| messages(index, number as u64, f)).map_err(|e| status_of(&e.error));
            let failed = message.is_err();
            if to.send(message).await.is_err() || failed {
                return;
            }
            sent += 1;
        }
        if to.send(Ok(vec![header(index, Kind::End(wire::BlockEnd { frames: sent }))])).await.is_err() {
            return;
        }
    }
}

fn header(block: u32, kind: Kind) -> FlightData {
    let header = wire::FrameHeader { block, kind: Some(kind) };
    FlightData { app_metadata: header.encode_to_vec().into(), ..FlightData::default() }
}

fn messages(block: u32, number: u64, frame: Frame) -> Vec<FlightData> {
    let end = header(block, Kind::Frame(wire::FrameEnd { number, crc: frame.crc }));
    let mut messages: Vec<FlightData> = frame
        .messages
        .into_iter()
        .map(|m| FlightData { data_header: m.header, data_body: m.body, ..FlightData::default() })
        .collect();
    if let Some(last) = messages.last_mut() {
        last.app_metadata = end.app_metadata;
    }
    messages
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn unserved<T>(call: &str) -> Result<Response<T>, Status> {
    Err(Status::unimplemented(format!("an executor serves DoGet of exchange blocks, not {call}: ask the coordinator")))
}

#[tonic::async_trait]
impl FlightService for BlockService {
    type HandshakeStream = Messages<HandshakeResponse>;
    type ListFlightsStream = Messages<FlightInfo>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = Messages<PutResult>;
    type DoActionStream = Messages<arrow_flight::Result>;
    type ListActionsStream = Messages<ActionType>;
    type DoExchangeStream = Messages<FlightData>;

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let same_host = request.remote_addr().is_none_or(|peer| peer.ip().is_loopback());
        let compression = if same_host { Compression::None } else { Compression::Lz4 };
        let ticket = wire::BlockTicket::decode(request.into_inner().ticket)
            .map_err(|e| status_of(&Error::invalid(format!("the ticket is not one of ours: {e}"))))?;
        let blocks = self.open(&ticket).map_err(|e| status_of(&e))?;
        let (to, from) = mpsc::channel(FRAMES_AHEAD);
        self.cpu.spawn(send(blocks, compression, to));
        let flat = ReceiverStream::new(from).flat_map(|messages| match messages {
            Ok(messages) => futures::stream::iter(messages.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(status) => futures::stream::iter(vec![Err(status)]),
        });
        Ok(Response::new(flat.boxed()))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        unserved("Handshake")
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        unserved("ListFlights")
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        unserved("GetFlightInfo")
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        unserved("PollFlightInfo")
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        unserved("GetSchema")
    }

    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        unserved("DoPut")
    }

    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        unserved("DoAction")
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        unserved("ListActions")
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        unserved("DoExchange")
    }
}
