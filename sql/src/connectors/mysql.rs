//! `MySQL` and `MariaDB`, through the connection pools and rows of `datafusion-table-providers`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion_table_providers_common::sql::db_connection_pool::dbconnection::AsyncDbConnection;
use datafusion_table_providers_common::util::secrets::to_secret_map;
use datafusion_table_providers_mysql::conn::MySQLConnection;
use datafusion_table_providers_mysql::pool::{Error as PoolError, MySQLConnectionPool};
use futures::TryStreamExt;
use tidemill_core::{Error, Result};
use tidemill_engine::connector::{ConnectorScan, RemoteRows, RemoteTable};
use tidemill_engine::secrets::{NamedSecret, SecretType};

use super::columns::{self, RemoteColumn};
use super::deadline::{DESCRIBE, ROWS, within};
use super::servers::{Pool, Running, Servers, Session, first_line, guarded, root_cause};
use super::{no_table, table};

impl Pool for MySQLConnectionPool {
    type Connection = MySQLConnection;
    const SECRET: SecretType = SecretType::Mysql;
    const PARTS: &'static [(&'static str, &'static str)] = &[
        ("host", "host"),
        ("port", "tcp_port"),
        ("user", "user"),
        ("password", "pass"),
        ("database", "db"),
        ("sslmode", "sslmode"),
        ("sslrootcert", "sslrootcert"),
    ];

    async fn open(secret: &NamedSecret, mut parameters: HashMap<String, String>, connections: usize) -> Result<Self> {
        parameters.insert("pool_min".to_owned(), "0".to_owned());
        // Those whose query was dropped read the rest of it away, beside those that others read from.
        parameters.insert("pool_max".to_owned(), (connections * 2).to_string());
        Self::new(to_secret_map(parameters)).await.map_err(|e| refused(secret, &e))
    }

    async fn connect(&self, secret: &NamedSecret) -> Result<MySQLConnection> {
        self.connect_direct().await.map_err(|e| refused(secret, &e))
    }
}

impl Servers<MySQLConnectionPool> {
    pub(super) async fn describe(&self, table: &RemoteTable) -> Result<Vec<RemoteColumn>> {
        let session = self.connect(table, DESCRIBE).await?;
        within(DESCRIBE, "the columns", table, describe(&session.connection, table)).await
    }

    pub(super) async fn read(&self, scan: &ConnectorScan) -> Result<RemoteRows> {
        let table = &scan.table;
        let session = self.connect(table, ROWS).await?;
        let now = within(DESCRIBE, "the columns", table, describe(&session.connection, table)).await?;
        columns::check(scan, &now)?;
        let asked = async {
            let asked = session.connection.query_arrow(&scan.sql, &[], Some(Arc::clone(&scan.wire))).await;
            asked.map_err(|e| failed(table, e.as_ref()))
        };
        let rows = within(ROWS, "the first rows", table, asked).await?;
        Ok(guarded(rows, session, table.clone()))
    }
}

/// Dropped before its end, the driver reads the rest away before another uses the connection.
impl Running for Session<MySQLConnectionPool> {
    fn done(self) {}

    fn failed(&self, table: &RemoteTable, error: &DataFusionError) -> Error {
        failed(table, error)
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
