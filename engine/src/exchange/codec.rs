//! Bytes of the exchange's plan nodes.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::internal_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    AcrossPartitions, ConstExpr, EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::{ExecutionPlan, Partitioning};
use datafusion_proto::protobuf;
use prost::Message;
use tidemill_core::StageId;

use super::{ExchangeReaderExec, ExchangeWriterExec, ReadMode};
use crate::codec::{DecodeContext, EncodeContext, NodeFamily, decode_schema, encode_schema};
use crate::wire::{self, plan_node::Node};

/// The exchange's reader and writer.
#[derive(Debug)]
pub struct ExchangeNodes;

impl NodeFamily for ExchangeNodes {
    fn encode(&self, plan: &Arc<dyn ExecutionPlan>, ctx: &EncodeContext<'_>) -> Result<Option<Node>> {
        if let Some(reader) = plan.downcast_ref::<ExchangeReaderExec>() {
            return Ok(Some(Node::Reader(encode_reader(reader, ctx)?)));
        }
        if let Some(writer) = plan.downcast_ref::<ExchangeWriterExec>() {
            let partitioning = match &writer.partitioning {
                Some(partitioning) => encode_partitioning(partitioning, ctx)?.encode_to_vec(),
                None => Vec::new(),
            };
            return Ok(Some(Node::Writer(wire::ExchangeWriterNode { partitioning })));
        }
        Ok(None)
    }

    fn decode(
        &self,
        node: &Node,
        children: &[Arc<dyn ExecutionPlan>],
        ctx: &DecodeContext<'_>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        match node {
            Node::Reader(node) => Ok(Some(Arc::new(decode_reader(node, ctx)?))),
            Node::Writer(node) => {
                let [input] = children else { return internal_err!("an exchange writer needs one input") };
                let partitioning = match node.partitioning.as_slice() {
                    [] => None,
                    bytes => Some(decode_partitioning(bytes, &input.schema(), ctx)?),
                };
                Ok(Some(Arc::new(ExchangeWriterExec::new(Arc::clone(input), partitioning))))
            }
            Node::FileScan(_)
            | Node::Recursion(_)
            | Node::WorkTable(_)
            | Node::Window(_)
            | Node::ConnectorScan(_)
            | Node::DatasetSink(_) => Ok(None),
        }
    }
}

fn encode_reader(reader: &ExchangeReaderExec, ctx: &EncodeContext<'_>) -> Result<wire::ExchangeReaderNode> {
    let mode = match reader.mode {
        ReadMode::Hash => wire::ReadMode::Hash,
        ReadMode::PerTask => wire::ReadMode::PerTask,
        ReadMode::All => wire::ReadMode::All,
    };
    let ordering = reader.properties().output_ordering().map(|o| o.iter().collect::<Vec<_>>()).unwrap_or_default();
    let ordering = ordering.into_iter().map(|sort| {
        let node = protobuf::PhysicalSortExprNode {
            expr: Some(Box::new(ctx.expr(&sort.expr)?)),
            asc: !sort.options.descending,
            nulls_first: sort.options.nulls_first,
        };
        Ok(node.encode_to_vec())
    });
    Ok(wire::ExchangeReaderNode {
        stage: reader.stage.0,
        mode: mode.into(),
        schema: encode_schema(&reader.schema())?,
        partitioning: encode_partitioning(reader.properties().output_partitioning(), ctx)?.encode_to_vec(),
        ordering: ordering.collect::<Result<_>>()?,
        equal: equal_columns(reader.properties().equivalence_properties()),
    })
}

/// What the reader knows of equal and constant columns. Nodes above choose how they run by it: an aggregate that takes
/// its input for sorted because a column is constant must find it so when it is decoded.
fn equal_columns(equivalence: &EquivalenceProperties) -> Vec<wire::EqualColumns> {
    let position = |e: &Arc<dyn PhysicalExpr>| u32::try_from(e.downcast_ref::<Column>()?.index()).ok();
    let constants = equivalence.constants();
    let classes = equivalence.eq_group().iter().map(|class| {
        let constant = constants.iter().find(|c| class.contains(&c.expr)).map(|c| &c.across_partitions);
        let constant = match constant {
            None => wire::Constant::Unspecified,
            Some(AcrossPartitions::Heterogeneous) => wire::Constant::PerPartition,
            Some(AcrossPartitions::Uniform(_)) => wire::Constant::Everywhere,
        };
        wire::EqualColumns { columns: class.iter().filter_map(position).collect(), constant: constant.into() }
    });
    classes.filter(|class| !class.columns.is_empty()).collect()
}

fn equivalence(
    schema: SchemaRef,
    ordering: Option<LexOrdering>,
    equal: &[wire::EqualColumns],
) -> Result<EquivalenceProperties> {
    let column = |position: &u32| -> Result<Arc<dyn PhysicalExpr>> {
        let position = *position as usize;
        let Some(field) = schema.fields().get(position) else { return internal_err!("no column {position}") };
        Ok(Arc::new(Column::new(field.name(), position)))
    };
    let mut equivalence = EquivalenceProperties::new_with_orderings(Arc::clone(&schema), ordering);
    for class in equal {
        let columns = class.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
        let Some(first) = columns.first() else { continue };
        for other in columns.iter().skip(1) {
            equivalence.add_equal_conditions(Arc::clone(first), Arc::clone(other))?;
        }
        let across = match class.constant() {
            wire::Constant::Unspecified => continue,
            wire::Constant::PerPartition => AcrossPartitions::Heterogeneous,
            wire::Constant::Everywhere => AcrossPartitions::Uniform(None),
        };
        equivalence.add_constants([ConstExpr::new(Arc::clone(first), across)])?;
    }
    Ok(equivalence)
}

fn decode_reader(node: &wire::ExchangeReaderNode, ctx: &DecodeContext<'_>) -> Result<ExchangeReaderExec> {
    let schema: SchemaRef = Arc::new(decode_schema(&node.schema)?);
    let mode = match node.mode() {
        wire::ReadMode::Hash => ReadMode::Hash,
        wire::ReadMode::PerTask => ReadMode::PerTask,
        wire::ReadMode::All => ReadMode::All,
        wire::ReadMode::Unspecified => return internal_err!("an exchange reader has no mode"),
    };
    let ordering = node.ordering.iter().map(|bytes| {
        let sort = protobuf::PhysicalSortExprNode::decode(bytes.as_slice()).map_err(external)?;
        let Some(expr) = &sort.expr else { return internal_err!("a sort key has no expression") };
        let options = arrow::compute::SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
        Ok(PhysicalSortExpr { expr: ctx.expr(expr, &schema)?, options })
    });
    let ordering = LexOrdering::new(ordering.collect::<Result<Vec<_>>>()?);
    let partitioning = decode_partitioning(&node.partitioning, &schema, ctx)?;
    let equivalence = equivalence(schema, ordering, &node.equal)?;
    Ok(ExchangeReaderExec::new(StageId(node.stage), mode, equivalence, partitioning))
}

fn encode_partitioning(partitioning: &Partitioning, ctx: &EncodeContext<'_>) -> Result<protobuf::Partitioning> {
    datafusion_proto::physical_plan::to_proto::serialize_partitioning(partitioning, ctx.codec, ctx.converter.0)
}

fn decode_partitioning(bytes: &[u8], schema: &Schema, ctx: &DecodeContext<'_>) -> Result<Partitioning> {
    let proto = protobuf::Partitioning::decode(bytes).map_err(external)?;
    let decode = datafusion_proto::physical_plan::PhysicalPlanDecodeContext::new(ctx.task, ctx.codec);
    let partitioning = datafusion_proto::physical_plan::from_proto::parse_protobuf_partitioning(
        Some(&proto),
        &decode,
        schema,
        ctx.converter.0,
    )?;
    match partitioning {
        Some(partitioning) => Ok(partitioning),
        None => internal_err!("a partitioning is empty"),
    }
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
