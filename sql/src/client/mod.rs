//! Statements in, batches out: against a cluster, or against one embedded in this process.

mod answer;
mod lease;
mod observer;
mod remote;
mod result;

use std::sync::Arc;

use tidemill_coordinator::{Coordinator, StatementRequest};
use tidemill_core::{Error, Principal, Result, RunId};
use tidemill_engine::wire::{SESSION_ENDED_ACTION, SESSION_HEARD_ACTION};

use crate::compose::{Embedded, EmbeddedConfig};
use crate::security::Access;
use crate::session::{ClientSettings, SettingChange};
use lease::Lease;
pub use observer::Observer;
use remote::Remote;
pub use result::QueryResult;

/// Where statements go.
#[derive(Clone)]
enum Backend {
    /// A coordinator in another process.
    Remote(Remote),
    /// A coordinator in this one.
    Local(Coordinator),
}

/// A client's session: settings, and definitions of what is temporary, live here, everything else with the coordinator.
pub struct Client {
    backend: Backend,
    settings: ClientSettings,
    /// Keeps the rows of temporary tables, once there may be some.
    lease: Option<Lease>,
    /// Keeps an embedded cluster alive.
    embedded: Option<Arc<Embedded>>,
}

impl Client {
    /// A session with the coordinator at `urls`: several, divided by commas, where others stand by.
    ///
    /// # Errors
    /// `Unavailable` if nothing answers there; `Invalid` if one is no URL.
    pub async fn connect(urls: &str) -> Result<Self> {
        Self::connect_with(urls, &Access::default()).await
    }

    /// The same with a coordinator that asks who calls, or has TLS. A user and a password may stand in the URLs.
    ///
    /// # Errors
    /// See [`Self::connect`]; `Denied` if one of both does not trust the other.
    pub async fn connect_with(urls: &str, access: &Access) -> Result<Self> {
        let backend = Backend::Remote(Remote::connect(urls, access).await?);
        Ok(Self { backend, settings: ClientSettings::default(), lease: None, embedded: None }.with_directory())
    }

    /// A session with a cluster of one executor inside this process, without sockets.
    ///
    /// # Errors
    /// The work directory cannot be used.
    pub fn embedded(config: EmbeddedConfig) -> Result<Self> {
        Ok(Self::of(Arc::new(Embedded::start(config)?)))
    }

    /// A session with an embedded cluster that others use too.
    #[must_use]
    pub fn of(embedded: Arc<Embedded>) -> Self {
        let backend = Backend::Local(embedded.coordinator().clone());
        Self { backend, settings: ClientSettings::default(), lease: None, embedded: Some(embedded) }.with_directory()
    }

    /// Relative locations in statements start where this process is.
    fn with_directory(mut self) -> Self {
        if let Ok(directory) = std::env::current_dir() {
            // A directory whose name is no UTF-8 cannot be sent; absolute locations still work.
            if let Some(directory) = directory.to_str() {
                let _ = self.settings.set(crate::session::CLIENT_DIRECTORY, directory);
            }
        }
        self
    }

    /// Sets a setting of this session.
    ///
    /// # Errors
    /// It is unknown, or the value does not fit.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        self.settings.set(key, value)
    }

    /// Runs one statement. `SET` and `RESET` change this session; all others go to the coordinator. What is temporary is
    /// made, or dropped, when this has returned.
    ///
    /// # Errors
    /// The statement is wrong, or the coordinator cannot be reached.
    pub async fn execute(&mut self, sql: &str) -> Result<QueryResult> {
        self.execute_as(new_run(), sql).await
    }

    /// The same, as a run whose name is known from the beginning: an [`Observer`] can watch it.
    ///
    /// # Errors
    /// See [`Self::execute`].
    pub async fn execute_as(&mut self, run: RunId, sql: &str) -> Result<QueryResult> {
        if let Some(change) = SettingChange::of(sql).await? {
            self.settings.apply(&change)?;
            return Ok(QueryResult::nothing());
        }
        self.begin_session(sql);
        let settings = self.settings.entries().clone();
        let request = StatementRequest { run: Some(run), sql: sql.to_owned(), settings, ..Default::default() };
        let result = self.submit(request).await?;
        self.remember(result).await
    }

    fn begin_session(&mut self, sql: &str) {
        self.settings.begin_session(sql);
        if let (None, Some(session)) = (&self.lease, self.settings.session()) {
            self.lease = Some(Lease::begin(self.backend.clone(), session.to_owned()));
        }
    }

    /// Remembers what a statement changed of the session, when it has.
    async fn remember(&mut self, result: QueryResult) -> Result<QueryResult> {
        if !ClientSettings::are_told(&result.schema) {
            return Ok(result);
        }
        let (run, answer) = (result.run.clone(), Arc::clone(&result.schema));
        result.collect().await?;
        let columns = self.settings.remember(&answer)?;
        Ok(QueryResult::new(run, columns, futures::stream::empty()))
    }

    /// Ends the session: what is temporary goes with it, and an embedded cluster that nobody else uses removes what failed
    /// statements wrote. Dropping a client does the same, as far as there is time.
    pub async fn close(mut self) {
        if let Some(lease) = self.lease.take() {
            lease.end().await;
        }
        if let Some(embedded) = self.embedded.take().and_then(Arc::into_inner) {
            embedded.close().await;
        }
    }

    /// Asks beside this session's statements.
    #[must_use]
    pub fn observer(&self) -> Observer {
        Observer { backend: self.backend.clone(), settings: self.settings.entries().clone() }
    }

    /// What was set.
    #[must_use]
    pub const fn settings(&self) -> &ClientSettings {
        &self.settings
    }

    /// The kept result of a run that has finished.
    ///
    /// # Errors
    /// There is none (any longer), or the run failed.
    pub async fn fetch(&self, run: &RunId) -> Result<QueryResult> {
        match &self.backend {
            Backend::Remote(remote) => remote.fetch(run).await,
            Backend::Local(coordinator) => {
                let run = coordinator.fetch(run.clone(), Principal::anybody()).await?;
                let (id, schema) = (run.run.clone(), Arc::clone(&run.schema));
                Ok(QueryResult::new(Some(id), schema, run.into_stream()))
            }
        }
    }

    /// Runs one statement that changes no setting, and makes or drops nothing temporary.
    ///
    /// # Errors
    /// See [`Self::execute`].
    pub async fn query(&self, sql: &str) -> Result<QueryResult> {
        let settings = self.settings.entries().clone();
        let result = self.submit(StatementRequest { sql: sql.to_owned(), settings, ..Default::default() }).await?;
        match ClientSettings::are_told(&result.schema) {
            false => Ok(result),
            true => Err(Error::invalid("this changes the session, which a query must not: execute it")),
        }
    }

    /// Submits a statement or a plan with settings of its own.
    ///
    /// # Errors
    /// See [`Self::execute`].
    pub async fn submit(&self, request: StatementRequest) -> Result<QueryResult> {
        self.backend.submit(request).await
    }
}

/// A name for a run that no other has.
#[must_use]
pub fn new_run() -> RunId {
    RunId(ulid::Ulid::new().to_string())
}

impl Backend {
    async fn session_heard(&self, session: &str) -> Result<()> {
        match self {
            Self::Remote(remote) => remote.tell(SESSION_HEARD_ACTION, session).await,
            Self::Local(coordinator) => coordinator.session_heard(session).await,
        }
    }

    async fn session_ended(&self, session: &str) -> Result<()> {
        match self {
            Self::Remote(remote) => remote.tell(SESSION_ENDED_ACTION, session).await,
            Self::Local(coordinator) => coordinator.session_ended(session).await,
        }
    }

    async fn submit(&self, request: StatementRequest) -> Result<QueryResult> {
        match self {
            Self::Remote(remote) => remote.submit(request).await,
            Self::Local(coordinator) => {
                // It is all theirs: the cluster is in their own process.
                let run = coordinator.submit(StatementRequest { by: Principal::anybody(), ..request }).await?;
                let (id, schema) = (run.run.clone(), Arc::clone(&run.schema));
                Ok(QueryResult::new(Some(id), schema, run.into_stream()))
            }
        }
    }
}
