//! A session: how it is begun, and which of its statements belong to the cluster.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::catalog::{CatalogProviderList, MemoryCatalogProviderList, TableFunction};
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Sql;
use tidemill_core::Result;
use tidemill_engine::error::{from_datafusion, to_datafusion};
use tidemill_engine::functions::Functions;
use tidemill_engine::runtime::{CATALOG, SCHEMA};
use tidemill_engine::secrets::Secret;

use super::catalogue::{ClusterCatalog, ClusterSchema};
use super::cluster::Cluster;
use super::functions::Recorded;
use super::options::TidemillOptions;
use super::planner::RunPlanner;
use super::stores::Stores;
use crate::client::Client;
use crate::compose::{Embedded, EmbeddedConfig};
use crate::jobs::{JobHandle, is_begun_by};
use crate::security::Access;
use crate::session::{RunSettings, statements};

/// A session with a cluster inside this process: coordinator and executor, without sockets.
#[must_use]
pub fn local() -> SessionBuilder {
    SessionBuilder::at(Place::Inside(Box::default()))
}

/// A session with the cluster whose coordinator is at `urls`: several, divided by commas, where others stand by.
#[must_use]
pub fn connect(urls: impl Into<String>) -> SessionBuilder {
    SessionBuilder::at(Place::Cluster(urls.into()))
}

/// Where a session's queries run.
enum Place {
    Inside(Box<EmbeddedConfig>),
    Shared(Arc<Embedded>),
    Cluster(String),
}

/// A session that is about to begin.
pub struct SessionBuilder {
    place: Place,
    settings: Vec<(String, String)>,
    functions: Functions,
    access: Access,
}

impl SessionBuilder {
    fn at(place: Place) -> Self {
        Self { place, settings: Vec::new(), functions: Functions::default(), access: Access::default() }
    }

    /// A session with an embedded cluster that others use too. It has the functions that it was started with.
    #[must_use]
    pub fn of(embedded: Arc<Embedded>) -> Self {
        Self::at(Place::Shared(embedded))
    }

    /// The embedded cluster's size and place; a cluster elsewhere has its own.
    #[must_use]
    pub fn embedded(mut self, config: EmbeddedConfig) -> Self {
        if let Place::Inside(place) = &mut self.place {
            **place = config;
        }
        self
    }

    /// A setting of the session, such as `datafusion.execution.target_partitions` or `tidemill.durability`.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// Functions of this binary. A cluster elsewhere must be of a binary that has them, too.
    #[must_use]
    pub fn functions(mut self, functions: Functions) -> Self {
        self.functions = functions;
        self
    }

    /// Certificates, in PEM, that sign those of the cluster's coordinators; without them the system's are trusted. The URL
    /// is `https://`.
    #[must_use]
    pub fn tls_ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.access.tls_ca = Some(file.into());
        self
    }

    /// The name in the coordinators' certificates, where it is not the host of their URL.
    #[must_use]
    pub fn tls_name(mut self, name: impl Into<String>) -> Self {
        self.access.tls_name = Some(name.into());
        self
    }

    /// The token by which the cluster knows its user. A user with a password stands in the URL instead:
    /// `https://USER:PASSWORD@HOST:PORT`.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.access.token = Some(Secret::new(token));
        self
    }

    /// Lets tokens and passwords travel unencrypted to other machines, where everybody on the way can read them.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.access.insecure = true;
        self
    }

    /// Begins the session.
    ///
    /// # Errors
    /// Nothing answers at the URL, the embedded cluster does not start, a setting is unknown, or a function has the name
    /// of another.
    pub async fn start(self) -> Result<Session> {
        let mut client = match self.place {
            Place::Inside(config) => Client::embedded(EmbeddedConfig { functions: self.functions.clone(), ..*config })?,
            Place::Shared(embedded) => Client::of(embedded),
            Place::Cluster(urls) => Client::connect_with(&urls, &self.access).await?,
        };
        for (key, value) in &self.settings {
            client.set(key, value)?;
        }
        Session::new(client, &self.functions).await
    }
}

/// A DataFusion session whose queries run on a cluster.
///
/// It is used as the [`SessionContext`] that it holds; only [`Session::sql`] knows more: statements about the catalogue go
/// to the cluster.
#[derive(Clone)]
pub struct Session {
    context: SessionContext,
    cluster: Arc<Cluster>,
    tables: Arc<ClusterSchema>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.context.session_id()).finish_non_exhaustive()
    }
}

impl Deref for Session {
    type Target = SessionContext;

    fn deref(&self) -> &SessionContext {
        &self.context
    }
}

impl Session {
    async fn new(client: Client, functions: &Functions) -> Result<Self> {
        let settings = client.settings().entries().clone();
        let config = RunSettings::new(&settings, 0, None)?.config;
        let config = config.with_option_extension(TidemillOptions::of(&settings));
        let cluster = Arc::new(Cluster::new(client, functions.registry()?, config.options()));
        cluster.look().await?;
        let tables = Arc::new(ClusterSchema::new(Arc::clone(&cluster), SCHEMA));
        let catalogs = MemoryCatalogProviderList::new();
        let catalog = ClusterCatalog::new(Arc::clone(&cluster), Arc::clone(&tables));
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        // As on the coordinator: a list that is kept would hide the files of the last hour.
        let caches = CacheManagerConfig::default().with_list_files_cache_limit(0);
        let runtime = RuntimeEnvBuilder::new().with_cache_manager(caches);
        let runtime = runtime.with_object_store_registry(Arc::new(Stores::default())).build_arc();
        let mut state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime.map_err(|e| from_datafusion(&e))?)
            .with_catalog_list(Arc::new(catalogs))
            .with_default_features()
            .with_query_planner(Arc::new(RunPlanner::new(Arc::clone(&cluster))))
            .build();
        let called: HashMap<String, Arc<TableFunction>> = state.table_functions().clone();
        for (name, function) in called {
            state.register_udtf(&name, Arc::new(Recorded::new(name.clone(), Arc::clone(function.function()))));
        }
        functions.register(&mut state)?;
        Ok(Self { context: SessionContext::new_with_state(state), cluster, tables })
    }

    /// The DataFusion session, for whoever asks for one.
    #[must_use]
    pub const fn context(&self) -> &SessionContext {
        &self.context
    }

    /// The client, for statements as the terminal has them.
    #[must_use]
    pub fn client(&self) -> &Client {
        self.cluster.client()
    }

    /// A statement as a `DataFrame`. `CREATE EXTERNAL TABLE`, `CREATE SCHEMA`, and `CREATE VIEW`, `CREATE TABLE … AS` and
    /// `DROP` of what the cluster knows, go to the cluster's catalogue, and so do statements about jobs; all others are the session's.
    ///
    /// # Errors
    /// The statement is wrong, or the cluster refuses it.
    pub async fn sql(&self, sql: &str) -> DataFusionResult<DataFrame> {
        if is_begun_by(sql) {
            let rows = self.run_on_cluster(sql).await.map_err(to_datafusion)?;
            return self.context.read_batches(rows);
        }
        // What cannot be read here is read, and refused, by DataFusion.
        let Ok(statement) = statements::parse_one(sql) else { return self.context.sql(sql).await };
        if !self.belongs_to_cluster(&statement)? {
            // Tables are listed as they are now.
            if matches!(&statement, Statement::Statement(sql) if is_listing(sql)) {
                self.cluster.look().await.map_err(to_datafusion)?;
            }
            return self.context.sql(sql).await;
        }
        self.run_on_cluster(sql).await.map_err(to_datafusion)?;
        self.cluster.look().await.map_err(to_datafusion)?;
        Ok(DataFrame::new(self.context.state(), LogicalPlanBuilder::empty(false).build()?))
    }

    /// A job of the cluster, to be created or asked for something.
    #[must_use]
    pub fn job(&self, name: impl Into<String>) -> JobHandle {
        JobHandle::new(self.clone(), name.into())
    }

    /// Runs a statement on the cluster, to its end.
    pub(crate) async fn run_on_cluster(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let settings = self.cluster.settings(self.context.copied_config().options());
        self.cluster.execute(sql, settings).await
    }

    /// Whether a statement is about the cluster's catalogue. What reads tables of this session stays in it.
    fn belongs_to_cluster(&self, statement: &Statement) -> DataFusionResult<bool> {
        let sql = match statement {
            Statement::CreateExternalTable(_) => return Ok(true),
            Statement::Statement(sql) => sql.as_ref(),
            _ => return Ok(false),
        };
        let is_about_catalogue = match sql {
            Sql::CreateView { .. } | Sql::CreateSchema { .. } | Sql::Drop { .. } => true,
            Sql::CreateTable(table) => table.query.is_some(),
            _ => false,
        };
        if !is_about_catalogue {
            return Ok(false);
        }
        let state = self.context.state();
        let named: Vec<TableReference> = match sql {
            Sql::Drop { names, .. } => names.iter().map(|name| TableReference::from(name.to_string())).collect(),
            _ => state.resolve_table_references(statement)?,
        };
        Ok(!named.into_iter().any(|name| self.tables.is_own(&name.resolve(CATALOG, SCHEMA))))
    }
}

/// Whether a statement shows what tables there are.
fn is_listing(sql: &Sql) -> bool {
    let shows = matches!(sql, Sql::ShowTables { .. } | Sql::ShowColumns { .. } | Sql::ShowCreate { .. });
    shows || matches!(sql, Sql::Query(query) if query.to_string().to_lowercase().contains("information_schema"))
}
