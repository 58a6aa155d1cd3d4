//! Results between the call that asks for them and the one that fetches them.
//!
//! A query runs from the moment that it is asked for, as far as its buffers allow. What changes something is waited for, so
//! that it has happened, or its client knows why not, whether or not the client fetches an answer that says nothing.
//!
//! Invariant: dropping a result cancels its run. A ticket is good for its statement also with the next coordinator, unless
//! the statement changes something: that never happens again.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tidemill_coordinator::{Messages, RunStream, StatementRequest, messages};
use tidemill_core::record::RunState;
use tidemill_core::{Error, Result, RunId};
use tidemill_engine::wire::{self, BUILD};

use super::ahead::read_ahead;
use super::identity::Caller;
use super::sessions::Settings;
use super::{FlightSql, only_statement, status, views};
use crate::session::statements;

/// Rows that a statement may answer that changes something: it tells how many rows it wrote.
const MAX_COUNTS: usize = 1024;

/// A result that waits for its client.
pub(super) struct Waiting {
    schema: SchemaRef,
    batches: BoxStream<'static, Result<RecordBatch>>,
}

impl Waiting {
    fn of(run: RunStream, settings: &Settings) -> Self {
        let schema = Arc::clone(&run.schema);
        let expanded = if settings.keeps_views() { Arc::clone(&schema) } else { views::expanded(&schema) };
        if expanded == schema {
            return Self { schema, batches: read_ahead(run.into_stream()) };
        }
        let columns = Arc::clone(&expanded);
        let batches = run.into_stream().map(move |batch| views::expand(&batch?, &columns));
        Self { schema: expanded, batches: read_ahead(batches) }
    }

    fn nothing() -> Self {
        Self::ready(Arc::new(Schema::empty()), Vec::new())
    }

    fn ready(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self { schema, batches: futures::stream::iter(batches.into_iter().map(Ok)).boxed() }
    }

    /// All rows of a statement that changes something, when it has.
    async fn done(self) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let Self { schema, mut batches } = self;
        let (mut all, mut rows) = (Vec::new(), 0);
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows();
            if rows > MAX_COUNTS {
                return Err(Error::internal("a statement that changes something answers more than counts"));
            }
            all.push(batch);
        }
        Ok((schema, all))
    }

    fn into_messages(self) -> Messages {
        messages(self.schema, self.batches, status)
    }
}

/// A statement with its values.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    /// Exactly one statement.
    pub(super) sql: String,
    /// Values of its placeholders; empty where there are none.
    pub(super) parameters: Bytes,
}

impl Bound {
    /// A statement without values.
    pub(super) fn text(text: &str) -> Result<Self> {
        Ok(Self { sql: only_statement(text)?, parameters: Bytes::new() })
    }
}

impl FlightSql {
    /// Runs a statement; its result waits to be fetched with the ticket of the answer.
    pub(super) async fn execute(&self, caller: &Caller, bound: Bound, asked: FlightDescriptor) -> Result<FlightInfo> {
        let run = RunId(ulid::Ulid::new().to_string());
        // What has happened must not be told to be too much.
        let name = kept_for(caller, &run.0);
        self.0.results.put(name.clone(), Waiting::nothing())?;
        let started = self.start(caller, &run, bound).await.and_then(|(waiting, ticket)| {
            let handle = TicketStatementQuery { statement_handle: ticket.encode_to_vec().into() };
            Ok((info(&waiting.schema, Ticket::new(handle.as_any().encode_to_vec()), asked)?, waiting))
        });
        match started {
            Ok((info, waiting)) => {
                self.0.results.replace(name, waiting);
                Ok(info.with_app_metadata(run.0))
            }
            Err(error) => {
                self.0.results.take(&name);
                Err(error)
            }
        }
    }

    /// The result of a statement, and a ticket for it.
    async fn start(&self, caller: &Caller, run: &RunId, bound: Bound) -> Result<(Waiting, wire::StatementTicket)> {
        let mut ticket =
            wire::StatementTicket { run: run.0.clone(), build: BUILD.to_owned(), ..wire::StatementTicket::default() };
        if statements::may_change(&bound.sql) {
            let (schema, batches) = self.change(caller, run, bound).await?;
            return Ok((Waiting::ready(schema, batches), ticket));
        }
        if let Some(change) = self.setting_change(&bound.sql).await? {
            self.0.sessions.change(caller, &change)?;
            return Ok((Waiting::nothing(), ticket));
        }
        ticket.settings = self.0.sessions.settings(caller)?.into_entries();
        ticket.sql.clone_from(&bound.sql);
        ticket.parameters = bound.parameters.to_vec();
        Ok((self.submit(caller, run, bound).await?, ticket))
    }

    /// Runs a statement to its end; how many rows it says that it wrote, or -1 if it does not say.
    pub(super) async fn update(&self, caller: &Caller, bound: Bound) -> Result<i64> {
        if let Some(change) = self.setting_change(&bound.sql).await? {
            self.0.sessions.change(caller, &change)?;
            return Ok(0);
        }
        let run = RunId(ulid::Ulid::new().to_string());
        if !statements::may_change(&bound.sql) {
            // A query that is run for nothing: its rows are not kept.
            let mut waiting = self.submit(caller, &run, bound).await?;
            while waiting.batches.try_next().await?.is_some() {}
            return Ok(-1);
        }
        let (schema, batches) = self.change(caller, &run, bound).await?;
        Ok(count(&schema, &batches))
    }

    /// Runs a statement that changes something, the caller's session perhaps; what it answers when it has.
    async fn change(&self, caller: &Caller, run: &RunId, bound: Bound) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        self.0.sessions.begin_for(caller, &bound.sql)?;
        let (schema, batches) = self.submit(caller, run, bound).await?.done().await?;
        Ok((self.0.sessions.remember(caller, &schema)?, batches))
    }

    async fn submit(&self, caller: &Caller, run: &RunId, bound: Bound) -> Result<Waiting> {
        let settings = self.0.sessions.settings(caller)?;
        let Bound { sql, parameters } = bound;
        let (entries, by) = (settings.clone().into_entries(), caller.user.clone());
        let request =
            StatementRequest { run: Some(run.clone()), sql, parameters, settings: entries, by, ..Default::default() };
        Ok(Waiting::of(self.0.coordinator.submit(request).await?, &settings))
    }

    /// The result that a ticket is for.
    pub(super) async fn fetch(&self, caller: &Caller, ticket: &TicketStatementQuery) -> Result<Messages> {
        let ticket = of_handle(ticket)?;
        let by = caller.user.clone();
        if let Some(waiting) = self.0.results.take(&kept_for(caller, &ticket.run)) {
            return Ok(waiting.into_messages());
        }
        let run = RunId(ticket.run);
        if ticket.sql.is_empty() {
            let fetched = self.0.coordinator.fetch(run, by).await.map_err(|error| Error {
                message: format!("the answer was fetched already, or nobody came for it in time: {}", error.message),
                ..error
            })?;
            return Ok(messages(Arc::clone(&fetched.schema), fetched.into_stream(), status));
        }
        if ticket.build != BUILD {
            return Err(Error::invalid(format!(
                "the ticket is of a coordinator of build {}, this one is of {BUILD}: execute the statement again",
                ticket.build
            )));
        }
        // Perhaps by another coordinator: it knows the run, or runs the statement again, which changes nothing.
        let settings = Settings::from_entries(ticket.settings);
        let entries = settings.clone().into_entries();
        let parameters = ticket.parameters.into();
        let (run, sql) = (Some(run), ticket.sql);
        let request = StatementRequest { run, sql, parameters, settings: entries, by, ..Default::default() };
        Ok(Waiting::of(self.0.coordinator.submit(request).await?, &settings).into_messages())
    }

    /// Ends the run of a result, whether it waits or is being fetched.
    pub(super) async fn cancel(&self, caller: &Caller, info: &FlightInfo) -> Result<Cancelled> {
        let ticket = info.endpoint.first().and_then(|endpoint| endpoint.ticket.as_ref());
        let ticket = ticket.and_then(|ticket| arrow_flight::sql::Any::decode(&*ticket.ticket).ok());
        let ticket = ticket.and_then(|any| any.unpack::<TicketStatementQuery>().ok().flatten());
        let ticket = ticket.ok_or_else(|| Error::invalid("the flight to cancel has no ticket of a statement"))?;
        let run = of_handle(&ticket)?.run;
        let waited = self.0.results.take(&kept_for(caller, &run)).is_some();
        let state = self.0.coordinator.cancel(RunId(run), caller.user.clone()).await?;
        Ok(if waited || state == Some(RunState::Cancelled) { Cancelled::Now } else { Cancelled::TooLate })
    }
}

/// A result's name on its shelf: nobody takes it but who asked for it.
fn kept_for(caller: &Caller, run: &str) -> String {
    format!("{} {run}", caller.user.name)
}

/// How cancelling a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancelled {
    /// It is cancelled.
    Now,
    /// It has ended, or is not known.
    TooLate,
}

/// The answer to a question whose rows come with a ticket.
pub(super) fn info(schema: &Schema, ticket: Ticket, asked: FlightDescriptor) -> Result<FlightInfo> {
    let info = FlightInfo::new()
        .try_with_schema(schema)
        .map_err(|e| Error::internal(format!("the columns of a result cannot be encoded: {e}")))?;
    Ok(info.with_endpoint(FlightEndpoint::new().with_ticket(ticket)).with_descriptor(asked))
}

fn of_handle(ticket: &TicketStatementQuery) -> Result<wire::StatementTicket> {
    let ticket = wire::StatementTicket::decode(ticket.statement_handle.clone()).ok();
    let ticket = ticket.filter(|ticket| ticket.run.parse::<ulid::Ulid>().is_ok());
    ticket.ok_or_else(|| Error::invalid("the ticket is none of this server's: execute the statement again"))
}

/// What a statement says that it wrote.
fn count(schema: &Schema, batches: &[RecordBatch]) -> i64 {
    use arrow::array::AsArray;
    use arrow::datatypes::UInt64Type;
    if schema.fields().is_empty() {
        return 0;
    }
    let counts = batches.iter().filter_map(|batch| batch.column(0).as_primitive_opt::<UInt64Type>());
    let counts: Vec<u64> = counts.flat_map(|counts| counts.values().iter().copied()).collect();
    match counts.is_empty() {
        true => -1,
        false => i64::try_from(counts.iter().sum::<u64>()).unwrap_or(i64::MAX),
    }
}
