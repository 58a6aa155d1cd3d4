//! A coordinator in another process, over Arrow Flight.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow_flight::decode::{DecodedFlightData, DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use futures::{StreamExt, TryStreamExt};
use tidemill_core::{Error, Result, RunId};
use tidemill_engine::wire::{self, BUILD, MAX_MESSAGE_BYTES};
use tonic::transport::{Channel, Endpoint};

use super::QueryResult;
use super::answer::{Answer, failed};

/// How long a coordinator may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Remote {
    client: FlightServiceClient<Channel>,
    url: String,
}

impl Remote {
    pub(super) async fn connect(url: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("`{url}` is not a URL: write http://HOST:PORT"));
        if url.starts_with("https://") {
            return Err(Error::invalid(format!("`{url}`: there is no TLS yet, write http://HOST:PORT")));
        }
        if !url.starts_with("http://") {
            return Err(wrong());
        }
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| wrong())?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(CONNECT_TIMEOUT)
            .keep_alive_timeout(CONNECT_TIMEOUT);
        let channel = endpoint.connect().await.map_err(|e| {
            let cause = root_cause(&e);
            Error::unavailable(format!(
                "no coordinator answers at {url} ({cause}): is it running, and is the port right?"
            ))
        })?;
        let client = FlightServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { client, url: url.to_owned() })
    }

    pub(super) async fn execute(&self, sql: &str, settings: BTreeMap<String, String>) -> Result<QueryResult> {
        let (run, settings) = (ulid::Ulid::new().to_string(), settings.into_iter().collect());
        self.ask(wire::StatementTicket { sql: sql.to_owned(), settings, run, ..Default::default() }).await
    }

    /// The kept result of a run that has finished.
    pub(super) async fn fetch(&self, run: &RunId) -> Result<QueryResult> {
        self.ask(wire::StatementTicket { run: run.0.clone(), fetch: true, ..Default::default() }).await
    }

    async fn ask(&self, mut ticket: wire::StatementTicket) -> Result<QueryResult> {
        BUILD.clone_into(&mut ticket.build);
        let run = RunId(ticket.run.clone());
        let answer = Answer::new(self.client.clone(), ticket).into_stream();
        let mut messages = FlightDataDecoder::new(answer);
        // The schema comes as soon as the run is planned, long before its rows.
        let schema = match messages.next().await.transpose().map_err(|e| decoded(&self.url, e))? {
            Some(DecodedFlightData { payload: DecodedPayload::Schema(schema), .. }) => schema,
            _ => return Err(Error::internal(format!("the answer of {} begins without a schema", self.url))),
        };
        let url = self.url.clone();
        let batches = messages.map(move |message| match message {
            Ok(message) => Ok(match message.payload {
                DecodedPayload::RecordBatch(batch) => Some(batch),
                DecodedPayload::Schema(_) | DecodedPayload::None => None,
            }),
            Err(error) => Err(decoded(&url, error)),
        });
        let batches = batches.try_filter_map(|batch| async move { Ok(batch) });
        Ok(QueryResult::new(Some(run), schema, batches))
    }
}

fn decoded(url: &str, error: FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => failed(url, &status),
        other => Error::internal(format!("the answer of {url} cannot be decoded: {other}")),
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
