//! `MySQL` and `MariaDB`, through the connection pools and rows of `datafusion-table-providers`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::common::TableReference;
use datafusion::execution::SendableRecordBatchStream;
use datafusion_table_providers_common::sql::db_connection_pool::dbconnection::AsyncDbConnection;
use datafusion_table_providers_common::util::secrets::to_secret_map;
use datafusion_table_providers_mysql::conn::MySQLConnection;
use datafusion_table_providers_mysql::pool::{Error as PoolError, MySQLConnectionPool};
use futures::{StreamExt, TryStreamExt};
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
    ("port", "tcp_port"),
    ("user", "user"),
    ("password", "pass"),
    ("database", "db"),
    ("sslmode", "sslmode"),
    ("sslrootcert", "sslrootcert"),
];

/// The servers that this process speaks with, by secret.
#[derive(Default)]
pub(super) struct Servers(Mutex<BTreeMap<String, Server>>);

/// A server, as its secret was when it was first asked.
#[derive(Clone)]
struct Server {
    pool: Arc<MySQLConnectionPool>,
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
    connection: MySQLConnection,
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
        let asked = async {
            let asked = session.connection.query_arrow(&scan.sql, &[], Some(Arc::clone(&scan.wire))).await;
            asked.map_err(|e| failed(table, e.as_ref()))
        };
        let rows = within(ROWS, "the first rows", table, asked).await?;
        Ok(guarded(rows, session, table.clone()))
    }

    async fn connect(&self, table: &RemoteTable) -> Result<Session> {
        let secrets = Secrets::installed();
        let secret = secrets.named(&table.database, SecretType::Mysql)?;
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
            Ok(connection) => Ok(Session { connection, _permit: permit }),
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
async fn open(secret: &NamedSecret) -> Result<(MySQLConnectionPool, usize)> {
    let mut given = secret.resolve()?;
    let connections = connections(secret, given.remove("connections"))?;
    let mut parameters =
        HashMap::from([("pool_min".to_owned(), "0".to_owned()), ("pool_max".to_owned(), connections.to_string())]);
    for (key, value) in given {
        let Some((_, name)) = PARTS.iter().find(|(part, _)| *part == key) else {
            let known: Vec<&str> = PARTS.iter().map(|(part, _)| *part).collect();
            let (name, known) = (&secret.name, known.join(", "));
            return Err(Error::invalid(format!(
                "the secret `{name}` has a part `{key}`, which mysql does not have: use {known}"
            )));
        };
        parameters.insert((*name).to_owned(), value.expose().to_owned());
    }
    if !parameters.contains_key("host") {
        return Err(Error::invalid(format!("the secret `{}` has no `host`: say where the server is", secret.name)));
    }
    let runtime = Handle::current();
    let opened =
        tokio::task::spawn_blocking(move || runtime.block_on(MySQLConnectionPool::new(to_secret_map(parameters))));
    match opened.await {
        Ok(opened) => Ok((opened.map_err(|e| refused(secret, &e))?, connections)),
        Err(panic) => Err(Error::internal(format!("opening MySQL panicked: {panic}"))),
    }
}

async fn describe(connection: &MySQLConnection, table: &RemoteTable) -> Result<Vec<RemoteColumn>> {
    let (schema, name) = match table::reference(table) {
        TableReference::Bare { table } => ("DATABASE()".to_owned(), text(&table)?),
        TableReference::Partial { schema, table } => (text(&schema)?, text(&table)?),
        TableReference::Full { .. } => {
            return Err(Error::invalid(format!(
                "{} has too many parts: a table of MySQL is database.table",
                table.table
            )));
        }
    };
    let sql = format!(
        "SELECT COLUMN_NAME AS name, CAST(COLUMN_TYPE AS CHAR(255)) AS source FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = {name} ORDER BY ORDINAL_POSITION"
    );
    let rows = connection.query_arrow(&sql, &[], None).await.map_err(|e| failed(table, e.as_ref()))?;
    let batches: Vec<RecordBatch> = rows.try_collect().await.map_err(|e| failed(table, &e))?;
    let mut found = Vec::new();
    for batch in &batches {
        let column = |position: usize| {
            let column = cast(batch.column(position), &DataType::Utf8);
            column.map_err(|e| Error::internal(format!("the columns of {table} are no texts: {e}")))
        };
        let (names, sources) = (column(0)?, column(1)?);
        let pairs = names.as_string::<i32>().iter().zip(sources.as_string::<i32>().iter());
        found.extend(pairs.filter_map(|(name, source)| Some(RemoteColumn(name?.to_owned(), source?.to_lowercase()))));
    }
    // The crate takes these out of every query.
    if let Some(column) = found.iter().find(|column| column.name().contains('"')) {
        return Err(Error::invalid(format!(
            "the column `{}` of {table} has a \" in its name: rename it in a view there",
            column.name()
        )));
    }
    if found.is_empty() { Err(no_table(table)) } else { Ok(found) }
}

/// A name as a text of SQL.
fn text(name: &str) -> Result<String> {
    if name.contains(['\'', '"', '\\', '`']) {
        return Err(Error::invalid(format!("the name `{name}` has a quote in it: make a view of another name there")));
    }
    Ok(format!("'{name}'"))
}

/// The rows of a query, each wait for them with an end.
fn guarded(rows: SendableRecordBatchStream, session: Session, table: RemoteTable) -> RemoteRows {
    let next = move |state: Option<(SendableRecordBatchStream, Session)>| {
        let table = table.clone();
        async move {
            let (mut rows, session) = state?;
            match within(ROWS, "rows", &table, async { Ok(rows.next().await) }).await {
                Ok(None) => None,
                Ok(Some(Ok(batch))) => Some((Ok(batch), Some((rows, session)))),
                Ok(Some(Err(error))) => Some((Err(failed(&table, &error)), None)),
                Err(late) => Some((Err(late), None)),
            }
        }
    };
    futures::stream::unfold(Some((rows, session)), next).boxed()
}

/// What the pool says, without what it was given.
fn refused(secret: &NamedSecret, error: &PoolError) -> Error {
    let name = &secret.name;
    match error {
        PoolError::InvalidUsernameOrPassword => Error::denied(format!(
            "MySQL of the secret `{name}` refused its user and password: correct them where this process has them"
        )),
        PoolError::InvalidHostOrPortError { host, port, .. } => Error::unavailable(format!(
            "MySQL of the secret `{name}` does not answer at {host}:{port}: start it, or correct host and port"
        )),
        PoolError::UnknownMySQLDatabase { message } => {
            Error::not_found(format!("MySQL of the secret `{name}`: {}", first_line(message)))
        }
        other => Error::unavailable(format!(
            "MySQL of the secret `{name}` cannot be used: {}; is sslmode (required, preferred or disabled) the server's?",
            root_cause(other)
        )),
    }
}

fn failed(table: &RemoteTable, error: &(dyn std::error::Error + 'static)) -> Error {
    let said = root_cause(error);
    // The server's own codes stand in its messages.
    if said.contains("(1146)") || said.contains("(1054)") {
        return Error::conflict(format!(
            "{table} is not what it was when the table was created ({said}): create it again with CREATE OR REPLACE"
        ));
    }
    if said.contains("(1142)") || said.contains("(1143)") {
        return Error::denied(format!("{table} may not be read by the user of the secret: {said}"));
    }
    Error::unavailable(format!("reading {table} stopped: {said}"))
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
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}
