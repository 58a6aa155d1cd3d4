//! From DataFusion's physical plan to a stage graph: one pass per file, in this order.
//!
//! 1. `inline` — leaves that only this process can produce become rows in the plan;
//! 2. `joins` — joins take a form that is right when each partition runs in another task;
//! 3. `exchanges` — every place where rows change partitions gets a marker;
//! 4. `cut` — markers become stages;
//! 5. `verify` — every stage is walked, and what no rule allows is refused;
//! 6. `encode` — stages become bytes, decode again and are compared.
//!
//! On the executor, `narrow` makes of a decoded stage what one of its tasks executes.
//!
//! Invariant: after every pass the plan is still a valid plan of the same query; and a plan that passes `verify` gives
//! the same rows whichever process runs which task. The rules' numbers are those of `docs/planner.md`.

mod cut;
mod decoded;
mod determinism;
mod draw;
mod encode;
mod exchanges;
mod gathers;
mod inexact;
mod inline;
mod joins;
mod narrow;
mod needs;
mod sink;
mod verify;
mod window_filter;

use std::sync::Arc;

use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use tidemill_core::StageId;
use tidemill_core::graph::{Determinism, Input, TaskShape};

use crate::codec::ScalarSource;
pub use draw::{OperatorDrawing, ReadDrawing, StageDrawing, draw};
pub use encode::{EncodedGraph, ExchangeSettings, StageSink, encode, stage_codec};
pub use gathers::{Gather, gathers};
pub use narrow::{TaskPlan, task_plan};
pub use sink::{SinkTarget, extension_of, file_of, redirect};
pub use window_filter::WindowFilters;

/// A stage before it is encoded.
#[derive(Debug)]
pub struct PlannedStage {
    /// Its position.
    pub id: StageId,
    /// Its plan, with an exchange writer as root.
    pub plan: Arc<dyn ExecutionPlan>,
    /// How its partitions are divided into tasks.
    pub shape: TaskShape,
    /// The exchanges it reads.
    pub inputs: Vec<Input>,
    /// Whether a repeated attempt gives the same rows.
    pub determinism: Determinism,
    /// Columns of its output that are the same in every attempt.
    pub exact: Vec<u32>,
}

/// A physical plan in stages.
#[derive(Debug)]
pub struct StagedQuery {
    /// Inputs before consumers; the last is the root.
    pub stages: Vec<PlannedStage>,
    /// Which stage computes which scalar subquery.
    pub scalars: Vec<ScalarSource>,
}

/// A node with other children.
fn with_children(
    plan: &Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Arc::clone(plan).replace_children(children, options)
}

/// Rewrites a plan from its leaves up. Recursions stay as they are: rule 13.
fn rewrite(
    plan: Arc<dyn ExecutionPlan>,
    change: &mut impl FnMut(Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    if plan.is::<RecursiveQueryExec>() {
        return Ok(plan);
    }
    let children = plan.children();
    let mut changed = false;
    let mut rewritten = Vec::with_capacity(children.len());
    for child in children {
        let new = rewrite(Arc::clone(child), change)?;
        changed |= !Arc::ptr_eq(&new, child);
        rewritten.push(new);
    }
    let plan = if changed { with_children(&plan, rewritten)? } else { plan };
    change(plan)
}

/// Divides a physical plan into stages.
///
/// # Errors
/// No rule allows a node of the plan, which names it; or a leaf of this process cannot be read.
pub async fn stage(plan: Arc<dyn ExecutionPlan>, context: &datafusion::prelude::SessionContext) -> Result<StagedQuery> {
    let options: Arc<ConfigOptions> = Arc::new(context.copied_config().options().as_ref().clone());
    let plan = inline::inline_local_leaves(plan, context.task_ctx()).await?;
    let plan = joins::normalise(plan, options.execution.target_partitions)?;
    let plan = exchanges::mark(plan)?;
    let query = cut::cut(plan)?;
    verify::verify(&query, &options)?;
    Ok(query)
}
