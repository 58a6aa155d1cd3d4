//! Tables that a client's plan reads: by name, by the locations of files, by a function's call, or with all their rows.
//!
//! Invariant: a table that only the client's process could read is refused there, by name.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{TableReference, internal_err, plan_err};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::listing::{ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::datasource::{MemTable, TableType, provider_as_source, source_as_provider};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::logical_plan::from_proto::parse_expr;
use datafusion_proto::logical_plan::to_proto::serialize_expr;
use datafusion_proto::logical_plan::{AsLogicalPlan, DefaultLogicalExtensionCodec};
use datafusion_proto::protobuf::{LogicalExprNode, LogicalPlanNode};
use prost::Message;
use tidemill_core::{Error, Result};

use super::ReceivedTable;
use crate::codec::{decode_schema, encode_schema};
use crate::error::from_datafusion;
use crate::wire::{self, plan_table::Table};

/// Bytes of rows in memory that one plan may hold: they are kept with its run, and sent with its stages.
pub const HELD_BYTES: usize = 64 << 20;

/// The metadata of a schema that tells what kind of table it belongs to.
pub const TABLE_TYPE: &str = "tidemill.table_type";
/// Its value for a view.
pub const VIEW: &str = "view";

/// A table of the cluster's catalogue, of which a client knows name and columns.
#[derive(Debug)]
pub struct NamedTable {
    /// Its schema and its name.
    name: String,
    schema: SchemaRef,
    table_type: TableType,
}

impl NamedTable {
    /// A table by its schema and name, with the columns that the coordinator told.
    #[must_use]
    pub fn new(name: String, told: &Schema) -> Self {
        let mut metadata = told.metadata().clone();
        let table_type = match metadata.remove(TABLE_TYPE).as_deref() {
            Some(VIEW) => TableType::View,
            _ => TableType::Base,
        };
        Self { name, schema: Arc::new(told.clone().with_metadata(metadata)), table_type }
    }
}

#[async_trait]
impl TableProvider for NamedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        self.table_type
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        plan_err!("`{}` belongs to the cluster, which alone can read it", self.name)
    }
}

/// What a table function gave, and how it was called.
#[derive(Debug)]
pub struct CalledTable {
    /// The function.
    pub function: String,
    /// Its arguments.
    pub arguments: Vec<Expr>,
    /// What it gave in this process.
    pub table: Arc<dyn TableProvider>,
}

#[async_trait]
impl TableProvider for CalledTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        self.table.table_type()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        self.table.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        self.table.scan(session, projection, filters, limit).await
    }
}

/// How a table travels. `left` is how many bytes of rows the plan may still hold.
pub(super) async fn encode(
    name: &TableReference,
    provider: &Arc<dyn TableProvider>,
    left: &mut usize,
) -> Result<wire::PlanTable> {
    let table = if let Some(named) = provider.downcast_ref::<NamedTable>() {
        Table::Named(named.name.clone())
    } else if let Some(called) = provider.downcast_ref::<CalledTable>() {
        Table::Called(call(called).map_err(|e| from_datafusion(&e))?)
    } else if let Some(work) = provider.downcast_ref::<CteWorkTable>() {
        let schema = encode_schema(&provider.schema()).map_err(|e| from_datafusion(&e))?;
        Table::Work(wire::WorkTable { name: work.name().to_owned(), schema })
    } else if let Some(listing) = provider.downcast_ref::<ListingTable>() {
        Table::Listed(listed(listing, provider).map_err(|e| from_datafusion(&e))?)
    } else if let Some(held) = provider.downcast_ref::<MemTable>() {
        Table::Held(rows(name, held, left).await?)
    } else {
        return Err(Error::invalid(format!(
            "the cluster cannot read `{name}`: only this process has its table provider; read files, rows in memory or \
             tables of the cluster"
        )));
    };
    Ok(wire::PlanTable { table: Some(table) })
}

/// The table that came, or what it is to be looked up by.
pub(super) fn decode(table: &wire::PlanTable, task: &TaskContext) -> DataFusionResult<ReceivedTable> {
    Ok(match &table.table {
        Some(Table::Named(name)) => ReceivedTable::Named(name.clone()),
        Some(Table::Called(called)) => {
            let arguments = called.arguments.iter().map(|argument| {
                let node = LogicalExprNode::decode(argument.as_slice()).map_err(undecodable)?;
                Ok(parse_expr(&node, task, &DefaultLogicalExtensionCodec {})?)
            });
            let arguments = arguments.collect::<DataFusionResult<_>>()?;
            ReceivedTable::Called { function: called.function.clone(), arguments }
        }
        Some(Table::Listed(listed)) => ReceivedTable::Sent(Arc::new(listing(listed, task)?)),
        Some(Table::Held(held)) => ReceivedTable::Sent(Arc::new(held_table(held)?)),
        Some(Table::Work(work)) => {
            let schema = Arc::new(decode_schema(&work.schema)?);
            ReceivedTable::Sent(Arc::new(CteWorkTable::new(&work.name, schema)))
        }
        None => return internal_err!("a table of the plan is empty"),
    })
}

fn undecodable(error: prost::DecodeError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn call(called: &CalledTable) -> DataFusionResult<wire::CalledTable> {
    let arguments = called.arguments.iter().map(|argument| {
        let node = serialize_expr(argument, &DefaultLogicalExtensionCodec {})?;
        Ok(node.encode_to_vec())
    });
    let arguments = arguments.collect::<DataFusionResult<_>>()?;
    Ok(wire::CalledTable { function: called.function.clone(), arguments })
}

fn listed(table: &ListingTable, provider: &Arc<dyn TableProvider>) -> DataFusionResult<wire::ListedTable> {
    let scan = LogicalPlanBuilder::scan("listed", provider_as_source(Arc::clone(provider)), None)?.build()?;
    let scan = LogicalPlanNode::try_from_logical_plan(&scan, &DefaultLogicalExtensionCodec {})?;
    let location = |path: &ListingTableUrl| wire::Location {
        url: path.as_str().to_owned(),
        pattern: path.get_glob().as_ref().map(|glob| glob.as_str().to_owned()),
    };
    Ok(wire::ListedTable { scan: scan.encode_to_vec(), locations: table.table_paths().iter().map(location).collect() })
}

fn listing(listed: &wire::ListedTable, task: &TaskContext) -> DataFusionResult<ListingTable> {
    let node = LogicalPlanNode::decode(listed.scan.as_slice()).map_err(undecodable)?;
    let LogicalPlan::TableScan(scan) = node.try_into_logical_plan(task, &DefaultLogicalExtensionCodec {})? else {
        return internal_err!("a table of files decoded as another plan");
    };
    let provider = source_as_provider(&scan.source)?;
    let Some(table) = provider.downcast_ref::<ListingTable>() else {
        return internal_err!("a table of files decoded as another table");
    };
    let locations = listed.locations.iter().map(|location| {
        let url = ListingTableUrl::parse(&location.url)?;
        match &location.pattern {
            Some(pattern) => url.with_glob(pattern),
            None => Ok(url),
        }
    });
    let locations = locations.collect::<DataFusionResult<Vec<_>>>()?;
    // Those of the files, without those of the folders' names, which come last.
    let (schema, options) = (table.schema(), table.options().clone());
    let of_files = schema.fields().len().saturating_sub(options.table_partition_cols.len());
    let fields = schema.fields().iter().take(of_files).cloned().collect::<Vec<_>>();
    let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
    let config = ListingTableConfig::new_with_multi_paths(locations);
    let table = ListingTable::try_new(config.with_listing_options(options).with_schema(Arc::new(schema)))?;
    Ok(table.with_cache(task.runtime_env().cache_manager.get_file_statistic_cache()))
}

async fn rows(name: &TableReference, table: &MemTable, left: &mut usize) -> Result<wire::HeldTable> {
    let schema = table.schema();
    let mut partitions = Vec::with_capacity(table.batches.len());
    for partition in &table.batches {
        let batches = partition.read().await.clone();
        let bytes = stream(&schema, &batches, *left).map_err(|e| from_datafusion(&e))?;
        let Some(bytes) = bytes else {
            return Err(Error::resources_exhausted(format!(
                "`{name}` makes the plan hold more than {} MiB of rows in memory: write them to a file and read that",
                HELD_BYTES >> 20
            )));
        };
        *left -= bytes.len();
        partitions.push(bytes);
    }
    let schema = encode_schema(&schema).map_err(|e| from_datafusion(&e))?;
    Ok(wire::HeldTable { schema, partitions })
}

/// Batches as an IPC stream; `None` if it would be longer than `limit`.
fn stream(
    schema: &SchemaRef,
    batches: &[arrow::record_batch::RecordBatch],
    limit: usize,
) -> DataFusionResult<Option<Vec<u8>>> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
    for batch in batches {
        writer.write(batch)?;
        if writer.get_ref().len() > limit {
            return Ok(None);
        }
    }
    let bytes = writer.into_inner()?;
    Ok((bytes.len() <= limit).then_some(bytes))
}

fn held_table(held: &wire::HeldTable) -> DataFusionResult<MemTable> {
    let mut partitions = Vec::with_capacity(held.partitions.len());
    for partition in &held.partitions {
        let reader = StreamReader::try_new(partition.as_slice(), None)?;
        partitions.push(reader.collect::<std::result::Result<Vec<_>, _>>()?);
    }
    MemTable::try_new(Arc::new(decode_schema(&held.schema)?), partitions)
}
