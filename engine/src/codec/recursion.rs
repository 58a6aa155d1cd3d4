//! Recursive queries, which DataFusion does not encode. Rule 13: a recursion travels whole, inside one stage.
//!
//! A work table knows only the columns it reads. The recursion it belongs to knows all of them, so while its terms are
//! encoded the converter remembers it.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{internal_err, plan_err};
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::work_table::WorkTableExec;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use datafusion_proto::protobuf::PhysicalPlanNode;

use super::converter::{StageConverter, extension};
use super::{decode_schema, encode_schema};
use crate::wire::{self, plan_node::Node};

/// Encodes a recursion or a work table; `None` for other nodes.
pub(super) fn encode(
    plan: &Arc<dyn ExecutionPlan>,
    codec: &dyn PhysicalExtensionCodec,
    converter: &StageConverter<'_>,
) -> Result<Option<PhysicalPlanNode>> {
    if let Some(recursion) = plan.downcast_ref::<RecursiveQueryExec>() {
        let schema = plan.schema();
        let node = wire::RecursionNode {
            name: recursion.name().to_owned(),
            is_distinct: recursion.is_distinct(),
            schema: encode_schema(&schema)?,
        };
        converter.enter_recursion(recursion.name(), schema);
        let terms = [recursion.static_term(), recursion.recursive_term()];
        let inputs = terms.map(|term| converter.execution_plan_to_proto(term, codec));
        converter.leave_recursion();
        let inputs = inputs.into_iter().collect::<Result<_>>()?;
        return Ok(Some(extension(Node::Recursion(node), inputs)));
    }
    let Some(table) = plan.downcast_ref::<WorkTableExec>() else { return Ok(None) };
    let Some(schema) = converter.recursion(table.name()) else {
        return internal_err!("rule 13: the work table {} is outside its recursion", table.name());
    };
    let (schema, projection) = projected(&schema, &table.schema())?;
    let node = wire::WorkTableNode { name: table.name().to_owned(), schema: encode_schema(&schema)?, projection };
    Ok(Some(extension(Node::WorkTable(node), Vec::new())))
}

/// Which of `all` columns are `read`, by name; and `all` with these as the reader declares them.
fn projected(all: &Schema, read: &Schema) -> Result<(Schema, Vec<u32>)> {
    let mut fields: Vec<Arc<Field>> = all.fields().iter().cloned().collect();
    let mut projection = Vec::new();
    for field in read.fields() {
        let mut found = fields.iter_mut().zip(0u32..).filter(|(f, _)| f.name() == field.name());
        let (Some((column, position)), None) = (found.next(), found.next()) else {
            return plan_err!("a recursive query has several columns `{}`: give them different names", field.name());
        };
        *column = Arc::clone(field);
        projection.push(position);
    }
    Ok((Schema::new(fields), projection))
}

/// Decodes a recursion or a work table; `None` for other nodes.
pub(super) fn decode(node: &Node, inputs: &[Arc<dyn ExecutionPlan>]) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    match node {
        Node::Recursion(node) => {
            let [static_term, recursive_term] = inputs else { return internal_err!("a recursion needs two terms") };
            let schema: SchemaRef = Arc::new(decode_schema(&node.schema)?);
            let (static_term, recursive_term) = (Arc::clone(static_term), Arc::clone(recursive_term));
            let recursion =
                RecursiveQueryExec::try_new(node.name.clone(), schema, static_term, recursive_term, node.is_distinct)?;
            Ok(Some(Arc::new(recursion)))
        }
        Node::WorkTable(node) => {
            let schema: SchemaRef = Arc::new(decode_schema(&node.schema)?);
            let projection = node.projection.iter().map(|p| *p as usize).collect();
            Ok(Some(Arc::new(WorkTableExec::new(node.name.clone(), schema, Some(projection))?)))
        }
        _ => Ok(None),
    }
}
