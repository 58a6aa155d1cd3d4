//! Nodes of a client's plan that the stock encoding changes, and scans, which name their tables by position.
//!
//! ```text
//! EmptyRelation [a, b]     ⇄     extension "nothing" [a, b]        the stock encoding loses the columns
//! Limit, without an end    ⇄     Limit to i64::MAX                 and the absence of a limit
//! TableScan of a table     ⇄     scan of a position                and patterns of file names, terminators, …
//! Union of many            →     unions of two
//! ```

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, TableReference, internal_datafusion_err, internal_err};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{TableType, provider_as_source, source_as_provider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{
    EmptyRelation, Expr, Extension, FetchType, Limit, LogicalPlan, TableScan, Union, UserDefinedLogicalNodeCore,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::logical_plan::LogicalExtensionCodec;
use datafusion_proto::protobuf;
use prost::Message;
use tidemill_core::Error;

use crate::error::to_datafusion;

/// A table and the name by which a plan reads it.
pub(super) type Scanned = (TableReference, Arc<dyn TableProvider>);

/// A plan as it travels, and the tables that its scans name by position.
pub(super) fn prepare(plan: LogicalPlan) -> Result<(LogicalPlan, Vec<Scanned>)> {
    let mut tables: Vec<Scanned> = Vec::new();
    let prepared = plan.transform_down_with_subqueries(|node| match node {
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source)?;
            // It travels as it is.
            if provider.is::<EmptyTable>() || provider.is::<Position>() {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            }
            let known = tables.iter().position(|(_, known)| Arc::ptr_eq(known, &provider));
            let index = known.unwrap_or(tables.len());
            let position = Position { index, schema: provider.schema() };
            if known.is_none() {
                tables.push((scan.table_name.clone(), provider));
            }
            let source = provider_as_source(Arc::new(position));
            // How many rows are wanted is found again from the limit that stays above.
            Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, fetch: None, ..scan })))
        }
        LogicalPlan::Union(union) if union.inputs.len() > 2 => Ok(Transformed::yes(by_twos(union.inputs)?)),
        LogicalPlan::EmptyRelation(empty) if !empty.schema.fields().is_empty() => {
            let nothing = Nothing { schema: empty.schema, has_a_row: empty.produce_one_row };
            Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(nothing) })))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok((prepared.data, tables))
}

/// What stands for the tables while their plan is on its way.
pub(super) fn positions(tables: &[Scanned]) -> Vec<Arc<dyn TableProvider>> {
    let position = |(index, (_, provider)): (usize, &Scanned)| -> Arc<dyn TableProvider> {
        Arc::new(Position { index, schema: provider.schema() })
    };
    tables.iter().enumerate().map(position).collect()
}

/// A union of unions of two, which is what arrives.
fn by_twos(inputs: Vec<Arc<LogicalPlan>>) -> Result<LogicalPlan> {
    let mut inputs = inputs.into_iter();
    let Some(first) = inputs.next() else { return internal_err!("a union has no inputs") };
    let joined = inputs.try_fold(first, |left, right| {
        Ok::<_, DataFusionError>(Arc::new(LogicalPlan::Union(Union::try_new_with_loose_types(vec![left, right])?)))
    });
    joined.map(Arc::unwrap_or_clone)
}

/// A decoded plan as it was before it travelled.
pub(super) fn restore(plan: LogicalPlan) -> Result<LogicalPlan> {
    let restored = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<Nothing>() {
            Some(nothing) => {
                let (produce_one_row, schema) = (nothing.has_a_row, Arc::clone(&nothing.schema));
                Ok(Transformed::yes(LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row, schema })))
            }
            None => Ok(Transformed::no(LogicalPlan::Extension(extension))),
        },
        LogicalPlan::Limit(limit) if is_endless(&limit)? => {
            Ok(Transformed::yes(LogicalPlan::Limit(Limit { fetch: None, ..limit })))
        }
        other => Ok(Transformed::no(other)),
    });
    restored.map(|t| t.data)
}

fn is_endless(limit: &Limit) -> Result<bool> {
    let Some(end) = usize::try_from(i64::MAX).ok() else { return Ok(false) };
    Ok(matches!(limit.get_fetch_type()?, FetchType::Literal(Some(fetch)) if fetch == end))
}

/// Keeps names that optimising makes apart from those that the client's optimiser made: both count from one.
///
/// # Errors
/// A plan inside the plan cannot be walked.
pub fn reserve_aliases(plan: &LogicalPlan, aliases: &AliasGenerator) -> Result<()> {
    let number = |name: &str| {
        let made = name.strip_prefix("__")?;
        made.rsplit_once('_')?.1.parse::<usize>().ok()
    };
    plan.apply_with_subqueries(|node| {
        for (qualifier, field) in node.schema().iter() {
            let names = qualifier.map(TableReference::table).into_iter().chain([field.name().as_str()]);
            for taken in names.filter_map(number) {
                aliases.update_min_id(taken);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// Stands for a table while its plan is encoded.
#[derive(Debug)]
struct Position {
    index: usize,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for Position {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        internal_err!("a plan on its way is executed")
    }
}

/// An empty relation that keeps its columns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Nothing {
    schema: DFSchemaRef,
    has_a_row: bool,
}

impl PartialOrd for Nothing {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Nothing {
    fn name(&self) -> &'static str {
        "Nothing"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nothing")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, _: Vec<LogicalPlan>) -> Result<Self> {
        Ok(self.clone())
    }
}

/// Encodes scans of positions; decodes them as scans of the tables there.
#[derive(Debug, Default)]
pub(super) struct PlanCodec {
    /// By position.
    pub(super) tables: Vec<Arc<dyn TableProvider>>,
}

impl LogicalExtensionCodec for PlanCodec {
    fn try_decode(&self, buf: &[u8], _: &[LogicalPlan], _: &TaskContext) -> Result<Extension> {
        let Some((has_a_row, schema)) = buf.split_first() else { return internal_err!("an extension node is empty") };
        let schema = protobuf::DfSchema::decode(schema).map_err(|e| DataFusionError::External(Box::new(e)))?;
        let schema = DFSchema::try_from(&schema).map_err(|e| DataFusionError::External(Box::new(e)))?;
        Ok(Extension { node: Arc::new(Nothing { schema: Arc::new(schema), has_a_row: *has_a_row != 0 }) })
    }

    fn try_encode(&self, node: &Extension, buf: &mut Vec<u8>) -> Result<()> {
        let Some(nothing) = node.node.as_any().downcast_ref::<Nothing>() else {
            return Err(to_datafusion(Error::invalid(format!(
                "the cluster does not know the plan node `{}`, which an extension of this process made",
                node.node.name()
            ))));
        };
        buf.push(u8::from(nothing.has_a_row));
        let schema =
            protobuf::DfSchema::try_from(&nothing.schema).map_err(|e| DataFusionError::External(Box::new(e)))?;
        schema.encode(buf).map_err(|e| DataFusionError::External(Box::new(e)))
    }

    fn try_decode_table_provider(
        &self,
        buf: &[u8],
        table_ref: &TableReference,
        schema: SchemaRef,
        _: &TaskContext,
    ) -> Result<Arc<dyn TableProvider>> {
        let position = <[u8; 4]>::try_from(buf).map(u32::from_le_bytes);
        let position = position.map_err(|_| internal_datafusion_err!("a scan names no table"))?;
        let Some(table) = self.tables.get(position as usize) else {
            return internal_err!("a scan names table {position}, and the plan has {}", self.tables.len());
        };
        let columns = |schema: &SchemaRef| -> Vec<_> {
            schema.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect()
        };
        // A scan names columns by their positions.
        if columns(&schema) != columns(&table.schema()) {
            return Err(to_datafusion(Error::conflict(format!(
                "the columns of `{table_ref}` changed since the client looked at them: look it up again"
            ))));
        }
        Ok(Arc::clone(table))
    }

    fn try_encode_table_provider(
        &self,
        table_ref: &TableReference,
        node: Arc<dyn TableProvider>,
        buf: &mut Vec<u8>,
    ) -> Result<()> {
        let Some(position) = node.downcast_ref::<Position>() else {
            return internal_err!("the table `{table_ref}` was not taken out of the plan");
        };
        let index = u32::try_from(position.index).map_err(|_| internal_datafusion_err!("too many tables"))?;
        buf.extend_from_slice(&index.to_le_bytes());
        Ok(())
    }
}
