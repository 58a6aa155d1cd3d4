//! The catalogue of a session: the cluster's tables, and in front of them those that only the session knows.
//!
//! Invariant: a table of the session hides the cluster's of the same name, in the session and nowhere else.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use datafusion::catalog::information_schema::INFORMATION_SCHEMA;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::ResolvedTableReference;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::TableType;
use tidemill_core::Error;
use tidemill_engine::error::to_datafusion;
use tidemill_engine::runtime::{CATALOG, SCHEMA, SYSTEM_SCHEMA};

use super::cluster::Cluster;

/// The only catalogue of a cluster.
#[derive(Debug)]
pub(super) struct ClusterCatalog {
    cluster: Arc<Cluster>,
    public: Arc<ClusterSchema>,
}

impl ClusterCatalog {
    pub(super) fn new(cluster: Arc<Cluster>, public: Arc<ClusterSchema>) -> Self {
        Self { cluster, public }
    }
}

impl CatalogProvider for ClusterCatalog {
    fn schema_names(&self) -> Vec<String> {
        let mut names = self.cluster.schemas();
        names.extend([SCHEMA.to_owned(), SYSTEM_SCHEMA.to_owned()]);
        names.into_iter().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            SCHEMA => Some(Arc::clone(&self.public) as _),
            INFORMATION_SCHEMA => None,
            // Whether there is one the cluster says, when a table of it is named.
            _ => Some(Arc::new(ClusterSchema::new(Arc::clone(&self.cluster), name)) as _),
        }
    }
}

/// A schema of a cluster.
#[derive(Debug)]
pub(super) struct ClusterSchema {
    cluster: Arc<Cluster>,
    schema: String,
    /// Tables of the session.
    own: RwLock<BTreeMap<String, Arc<dyn TableProvider>>>,
}

impl ClusterSchema {
    pub(super) fn new(cluster: Arc<Cluster>, schema: &str) -> Self {
        Self { cluster, schema: schema.to_owned(), own: RwLock::default() }
    }

    /// Whether a name means a table of the session.
    pub(super) fn is_own(&self, name: &ResolvedTableReference) -> bool {
        &*name.catalog == CATALOG && *name.schema == *self.schema && self.own(&name.table).is_some()
    }

    fn own(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        self.own.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

#[async_trait]
impl SchemaProvider for ClusterSchema {
    fn table_names(&self) -> Vec<String> {
        let mut names = self.cluster.names(&self.schema);
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        names.extend(own.iter().map(|(name, table)| (name.clone(), table.table_type())));
        names.into_keys().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if let Some(own) = self.own(name) {
            return Ok(Some(own));
        }
        // Statements that call a table function are looked through for tables of its name.
        let is_function = self.cluster.registry().table_functions().contains_key(name);
        if is_function && !self.cluster.names(&self.schema).contains_key(name) {
            return Ok(None);
        }
        let table = self.cluster.table(&self.schema, name).await.map_err(to_datafusion)?;
        Ok(table.map(|table| table as Arc<dyn TableProvider>))
    }

    /// Without asking the cluster, which told the types with the names.
    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        let own = self.own(name).map(|table| table.table_type());
        Ok(own.or_else(|| self.cluster.names(&self.schema).get(name).copied()))
    }

    fn register_table(&self, name: String, table: Arc<dyn TableProvider>) -> Result<Option<Arc<dyn TableProvider>>> {
        if self.schema != SCHEMA {
            return Err(to_datafusion(Error::denied(format!(
                "the schema `{}` belongs to the cluster: register `{name}` in `{SCHEMA}`, where a session may have tables",
                self.schema
            ))));
        }
        Ok(self.own.write().unwrap_or_else(PoisonError::into_inner).insert(name, table))
    }

    /// Forgets a table of the session. The cluster's are dropped by statements, for all clients.
    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let own = self.own.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        if own.is_none() && self.cluster.names(&self.schema).contains_key(name) {
            return Err(to_datafusion(Error::invalid(format!(
                "`{name}` belongs to the cluster, and all its clients: drop it with DROP TABLE or DROP VIEW in Session::sql"
            ))));
        }
        Ok(own)
    }

    /// Of the cluster's tables, as they were when somebody looked last.
    fn table_exist(&self, name: &str) -> bool {
        self.own(name).is_some() || self.cluster.names(&self.schema).contains_key(name)
    }
}
