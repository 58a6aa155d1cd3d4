//! PostgreSQL, through the connection pools and rows of `datafusion-table-providers`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use datafusion::common::TableReference;
use datafusion::execution::SendableRecordBatchStream;
use datafusion_table_providers_common::sql::db_connection_pool::dbconnection::AsyncDbConnection;
use datafusion_table_providers_common::util::secrets::to_secret_map;
use datafusion_table_providers_postgres::conn::{PostgresConnection, PostgresError};
use datafusion_table_providers_postgres::pool::{Error as PoolError, PostgresConnectionPool};
use futures::StreamExt;
use tidemill_core::{Error, Result};
use tidemill_engine::connector::{ConnectorScan, RemoteRows, RemoteTable};
use tidemill_engine::secrets::{NamedSecret, Secret, SecretType, Secrets};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::columns::{self, RemoteColumn};
use super::deadline::{CONNECT, DESCRIBE, ROWS, within};
use super::{connections, no_table, table};

/// The parts of a secret, and what the pool calls them.
const PARTS: &[(&str, &str)] = &[
    ("host", "host"),
    ("port", "port"),
    ("user", "user"),
    ("password", "pass"),
    ("database", "db"),
    ("sslmode", "sslmode"),
    ("sslrootcert", "sslrootcert"),
    ("options", "options"),
];
/// What sessions are set to: they change nothing, and write and read alike wherever they are.
const SESSION: &str =
    "-c default_transaction_read_only=on -c timezone=UTC -c datestyle=ISO -c standard_conforming_strings=on";
/// How long telling the server to stop may take.
const CANCEL: Duration = Duration::from_secs(10);

/// The columns of a table: those of a domain are of the type below it. `$1` is the table's name with its quotes.
const COLUMNS: &str = "SELECT a.attname::text, CASE \
    WHEN t.typtype = 'd' THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) \
    WHEN t.typtype = 'e' THEN 'enum' \
    ELSE pg_catalog.format_type(a.atttypid, a.atttypmod) END \
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
  WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// The servers that this process speaks with, by secret.
#[derive(Default)]
pub(super) struct Servers(Mutex<BTreeMap<String, Server>>);

/// A server, as its secret was when it was first asked.
#[derive(Clone)]
struct Server {
    pool: Arc<PostgresConnectionPool>,
    /// What the pool was opened with: another password opens another pool.
    given: BTreeMap<String, Secret>,
    /// The connections that nobody reads from.
    free: Arc<Semaphore>,
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Servers")
    }
}

/// A connection, and the right to hold one.
struct Session {
    connection: PostgresConnection,
    pool: Arc<PostgresConnectionPool>,
    _permit: OwnedSemaphorePermit,
}

impl Servers {
    pub(super) async fn describe(&self, table: &RemoteTable) -> Result<Vec<RemoteColumn>> {
        let session = self.connect(table).await?;
        within(DESCRIBE, "the columns", table, describe(&session.connection, table)).await
    }

    pub(super) async fn read(&self, scan: &ConnectorScan) -> Result<RemoteRows> {
        let table = &scan.table;
        let session = self.connect(table).await?;
        let now = within(DESCRIBE, "the columns", table, describe(&session.connection, table)).await?;
        columns::check(scan, &now)?;
        let backend = within(DESCRIBE, "a session", table, backend(&session.connection, table)).await?;
        let running = Running { session: Some(session), backend, runtime: Handle::current() };
        let asked = async {
            let Some(session) = &running.session else { return Err(Error::internal("a connection went by itself")) };
            let asked = session.connection.query_arrow(&scan.sql, &[], Some(Arc::clone(&scan.wire))).await;
            asked.map_err(|e| failed(table, e.as_ref()))
        };
        let rows = within(ROWS, "the first rows", table, asked).await?;
        Ok(guarded(rows, running, table.clone()))
    }

    /// A connection to the server of a table, from a pool that is opened when it is first needed.
    async fn connect(&self, table: &RemoteTable) -> Result<Session> {
        let secrets = Secrets::installed();
        let secret = secrets.named(&table.database, SecretType::Postgres)?;
        let given = secret.resolve()?;
        let known = self.servers().get(&secret.name).filter(|server| server.given == given).cloned();
        let server = match known {
            Some(server) => server,
            None => {
                let (pool, connections) = within(CONNECT, "a connection", table, open(secret)).await?;
                let server = Server { pool: Arc::new(pool), given, free: Arc::new(Semaphore::new(connections)) };
                // Of two that were opened at once, the later stays.
                self.servers().insert(secret.name.clone(), server.clone());
                server
            }
        };
        let free =
            async { Arc::clone(&server.free).acquire_owned().await.map_err(|_| Error::internal("a pool is closed")) };
        let permit = within(ROWS, "a free connection", table, free).await?;
        let connecting = async { server.pool.connect_direct().await.map_err(|e| refused(secret, &e)) };
        match within(CONNECT, "a connection", table, connecting).await {
            Ok(connection) => Ok(Session { connection, pool: server.pool, _permit: permit }),
            Err(error) => {
                // Whoever comes next finds out at once whether it is there again.
                self.servers().remove(&secret.name);
                Err(error)
            }
        }
    }

    fn servers(&self) -> MutexGuard<'_, BTreeMap<String, Server>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a pool. On a thread of its own: the crate waits for the address without leaving its thread.
async fn open(secret: &NamedSecret) -> Result<(PostgresConnectionPool, usize)> {
    let mut parameters = HashMap::from([
        ("application_name".to_owned(), "tidemill".to_owned()),
        ("options".to_owned(), SESSION.to_owned()),
    ]);
    let mut given = secret.resolve()?;
    let connections = connections(secret, given.remove("connections"))?;
    for (key, value) in given {
        let Some((_, name)) = PARTS.iter().find(|(part, _)| *part == key) else {
            let known: Vec<&str> = PARTS.iter().map(|(part, _)| *part).collect();
            let (name, known) = (&secret.name, known.join(", "));
            return Err(Error::invalid(format!(
                "the secret `{name}` has a part `{key}`, which postgres does not have: use {known}"
            )));
        };
        let value = value.expose();
        // These become words of one line.
        let value = if matches!(*name, "host" | "user" | "db" | "port") { quoted(value) } else { value.to_owned() };
        parameters.insert((*name).to_owned(), value);
    }
    if !parameters.contains_key("host") {
        return Err(Error::invalid(format!("the secret `{}` has no `host`: say where the server is", secret.name)));
    }
    // One more tells the server to stop what another runs.
    parameters.insert("connection_pool_size".to_owned(), (connections + 1).to_string());
    let runtime = Handle::current();
    let opened =
        tokio::task::spawn_blocking(move || runtime.block_on(PostgresConnectionPool::new(to_secret_map(parameters))));
    match opened.await {
        Ok(opened) => Ok((opened.map_err(|e| refused(secret, &e))?, connections)),
        Err(panic) => Err(Error::internal(format!("opening PostgreSQL panicked: {panic}"))),
    }
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

async fn describe(connection: &PostgresConnection, table: &RemoteTable) -> Result<Vec<RemoteColumn>> {
    let name = match table::reference(table) {
        TableReference::Bare { table } => quoted_name(&table),
        TableReference::Partial { schema, table } => format!("{}.{}", quoted_name(&schema), quoted_name(&table)),
        TableReference::Full { .. } => {
            let name = &table.table;
            return Err(Error::invalid(format!("{name} has too many parts: a table of PostgreSQL is schema.table")));
        }
    };
    let rows = connection.conn.query(COLUMNS, &[&name]).await;
    let rows =
        rows.map_err(|e| asked_wrongly(table, e.code().map(|c| c.code()), e.as_db_error().map(|d| d.message()), &e))?;
    let column = |row: usize| {
        let row = rows.get(row)?;
        Some(RemoteColumn(row.try_get(0).ok()?, row.try_get(1).ok()?))
    };
    let columns: Vec<RemoteColumn> = (0..rows.len()).filter_map(column).collect();
    if columns.is_empty() || columns.len() != rows.len() {
        return Err(no_table(table));
    }
    Ok(columns)
}

fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The server's number for this session, by which its query can be stopped.
async fn backend(connection: &PostgresConnection, table: &RemoteTable) -> Result<i32> {
    let row = connection.conn.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await;
    let row = row.map_err(|e| lost(table, &e))?;
    row.try_get(0).map_err(|e| lost(table, &e))
}

/// A query that runs. Dropped before its end, the server is told to stop it: otherwise it would send the rest to nobody.
struct Running {
    session: Option<Session>,
    backend: i32,
    runtime: Handle,
}

impl Running {
    /// It has ended: the connection is free for others.
    fn done(&mut self) {
        self.session = None;
    }

    fn is_cut(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.connection.conn.is_closed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It is held until its query has ended, so that nobody else's is stopped.
        let Some(session) = self.session.take() else { return };
        let backend = self.backend;
        self.runtime.spawn(async move {
            let stop = async {
                let other = session.pool.connect_direct().await.ok()?;
                other.conn.query_one("SELECT pg_catalog.pg_cancel_backend($1)", &[&backend]).await.ok()
            };
            if tokio::time::timeout(CANCEL, stop).await.ok().flatten().is_none() {
                tracing::warn!(backend, "a query of PostgreSQL that nobody waits for could not be stopped");
            }
            drop(session);
        });
    }
}

/// The rows of a query, each wait for them with an end.
fn guarded(rows: SendableRecordBatchStream, running: Running, table: RemoteTable) -> RemoteRows {
    let state = Some((rows, running));
    let next = move |state: Option<(SendableRecordBatchStream, Running)>| {
        let table = table.clone();
        async move {
            let (mut rows, mut running) = state?;
            let next = within(ROWS, "rows", &table, async { Ok(rows.next().await) }).await;
            match next {
                Ok(None) => {
                    running.done();
                    None
                }
                Ok(Some(Ok(batch))) => Some((Ok(batch), Some((rows, running)))),
                Ok(Some(Err(error))) => {
                    let message = format!("reading {table} stopped: {}", first_line(&error.to_string()));
                    let error = if running.is_cut() { Error::unavailable(message) } else { Error::invalid(message) };
                    Some((Err(error), None))
                }
                Err(late) => Some((Err(late), None)),
            }
        }
    };
    futures::stream::unfold(state, next).boxed()
}

/// What the pool says, without what it was given.
fn refused(secret: &NamedSecret, error: &PoolError) -> Error {
    let name = &secret.name;
    match error {
        PoolError::InvalidUsernameOrPassword { .. } => Error::denied(format!(
            "PostgreSQL of the secret `{name}` refused its user and password: correct them where this process has them"
        )),
        PoolError::InvalidHostOrPortError { host, port, .. } => Error::unavailable(format!(
            "PostgreSQL of the secret `{name}` does not answer at {host}:{port}: start it, or correct host and port"
        )),
        PoolError::InvalidRootCertPathError { path } => {
            Error::invalid(format!("the certificate {path} of the secret `{name}` is not there: correct sslrootcert"))
        }
        PoolError::InvalidParameterError { parameter_name } => {
            Error::invalid(format!("the part `{parameter_name}` of the secret `{name}` has no such value"))
        }
        PoolError::PostgresConnectionError { source } | PoolError::ConnectionPoolError { source } => {
            let said = source.as_db_error().map_or_else(|| root_cause(source), |e| e.message().to_owned());
            // The server answered, and meant it.
            let is_refusal = source.as_db_error().is_some_and(|e| !e.code().code().starts_with("57P"));
            let message = format!("PostgreSQL of the secret `{name}` cannot be used: {said}{}", advice(&said));
            if is_refusal { Error::denied(message) } else { Error::unavailable(message) }
        }
        other => {
            let said = root_cause(other);
            Error::unavailable(format!("PostgreSQL of the secret `{name}` cannot be used: {said}{}", advice(&said)))
        }
    }
}

fn advice(said: &str) -> &'static str {
    if said.to_lowercase().contains("tls") || said.to_lowercase().contains("ssl") {
        "; set sslmode to disable, require, verify-ca or verify-full (the default)"
    } else {
        ""
    }
}

/// What a query says that failed.
fn failed(table: &RemoteTable, error: &(dyn std::error::Error + Send + Sync + 'static)) -> Error {
    match error.downcast_ref::<PostgresError>() {
        Some(PostgresError::QueryError { source }) => {
            let (code, message) = (source.code().map(|c| c.code()), source.as_db_error().map(|e| e.message()));
            asked_wrongly(table, code, message, source)
        }
        Some(PostgresError::ConversionError { source }) => {
            Error::invalid(format!("a value of {table} cannot be read: {}", first_line(&source.to_string())))
        }
        None => Error::unavailable(format!("reading {table} stopped: {}", first_line(&error.to_string()))),
    }
}

/// By the server's own codes.
fn asked_wrongly(
    table: &RemoteTable,
    code: Option<&str>,
    message: Option<&str>,
    error: &(dyn std::error::Error + 'static),
) -> Error {
    let said = message.map_or_else(|| root_cause(error), str::to_owned);
    match code {
        Some("42P01") => no_table(table),
        Some("42703") => Error::conflict(format!(
            "{table} is not what it was when the table was created ({said}): create it again with CREATE OR REPLACE"
        )),
        Some("42501") => Error::denied(format!("{table} may not be read by the user of the secret: {said}")),
        Some(code) if !code.starts_with("57P") && !code.starts_with("08") => {
            Error::invalid(format!("PostgreSQL refused to read {table}: {said}"))
        }
        _ => Error::unavailable(format!("reading {table} stopped: {said}")),
    }
}

fn lost(table: &RemoteTable, error: &(dyn std::error::Error + 'static)) -> Error {
    Error::unavailable(format!("the connection for {table} was lost: {}", root_cause(error)))
}

/// The innermost of nested errors says most.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    first_line(&inner.to_string())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}
