//! The oracle: the same statement on the same files in one DataFusion process, and the comparison of its answer with
//! ours.

mod compare;

use std::path::Path;

use arrow::record_batch::RecordBatch;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::{ExecutionPlanProperties, collect};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use tidemill_core::Result;
use tidemill_engine::error::from_datafusion;

pub use compare::{Difference, compare};

/// In-process DataFusion with its own defaults.
pub struct Oracle {
    context: SessionContext,
}

/// What the oracle answers.
#[derive(Debug)]
pub struct Answer {
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// The columns that the rows are ordered by, as far as the statement orders them.
    pub order: Vec<usize>,
    /// Whether DataFusion itself moves rows between partitions for this statement.
    pub repartitions: bool,
}

impl Oracle {
    /// An oracle with `partitions` partitions and `memory` bytes.
    ///
    /// # Errors
    /// The runtime environment cannot be made.
    pub fn new(partitions: usize, memory: usize) -> Result<Self> {
        let config = SessionConfig::new().with_target_partitions(partitions).with_information_schema(true);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(std::sync::Arc::new(FairSpillPool::new(memory)))
            .build_arc()
            .map_err(|e| from_datafusion(&e))?;
        Ok(Self { context: SessionContext::new_with_config_rt(config, runtime) })
    }

    /// The context, to register more.
    #[must_use]
    pub const fn context(&self) -> &SessionContext {
        &self.context
    }

    /// Registers each of `tables` from `directory/{table}`.
    ///
    /// # Errors
    /// A table cannot be read.
    pub async fn register(&self, directory: &Path, tables: &[&str]) -> Result<()> {
        for table in tables {
            let path = directory.join(table).display().to_string();
            let read = self.context.register_parquet(*table, &path, ParquetReadOptions::default()).await;
            read.map_err(|e| from_datafusion(&e))?;
        }
        Ok(())
    }

    /// Answers a statement.
    ///
    /// # Errors
    /// DataFusion refuses it or fails.
    pub async fn answer(&self, sql: &str) -> Result<Answer> {
        let failed = |e| from_datafusion(&e);
        let query = self.context.sql(sql).await.map_err(failed)?;
        let is_ordered = asks_for_order(query.logical_plan());
        let plan = query.create_physical_plan().await.map_err(failed)?;
        let ordering = plan.output_ordering().map(|o| o.iter().cloned().collect::<Vec<_>>()).unwrap_or_default();
        let order = ordering.iter().map_while(|s| s.expr.downcast_ref::<Column>()).map(Column::index);
        let order = if is_ordered { order.collect() } else { Vec::new() };
        let repartitions = datafusion::physical_plan::displayable(plan.as_ref())
            .indent(false)
            .to_string()
            .contains("RepartitionExec: partitioning=Hash");
        let batches = collect(plan, self.context.task_ctx()).await.map_err(failed)?;
        Ok(Answer { batches, order, repartitions })
    }
}

/// Whether the statement itself orders its rows, and not only the way in which they were computed.
fn asks_for_order(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(_) | LogicalPlan::Limit(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().into_iter().all(asks_for_order)
        }
        _ => false,
    }
}
