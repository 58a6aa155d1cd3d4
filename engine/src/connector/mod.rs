//! Tables of other databases: the plan node that reads one, and the trait of whoever speaks with the database.
//!
//! A scan travels as the query that the database will run, and names a secret that the executor looks up. Rule 23: it is a
//! stage of its own, so that whoever reads it may be repeated while the database is asked once.

mod codec;
mod rows;

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::common::internal_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tidemill_core::Error;

use crate::error::to_datafusion;
use crate::secrets::SecretType;
pub use codec::ConnectorNodes;
use rows::Rows;

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectorKind {
    /// PostgreSQL.
    Postgres,
    /// `MySQL` and `MariaDB`.
    Mysql,
    /// A file of `SQLite`.
    Sqlite,
}

impl ConnectorKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Postgres, Self::Mysql, Self::Sqlite];

    /// Its name, as in `STORED AS`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "POSTGRES",
            Self::Mysql => "MYSQL",
            Self::Sqlite => "SQLITE",
        }
    }

    /// Its name for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Mysql => "MySQL",
            Self::Sqlite => "SQLite",
        }
    }

    /// The secrets that open such a database; a file needs none.
    #[must_use]
    pub const fn secret(self) -> Option<SecretType> {
        match self {
            Self::Postgres => Some(SecretType::Postgres),
            Self::Mysql => Some(SecretType::Mysql),
            Self::Sqlite => None,
        }
    }
}

impl FromStr for ConnectorKind {
    type Err = Error;

    fn from_str(name: &str) -> tidemill_core::Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| Error::invalid(format!("`{name}` is no database that is read")))
    }
}

/// A table of another database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteTable {
    /// What database it is.
    pub kind: ConnectorKind,
    /// The secret that opens the database, or the path of its file.
    pub database: String,
    /// The table's name there.
    pub table: String,
}

impl fmt::Display for RemoteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = if self.kind.secret().is_some() { "of the secret " } else { "" };
        write!(f, "{} in {} {by}`{}`", self.table, self.kind.title(), self.database)
    }
}

/// What is read of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorScan {
    /// The table.
    pub table: RemoteTable,
    /// The query that its database runs.
    pub sql: String,
    /// The columns that the query gives.
    pub schema: SchemaRef,
    /// The same as they come: some travel as text, or as numbers, and are read back.
    pub wire: SchemaRef,
}

/// Rows as the database sends them.
pub type RemoteRows = BoxStream<'static, tidemill_core::Result<RecordBatch>>;

/// Speaks with databases, from this process and with its secrets.
#[async_trait]
pub trait Connectors: fmt::Debug + Send + Sync {
    /// Runs a scan's query, if the table's columns are still those that it was planned with.
    ///
    /// # Errors
    /// The database does not answer or refuses, or the table is not what it was.
    async fn read(&self, scan: &ConnectorScan) -> tidemill_core::Result<RemoteRows>;
}

static CONNECTORS: OnceLock<Arc<dyn Connectors>> = OnceLock::new();

/// Says who speaks with databases in this process, which composes it.
pub fn install(connectors: Arc<dyn Connectors>) {
    // A process has one.
    let _ = CONNECTORS.set(connectors);
}

/// Reads a table of another database.
#[derive(Debug)]
pub struct ConnectorScanExec {
    /// What it reads.
    pub scan: ConnectorScan,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ConnectorScanExec {
    /// A scan of one partition.
    #[must_use]
    pub fn new(scan: ConnectorScan) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&scan.schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { scan, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for ConnectorScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RemoteTable { kind, database, .. } = &self.scan.table;
        let by = if kind.secret().is_some() { "secret" } else { "file" };
        write!(f, "ConnectorScanExec: {}, {by}={database}, sql={}", kind.title(), self.scan.sql)
    }
}

impl ExecutionPlan for ConnectorScanExec {
    fn name(&self) -> &'static str {
        "ConnectorScanExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.as_slice() {
            [] => Ok(self),
            _ => internal_err!("a scan of another database has no inputs"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(connectors) = CONNECTORS.get() else {
            return internal_err!("a scan of another database was executed where nobody speaks with databases");
        };
        let scan = self.scan.clone();
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let opened = async move {
            let rows = Rows::new(&scan);
            let read = connectors.read(&scan).await.map_err(to_datafusion)?;
            let read = read.map(move |batch| {
                let batch = batch.and_then(|batch| rows.declared(&batch)).map_err(to_datafusion);
                if let Ok(batch) = &batch {
                    metrics.output_rows().add(RecordBatch::num_rows(batch));
                }
                batch
            });
            Ok::<_, datafusion::error::DataFusionError>(read)
        };
        let stream = futures::stream::once(opened).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.scan.schema), stream)))
    }
}
