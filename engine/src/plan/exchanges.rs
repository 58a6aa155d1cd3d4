//! Every place where rows change partitions gets a marker.
//!
//! ```text
//! SortPreservingMerge fetch=10        SortPreservingMerge fetch=10
//!   Sort fetch=10 (8)            →      Exchange sorted gather (8)
//!     Repartition hash (8)                Sort fetch=10 (8)
//!       scan (4)                            Exchange hash (8)
//!                                             scan (4)
//! ```
//!
//! Rule 23: a scan of another database has a marker directly above it.
//!
//! Rules 6 to 8. A merge keeps its node and its `fetch` in the consumer; producers get the limit too. Inside a stage
//! whose one task runs all partitions nothing needs to be gathered, so merges there stay as they are.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::limit::LocalLimitExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};

use super::with_children;
use crate::connector::ConnectorScanExec;
use crate::exchange::{ExchangeExec, Transfer};

pub(super) fn mark(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    super::rewrite(plan, &mut |node| {
        if node.is::<ConnectorScanExec>() {
            return Ok(Arc::new(ExchangeExec::new(node, Transfer::Gather)));
        }
        if let Some(exchange) = node.downcast_ref::<ExchangeExec>() {
            return Ok(exchange_of(Arc::clone(&exchange.input), exchange.transfer.clone()));
        }
        if let Some(repartition) = node.downcast_ref::<RepartitionExec>() {
            return mark_repartition(repartition);
        }
        if let Some(coalesce) = node.downcast_ref::<CoalescePartitionsExec>() {
            return mark_coalesce(coalesce, &node);
        }
        if let Some(merge) = node.downcast_ref::<SortPreservingMergeExec>()
            && partition_count(merge.input()) > 1
            && !runs_whole(merge.input())
        {
            let exchange = Arc::new(ExchangeExec::new(Arc::clone(merge.input()), Transfer::SortedGather));
            return with_children(&node, vec![exchange]);
        }
        Ok(node)
    })
}

/// A marker above `input`; where one stands there already, above a scan of another database, in its place.
fn exchange_of(input: Arc<dyn ExecutionPlan>, transfer: Transfer) -> Arc<dyn ExecutionPlan> {
    let marked = input.downcast_ref::<ExchangeExec>().map(|exchange| &exchange.input);
    let input = marked.filter(|scan| scan.is::<ConnectorScanExec>()).cloned().unwrap_or(input);
    Arc::new(ExchangeExec::new(input, transfer))
}

fn mark_repartition(repartition: &RepartitionExec) -> Result<Arc<dyn ExecutionPlan>> {
    let input = Arc::clone(repartition.input());
    match repartition.partitioning() {
        // It only spreads work, which tasks do.
        Partitioning::RoundRobinBatch(_) | Partitioning::UnknownPartitioning(_) => Ok(input),
        Partitioning::Hash(_, 1) if partition_count(&input) == 1 => Ok(input),
        partitioning @ (Partitioning::Hash(..) | Partitioning::Range(_)) => {
            let promised = repartition.preserve_order() && partition_count(&input) > 1;
            let ordering = input.output_ordering().cloned().filter(|_| promised);
            let exchange = exchange_of(input, Transfer::Hash(partitioning.clone()));
            Ok(match ordering {
                // Blocks of several producers arrive in any order: what was promised is sorted again.
                Some(ordering) => Arc::new(SortExec::new(ordering, exchange).with_preserve_partitioning(true)),
                None => exchange,
            })
        }
    }
}

fn mark_coalesce(coalesce: &CoalescePartitionsExec, node: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let input = coalesce.input();
    if partition_count(input) == 1 && coalesce.fetch().is_none() {
        return Ok(Arc::clone(input));
    }
    if partition_count(input) == 1 || runs_whole(input) {
        return Ok(Arc::clone(node));
    }
    let limited: Arc<dyn ExecutionPlan> = match coalesce.fetch() {
        Some(fetch) if input.fetch().is_none_or(|f| f > fetch) => {
            Arc::new(LocalLimitExec::new(Arc::clone(input), fetch))
        }
        _ => Arc::clone(input),
    };
    let exchange = Arc::new(ExchangeExec::new(limited, Transfer::Gather));
    with_children(node, vec![exchange])
}

/// Whether the stage that `plan` belongs to must run all its partitions in one task.
pub(super) fn runs_whole(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if plan.is::<ExchangeExec>() || plan.is::<RecursiveQueryExec>() {
        return false;
    }
    let shares_state =
        plan.downcast_ref::<HashJoinExec>().is_some_and(|join| join.null_aware && partition_count(join.right()) > 1);
    shares_state || plan.children().into_iter().any(runs_whole)
}

fn partition_count(plan: &Arc<dyn ExecutionPlan>) -> usize {
    plan.output_partitioning().partition_count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::physical_expr::expressions::col;
    use datafusion::physical_plan::union::UnionExec;
    use datafusion::prelude::SessionContext;
    use tidemill_core::graph::Determinism;

    use super::*;
    use crate::connector::{ConnectorKind, ConnectorScan, RemoteTable};
    use crate::plan::{ExchangeSettings, StagedQuery, encode, stage};
    use crate::runtime::planning_config;

    fn scan() -> Arc<dyn ExecutionPlan> {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
        let table = RemoteTable { kind: ConnectorKind::Postgres, database: "pg".to_owned(), table: "t".to_owned() };
        let sql = "SELECT k FROM t".to_owned();
        Arc::new(ConnectorScanExec::new(ConnectorScan { table, sql, wire: Arc::clone(&schema), schema }))
    }

    async fn staged(plan: Arc<dyn ExecutionPlan>) -> Result<StagedQuery> {
        let context = SessionContext::new_with_config(planning_config(4, None, &BTreeMap::new())?);
        let query = stage(plan, &context).await?;
        // Its bytes are decoded and compared.
        encode(&query, None, &context.task_ctx(), ExchangeSettings::default())?;
        Ok(query)
    }

    /// How many stages a plan has, all but the last of which ask another database and do nothing else.
    fn asking(query: &StagedQuery) -> usize {
        let asks = |plan: &Arc<dyn ExecutionPlan>| plan.children().iter().any(|child| child.is::<ConnectorScanExec>());
        let asking: Vec<_> = query.stages.iter().filter(|stage| asks(&stage.plan)).collect();
        assert!(asking.iter().all(|stage| stage.determinism == Determinism::RowIndeterminate));
        assert_eq!(asking.len() + 1, query.stages.len());
        asking.len()
    }

    #[tokio::test]
    async fn rule_23_another_database_is_asked_by_a_stage_of_its_own() -> Result<()> {
        assert_eq!(asking(&staged(scan()).await?), 1, "even where it is the whole query");
        assert_eq!(asking(&staged(UnionExec::try_new(vec![scan(), scan()])?).await?), 2);
        let keys = vec![col("k", &scan().schema())?];
        let hashed = RepartitionExec::try_new(scan(), Partitioning::Hash(keys, 4))?;
        assert_eq!(asking(&staged(Arc::new(hashed)).await?), 1, "its rows are divided where they come");
        Ok(())
    }
}
