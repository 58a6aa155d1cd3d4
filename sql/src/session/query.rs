//! Queries: optimised, planned, divided into stages; or answered here when they only ask about the cluster.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use tidemill_core::Result;
use tidemill_engine::codec::logical::reserve_aliases;
use tidemill_engine::error::from_datafusion;
use tidemill_engine::plan::{ExchangeSettings, StagedQuery, encode, stage};
use tidemill_engine::planner::{Plan, StagedPlan};
use tidemill_engine::wire::Durability;

use super::finish::FinishSpec;
use super::{Planning, ddl, system};
use crate::datasets::input_versions;

/// Runs a query: in stages, or here.
pub(super) async fn run(planning: &Planning<'_>, plan: LogicalPlan) -> Result<Plan> {
    if asks_about_cluster(&plan)? {
        let state = planning.context.state();
        let physical = state.create_physical_plan(&plan).await.map_err(|e| from_datafusion(&e))?;
        let rows = execute_stream(physical, planning.context.task_ctx()).map_err(|e| from_datafusion(&e))?;
        return Ok(Plan::Rows(rows));
    }
    staged(planning, plan, |_| FinishSpec::Deliver).await
}

/// Divides a query into stages; `finish` says what becomes of its result.
pub(super) async fn staged(
    planning: &Planning<'_>,
    plan: LogicalPlan,
    finish: impl FnOnce(&StagedQuery) -> FinishSpec + Send,
) -> Result<Plan> {
    staged_with(planning, plan, planning.settings.exchange, finish).await
}

/// The same, with other exchanges than the session asks for.
pub(super) async fn staged_with(
    planning: &Planning<'_>,
    plan: LogicalPlan,
    exchange: ExchangeSettings,
    finish: impl FnOnce(&StagedQuery) -> FinishSpec + Send,
) -> Result<Plan> {
    let schema: SchemaRef = Arc::new(plan.schema().as_arrow().clone());
    let inputs = input_versions(&plan)?;
    let physical = physical(planning, &plan).await?;
    let query = stage(physical, &planning.context).await.map_err(|e| from_datafusion(&e))?;
    let encoded = encode(&query, None, &planning.context.task_ctx(), exchange).map_err(|e| from_datafusion(&e))?;
    let (graph, blobs, session) = (encoded.graph, encoded.blobs, encoded.session);
    // What the stages give, which may differ from the logical schema in nullability.
    let schema = query.stages.last().map_or(schema, |root| root.plan.schema());
    let finish = finish(&query);
    let effects = finish.has_effects();
    let keep = exchange.durability != Durability::Off;
    let finish = finish.encode()?;
    Ok(Plan::Stages(StagedPlan { graph, blobs, session, schema, finish, effects, keep, inputs }))
}

/// The physical plan of a logical one.
pub(crate) async fn physical(planning: &Planning<'_>, plan: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
    ddl::check_sources(plan)?;
    let state = planning.context.state();
    if planning.request.plan.is_some() {
        reserve_aliases(plan, &state.execution_props().alias_generator).map_err(|e| from_datafusion(&e))?;
    }
    state.create_physical_plan(plan).await.map_err(|e| from_datafusion(&e))
}

/// Whether a plan reads nothing but what the coordinator itself knows: such a query must work while no executor does.
pub(super) fn asks_about_cluster(plan: &LogicalPlan) -> Result<bool> {
    let (mut own, mut other) = (false, false);
    let looked = plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => match scan.table_name.schema() {
                Some(system::SCHEMA | "information_schema") => own = true,
                _ => other = true,
            },
            LogicalPlan::DescribeTable(_) => own = true,
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    looked.map_err(|e| from_datafusion(&e))?;
    Ok(own && !other)
}
