//! From an optimised plan to a plan node that runs it on the cluster.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::catalog::information_schema::INFORMATION_SCHEMA;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::{MemTable, source_as_provider};
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::{DmlStatement, LogicalPlan, WriteOp};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use tidemill_core::Error;
use tidemill_engine::codec::logical::encode_plan;
use tidemill_engine::error::to_datafusion;

use super::cluster::Cluster;
use super::run::{Form, Request, RunExec};
use super::{functions, outline};

/// Of DataFusion's settings the one that changes what optimised plans mean: false gives wrong rows.
const SUBQUERIES: &str = "datafusion.optimizer.enable_physical_uncorrelated_scalar_subquery";

/// Plans runs.
#[derive(Debug)]
pub(super) struct RunPlanner {
    cluster: Arc<Cluster>,
}

impl RunPlanner {
    pub(super) const fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

#[async_trait]
impl QueryPlanner for RunPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        match plan {
            LogicalPlan::Dml(statement) => self.insert(statement, session).await,
            plan if is_of_session(plan)? => DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await,
            plan => self.run(plan, session).await,
        }
    }
}

impl RunPlanner {
    async fn run(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let options = session.config_options();
        if !options.optimizer.enable_physical_uncorrelated_scalar_subquery {
            return Err(to_datafusion(Error::invalid(format!(
                "{SUBQUERIES} is false, which gives wrong rows for subqueries of several rows: leave it true"
            ))));
        }
        functions::check(plan, self.cluster.registry())?;
        let bytes = encode_plan(plan, outline::secrecy(plan)?, session.task_ctx()).await.map_err(to_datafusion)?;
        let form = match plan {
            LogicalPlan::Explain(explain) => Form::Explained { logical: explain.plan.display_indent().to_string() },
            LogicalPlan::Analyze(_) => Form::Measured,
            _ => Form::Rows,
        };
        let schema: SchemaRef = Arc::clone(plan.schema().inner());
        let request = Request { sql: outline::line(plan), plan: bytes, settings: self.cluster.settings(options) };
        Ok(Arc::new(RunExec::new(Arc::clone(&self.cluster), request, schema, form)))
    }

    /// Rows go into a table in this process's memory: the query that gives them runs on the cluster.
    async fn insert(&self, statement: &DmlStatement, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let table = source_as_provider(&statement.target)?;
        match &statement.op {
            WriteOp::Insert(op) if table.is::<MemTable>() => {
                let input = self.run(&statement.input, session).await?;
                table.insert_into(session, input, *op).await
            }
            op => Err(to_datafusion(Error::invalid(format!(
                "{} into `{}` is not supported: only tables in this session's memory take rows; write files with \
                 write_parquet, write_csv, write_json or COPY",
                op.name().to_uppercase(),
                statement.table_name
            )))),
        }
    }
}

/// Whether the session itself answers: about its own catalogue and settings, or with nothing at all.
fn is_of_session(plan: &LogicalPlan) -> Result<bool> {
    match plan {
        LogicalPlan::DescribeTable(_) | LogicalPlan::Statement(_) | LogicalPlan::Ddl(_) => return Ok(true),
        LogicalPlan::EmptyRelation(empty) => return Ok(!empty.produce_one_row),
        // What is written appears whole or not at all, which this process cannot promise.
        LogicalPlan::Copy(_) => return Ok(false),
        _ => {}
    }
    let (mut own, mut other) = (false, false);
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let is_own = scan.table_name.schema() == Some(INFORMATION_SCHEMA);
            own |= is_own;
            other |= !is_own;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(own && !other)
}
