//! PostgreSQL, through the connection pools and rows of `datafusion-table-providers`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion_table_providers_common::sql::db_connection_pool::dbconnection::AsyncDbConnection;
use datafusion_table_providers_common::util::secrets::to_secret_map;
use datafusion_table_providers_postgres::conn::{PostgresConnection, PostgresError};
use datafusion_table_providers_postgres::pool::{Error as PoolError, PostgresConnectionPool};
use tidemill_core::{Error, Result};
use tidemill_engine::connector::{ConnectorScan, RemoteRows, RemoteTable};
use tidemill_engine::secrets::{NamedSecret, SecretType};
use tokio::runtime::Handle;

use super::columns::{self, RemoteColumn};
use super::deadline::{DESCRIBE, ROWS, within};
use super::servers::{Pool, Running, Servers, Session, first_line, guarded, root_cause};
use super::{no_table, table};

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

impl Pool for PostgresConnectionPool {
    type Connection = PostgresConnection;
    const SECRET: SecretType = SecretType::Postgres;
    const PARTS: &'static [(&'static str, &'static str)] = &[
        ("host", "host"),
        ("port", "port"),
        ("user", "user"),
        ("password", "pass"),
        ("database", "db"),
        ("sslmode", "sslmode"),
        ("sslrootcert", "sslrootcert"),
        ("options", "options"),
    ];

    async fn open(secret: &NamedSecret, mut parameters: HashMap<String, String>, connections: usize) -> Result<Self> {
        parameters.insert("application_name".to_owned(), "tidemill".to_owned());
        parameters.entry("options".to_owned()).or_insert_with(|| SESSION.to_owned());
        // One more tells the server to stop what another runs.
        parameters.insert("connection_pool_size".to_owned(), (connections + 1).to_string());
        Self::new(to_secret_map(parameters)).await.map_err(|e| refused(secret, &e))
    }

    async fn connect(&self, secret: &NamedSecret) -> Result<PostgresConnection> {
        self.connect_direct().await.map_err(|e| refused(secret, &e))
    }

    fn parameter(part: &str, value: &str) -> String {
        match part {
            // These become words of one line.
            "host" | "user" | "db" | "port" => quoted(value),
            // Of two settings of one name the later counts.
            "options" => format!("{value} {SESSION}"),
            _ => value.to_owned(),
        }
    }
}

impl Servers<PostgresConnectionPool> {
    pub(super) async fn describe(&self, table: &RemoteTable) -> Result<Vec<RemoteColumn>> {
        let session = self.connect(table, DESCRIBE).await?;
        within(DESCRIBE, "the columns", table, describe(&session.connection, table)).await
    }

    pub(super) async fn read(&self, scan: &ConnectorScan) -> Result<RemoteRows> {
        let table = &scan.table;
        let session = self.connect(table, ROWS).await?;
        let now = within(DESCRIBE, "the columns", table, describe(&session.connection, table)).await?;
        columns::check(scan, &now)?;
        let backend = within(DESCRIBE, "a session", table, backend(&session.connection, table)).await?;
        let running = Query { session: Some(session), backend, runtime: Handle::current() };
        let asked = async {
            let Some(session) = &running.session else { return Err(Error::internal("a connection went by itself")) };
            let asked = session.connection.query_arrow(&scan.sql, &[], Some(Arc::clone(&scan.wire))).await;
            asked.map_err(|e| failed(table, e.as_ref()))
        };
        let rows = within(ROWS, "the first rows", table, asked).await?;
        Ok(guarded(rows, running, table.clone()))
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
struct Query {
    session: Option<Session<PostgresConnectionPool>>,
    backend: i32,
    runtime: Handle,
}

impl Running for Query {
    fn done(mut self) {
        self.session = None;
    }

    fn failed(&self, table: &RemoteTable, error: &DataFusionError) -> Error {
        let message = format!("reading {table} stopped: {}", first_line(&error.to_string()));
        let is_cut = self.session.as_ref().is_none_or(|session| session.connection.conn.is_closed());
        if is_cut { Error::unavailable(message) } else { Error::invalid(message) }
    }
}

impl Drop for Query {
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
