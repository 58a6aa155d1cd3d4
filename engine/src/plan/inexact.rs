//! Columns whose last digits may differ when a stage is repeated: sums of floating-point numbers, added in the order in which
//! blocks arrive.
//!
//! Where such a column decides about rows, being hashed, filtered, grouped, joined or ranked on, a repetition may give other
//! rows. Columns are followed by name past nodes that keep them; two of one name are both taken for inexact.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, Partitioning};
use tidemill_core::StageId;

use crate::exchange::ExchangeReaderExec;

/// Aggregates that add in the order of their input.
const ADDING: &[&str] = &[
    "avg",
    "corr",
    "covar_pop",
    "covar_samp",
    "regr_avgx",
    "regr_avgy",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];

/// What a repetition of a plan may change.
#[derive(Debug, Default)]
pub(super) struct Inexact {
    /// The output's columns whose last digits may differ, by position.
    pub(super) columns: BTreeSet<usize>,
    /// Whether rows may differ for that reason.
    pub(super) rows: bool,
}

/// Follows inexact columns from a plan's inputs, of which `stages` knows the inexact columns, to its output.
pub(super) fn of(
    plan: &Arc<dyn ExecutionPlan>,
    partitioning: Option<&Partitioning>,
    stages: &BTreeMap<StageId, BTreeSet<usize>>,
) -> Result<Inexact> {
    let mut found = node(plan, stages)?;
    if let Some(Partitioning::Hash(keys, _)) = partitioning {
        let names = names(plan, &found.columns);
        found.rows |= mention(keys.iter(), &names)?;
    }
    Ok(found)
}

fn node(plan: &Arc<dyn ExecutionPlan>, stages: &BTreeMap<StageId, BTreeSet<usize>>) -> Result<Inexact> {
    if let Some(reader) = plan.downcast_ref::<ExchangeReaderExec>() {
        return Ok(Inexact { columns: stages.get(&reader.stage).cloned().unwrap_or_default(), rows: false });
    }
    let (mut inputs, mut rows) = (BTreeSet::new(), false);
    for child in plan.children() {
        let below = node(child, stages)?;
        rows |= below.rows;
        inputs.extend(names(child, &below.columns));
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let groups = aggregate.group_expr().expr();
        rows |= mention(groups.iter().map(|(key, _)| key), &inputs)?;
        return Ok(Inexact { columns: added(aggregate, &inputs)?, rows });
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let mut columns = BTreeSet::new();
        for (position, projected) in projection.expr().iter().enumerate() {
            if mention([&projected.expr].into_iter(), &inputs)? {
                columns.insert(position);
            }
        }
        return Ok(Inexact { columns, rows });
    }
    if !inputs.is_empty() {
        // A sort that keeps all rows changes no row.
        let only_orders = plan.fetch().is_none() && plan.name().starts_with("Sort") && !plan.name().contains("Join");
        plan.apply_expressions(&mut |expr: &Arc<dyn PhysicalExpr>| {
            rows |= !only_orders && mention([expr].into_iter(), &inputs)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    let schema = plan.schema();
    let kept = schema.fields().iter().enumerate().filter(|(_, field)| inputs.contains(field.name()));
    Ok(Inexact { columns: kept.map(|(position, _)| position).collect(), rows })
}

/// The aggregates that add floating-point numbers, or work on columns that did.
fn added(aggregate: &AggregateExec, inputs: &BTreeSet<String>) -> Result<BTreeSet<usize>> {
    let groups = aggregate.group_expr().expr().len();
    // Later phases read the state of earlier ones, under names of its own.
    let reads_rows =
        matches!(aggregate.mode(), AggregateMode::Partial | AggregateMode::Single | AggregateMode::SinglePartitioned);
    let mut from_inexact = !reads_rows && !inputs.is_empty();
    let mut adds = false;
    for function in aggregate.aggr_expr() {
        from_inexact |= mention(function.expressions().iter(), inputs)?;
        adds |= ADDING.contains(&function.fun().name());
    }
    let schema = aggregate.schema();
    let is_inexact = |position: usize| {
        let field = schema.fields().get(position);
        position >= groups && (from_inexact || (adds && field.is_some_and(|f| f.data_type().is_floating())))
    };
    Ok((0..schema.fields().len()).filter(|position| is_inexact(*position)).collect())
}

fn names(plan: &Arc<dyn ExecutionPlan>, columns: &BTreeSet<usize>) -> BTreeSet<String> {
    let schema = plan.schema();
    columns.iter().filter_map(|position| schema.fields().get(*position)).map(|field| field.name().clone()).collect()
}

/// Whether an expression uses one of these columns.
fn mention<'a>(
    expressions: impl Iterator<Item = &'a Arc<dyn PhysicalExpr>>,
    columns: &BTreeSet<String>,
) -> Result<bool> {
    let mut found = false;
    for expression in expressions {
        expression.apply(|expr| {
            found |= expr.downcast_ref::<Column>().is_some_and(|column| columns.contains(column.name()));
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(found)
}
