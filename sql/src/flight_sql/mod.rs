//! Arrow Flight SQL on the coordinator's port, for ADBC, JDBC and other clients.
//!
//! ```text
//! ticket, descriptor or action ──► service ─┬─ of our own client ──► coordinator::StatementService
//!                                           └─ Flight SQL's ──► a run of the coordinator: results.rs
//!                                                               a description of one: session::describe
//!                                                               what is said of the server: metadata.rs, info.rs
//! ```
//!
//! A statement is a run like any other. What belongs to a client and outlives a call is kept on a `shelf`: sessions,
//! prepared statements, results that nobody has fetched yet.
//!
//! Invariant: every shelf has a bound and gives up what nobody came back for. What changes something has happened when its
//! call is answered.

mod actions;
mod ahead;
mod identity;
mod info;
mod metadata;
mod options;
mod prepared;
mod results;
mod service;
mod sessions;
mod shelf;
mod upload;
mod views;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arrow_flight::flight_service_server::FlightServiceServer;
use bytes::Bytes;
use tidemill_coordinator::{Coordinator, StatementRequest, StatementService};
use tidemill_core::{Error, Result};
use tidemill_engine::wire::{MAX_MESSAGE_BYTES, status_of};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tonic::Status;

use crate::security::Gate;
use crate::session::{ClientSettings, Description, SettingChange, SqlPlanner, statements};
use identity::Caller;
use prepared::Prepared;
use results::Waiting;
use sessions::{Sessions, Settings};
use shelf::Shelf;

/// Results that wait for their clients; each may hold batches, and a run.
const MAX_RESULTS: usize = 256;
/// How long a result waits: a client fetches it at once, or has gone away.
const RESULT_PATIENCE: Duration = Duration::from_secs(60);
/// Prepared statements of all clients.
const MAX_PREPARED: usize = 4096;
/// How long one is kept that nobody uses.
const PREPARED_PATIENCE: Duration = Duration::from_secs(3600);
/// How often the shelves are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// How often the coordinator is told which sessions go on: a few times within its time-out.
const RENEW: Duration = Duration::from_secs(180);
/// Ingestions that send their rows at once: each holds them until they are a table.
const INGESTIONS: usize = 2;

/// The Flight SQL service of a coordinator.
#[derive(Clone)]
pub struct FlightSql(Arc<Shared>);

struct Shared {
    coordinator: Coordinator,
    statements: StatementService,
    planner: Arc<SqlPlanner>,
    /// Where plans are made.
    cpu: Handle,
    sessions: Sessions,
    prepared: Shelf<Prepared>,
    results: Shelf<Waiting>,
    ingestions: Semaphore,
    /// Gives out passes for handshakes.
    gate: Gate,
}

impl Shared {
    /// Tells the coordinator that it need not keep anything for a session.
    async fn end(&self, session: ClientSettings) {
        if let Some(session) = session.session() {
            // It ends with its coordinator.
            let _ = self.coordinator.session_ended(session).await;
        }
    }
}

impl FlightSql {
    /// The service of a coordinator, for a tonic server. It plans with `planner` on `cpu`.
    #[must_use]
    pub fn server(
        coordinator: Coordinator,
        planner: Arc<SqlPlanner>,
        cpu: Handle,
        gate: Gate,
    ) -> FlightServiceServer<Self> {
        let shared = Arc::new(Shared {
            statements: StatementService::new(coordinator.clone()),
            coordinator,
            planner,
            cpu,
            sessions: Sessions::default(),
            prepared: Shelf::new("prepared statements", MAX_PREPARED, PREPARED_PATIENCE),
            results: Shelf::new("results that wait to be fetched", MAX_RESULTS, RESULT_PATIENCE),
            ingestions: Semaphore::new(INGESTIONS),
            gate,
        });
        tokio::spawn(sweep(Arc::downgrade(&shared)));
        FlightServiceServer::new(Self(shared))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// What the planner says of a statement that does not run yet, to whom it concerns: some are refused by role.
    async fn describe(
        &self,
        caller: &Caller,
        sql: String,
        parameters: Bytes,
        settings: Settings,
    ) -> Result<Description> {
        if self.setting_change(&sql).await?.is_some() {
            return Ok(Description::nothing());
        }
        let settings = settings.into_entries();
        let by = caller.user.clone();
        let request = StatementRequest { sql, parameters, settings, by, ..StatementRequest::default() };
        let request = self.0.coordinator.plan_request(request).await?;
        let planner = Arc::clone(&self.0.planner);
        self.on_cpu(async move { planner.describe(&request).await }).await
    }

    /// The change of a setting that a statement asks for; `None` for other statements.
    async fn setting_change(&self, sql: &str) -> Result<Option<SettingChange>> {
        if !SettingChange::is_begun_by(sql) {
            return Ok(None);
        }
        let sql = sql.to_owned();
        self.on_cpu(async move { SettingChange::of(&sql).await }).await
    }

    /// Plans where there is stack for it, and no call waits behind it.
    async fn on_cpu<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let done = self.0.cpu.spawn(work).await;
        done.unwrap_or_else(|e| Err(Error::internal(format!("planning panicked: {e}"))))
    }
}

/// Gives up what nobody came back for, as long as there is a service.
async fn sweep(shared: Weak<Shared>) {
    let mut renewed = Instant::now();
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(shared) = shared.upgrade() else { return };
        for session in shared.sessions.give_up() {
            shared.end(session).await;
        }
        if renewed.elapsed() >= RENEW {
            renewed = Instant::now();
            for session in shared.sessions.kept() {
                // It ends with its coordinator.
                let _ = shared.coordinator.session_heard(&session).await;
            }
        }
        shared.prepared.give_up();
        let given_up = shared.results.give_up().len();
        if given_up > 0 {
            tracing::warn!(given_up, "nobody came for results: their runs are cancelled");
        }
    }
}

/// The only statement of a command's text.
fn only_statement(text: &str) -> Result<String> {
    let mut statements = statements::split(text)?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (None, _) => Err(Error::invalid("the statement is empty")),
        (Some(_), false) => Err(Error::invalid("one statement was expected, not several: send them one by one")),
    }
}

/// An error for a client of Flight SQL: without the details that only our own client reads, and which others take for
/// Google's.
fn status(error: &Error) -> Status {
    let status = status_of(error);
    Status::new(status.code(), status.message())
}
