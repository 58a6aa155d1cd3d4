//! Actions: prepared statements, cancelling, sessions.

use std::collections::BTreeMap;

use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, Any, ProstMessageExt,
};
use arrow_flight::{Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo};
use bytes::Bytes;
use prost::Message;
use tidemill_core::{Error, Result};
use tidemill_engine::runtime::{CATALOG, SCHEMA};
use tonic::Status;

use super::identity::Caller;
use super::options::{
    CloseSessionResult, CloseStatus, ErrorValue, GetSessionOptionsResult, OptionError, SessionOptionValue,
    SetSessionOptionsRequest, SetSessionOptionsResult,
};
use super::results::Cancelled;
use super::{FlightSql, status};
use crate::session::{ClientSettings, SettingChange};

/// The action that ends a session.
pub(super) const CLOSE_SESSION: &str = "CloseSession";

/// The actions, and what they do.
const ACTIONS: &[(&str, &str)] = &[
    ("CreatePreparedStatement", "prepares a statement: ActionCreatePreparedStatementRequest"),
    ("ClosePreparedStatement", "forgets a prepared statement: ActionClosePreparedStatementRequest"),
    ("CancelFlightInfo", "cancels the run of a flight: CancelFlightInfoRequest"),
    ("CancelQuery", "the same, as older clients ask for it: ActionCancelQueryRequest"),
    ("SetSessionOptions", "changes settings of the session: SetSessionOptionsRequest"),
    ("GetSessionOptions", "answers what the session has set: GetSessionOptionsRequest"),
    (CLOSE_SESSION, "ends the session: CloseSessionRequest"),
];

/// Session options that say where unqualified names belong: there is one catalogue, and one schema in it for tables.
const PLACES: [(&str, &str); 2] = [("catalog", CATALOG), ("schema", SCHEMA)];

/// The actions, as the protocol lists them.
pub(super) fn action_types() -> impl Iterator<Item = ActionType> {
    ACTIONS.iter().map(|(name, does)| ActionType { r#type: (*name).to_owned(), description: (*does).to_owned() })
}

impl FlightSql {
    /// Carries out an action; answers the bodies of its results.
    pub(super) async fn act(&self, caller: &Caller, action: &Action) -> Result<Vec<Bytes>, Status> {
        let done = match action.r#type.as_str() {
            "CreatePreparedStatement" => self.create_prepared(caller, &action.body).await,
            "ClosePreparedStatement" => unpacked(&action.body).map(|request: ActionClosePreparedStatementRequest| {
                self.unprepare(&request.prepared_statement_handle);
                Vec::new()
            }),
            "CancelFlightInfo" => self.cancel_flight(caller, &action.body).await,
            "CancelQuery" => self.cancel_query(caller, &action.body).await,
            "SetSessionOptions" => self.set_options(caller, &action.body),
            "GetSessionOptions" => self.get_options(caller),
            CLOSE_SESSION => Ok(self.close_session(caller).await),
            "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => {
                return Err(Status::unimplemented("there are no transactions: every statement is one by itself"));
            }
            other => {
                return Err(Status::unimplemented(format!(
                    "{other} is no action of this server: ListActions names those that are"
                )));
            }
        };
        done.map_err(|e| status(&e))
    }

    async fn create_prepared(&self, caller: &Caller, body: &[u8]) -> Result<Vec<Bytes>> {
        let request: ActionCreatePreparedStatementRequest = unpacked(body)?;
        refuse_transaction(request.transaction_id.as_deref())?;
        let prepared = self.prepare(caller, &request.query).await?;
        Ok(vec![prepared.as_any().encode_to_vec().into()])
    }

    async fn cancel_flight(&self, caller: &Caller, body: &[u8]) -> Result<Vec<Bytes>> {
        let info = decoded::<CancelFlightInfoRequest>(body)?.info;
        let info = info.ok_or_else(|| Error::invalid("no flight is named that is to be cancelled"))?;
        let result = CancelFlightInfoResult::new(cancel_status(self.cancel(caller, &info).await?));
        Ok(vec![result.encode_to_vec().into()])
    }

    async fn cancel_query(&self, caller: &Caller, body: &[u8]) -> Result<Vec<Bytes>> {
        let info: FlightInfo = decoded(&unpacked::<ActionCancelQueryRequest>(body)?.info)?;
        // Its numbers are the same.
        let result = ActionCancelQueryResult { result: cancel_status(self.cancel(caller, &info).await?) as i32 };
        Ok(vec![result.as_any().encode_to_vec().into()])
    }

    fn set_options(&self, caller: &Caller, body: &[u8]) -> Result<Vec<Bytes>> {
        let request: SetSessionOptionsRequest = decoded(body)?;
        // A session that is gone is no fault of an option.
        self.0.sessions.settings(caller)?;
        let mut errors = BTreeMap::new();
        for (name, value) in request.options {
            if let Some(wrong) = self.set_option(caller, &name, value) {
                errors.insert(name, OptionError { value: wrong as i32 });
            }
        }
        Ok(vec![SetSessionOptionsResult { errors }.encode_to_vec().into()])
    }

    /// What is wrong with an option, unless it is set.
    fn set_option(&self, caller: &Caller, name: &str, value: SessionOptionValue) -> Option<ErrorValue> {
        let value = value.into_setting();
        if let Some((_, place)) = PLACES.iter().find(|(option, _)| *option == name) {
            return value.filter(|value| value != place).map(|_| ErrorValue::InvalidValue);
        }
        if !ClientSettings::is_known(name) {
            return Some(ErrorValue::InvalidName);
        }
        let change = match value {
            Some(value) => SettingChange::Set(name.to_owned(), value),
            None => SettingChange::Reset(name.to_owned()),
        };
        self.0.sessions.change(caller, &change).err().map(|_| ErrorValue::InvalidValue)
    }

    fn get_options(&self, caller: &Caller) -> Result<Vec<Bytes>> {
        let settings = self.0.sessions.client_settings(caller)?;
        let set = settings.shown().map(|(name, value)| (name.clone(), SessionOptionValue::text(value)));
        let places = PLACES.iter().map(|(name, place)| ((*name).to_owned(), SessionOptionValue::text(*place)));
        Ok(vec![GetSessionOptionsResult { options: places.chain(set).collect() }.encode_to_vec().into()])
    }

    async fn close_session(&self, caller: &Caller) -> Vec<Bytes> {
        if let Some(session) = self.0.sessions.close(caller) {
            self.0.end(session).await;
        }
        vec![CloseSessionResult { status: CloseStatus::Closed as i32 }.encode_to_vec().into()]
    }
}

/// Refuses a statement that belongs to a transaction.
pub(super) fn refuse_transaction(transaction: Option<&[u8]>) -> Result<()> {
    match transaction.is_some_and(|transaction| !transaction.is_empty()) {
        true => Err(Error::invalid("there are no transactions: every statement is one by itself")),
        false => Ok(()),
    }
}

fn cancel_status(cancelled: Cancelled) -> CancelStatus {
    match cancelled {
        Cancelled::Now => CancelStatus::Cancelled,
        Cancelled::TooLate => CancelStatus::NotCancellable,
    }
}

fn decoded<M: Message + Default>(body: &[u8]) -> Result<M> {
    M::decode(body).map_err(|e| Error::invalid(format!("the action's request cannot be read: {e}")))
}

fn unpacked<M: ProstMessageExt>(body: &[u8]) -> Result<M> {
    let any: Any = decoded(body)?;
    let request = any.unpack().map_err(|e| Error::invalid(format!("the action's request cannot be read: {e}")))?;
    request.ok_or_else(|| Error::invalid(format!("the action's request is no {}, but {}", M::type_url(), any.type_url)))
}
