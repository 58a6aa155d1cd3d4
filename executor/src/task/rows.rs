//! What became of a task's rows, by what its operators counted: how many were left out and joined, and whether each took what the
//! one below it gave.
//!
//! Invariant: two figures are compared only where the plan reads all of what lies between them, and where both are counted the
//! same way whatever happened: operators that spilled may count rows twice.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNode;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::metrics::MetricValue;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;
use tidemill_core::record::{RowCounts, RowsDiffer, RowsRead};
use tidemill_engine::exchange::ExchangeReaderExec;

use super::accounted::AccountedExec;

/// What became of the rows of a plan that ran to its end, below its writer, which took `written` rows if it counts them. None where
/// operators do not tell: of a recursion, each step runs a copy that counts for itself.
pub(super) fn count(plan: &Arc<dyn ExecutionPlan>, written: Option<u64>) -> Option<RowCounts> {
    let input = *plan.children().first()?;
    if input.exists(|node| Ok(node.is::<RecursiveQueryExec>())).unwrap_or(true) {
        return None;
    }
    let [filtered, aggregated, groups, joined] = [Some(0); 4];
    let mut counts = RowCounts { filtered, aggregated, groups, joined, ..RowCounts::default() };
    compare(&mut counts, "the writer", input, written);
    add(input, Reads::All, &mut counts);
    Some(counts)
}

/// How much of a node's rows are taken by those above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    All,
    /// Somebody may stop early.
    Some,
}

impl Reads {
    /// How much is taken of a node's input at `position`, where this is taken of the node. A join reads all that it builds of, and
    /// may skip the other side.
    fn below(self, node: &Arc<dyn ExecutionPlan>, position: usize) -> Self {
        let reads_all = node.is::<FilterExec>()
            || node.is::<ProjectionExec>()
            || node.downcast_ref::<AggregateExec>().is_some_and(|aggregate| aggregate.limit_options().is_none())
            || node.is::<CoalescePartitionsExec>()
            || node.is::<SortExec>()
            || node.is::<SortPreservingMergeExec>()
            || node.is::<UnionExec>()
            || node.is::<CooperativeExec>()
            || node.is::<AccountedExec>()
            || (node.is::<HashJoinExec>() && position == 0);
        if reads_all && node.fetch().is_none() { self } else { Self::Some }
    }
}

fn add(node: &Arc<dyn ExecutionPlan>, reads: Reads, counts: &mut RowCounts) {
    let is_executed = node.metrics().is_some_and(|metrics| metrics.output_rows().is_some());
    if is_executed {
        add_node(node, reads, counts);
    }
    for (position, child) in node.children().into_iter().enumerate() {
        add(child, reads.below(node, position), counts);
    }
}

/// Adds a node's own rows.
fn add_node(node: &Arc<dyn ExecutionPlan>, reads: Reads, counts: &mut RowCounts) {
    let (rows, input) = (given(node), node.children().first().copied());
    let is_compared = reads == Reads::All && node.fetch().is_none();
    if let Some(reader) = node.downcast_ref::<ExchangeReaderExec>() {
        let whole = reads == Reads::All;
        counts.reads.extend(rows.map(|rows| RowsRead { from: reader.stage, rows, whole }));
    } else if node.is::<FilterExec>() {
        let taken = taken(node).filter(|_| node.fetch().is_none());
        add_to(&mut counts.filtered, taken.zip(rows).map(|(taken, rows)| taken.saturating_sub(rows)));
        if let (Some(input), true) = (input, is_compared) {
            compare(counts, node.name(), input, taken);
        }
    } else if node.is::<ProjectionExec>() {
        if let (Some(input), true) = (input, is_compared) {
            compare(counts, node.name(), input, rows);
        }
    } else if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
        let is_whole = matches!(aggregate.mode(), AggregateMode::Single | AggregateMode::SinglePartitioned);
        if is_whole || *aggregate.mode() == AggregateMode::Partial {
            add_to(&mut counts.aggregated, input.and_then(given));
        }
        if is_whole || matches!(aggregate.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned) {
            add_to(&mut counts.groups, rows);
        }
    } else if is_join(node) {
        add_to(&mut counts.joined, rows);
    }
}

fn is_join(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.is::<HashJoinExec>()
        || node.is::<SortMergeJoinExec>()
        || node.is::<NestedLoopJoinExec>()
        || node.is::<CrossJoinExec>()
}

/// A sum with an unknown part is unknown.
fn add_to(sum: &mut Option<u64>, rows: Option<u64>) {
    *sum = sum.zip(rows).map(|(sum, rows)| sum + rows);
}

/// The node whose rows these are: some only pass them on and count nothing.
fn source(node: &Arc<dyn ExecutionPlan>) -> &Arc<dyn ExecutionPlan> {
    let passes_on = node.is::<CooperativeExec>() || node.is::<AccountedExec>();
    match node.children().first().copied() {
        Some(input) if passes_on => source(input),
        _ => node,
    }
}

/// Rows that a node gave, if it can be told.
fn given(node: &Arc<dyn ExecutionPlan>) -> Option<u64> {
    let metrics = source(node).metrics()?;
    // What is merged from files is counted as it is merged, and again, by some.
    let spilled = metrics.spill_count().unwrap_or(0) > 0;
    metrics.output_rows().filter(|_| !spilled).map(|rows| rows as u64)
}

/// Rows that a filter took, which it counts itself.
fn taken(filter: &Arc<dyn ExecutionPlan>) -> Option<u64> {
    let metrics = filter.metrics()?;
    let totals = metrics.iter().filter_map(|metric| match metric.value() {
        MetricValue::Ratio { name, ratio_metrics } if name == "selectivity" => Some(ratio_metrics.total() as u64),
        _ => None,
    });
    totals.fold(None::<u64>, |sum, total| Some(sum.unwrap_or(0) + total))
}

/// Notes that an operator took other rows than its input gave, where these are known for sure.
fn compare(counts: &mut RowCounts, operator: &str, input: &Arc<dyn ExecutionPlan>, taken: Option<u64>) {
    let source = source(input);
    let is_sure = source.is::<ExchangeReaderExec>()
        || source.is::<FilterExec>()
        || source.is::<ProjectionExec>()
        || source.is::<DataSourceExec>();
    if !is_sure || source.fetch().is_some() || counts.differs.is_some() {
        return;
    }
    if let (Some(given), Some(taken)) = (given(source), taken)
        && given != taken
    {
        counts.differs = Some(RowsDiffer { operator: operator.to_owned(), given, taken });
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use datafusion::physical_plan::collect;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use tidemill_engine::exchange::ExchangeWriterExec;

    use super::*;

    /// Runs a query in one partition over a file of the rows 0 to 99, below a writer that says that it took so many rows.
    async fn ran(sql: &str, written: u64) -> Option<RowCounts> {
        let folder = tempfile::tempdir().expect("a folder");
        let lines: Vec<String> = (0..100).map(|v| format!("{v},{}", v % 7)).collect();
        std::fs::write(folder.path().join("t.csv"), format!("v,k\n{}\n", lines.join("\n"))).expect("a file");
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let path = folder.path().join("t.csv").display().to_string();
        context.register_csv("t", &path, Default::default()).await.expect("a table");
        let plan = context.sql(sql).await.expect("a query").create_physical_plan().await.expect("a plan");
        collect(Arc::clone(&plan), context.task_ctx()).await.expect("rows");
        let plan: Arc<dyn ExecutionPlan> = Arc::new(ExchangeWriterExec::new(plan, None));
        count(&plan, Some(written))
    }

    #[tokio::test]
    async fn rows_are_filtered_aggregated_and_joined() {
        let counts = ran("SELECT k, count(*) AS n FROM t WHERE v >= 40 GROUP BY k", 7).await.expect("counts");
        let [filtered, aggregated, groups] = [40, 60, 7].map(Some);
        assert_eq!(counts, RowCounts { filtered, aggregated, groups, joined: Some(0), ..RowCounts::default() });
        let having = "SELECT k FROM (SELECT k, count(*) AS n FROM t WHERE v >= 40 GROUP BY k) WHERE n > 8";
        // 60 rows are 7 times 8, and 4.
        let counts = ran(having, 4).await.expect("counts");
        assert_eq!((counts.filtered, counts.groups, counts.differs), (Some(43), Some(7), None));
        let joined = ran("SELECT a.v FROM t a JOIN t b ON a.v = b.k", 100).await.expect("counts");
        assert_eq!((joined.filtered, joined.joined, joined.differs), (Some(0), Some(100), None));
    }

    #[tokio::test]
    async fn rows_that_are_given_and_not_taken_are_told() {
        let query = "SELECT v + 1 AS w FROM t WHERE k = 3";
        assert_eq!(ran(query, 14).await.and_then(|counts| counts.differs), None);
        let operator = "the writer".to_owned();
        let differs = Some(RowsDiffer { operator, given: 14, taken: 13 });
        assert_eq!(ran(query, 13).await.and_then(|counts| counts.differs), differs);
        // What a sort or an aggregate says of itself is not relied on.
        assert_eq!(ran("SELECT DISTINCT k FROM t", 1).await.and_then(|counts| counts.differs), None);
    }

    #[tokio::test]
    async fn recursions_do_not_tell() {
        let query = "WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r WHERE x < 5) SELECT x FROM r";
        assert_eq!(ran(query, 5).await, None);
    }

    #[tokio::test]
    async fn what_may_stop_early_is_not_asked() {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        for table in ["a", "b"] {
            let values = format!("CREATE TABLE {table} AS VALUES (1, 2), (3, 4)");
            context.sql(&values).await.expect("a statement").collect().await.expect("a table");
        }
        let reads = async |sql: &str| {
            let plan = context.sql(sql).await.expect("a query").create_physical_plan().await.expect("a plan");
            leaves(&plan, Reads::All)
        };
        assert_eq!(reads("SELECT column2, count(*) FROM a WHERE column1 > 1 GROUP BY 1").await, [Reads::All]);
        assert_eq!(reads("SELECT column1 FROM a WHERE column1 > 1 LIMIT 1").await, [Reads::Some]);
        assert_eq!(reads("SELECT column1 FROM a ORDER BY column1 LIMIT 1").await, [Reads::Some]);
        let join = "SELECT a.column1 FROM a JOIN b ON a.column1 = b.column1";
        assert_eq!(reads(join).await, [Reads::All, Reads::Some], "of a join, what it builds of");
    }

    /// How much is read of each leaf.
    fn leaves(node: &Arc<dyn ExecutionPlan>, reads: Reads) -> Vec<Reads> {
        if node.children().is_empty() {
            return vec![reads];
        }
        let children = node.children().into_iter().enumerate();
        children.flat_map(|(position, child)| leaves(child, reads.below(node, position))).collect()
    }
}
