//! The one Flight service of the port: our own client's tickets go to the coordinator, the rest is Flight SQL.
//!
//! Invariant: a ticket of ours never looks like one of Flight SQL's, whose first field is the name of a message.

use std::time::Duration;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{
    Any, Command, CommandStatementIngest, DoPutPreparedStatementResult, DoPutUpdateResult, TableDefinitionOptions,
    TableExistsOption, TableNotExistOption,
};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket,
};
use datafusion::common::TableReference;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use tidemill_coordinator::{Messages, StatementService, messages};
use tidemill_core::{Error, Result};
use tidemill_engine::runtime::{CATALOG, SCHEMA};
use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::actions::{CLOSE_SESSION, action_types, refuse_transaction};
use super::identity::{Caller, SESSION_COOKIE, identify, new_token, pass_of};
use super::prepared::table_rows;
use super::results::{Bound, info};
use super::upload::{Upload, command};
use super::{FlightSql, status};
use crate::session::keep::MAX_TABLE_BYTES;
use crate::session::{IfMissing, IfPresent, Ingest, temporary};

/// How the names of Flight SQL's messages begin.
const FLIGHT_SQL: &str = "type.googleapis.com/arrow.flight.protocol.sql.";

/// How long an ingestion waits for those before it.
const TURN: Duration = Duration::from_secs(60);

type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// The message of Flight SQL that the bytes are, if they are one.
fn flight_sql(bytes: &[u8]) -> Option<Any> {
    Any::decode(bytes).ok().filter(|any| any.type_url.starts_with(FLIGHT_SQL))
}

fn unserved(call: &str) -> Status {
    Status::unimplemented(format!("{call} is not served here: docs/flight-sql.md says what is"))
}

fn one<T: Send + 'static>(answer: T) -> Answers<T> {
    futures::stream::iter([Ok(answer)]).boxed()
}

/// Who calls.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    identify(request).map_err(|e| status(&e))
}

impl FlightSql {
    /// An answer, with the session that the caller does not know of yet.
    fn tell<T>(&self, caller: &Caller, answer: T) -> Response<T> {
        let mut response = Response::new(answer);
        let session = self.0.sessions.id_to_tell(caller);
        if let Some(Ok(cookie)) = session.map(|id| MetadataValue::try_from(format!("{SESSION_COOKIE}={id}; Path=/"))) {
            response.metadata_mut().insert("set-cookie", cookie);
        }
        response
    }

    async fn flight_info(&self, caller: &Caller, asked: FlightDescriptor) -> Result<FlightInfo, Status> {
        let command = command(&asked.cmd).map_err(|e| status(&e))?;
        let info = match command {
            Command::CommandStatementQuery(query) => {
                let bound =
                    refuse_transaction(query.transaction_id.as_deref()).and_then(|()| Bound::text(&query.query));
                self.execute(caller, bound.map_err(|e| status(&e))?, asked).await
            }
            Command::CommandPreparedStatementQuery(query) => {
                let bound = self.bound(&query.prepared_statement_handle).map_err(|e| status(&e))?;
                self.execute(caller, bound, asked).await
            }
            // The question is its own ticket.
            command => match Self::columns_of_answer(&command).map_err(|e| status(&e))? {
                Some(columns) => info(&columns, Ticket::new(asked.cmd.clone()), asked),
                None => return Err(unserved(command.type_url())),
            },
        };
        info.map_err(|e| status(&e))
    }

    async fn put(&self, caller: &Caller, upload: Upload) -> Result<PutResult, Status> {
        let written = match upload.command.clone() {
            Command::CommandStatementUpdate(update) => {
                let bound =
                    refuse_transaction(update.transaction_id.as_deref()).and_then(|()| Bound::text(&update.query));
                self.update(caller, bound.map_err(|e| status(&e))?).await
            }
            Command::CommandPreparedStatementUpdate(update) => {
                self.update_prepared(caller, &update.prepared_statement_handle, upload).await
            }
            Command::CommandPreparedStatementQuery(query) => {
                let handle = query.prepared_statement_handle;
                self.bind(&handle, upload).await.map_err(|e| status(&e))?;
                let result = DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) };
                return Ok(PutResult { app_metadata: result.encode_to_vec().into() });
            }
            Command::CommandStatementIngest(ingest) => self.ingest(caller, ingest, upload).await,
            command => return Err(unserved(command.type_url())),
        };
        let result = DoPutUpdateResult { record_count: written.map_err(|e| status(&e))? };
        Ok(PutResult { app_metadata: result.encode_to_vec().into() })
    }

    /// Makes a table of rows, or adds them to one; how many they are.
    async fn ingest(&self, caller: &Caller, command: CommandStatementIngest, upload: Upload) -> Result<i64> {
        refuse_transaction(command.transaction_id.as_deref())?;
        let catalog = command.catalog.filter(|name| !name.is_empty()).unwrap_or_else(|| CATALOG.to_owned());
        let schema = match (command.temporary, command.schema.filter(|name| !name.is_empty())) {
            (true, Some(schema)) if schema != temporary::SCHEMA => {
                return Err(Error::invalid(format!("a temporary table belongs to no schema: leave `{schema}` out")));
            }
            (true, _) => temporary::SCHEMA.to_owned(),
            (false, schema) => schema.unwrap_or_else(|| SCHEMA.to_owned()),
        };
        let (if_missing, if_present) = table_options(command.table_definition_options.unwrap_or_default())?;
        let table = TableReference::full(catalog, schema, command.table);
        let statement = Ingest { table, if_missing, if_present };
        // Clients that wait here are not read from.
        let turn = timeout(TURN, self.0.ingestions.acquire()).await;
        let turn = turn.map_err(|_| Error::unavailable("others ingest tables already: try again"))?;
        let _turn = turn.map_err(|_| Error::unavailable("the server ends: try again when it is back"))?;
        let rows = upload.rows(MAX_TABLE_BYTES, "the rows of a table").await?;
        let rows = rows.ok_or_else(|| Error::invalid("a table needs a column: send rows that have one"))?;
        let (parameters, count) = table_rows(&rows)?;
        drop(rows);
        self.update(caller, Bound { sql: statement.to_string(), parameters }).await?;
        Ok(count)
    }
}

fn table_options(options: TableDefinitionOptions) -> Result<(IfMissing, IfPresent)> {
    let if_missing = match TableNotExistOption::try_from(options.if_not_exist) {
        Ok(TableNotExistOption::Create) => IfMissing::Create,
        Ok(TableNotExistOption::Fail) => IfMissing::Fail,
        Ok(TableNotExistOption::Unspecified) | Err(_) => {
            return Err(Error::invalid(
                "the ingestion does not say what to do if there is no such table: create it or fail",
            ));
        }
    };
    let if_present = match TableExistsOption::try_from(options.if_exists) {
        Ok(TableExistsOption::Fail) => IfPresent::Fail,
        Ok(TableExistsOption::Append) => IfPresent::Append,
        Ok(TableExistsOption::Replace) => IfPresent::Replace,
        Ok(TableExistsOption::Unspecified) | Err(_) => {
            return Err(Error::invalid(
                "the ingestion does not say what to do if there is such a table: append, replace or fail",
            ));
        }
    };
    Ok((if_missing, if_present))
}

#[tonic::async_trait]
impl FlightService for FlightSql {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Messages;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Answers<FlightData>;

    /// Who is let in gets a token, by which they are known again: for a while it is as good as what they have shown.
    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let caller = caller(&request)?;
        let pass = match pass_of(&request) {
            Some(shown) => Some(shown),
            None => self.0.gate.pass_for(&caller.user).map_err(|e| status(&e))?,
        };
        let token = pass.unwrap_or_else(new_token);
        let bearer = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| status(&Error::internal("a token is no header")))?;
        let mut response = self.tell(&caller, one(HandshakeResponse { protocol_version: 0, payload: token.into() }));
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let caller = caller(&request)?;
        let info = self.flight_info(&caller, request.into_inner()).await?;
        Ok(self.tell(&caller, info))
    }

    /// All of an answer is there at once: that it can be fetched, not that it is complete.
    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let caller = caller(&request)?;
        let info = self.flight_info(&caller, request.into_inner()).await?;
        Ok(self.tell(&caller, PollInfo::new().with_info(info)))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let caller = caller(&request)?;
        let command = command(&request.get_ref().cmd).map_err(|e| status(&e))?;
        let columns = match &command {
            Command::CommandStatementQuery(query) => match Bound::text(&query.query) {
                Ok(bound) => self.columns_of_statement(&caller, bound).await,
                Err(error) => Err(error),
            },
            Command::CommandPreparedStatementQuery(query) => {
                self.columns_of_prepared(&caller, &query.prepared_statement_handle).await
            }
            command => match Self::columns_of_answer(command) {
                Ok(columns) => Ok(columns.ok_or_else(|| unserved(command.type_url()))?),
                Err(error) => Err(error),
            },
        };
        let columns = columns.map_err(|e| status(&e))?;
        let encoded: Result<SchemaResult, _> =
            SchemaAsIpc::new(&columns, &arrow::ipc::writer::IpcWriteOptions::default()).try_into();
        let encoded = encoded.map_err(|e| status(&Error::internal(format!("columns cannot be encoded: {e}"))))?;
        Ok(self.tell(&caller, encoded))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let caller = caller(&request)?;
        let ticket = request.into_inner().ticket;
        let Some(message) = flight_sql(&ticket) else { return self.0.statements.do_get(&ticket, caller.user).await };
        let command = Command::try_from(message)
            .map_err(|e| status(&Error::invalid(format!("the ticket is no command of Flight SQL: {e}"))))?;
        let name = command.type_url().to_owned();
        let answer = match command {
            Command::TicketStatementQuery(ticket) => self.fetch(&caller, &ticket).await,
            command => match self.answer(&caller, command).await {
                Ok(Some(batch)) => Ok(messages(batch.schema(), futures::stream::iter([Ok(batch)]), status)),
                Ok(None) => return Err(unserved(&name)),
                Err(error) => Err(error),
            },
        };
        Ok(self.tell(&caller, answer.map_err(|e| status(&e))?))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let caller = caller(&request)?;
        let upload = Upload::open(request.into_inner()).await.map_err(|e| status(&e))?;
        let result = self.put(&caller, upload).await?;
        Ok(self.tell(&caller, one(result)))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let caller = caller(&request)?;
        let action = request.into_inner();
        if StatementService::serves(&action.r#type) {
            return self.0.statements.do_action(action).await;
        }
        let results = self.act(&caller, &action).await?;
        let results = results.into_iter().map(|body| Ok(arrow_flight::Result { body }));
        let mut response = self.tell(&caller, futures::stream::iter(results).boxed());
        if action.r#type == CLOSE_SESSION && caller.cookie.is_some() {
            let cookie = MetadataValue::try_from(format!("{SESSION_COOKIE}=; Path=/; Max-Age=0"));
            response.metadata_mut().insert("set-cookie", cookie.map_err(|_| unserved(CLOSE_SESSION))?);
        }
        Ok(response)
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let caller = caller(&request)?;
        Ok(self.tell(&caller, futures::stream::iter(action_types().map(Ok)).boxed()))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(unserved("ListFlights"))
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(unserved("DoExchange"))
    }
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt, TicketStatementQuery};
    use tidemill_engine::wire::StatementTicket;

    use super::*;

    #[test]
    fn tickets_of_our_own_client_are_told_from_those_of_flight_sql() {
        let settings = [("a".to_owned(), "b".to_owned())].into();
        let ours = StatementTicket { sql: "SELECT 1".to_owned(), settings, ..StatementTicket::default() };
        assert_eq!(flight_sql(&ours.encode_to_vec()), None);
        let fetch = StatementTicket { run: "x".to_owned(), fetch: true, ..StatementTicket::default() };
        assert_eq!(flight_sql(&fetch.encode_to_vec()), None);
        let theirs = TicketStatementQuery { statement_handle: ours.encode_to_vec().into() };
        assert!(flight_sql(&theirs.as_any().encode_to_vec()).is_some());
        let theirs = CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None };
        assert!(flight_sql(&theirs.as_any().encode_to_vec()).is_some());
    }
}
