//! A coordinator in another process, over Arrow Flight.

use arrow_flight::Action;
use arrow_flight::decode::{DecodedFlightData, DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tidemill_coordinator::StatementRequest;
use tidemill_core::schedule::Progress;
use tidemill_core::{Error, Result, RunId};
use tidemill_engine::coordinators::Coordinators;
use tidemill_engine::wire::{self, BUILD, PROGRESS_ACTION};

use super::QueryResult;
use super::answer::Answer;
use crate::security::Access;

#[derive(Clone)]
pub(super) struct Remote {
    coordinators: Coordinators,
}

impl Remote {
    pub(super) async fn connect(urls: &str, access: &Access) -> Result<Self> {
        let coordinators = Coordinators::through(urls, &access.peers()?)?;
        coordinators.find().await?;
        Ok(Self { coordinators })
    }

    pub(super) async fn submit(&self, request: StatementRequest) -> Result<QueryResult> {
        // Who asks, the coordinator finds out by itself.
        let StatementRequest { run, sql, parameters, plan, settings, by: _ } = request;
        let run = run.map_or_else(|| ulid::Ulid::new().to_string(), |run| run.0);
        let plan = plan.map(Vec::from).unwrap_or_default();
        let parameters = parameters.into();
        self.ask(wire::StatementTicket { sql, settings, run, parameters, plan, ..Default::default() }).await
    }

    /// How far a run has come, from who is spoken to now.
    pub(super) async fn progress(&self, run: &RunId) -> Result<Option<Progress>> {
        let coordinator = self.coordinators.current();
        let mut client = FlightServiceClient::new(coordinator.channel.clone());
        let action = Action { r#type: PROGRESS_ACTION.to_owned(), body: run.0.clone().into() };
        let mut answers = client.do_action(action).await.map_err(|status| coordinator.error(&status))?.into_inner();
        let answer = answers.message().await.map_err(|status| coordinator.error(&status))?;
        let progress = answer.map(|answer| wire::RunProgress::decode(answer.body)).transpose();
        let progress =
            progress.map_err(|e| Error::internal(format!("what a run's progress is cannot be read: {e}")))?;
        Ok(progress.map(Progress::from))
    }

    /// Tells whoever is spoken to now something of a session.
    pub(super) async fn tell(&self, what: &str, session: &str) -> Result<()> {
        let coordinator = self.coordinators.current();
        let mut client = FlightServiceClient::new(coordinator.channel.clone());
        let action = Action { r#type: what.to_owned(), body: session.to_owned().into() };
        client.do_action(action).await.map(drop).map_err(|status| coordinator.error(&status))
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

#[cfg(test)]
mod tests {
    use arrow_flight::decode::FlightDataDecoder;
    use futures::StreamExt;
    use tidemill_core::{ErrorKind, Result, Settings};
    use tidemill_engine::coordinators::Coordinators;
    use tidemill_engine::functions::Functions;
    use tidemill_engine::wire::{self, BUILD};

    use super::{Answer, decoded};
    use crate::compose::CoordinatorProcess;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_plan_of_another_build_is_refused_naming_both() -> Result<()> {
        let coordinator = CoordinatorProcess::start(Settings::default(), Functions::default(), None)?;
        let server = coordinator.listen(([127, 0, 0, 1], 0).into()).await?;
        let coordinators = Coordinators::at(&format!("http://{}", server.address))?;
        let build = "0.0.1+datafusion-54".to_owned();
        let ticket =
            wire::StatementTicket { sql: "DataFrame: t".to_owned(), plan: vec![8], build, ..Default::default() };
        let mut answer = FlightDataDecoder::new(Answer::new(coordinators.clone(), ticket).into_stream());
        let error = answer.next().await.transpose().err().map(|e| decoded(&coordinators, e));
        let (kind, message) = error.map(|e| (e.kind, e.message)).unwrap_or((ErrorKind::Internal, String::new()));
        assert_eq!(kind, ErrorKind::Invalid);
        assert!(message.contains("0.0.1+datafusion-54") && message.contains(BUILD), "{message}");
        server.stop().await;
        Ok(())
    }
}
