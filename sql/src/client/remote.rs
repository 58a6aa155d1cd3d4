//! A coordinator in another process, over Arrow Flight.

use arrow_flight::decode::{DecodedFlightData, DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use futures::{StreamExt, TryStreamExt};
use tidemill_coordinator::StatementRequest;
use tidemill_core::{Error, Result, RunId};
use tidemill_engine::coordinators::Coordinators;
use tidemill_engine::wire::{self, BUILD};

use super::QueryResult;
use super::answer::Answer;

pub(super) struct Remote {
    coordinators: Coordinators,
}

impl Remote {
    pub(super) async fn connect(urls: &str) -> Result<Self> {
        let coordinators = Coordinators::at(urls)?;
        coordinators.find().await?;
        Ok(Self { coordinators })
    }

    pub(super) async fn submit(&self, request: StatementRequest) -> Result<QueryResult> {
        let StatementRequest { run, sql, plan, settings } = request;
        let run = run.map_or_else(|| ulid::Ulid::new().to_string(), |run| run.0);
        let plan = plan.map(Vec::from).unwrap_or_default();
        self.ask(wire::StatementTicket { sql, settings, run, plan, ..Default::default() }).await
    }

    /// The kept result of a run that has finished.
    pub(super) async fn fetch(&self, run: &RunId) -> Result<QueryResult> {
        self.ask(wire::StatementTicket { run: run.0.clone(), fetch: true, ..Default::default() }).await
    }

    async fn ask(&self, mut ticket: wire::StatementTicket) -> Result<QueryResult> {
        BUILD.clone_into(&mut ticket.build);
        let run = RunId(ticket.run.clone());
        let answer = Answer::new(self.coordinators.clone(), ticket).into_stream();
        let mut messages = FlightDataDecoder::new(answer);
        // The schema comes as soon as the run is planned, long before its rows.
        let coordinators = self.coordinators.clone();
        let schema = match messages.next().await.transpose().map_err(|e| decoded(&coordinators, e))? {
            Some(DecodedFlightData { payload: DecodedPayload::Schema(schema), .. }) => schema,
            _ => return Err(Error::internal(format!("the answer of {coordinators} begins without a schema"))),
        };
        let batches = messages.map(move |message| match message {
            Ok(message) => Ok(match message.payload {
                DecodedPayload::RecordBatch(batch) => Some(batch),
                DecodedPayload::Schema(_) | DecodedPayload::None => None,
            }),
            Err(error) => Err(decoded(&coordinators, error)),
        });
        let batches = batches.try_filter_map(|batch| async move { Ok(batch) });
        Ok(QueryResult::new(Some(run), schema, batches))
    }
}

fn decoded(coordinators: &Coordinators, error: FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => coordinators.current().error(&status),
        other => Error::internal(format!("the answer of {coordinators} cannot be decoded: {other}")),
    }
}
