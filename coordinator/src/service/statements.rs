//! Statements over Arrow Flight: `DoGet` with a statement as its ticket streams the result. Hanging up cancels the run.

use std::pin::Pin;

use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use std::sync::Arc;
use tidemill_core::{Error, RunId};
use tidemill_engine::wire::{self, BUILD, MAX_MESSAGE_BYTES, PROGRESS_ACTION, RUN_ID_HEADER, message_crc, status_of};
use tonic::{Request, Response, Status, Streaming};

use crate::Coordinator;
use crate::runs::StatementRequest;

/// Characters of a run id, at the most.
const MAX_RUN_ID: usize = 64;

/// Serves clients' statements.
#[derive(Debug, Clone)]
pub struct StatementService(Coordinator);

impl StatementService {
    /// The service of a coordinator, for a tonic server.
    #[must_use]
    pub fn server(coordinator: Coordinator) -> FlightServiceServer<Self> {
        FlightServiceServer::new(Self(coordinator))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// What a client has of an answer.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    messages: u64,
    crc: u32,
}

/// The messages behind those that the client has, which must be the same, and as many.
fn behind(
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    seen: Seen,
) -> impl Stream<Item = Result<FlightData, Status>> + Send {
    let state = Some((messages.boxed(), Seen::default()));
    futures::stream::unfold(state, move |state| async move {
        let (mut messages, mut passed) = state?;
        loop {
            match messages.next().await {
                Some(Ok(message)) if passed.messages < seen.messages => {
                    passed = Seen { messages: passed.messages + 1, crc: message_crc(passed.crc, &message) };
                    if passed.messages == seen.messages && passed.crc != seen.crc {
                        return Some((Err(status_of(&changed())), None));
                    }
                }
                Some(Ok(message)) => return Some((Ok(message), Some((messages, passed)))),
                Some(Err(status)) => return Some((Err(status), None)),
                // It is shorter than what came before.
                None if passed.messages < seen.messages => return Some((Err(status_of(&changed())), None)),
                None => return None,
            }
        }
    })
}

fn changed() -> Error {
    Error::conflict(
        "a part of the result that was returned had to be computed again and came out differently: submit the run again",
    )
}

impl StatementService {
    /// An error, unless it is that this coordinator ends: then whoever asked asks the next one.
    fn status(&self, error: &Error) -> Status {
        match self.0.has_ended() {
            true => Status::unavailable("the coordinator has ended"),
            false => status_of(error),
        }
    }
}

/// A client's name for a run. It becomes a part of objects' names.
fn run_id(name: String) -> Result<RunId, Error> {
    let fits = name.len() <= MAX_RUN_ID && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    match fits {
        true => Ok(RunId(name)),
        false => {
            Err(Error::invalid(format!("{name:?} is no run id: use up to {MAX_RUN_ID} letters, digits, `-` and `_`")))
        }
    }
}

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn unserved<T>(call: &str) -> Result<Response<T>, Status> {
    Err(Status::unimplemented(format!("this coordinator serves DoGet of statements; {call} comes with Flight SQL")))
}

#[tonic::async_trait]
impl FlightService for StatementService {
    type HandshakeStream = Messages<HandshakeResponse>;
    type ListFlightsStream = Messages<FlightInfo>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = Messages<PutResult>;
    type DoActionStream = Messages<arrow_flight::Result>;
    type ListActionsStream = Messages<ActionType>;
    type DoExchangeStream = Messages<FlightData>;

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let ticket = wire::StatementTicket::decode(request.into_inner().ticket)
            .map_err(|e| status_of(&Error::invalid(format!("the ticket is no statement of ours: {e}"))))?;
        if ticket.build != BUILD {
            return Err(status_of(&Error::invalid(format!(
                "the client is of build {}, this coordinator of {BUILD}: run the same build everywhere",
                ticket.build
            ))));
        }
        let run = Some(ticket.run).filter(|run| !run.is_empty()).map(run_id).transpose().map_err(|e| status_of(&e))?;
        let run = match (ticket.fetch, run) {
            (true, Some(run)) => self.0.fetch(run).await,
            (true, None) => Err(Error::invalid("a result is asked for, and no run is named")),
            (false, run) => {
                let settings = ticket.settings.into_iter().collect();
                let plan = Some(Bytes::from(ticket.plan)).filter(|plan| !plan.is_empty());
                self.0.submit(StatementRequest { run, sql: ticket.sql, plan, settings }).await
            }
        };
        let run = run.map_err(|e| self.status(&e))?;
        let id = run.run.0.parse().map_err(|_| status_of(&Error::internal("a run id is no header")))?;
        let schema = Arc::clone(&run.schema);
        let service = self.clone();
        let batches = run.into_stream().map_err(move |e| FlightError::Tonic(Box::new(service.status(&e))));
        let messages = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            .with_dictionary_handling(arrow_flight::encode::DictionaryHandling::Resend)
            .build(batches)
            .map_err(|e| match e {
                FlightError::Tonic(status) => *status,
                other => status_of(&Error::internal(format!("a result cannot be encoded: {other}"))),
            });
        let seen = Seen { messages: ticket.seen_messages, crc: ticket.seen_crc };
        let mut response = Response::new(behind(messages, seen).boxed());
        response.metadata_mut().insert(RUN_ID_HEADER, id);
        Ok(response)
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

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let Action { r#type: action, body } = request.into_inner();
        if action != PROGRESS_ACTION {
            return unserved(&format!("the action {action}"));
        }
        let run = String::from_utf8(body.into()).map_err(|_| Error::invalid("the name of a run is no text"));
        let run = run.and_then(run_id).map_err(|e| status_of(&e))?;
        let progress = self.0.progress(run).await.map_err(|e| self.status(&e))?;
        let body = progress.map(|progress| wire::RunProgress::from(progress).encode_to_vec().into());
        Ok(Response::new(futures::stream::iter(body.map(|body| Ok(arrow_flight::Result { body }))).boxed()))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        unserved("ListActions")
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        unserved("DoExchange")
    }
}
