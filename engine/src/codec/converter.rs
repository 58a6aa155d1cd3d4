//! Sees every plan node and expression on its way to and from bytes.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::to_proto::serialize_physical_expr_with_converter;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalPlanNodeExt, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::physical_plan_node::PhysicalPlanType;
use datafusion_proto::protobuf::{PhysicalExprNode, PhysicalExtensionNode, PhysicalPlanNode};
use prost::Message;
use tidemill_core::StageId;

use super::scan::EncodedScan;
use super::{ScalarSource, TaskCodec, lock, recursion, scalar, scan, window};
use crate::wire::{self, plan_node};

/// Takes files and scalar subqueries out of a plan while it is encoded.
pub(super) struct StageConverter<'a> {
    sources: &'a [ScalarSource],
    scans: Mutex<Vec<EncodedScan>>,
    scalars: Mutex<BTreeSet<StageId>>,
    /// The recursions whose terms are being encoded, by name, with all their columns.
    recursions: Mutex<Vec<(String, SchemaRef)>>,
}

impl<'a> StageConverter<'a> {
    pub(super) fn for_encoding(sources: &'a [ScalarSource]) -> Self {
        Self { sources, scans: Mutex::default(), scalars: Mutex::default(), recursions: Mutex::default() }
    }

    pub(super) fn for_decoding() -> StageConverter<'static> {
        StageConverter {
            sources: &[],
            scans: Mutex::default(),
            scalars: Mutex::default(),
            recursions: Mutex::default(),
        }
    }

    pub(super) fn into_parts(self) -> (Vec<EncodedScan>, Vec<StageId>) {
        let scans = self.scans.into_inner().unwrap_or_else(PoisonError::into_inner);
        let scalars = self.scalars.into_inner().unwrap_or_else(PoisonError::into_inner);
        (scans, scalars.into_iter().collect())
    }

    /// Keeps a scan's files and tells the scan's number.
    pub(super) fn take_files(&self, scan: EncodedScan) -> usize {
        let mut scans = lock(&self.scans);
        scans.push(scan);
        scans.len() - 1
    }

    pub(super) fn enter_recursion(&self, name: &str, schema: SchemaRef) {
        lock(&self.recursions).push((name.to_owned(), schema));
    }

    pub(super) fn leave_recursion(&self) {
        lock(&self.recursions).pop();
    }

    /// All columns of the innermost recursion of this name.
    pub(super) fn recursion(&self, name: &str) -> Option<SchemaRef> {
        lock(&self.recursions).iter().rev().find(|(n, _)| n == name).map(|(_, schema)| Arc::clone(schema))
    }
}

impl PhysicalProtoConverterExtension for StageConverter<'_> {
    fn proto_to_execution_plan(
        &self,
        proto: &PhysicalPlanNode,
        ctx: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.default_proto_to_execution_plan(proto, ctx)
    }

    fn execution_plan_to_proto(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        codec: &dyn PhysicalExtensionCodec,
    ) -> Result<PhysicalPlanNode> {
        if let Some(node) = scan::encode(plan, codec, self)? {
            return Ok(node);
        }
        if let Some(node) = recursion::encode(plan, codec, self)? {
            return Ok(node);
        }
        if let Some(window) = window::encode(plan, codec, self)? {
            return Ok(extension(plan_node::Node::Window(window), Vec::new()));
        }
        match self.node_of_ours(plan, codec)? {
            Some(node) => Ok(node),
            None => self.stock(plan, codec),
        }
    }

    fn proto_to_physical_expr(
        &self,
        proto: &PhysicalExprNode,
        input_schema: &Schema,
        ctx: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        self.default_proto_to_physical_expr(proto, input_schema, ctx)
    }

    fn physical_expr_to_proto(
        &self,
        expr: &Arc<dyn PhysicalExpr>,
        codec: &dyn PhysicalExtensionCodec,
    ) -> Result<PhysicalExprNode> {
        let Some(subquery) = expr.downcast_ref::<ScalarSubqueryExpr>() else {
            return serialize_physical_expr_with_converter(expr, codec, self);
        };
        let (stage, node) = scalar::encode(subquery, self.sources)?;
        lock(&self.scalars).insert(stage);
        Ok(node)
    }
}

impl StageConverter<'_> {
    /// A node of a registered family, with its children; `None` for others. The stock encoding of an extension node
    /// would not send its children through this converter.
    fn node_of_ours(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        codec: &dyn PhysicalExtensionCodec,
    ) -> Result<Option<PhysicalPlanNode>> {
        let Some(task) = (codec as &dyn Any).downcast_ref::<TaskCodec>() else { return Ok(None) };
        let Some(node) = task.family_node(plan, self)? else { return Ok(None) };
        let inputs = plan.children().into_iter().map(|child| self.execution_plan_to_proto(child, codec));
        Ok(Some(extension(node, inputs.collect::<Result<_>>()?)))
    }

    /// DataFusion's own encoding of a node; children come back through this converter.
    pub(super) fn stock(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        codec: &dyn PhysicalExtensionCodec,
    ) -> Result<PhysicalPlanNode> {
        PhysicalPlanNode::try_from_physical_plan_with_converter(Arc::clone(plan), codec, self)
    }
}

/// A node of ours, in DataFusion's envelope.
pub(super) fn extension(node: plan_node::Node, inputs: Vec<PhysicalPlanNode>) -> PhysicalPlanNode {
    let node = wire::PlanNode { node: Some(node) }.encode_to_vec();
    PhysicalPlanNode { physical_plan_type: Some(PhysicalPlanType::Extension(PhysicalExtensionNode { node, inputs })) }
}
