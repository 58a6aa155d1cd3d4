//! What a task will decode is compared with what was verified: every node's name, columns, partitions, order and
//! expressions. Rule 15: what an encoding loses must not be found out by wrong rows.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalSortRequirement;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::union::{InterleaveExec, UnionExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, displayable};
use tidemill_core::graph::ExchangeKind;

use super::{PlannedStage, StagedQuery};
use crate::codec::{EncodedPlan, StageCodec, TaskValues, signature, window_exprs};

/// Decodes a stage and compares it with what was encoded: columns, partitions and orders of every node.
pub(super) fn check(
    codec: &StageCodec,
    stage: &PlannedStage,
    encoded: &EncodedPlan,
    query: &StagedQuery,
    context: &TaskContext,
) -> Result<()> {
    let mut values = TaskValues::default();
    for input in stage.inputs.iter().filter(|i| i.kind == ExchangeKind::Scalar) {
        let Some(producer) = query.stages.get(input.stage.index()) else { continue };
        let schema = producer.plan.schema();
        let Some(field) = schema.fields().first() else { continue };
        values.scalars.insert(input.stage, ScalarValue::try_from(field.data_type())?);
    }
    let decoded = codec.decode(&encoded.bytes, values, context)?;
    compare(&stage.plan, &decoded)
        .map_err(|e| DataFusionError::Internal(format!("stage {}: {}", stage.id, e.message())))
}

fn compare(before: &Arc<dyn ExecutionPlan>, after: &Arc<dyn ExecutionPlan>) -> Result<()> {
    if before.name() != after.name() {
        return internal_err!("rule 15: {} decodes as {}", before.name(), after.name());
    }
    let types = |p: &Arc<dyn ExecutionPlan>| {
        p.schema().fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect::<Vec<_>>()
    };
    if types(before) != types(after) {
        return internal_err!("rule 15: {} decodes with other columns", before.name());
    }
    let partitions = |p: &Arc<dyn ExecutionPlan>| p.output_partitioning().partition_count();
    if partitions(before) != partitions(after) {
        return internal_err!("rule 15: {} decodes with other partitions", before.name());
    }
    if let Some(ordering) = before.output_ordering() {
        // In any direction: a column that a window keeps constant may be recorded as rising or as falling, by chance.
        // Sorts and merges themselves are compared by what they show.
        let columns = ordering.iter().map(|sort| PhysicalSortRequirement::new(Arc::clone(&sort.expr), None));
        // Scans lose their order with their files; the merge above checks what it needs through its own sort.
        if !after.equivalence_properties().ordering_satisfy_requirement(columns)? && !before.is::<DataSourceExec>() {
            let kept = after.equivalence_properties();
            return internal_err!("rule 18: {} loses its order [{ordering}] when decoded: {kept}", before.name());
        }
    }
    compare_expressions(before, after)?;
    let aligns_children =
        before.is::<RecursiveQueryExec>() || before.is::<UnionExec>() || before.is::<InterleaveExec>();
    let (before, after) = (before.children(), after.children());
    if before.len() != after.len() {
        return internal_err!("rule 15: a node decodes with other children");
    }
    before.into_iter().zip(after).try_for_each(|(b, a)| match (compare(b, a), &a.children()[..]) {
        // These bring their children to their own columns once more, because a decoded cast forgets nullability.
        (Err(_), [inner]) if aligns_children && a.is::<ProjectionExec>() => compare(b, inner),
        (compared, _) => compared,
    })
}

fn compare_expressions(before: &Arc<dyn ExecutionPlan>, after: &Arc<dyn ExecutionPlan>) -> Result<()> {
    // A scan has no files yet, and a subquery no value.
    if before.is::<DataSourceExec>() || uses_subquery(before)? {
        return Ok(());
    }
    let shown = |p: &Arc<dyn ExecutionPlan>| {
        let text = displayable(p.as_ref()).one_line().to_string();
        // Chosen anew by what is known of the rows; without files, anything is.
        text.split(", ordering_mode=").next().unwrap_or_default().trim().to_owned()
    };
    let (before_shown, after_shown) = (shown(before), shown(after));
    if before_shown != after_shown {
        return internal_err!("rule 15: `{before_shown}` decodes as `{after_shown}`");
    }
    // What a window function shows leaves out its filter and its direction.
    let signatures = |p| window_exprs(p).unwrap_or_default().iter().map(signature).collect::<Vec<_>>();
    if signatures(before) != signatures(after) {
        return internal_err!("rule 15: `{before_shown}` decodes with other functions");
    }
    Ok(())
}

fn uses_subquery(node: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(&mut |expr| {
        found |= expr.exists(|e| Ok(e.is::<ScalarSubqueryExpr>()))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}
