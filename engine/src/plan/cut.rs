//! Markers become stages, inputs before consumers.
//!
//! ```text
//! Aggregate final                 stage 1: Aggregate final
//!   Exchange hash            →               Reader stage 0, hash
//!     Aggregate partial           stage 0: Writer hash
//!       scan                                 Aggregate partial
//!                                              scan
//! ```
//!
//! Rule 4: a scalar subquery becomes a stage of one task; its `ScalarSubqueryExec` is dropped, and the expressions that
//! use it name the stage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};
use tidemill_core::StageId;
use tidemill_core::graph::{ExchangeKind, Input, TaskShape};

use super::{PlannedStage, StagedQuery, determinism, exchanges, inexact};
use crate::codec::ScalarSource;
use crate::exchange::{ExchangeExec, ExchangeReaderExec, ExchangeWriterExec, ReadMode, Transfer};

pub(super) fn cut(plan: Arc<dyn ExecutionPlan>) -> Result<StagedQuery> {
    let mut cutter =
        Cutter { query: StagedQuery { stages: Vec::new(), scalars: Vec::new() }, inexact: BTreeMap::new() };
    cutter.stage(plan, None)?;
    Ok(cutter.query)
}

struct Cutter {
    query: StagedQuery,
    /// Columns of stages' outputs whose last digits may differ when they are repeated.
    inexact: BTreeMap<StageId, BTreeSet<usize>>,
}

impl Cutter {
    /// Makes a stage of a plan that may contain markers, after the stages it reads.
    fn stage(&mut self, plan: Arc<dyn ExecutionPlan>, partitioning: Option<Partitioning>) -> Result<StageId> {
        let whole = exchanges::runs_whole(&plan);
        let mut inputs = BTreeSet::new();
        let plan = self.replace_markers(plan, &mut inputs)?;
        for stage in self.scalar_inputs(&plan)? {
            inputs.insert(Input { stage, kind: ExchangeKind::Scalar });
        }
        let partitions = u32::try_from(plan.output_partitioning().partition_count()).unwrap_or(u32::MAX);
        let shape = if whole { TaskShape::Whole(partitions) } else { TaskShape::PerPartition(partitions) };
        // An indeterminate input does not matter here: its rows are fixed once they are written.
        let mut inexact = inexact::of(&plan, partitioning.as_ref(), &self.inexact)?;
        // A value that is compared with may decide about rows.
        let is_inexact = |stage: &StageId| self.inexact.get(stage).is_some_and(|columns| !columns.is_empty());
        inexact.rows |= inputs.iter().any(|i| i.kind == ExchangeKind::Scalar && is_inexact(&i.stage));
        let determinism = determinism::of(&plan, &inexact)?;
        let id = StageId(u32::try_from(self.query.stages.len()).unwrap_or(u32::MAX));
        let columns = u32::try_from(plan.schema().fields().len()).unwrap_or(u32::MAX);
        let exact = (0..columns).filter(|column| !inexact.columns.contains(&(*column as usize))).collect();
        self.inexact.insert(id, inexact.columns);
        let plan: Arc<dyn ExecutionPlan> = Arc::new(ExchangeWriterExec::new(plan, partitioning));
        let inputs = inputs.into_iter().collect();
        self.query.stages.push(PlannedStage { id, plan, shape, inputs, determinism, exact });
        Ok(id)
    }

    fn replace_markers(
        &mut self,
        plan: Arc<dyn ExecutionPlan>,
        inputs: &mut BTreeSet<Input>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if let Some(exchange) = plan.downcast_ref::<ExchangeExec>() {
            return self.reader(exchange, inputs);
        }
        if let Some(subqueries) = plan.downcast_ref::<ScalarSubqueryExec>() {
            for link in subqueries.subqueries() {
                let stage = self.scalar_stage(Arc::clone(&link.plan))?;
                let results = subqueries.results().clone();
                self.query.scalars.push(ScalarSource { results, index: link.index, stage });
            }
            return self.replace_markers(Arc::clone(subqueries.input()), inputs);
        }
        let children = plan.children();
        if children.is_empty() || plan.is::<RecursiveQueryExec>() {
            return Ok(plan);
        }
        let replaced: Vec<Arc<dyn ExecutionPlan>> =
            children.into_iter().map(|child| self.replace_markers(Arc::clone(child), inputs)).collect::<Result<_>>()?;
        super::with_children(&plan, replaced)
    }

    fn reader(&mut self, exchange: &ExchangeExec, inputs: &mut BTreeSet<Input>) -> Result<Arc<dyn ExecutionPlan>> {
        let (partitioning, mode, kind) = match &exchange.transfer {
            Transfer::Hash(p) => (Some(p.clone()), ReadMode::Hash, ExchangeKind::Hash),
            Transfer::Gather => (None, ReadMode::PerTask, ExchangeKind::Gather),
            Transfer::SortedGather => (None, ReadMode::PerTask, ExchangeKind::SortedGather),
            Transfer::Broadcast => (None, ReadMode::All, ExchangeKind::Broadcast),
        };
        let stage = self.stage(Arc::clone(&exchange.input), partitioning)?;
        inputs.insert(Input { stage, kind });
        let equivalence = exchange.properties().equivalence_properties().clone();
        // One task that runs all its partitions leaves one block.
        let whole = self.query.stages.last().is_some_and(|s| matches!(s.shape, TaskShape::Whole(_)));
        let partitioning = match mode {
            ReadMode::PerTask if whole => Partitioning::UnknownPartitioning(1),
            _ => exchange.properties().output_partitioning().clone(),
        };
        Ok(Arc::new(ExchangeReaderExec::new(stage, mode, equivalence, partitioning)))
    }

    fn scalar_stage(&mut self, plan: Arc<dyn ExecutionPlan>) -> Result<StageId> {
        if plan.output_partitioning().partition_count() == 1 {
            return self.stage(plan, None);
        }
        let gathered: Arc<dyn ExecutionPlan> = Arc::new(ExchangeExec::new(plan, Transfer::Gather));
        self.stage(Arc::new(CoalescePartitionsExec::new(gathered)), None)
    }

    /// The stages whose value the plan's expressions use.
    fn scalar_inputs(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<BTreeSet<StageId>> {
        let mut found = BTreeSet::new();
        plan.apply(|node| {
            node.apply_expressions(&mut |expr: &Arc<dyn PhysicalExpr>| {
                expr.apply(|e| {
                    if let Some(subquery) = e.downcast_ref::<ScalarSubqueryExpr>() {
                        found.insert(ScalarSource::find(&self.query.scalars, subquery)?);
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        Ok(found)
    }
}
