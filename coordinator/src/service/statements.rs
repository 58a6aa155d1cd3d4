//! Statements of our own clients over Arrow Flight: `DoGet` with a statement as its ticket streams the result. Hanging up
//! cancels the run.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use arrow_flight::{Action, FlightData};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use tidemill_core::{Error, Principal, Result, RunId};
use tidemill_engine::wire::{
    self, BUILD, PROGRESS_ACTION, RUN_ID_HEADER, SESSION_ENDED_ACTION, SESSION_HEARD_ACTION, message_crc, status_of,
};
use tonic::{Response, Status};

use crate::Coordinator;
use crate::runs::StatementRequest;

/// Characters of a run id, at the most.
const MAX_RUN_ID: usize = 64;

/// Answers clients' tickets.
#[derive(Debug, Clone)]
pub struct StatementService(Coordinator);

/// The messages of an answer.
pub type Messages = BoxStream<'static, Result<FlightData, Status>>;

/// The answers to an action.
pub type Answers = BoxStream<'static, Result<arrow_flight::Result, Status>>;

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

/// A client's name for a run. It becomes a part of objects' names.
fn run_id(name: String) -> Result<RunId> {
    let fits = name.len() <= MAX_RUN_ID && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    match fits {
        true => Ok(RunId(name)),
        false => {
            Err(Error::invalid(format!("{name:?} is no run id: use up to {MAX_RUN_ID} letters, digits, `-` and `_`")))
        }
    }
}

/// A result as Flight's messages; `status` words its errors.
pub fn messages(
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    status: impl Fn(&Error) -> Status + Clone + Send + 'static,
) -> Messages {
    let word = status.clone();
    FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .with_dictionary_handling(DictionaryHandling::Resend)
        .build(batches.map_err(move |e| FlightError::Tonic(Box::new(word(&e)))))
        .map_err(move |e| match e {
            FlightError::Tonic(status) => *status,
            other => status(&Error::internal(format!("a result cannot be encoded: {other}"))),
        })
        .boxed()
}

impl StatementService {
    /// The service of a coordinator.
    #[must_use]
    pub const fn new(coordinator: Coordinator) -> Self {
        Self(coordinator)
    }

    /// Runs the statement of a ticket for `by`, or goes on with its answer, or with the result that it asks for.
    ///
    /// # Errors
    /// The ticket is none of ours, or the statement is wrong.
    pub async fn do_get(&self, ticket: &[u8], by: Principal) -> Result<Response<Messages>, Status> {
        let ticket = wire::StatementTicket::decode(ticket)
            .map_err(|e| status_of(&Error::invalid(format!("the ticket is no statement of ours: {e}"))))?;
        if ticket.build != BUILD {
            return Err(status_of(&Error::invalid(format!(
                "the client is of build {}, this coordinator of {BUILD}: run the same build everywhere",
                ticket.build
            ))));
        }
        let run = Some(ticket.run).filter(|run| !run.is_empty()).map(run_id).transpose().map_err(|e| status_of(&e))?;
        let run = match (ticket.fetch, run) {
            (true, Some(run)) => self.0.fetch(run, by).await,
            (true, None) => Err(Error::invalid("a result is asked for, and no run is named")),
            (false, run) => {
                let settings = ticket.settings.into_iter().collect();
                let plan = Some(Bytes::from(ticket.plan)).filter(|plan| !plan.is_empty());
                let parameters = ticket.parameters.into();
                self.0.submit(StatementRequest { run, sql: ticket.sql, parameters, plan, settings, by }).await
            }
        };
        let run = run.map_err(|e| self.status(&e))?;
        let id = run.run.0.parse().map_err(|_| status_of(&Error::internal("a run id is no header")))?;
        let schema = Arc::clone(&run.schema);
        let service = self.clone();
        let messages = messages(schema, run.into_stream(), move |e| service.status(e));
        let seen = Seen { messages: ticket.seen_messages, crc: ticket.seen_crc };
        let mut response = Response::new(behind(messages, seen).boxed());
        response.metadata_mut().insert(RUN_ID_HEADER, id);
        Ok(response)
    }

    /// Whether an action is one of our own client's.
    #[must_use]
    pub fn serves(action: &str) -> bool {
        [PROGRESS_ACTION, SESSION_HEARD_ACTION, SESSION_ENDED_ACTION].contains(&action)
    }

    /// Answers an action of our own client's: how far a run has come, or that its session goes on, or has ended.
    ///
    /// # Errors
    /// The action is none of ours, or its body names no run.
    pub async fn do_action(&self, action: Action) -> Result<Response<Answers>, Status> {
        let Action { r#type: action, body } = action;
        let name = String::from_utf8(body.into())
            .map_err(|_| status_of(&Error::invalid(format!("what {action} names is no text"))))?;
        let told = match action.as_str() {
            SESSION_HEARD_ACTION => self.0.session_heard(&name).await,
            SESSION_ENDED_ACTION => self.0.session_ended(&name).await,
            PROGRESS_ACTION => return self.progress(name).await,
            _ => return Err(Status::unimplemented(format!("the action {action} is not served by coordinators"))),
        };
        told.map_err(|e| self.status(&e))?;
        Ok(Response::new(futures::stream::empty().boxed()))
    }

    async fn progress(&self, run: String) -> Result<Response<Answers>, Status> {
        let run = run_id(run).map_err(|e| status_of(&e))?;
        let progress = self.0.progress(run).await.map_err(|e| self.status(&e))?;
        let body = progress.map(|progress| wire::RunProgress::from(progress).encode_to_vec().into());
        Ok(Response::new(futures::stream::iter(body.map(|body| Ok(arrow_flight::Result { body }))).boxed()))
    }

    /// An error, unless it is that this coordinator ends: then whoever asked asks the next one.
    fn status(&self, error: &Error) -> Status {
        match self.0.has_ended() {
            true => Status::unavailable("the coordinator has ended"),
            false => status_of(error),
        }
    }
}
