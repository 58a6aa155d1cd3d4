//! Tables of other databases, see `docs/connectors.md`. `create` makes them, `table` plans their scans, `pushdown` says which
//! filters the database may apply, `columns` how values travel; `postgres`, `mysql` and `sqlite` speak with databases,
//! over the connections in `servers`.
//!
//! Invariant: planning names a secret and never reads one but to create a table; the executor that reads looks it up itself.

mod columns;
mod create;
mod deadline;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
mod pushdown;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod servers;
#[cfg(feature = "sqlite")]
mod sqlite;
mod table;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tidemill_core::{Error, Result};
use tidemill_engine::connector::{self, ConnectorKind, ConnectorScan, Connectors, RemoteRows, RemoteTable};
use tidemill_engine::files::FileAccess;

use columns::RemoteColumn;
pub(crate) use create::{definition, is_connector, table_of};

/// The databases that this process speaks with, each over a few connections that all its tasks share.
#[derive(Debug, Default)]
struct Databases {
    #[cfg(feature = "postgres")]
    postgres: servers::Servers<datafusion_table_providers_postgres::pool::PostgresConnectionPool>,
    #[cfg(feature = "mysql")]
    mysql: servers::Servers<datafusion_table_providers_mysql::pool::MySQLConnectionPool>,
}

/// Those of this process.
fn databases() -> &'static Arc<Databases> {
    static DATABASES: OnceLock<Arc<Databases>> = OnceLock::new();
    DATABASES.get_or_init(Arc::default)
}

/// The files that this process may read.
static FILES: OnceLock<FileAccess> = OnceLock::new();

/// Makes them known to scans, which may read these files: called where an executor starts.
pub(crate) fn install(files: &FileAccess) {
    // A process has one executor, or several of one kind.
    let _ = FILES.set(files.clone());
    connector::install(Arc::clone(databases()) as _);
}

impl Databases {
    /// The columns of a table as they are now.
    async fn describe(&self, table: &RemoteTable) -> Result<Vec<RemoteColumn>> {
        match table.kind {
            #[cfg(feature = "postgres")]
            ConnectorKind::Postgres => self.postgres.describe(table).await,
            #[cfg(feature = "mysql")]
            ConnectorKind::Mysql => self.mysql.describe(table).await,
            #[cfg(feature = "sqlite")]
            ConnectorKind::Sqlite => sqlite::describe(table).await,
            #[cfg(not(all(feature = "postgres", feature = "mysql", feature = "sqlite")))]
            kind => Err(not_built(kind)),
        }
    }
}

#[async_trait]
impl Connectors for Databases {
    async fn read(&self, scan: &ConnectorScan) -> Result<RemoteRows> {
        if let Some(files) = FILES.get().filter(|_| scan.table.kind.secret().is_none()) {
            files.check(&scan.table.database)?;
        }
        match scan.table.kind {
            #[cfg(feature = "postgres")]
            ConnectorKind::Postgres => self.postgres.read(scan).await,
            #[cfg(feature = "mysql")]
            ConnectorKind::Mysql => self.mysql.read(scan).await,
            #[cfg(feature = "sqlite")]
            ConnectorKind::Sqlite => sqlite::read(scan).await,
            #[cfg(not(all(feature = "postgres", feature = "mysql", feature = "sqlite")))]
            kind => Err(not_built(kind)),
        }
    }
}

#[cfg(not(all(feature = "postgres", feature = "mysql", feature = "sqlite")))]
fn not_built(kind: ConnectorKind) -> Error {
    let feature = kind.name().to_lowercase();
    Error::invalid(format!("this build does not read {}: build tidemill with --features {feature}", kind.title()))
}

/// The table is not there, or this user may not see it.
fn no_table(table: &RemoteTable) -> Error {
    Error::not_found(format!("there is no table {table}: check its name, and that the user may read it"))
}
