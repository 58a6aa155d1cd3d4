//! What a `DoPut` call sends: a command, and rows perhaps.
//!
//! Invariant: no more bytes are kept than the command may bring, unpacked a few times as many, and a client that falls silent is not waited for.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{Any, Command};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use prost::Message;
use tidemill_core::{Error, Result};
use tidemill_engine::wire::statuses;
use tokio::time::timeout;
use tonic::Status;

/// How long the next message of a client may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many times the bytes that are sent the rows may take when they are unpacked.
const UNPACKED: usize = 4;

/// Rows with their columns.
pub(super) type Rows = (SchemaRef, Vec<RecordBatch>);

/// A command, and rows that have not been read yet.
pub(super) struct Upload {
    /// What to do.
    pub(super) command: Command,
    messages: BoxStream<'static, Result<FlightData, Status>>,
}

impl Upload {
    /// Reads the command, which comes with the first message.
    pub(super) async fn open(
        messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    ) -> Result<Self> {
        let mut messages = messages.boxed();
        let first = timeout(PATIENCE, messages.next()).await.map_err(|_| silent())?;
        let first = first.ok_or_else(|| Error::invalid("the call sends nothing: a command was expected"))?;
        let first = first.map_err(|status| statuses(&status))?;
        let command = first.flight_descriptor.as_ref().map(|descriptor| command(&descriptor.cmd));
        let command =
            command.ok_or_else(|| Error::invalid("the first message has no descriptor: a command was expected"))??;
        Ok(Self { command, messages: futures::stream::iter([Ok(first)]).chain(messages).boxed() })
    }

    /// All rows, if there are columns; `what` they are is for the error that they are too many.
    pub(super) async fn rows(self, most_bytes: usize, what: &str) -> Result<Option<Rows>> {
        let too_many =
            Error::resources_exhausted(format!("{what} take more than {most_bytes} bytes: send fewer at once"));
        let unpacked_too_large = too_many.clone();
        let mut bytes = 0;
        let messages = self.messages.map(move |message| {
            let message = message.map_err(|status| FlightError::Tonic(Box::new(status)))?;
            bytes += message.data_header.len() + message.data_body.len();
            match bytes > most_bytes {
                true => Err(FlightError::ExternalError(Box::new(too_many.clone()))),
                false => Ok(message),
            }
        });
        // A command may come alone.
        let messages = messages.filter(|message| {
            let is_empty = message.as_ref().is_ok_and(|message| message.data_header.is_empty());
            std::future::ready(!is_empty)
        });
        let (mut decoder, mut columns, mut batches) = (FlightDataDecoder::new(messages), None, Vec::new());
        let mut unpacked = 0;
        while let Some(decoded) = timeout(PATIENCE, decoder.next()).await.map_err(|_| silent())? {
            match decoded.map_err(|e| unreadable(&e))?.payload {
                DecodedPayload::Schema(schema) if columns.is_none() => columns = Some(schema),
                DecodedPayload::Schema(_) => return Err(Error::invalid("the rows have columns twice")),
                DecodedPayload::RecordBatch(batch) => {
                    unpacked += batch.get_array_memory_size();
                    if unpacked > most_bytes.saturating_mul(UNPACKED) {
                        return Err(unpacked_too_large);
                    }
                    batches.push(batch);
                }
                DecodedPayload::None => {}
            }
        }
        Ok(columns.filter(|schema: &SchemaRef| !schema.fields().is_empty()).map(|schema| (schema, batches)))
    }
}

/// The command of a descriptor.
pub(super) fn command(bytes: &[u8]) -> Result<Command> {
    let wrong = |e: &dyn std::fmt::Display| Error::invalid(format!("the descriptor is no command of Flight SQL: {e}"));
    Command::try_from(Any::decode(bytes).map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))
}

fn silent() -> Error {
    Error::unavailable(format!("the client sent nothing for {} s: send it again", PATIENCE.as_secs()))
}

fn unreadable(error: &FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => statuses(status),
        FlightError::ExternalError(source) => match source.downcast_ref::<Error>() {
            Some(error) => error.clone(),
            None => Error::invalid(format!("the rows cannot be read: {source}")),
        },
        other => Error::invalid(format!("the rows cannot be read: {other}")),
    }
}
