//! Sees every plan node and expression on its way to and from bytes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::Schema;
use datafusion::datasource::physical_plan::FileGroup;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::to_proto::serialize_physical_expr_with_converter;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalPlanNodeExt, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::{PhysicalExprNode, PhysicalPlanNode};
use tidemill_core::StageId;

use super::{ScalarSource, lock, scalar, scan};

/// Takes files and scalar subqueries out of a plan while it is encoded.
pub(super) struct StageConverter<'a> {
    sources: &'a [ScalarSource],
    scans: Mutex<Vec<Vec<FileGroup>>>,
    scalars: Mutex<BTreeSet<StageId>>,
}

impl<'a> StageConverter<'a> {
    pub(super) fn for_encoding(sources: &'a [ScalarSource]) -> Self {
        Self { sources, scans: Mutex::default(), scalars: Mutex::default() }
    }

    pub(super) fn for_decoding() -> StageConverter<'static> {
        StageConverter { sources: &[], scans: Mutex::default(), scalars: Mutex::default() }
    }

    pub(super) fn into_parts(self) -> (Vec<Vec<FileGroup>>, Vec<StageId>) {
        let scans = self.scans.into_inner().unwrap_or_else(PoisonError::into_inner);
        let scalars = self.scalars.into_inner().unwrap_or_else(PoisonError::into_inner);
        (scans, scalars.into_iter().collect())
    }

    /// Keeps a scan's files and tells the scan's number.
    pub(super) fn take_files(&self, groups: Vec<FileGroup>) -> usize {
        let mut scans = lock(&self.scans);
        scans.push(groups);
        scans.len() - 1
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
        match scan::encode(plan, codec, self)? {
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
    /// DataFusion's own encoding of a node; children come back through this converter.
    pub(super) fn stock(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        codec: &dyn PhysicalExtensionCodec,
    ) -> Result<PhysicalPlanNode> {
        PhysicalPlanNode::try_from_physical_plan_with_converter(Arc::clone(plan), codec, self)
    }
}
