//! The cluster as a session sees it: where its plans go, which tables it has, which settings differ from its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::AsArray;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use datafusion::config::ConfigOptions;
use datafusion::execution::SessionState;
use datafusion::logical_expr::TableType;
use tidemill_coordinator::StatementRequest;
use tidemill_core::{Error, ErrorKind, Result};
use tidemill_engine::codec::logical::{NamedTable, encode_columns};

use crate::client::{Client, QueryResult};

/// What tables there are. Types of strings differ between DataFusion's versions and settings.
const TABLES: &str = "SELECT arrow_cast(table_schema, 'Utf8'), arrow_cast(table_name, 'Utf8'), \
                      arrow_cast(table_type, 'Utf8') FROM information_schema.tables \
                      WHERE table_schema <> 'information_schema'";

/// Tables by name.
pub(super) type Names = BTreeMap<String, TableType>;

/// A cluster that a session uses.
pub(super) struct Cluster {
    client: Client,
    /// The functions that its processes have, if they are of this binary.
    registry: SessionState,
    /// The settings with which the session began.
    baseline: BTreeMap<String, Option<String>>,
    /// Its tables when somebody looked last, by schema.
    names: RwLock<BTreeMap<String, Names>>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}

fn entries(options: &ConfigOptions) -> impl Iterator<Item = (String, Option<String>)> + use<> {
    options.entries().into_iter().map(|entry| (entry.key, entry.value))
}

impl Cluster {
    pub(super) fn new(client: Client, registry: SessionState, options: &ConfigOptions) -> Self {
        Self { client, registry, baseline: entries(options).collect(), names: RwLock::default() }
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    pub(super) const fn registry(&self) -> &SessionState {
        &self.registry
    }

    /// What to send with a statement: the client's settings, and what the session changed since.
    pub(super) fn settings(&self, options: &ConfigOptions) -> BTreeMap<String, String> {
        let mut settings = self.client.settings().entries().clone();
        let changed = entries(options).filter(|(key, value)| self.baseline.get(key) != Some(value));
        settings.extend(changed.filter_map(|(key, value)| Some((key, value?))));
        settings
    }

    /// Submits a plan, with a text that shows it.
    pub(super) async fn submit(
        &self,
        sql: String,
        plan: Bytes,
        settings: BTreeMap<String, String>,
    ) -> Result<QueryResult> {
        self.client.submit(StatementRequest { sql, plan: Some(plan), settings, ..Default::default() }).await
    }

    /// Runs a statement to its end.
    pub(super) async fn execute(&self, sql: &str, settings: BTreeMap<String, String>) -> Result<Vec<RecordBatch>> {
        let request = StatementRequest { sql: sql.to_owned(), settings, ..Default::default() };
        self.client.submit(request).await?.collect().await
    }

    /// Looks which tables there are.
    pub(super) async fn look(&self) -> Result<()> {
        let mut names: BTreeMap<String, Names> = BTreeMap::new();
        for batch in self.execute(TABLES, self.client.settings().entries().clone()).await? {
            let column = |at: usize| {
                let column = batch.columns().get(at).and_then(|column| column.as_string_opt::<i32>());
                column.ok_or_else(|| Error::internal("the cluster names its tables in another form"))
            };
            let (schemas, tables, types) = (column(0)?, column(1)?, column(2)?);
            for ((schema, table), table_type) in schemas.iter().zip(tables.iter()).zip(types.iter()) {
                let (Some(schema), Some(table)) = (schema, table) else { continue };
                let table_type = if table_type == Some("VIEW") { TableType::View } else { TableType::Base };
                names.entry(schema.to_owned()).or_default().insert(table.to_owned(), table_type);
            }
        }
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
        Ok(())
    }

    /// The schemas that had tables when somebody looked last.
    pub(super) fn schemas(&self) -> BTreeSet<String> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The tables of a schema when somebody looked last.
    pub(super) fn names(&self, schema: &str) -> Names {
        self.names.read().unwrap_or_else(PoisonError::into_inner).get(schema).cloned().unwrap_or_default()
    }

    /// A table, if the cluster has it now.
    pub(super) async fn table(&self, schema: &str, table: &str) -> Result<Option<Arc<NamedTable>>> {
        let name = format!("{schema}.{table}");
        let settings = self.client.settings().entries().clone();
        match self.submit(format!("DataFrame: columns of {name}"), encode_columns(&name), settings).await {
            Ok(told) => {
                let schema: SchemaRef = Arc::clone(&told.schema);
                // Its end tells the coordinator that it was heard.
                told.collect().await?;
                Ok(Some(Arc::new(NamedTable::new(name, &schema))))
            }
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
