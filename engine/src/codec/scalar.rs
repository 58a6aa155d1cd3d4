//! Scalar subqueries: their value is computed by a stage, and stands in the consumer's plan as a literal.
//!
//! ```text
//! planner: filter x > ScalarSubqueryExpr(0)      bytes: filter x > ScalarInput(stage 3)      task: filter x > 42
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::{ScalarValue, internal_datafusion_err, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::physical_planning_context::{ScalarSubqueryResults, SubqueryIndex};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion_proto::protobuf::physical_expr_node::ExprType;
use datafusion_proto::protobuf::{PhysicalExprNode, PhysicalExtensionExprNode};
use prost::Message;
use tidemill_core::StageId;

use crate::wire;

/// Which stage computes a scalar subquery.
#[derive(Debug, Clone)]
pub struct ScalarSource {
    /// The container that the subquery's expressions share.
    pub results: ScalarSubqueryResults,
    /// Its place in the container.
    pub index: SubqueryIndex,
    /// The stage.
    pub stage: StageId,
}

impl ScalarSource {
    /// The stage that computes a subquery.
    ///
    /// # Errors
    /// None does: the planner dropped it.
    #[expect(deprecated, reason = "nothing else tells which of a container's subqueries an expression means")]
    pub fn find(sources: &[Self], expr: &ScalarSubqueryExpr) -> Result<StageId> {
        let same = |s: &&Self| ScalarSubqueryResults::ptr_eq(&s.results, expr.results()) && s.index == expr.index();
        let source = sources.iter().find(same);
        source.map(|s| s.stage).ok_or_else(|| internal_datafusion_err!("rule 4: no stage computes {expr}"))
    }
}

pub(super) fn encode(expr: &ScalarSubqueryExpr, sources: &[ScalarSource]) -> Result<(StageId, PhysicalExprNode)> {
    let stage = ScalarSource::find(sources, expr)?;
    let field = expr.return_field(&Schema::empty())?;
    let data_type = datafusion_proto::protobuf::ArrowType::try_from(field.data_type())
        .map_err(|e| DataFusionError::External(Box::new(e)))?
        .encode_to_vec();
    let payload = wire::ScalarInput { stage: stage.0, data_type }.encode_to_vec();
    let node = PhysicalExtensionExprNode { expr: payload, inputs: Vec::new() };
    Ok((stage, PhysicalExprNode { expr_id: None, expr_type: Some(ExprType::Extension(node)) }))
}

pub(super) fn decode(buf: &[u8], values: &BTreeMap<StageId, ScalarValue>) -> Result<Arc<dyn PhysicalExpr>> {
    let input = wire::ScalarInput::decode(buf).map_err(|e| DataFusionError::External(Box::new(e)))?;
    let stage = StageId(input.stage);
    let data_type = datafusion_proto::protobuf::ArrowType::decode(input.data_type.as_slice())
        .map_err(|e| DataFusionError::External(Box::new(e)))?;
    let data_type = DataType::try_from(&data_type).map_err(|e| DataFusionError::External(Box::new(e)))?;
    let Some(value) = values.get(&stage) else {
        return internal_err!("the value of scalar stage {stage} was not given to the task");
    };
    if value.data_type() != data_type {
        return internal_err!("scalar stage {stage} gave {} where {data_type} was planned", value.data_type());
    }
    Ok(Arc::new(Literal::new(value.clone())))
}
