//! A client's own plan in bytes: what the client optimised, for the coordinator to carry out.
//!
//! ```text
//! client         Sort ← Aggregate ← scan of `t`
//! bytes          Sort ← Aggregate ← scan of table 0;  table 0 is `public.t` of the catalogue
//! coordinator    Sort ← Aggregate ← scan of what `public.t` is there
//! ```
//!
//! Optimised, because DataFusion's encoding has no `EXISTS`, no `IN (SELECT …)` and no outer references, which optimising
//! removes. Tables travel beside the plan, each in its own way (`tables`); `nodes` mends what the stock encoding loses.
//!
//! Invariant: what decodes is what was encoded; the client decodes its own bytes before it sends them.

mod arrival;
mod formats;
mod nodes;
mod received;
mod tables;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::file_format::file_type_to_format;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::dml::CopyTo;
use datafusion::logical_expr::{Expr, LogicalPlan, WindowFunctionDefinition};
use datafusion_proto::logical_plan::AsLogicalPlan;
use datafusion_proto::protobuf::LogicalPlanNode;
use prost::Message;
use tidemill_core::{Error, Result};

use crate::error::from_datafusion;
use crate::wire::{self, FunctionKind, client_plan};

use nodes::PlanCodec;
pub use nodes::reserve_aliases;
pub use received::{PlanLooks, ReceivedPlan, ReceivedTable};
pub use tables::{CalledTable, HELD_BYTES, NamedTable, TABLE_TYPE, VIEW};

/// Plans nest deeply, and whatever thread the client calls from has the stack that it has.
const STACK_BYTES: usize = 64 << 20;

/// Whether a plan holds what is to be written nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    /// It may be kept until its run has ended.
    Open,
    /// It is forgotten as soon as it is planned.
    Secret,
}

/// An optimised plan in bytes. Queries, `COPY` and `EXPLAIN` travel.
///
/// # Errors
/// It reads a table that only this process can read, holds more rows than travel, or a node has no encoding.
pub async fn encode_plan(plan: &LogicalPlan, secrecy: Secrecy, task: Arc<TaskContext>) -> Result<Bytes> {
    let (action, query) = action(plan).map_err(|e| from_datafusion(&e))?;
    let (query, providers) = nodes::prepare(query).map_err(|e| from_datafusion(&e))?;
    let mut tables = Vec::with_capacity(providers.len());
    let mut left = HELD_BYTES;
    for (name, provider) in &providers {
        tables.push(tables::encode(name, provider, &mut left).await?);
    }
    let positions = nodes::positions(&providers);
    on_deep_stack(move || {
        arrival::check_names(&query)?;
        let functions = functions(&query)?;
        let node = LogicalPlanNode::try_from_logical_plan(&query, &PlanCodec::default())?;
        arrival::check(&query, &node, positions, &task)?;
        let has_secret = secrecy == Secrecy::Secret;
        Ok(wire::ClientPlan { query: node.encode_to_vec(), tables, functions, has_secret, action })
    })
    .await
    .map(|plan| plan.encode_to_vec().into())
}

/// A question for the columns of a table of the catalogue, whose name has its schema's before it.
#[must_use]
pub fn encode_columns(table: &str) -> Bytes {
    let table = wire::PlanTable { table: Some(wire::plan_table::Table::Named(table.to_owned())) };
    let action = Some(client_plan::Action::Columns(wire::ColumnsAction {}));
    wire::ClientPlan { tables: vec![table], action, ..Default::default() }.encode_to_vec().into()
}

/// Visits every expression of a plan, and of the plans inside it: there its functions are called.
///
/// # Errors
/// The visitor's own.
pub fn visit_functions(
    plan: &LogicalPlan,
    visit: &mut dyn FnMut(&Expr) -> datafusion::error::Result<()>,
) -> datafusion::error::Result<()> {
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|inner| {
                visit(inner)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.map(|_| ())
}

fn functions(plan: &LogicalPlan) -> datafusion::error::Result<Vec<wire::PlanFunction>> {
    let mut called = BTreeSet::new();
    visit_functions(plan, &mut |expr| {
        let function = match expr {
            Expr::ScalarFunction(f) => Some((FunctionKind::Scalar, f.func.name())),
            Expr::AggregateFunction(f) => Some((FunctionKind::Aggregate, f.func.name())),
            Expr::WindowFunction(f) => Some(match &f.fun {
                WindowFunctionDefinition::AggregateUDF(f) => (FunctionKind::Aggregate, f.name()),
                WindowFunctionDefinition::WindowUDF(f) => (FunctionKind::Window, f.name()),
            }),
            _ => None,
        };
        called.extend(function.map(|(kind, name)| (i32::from(kind), name.to_owned())));
        Ok(())
    })?;
    Ok(called.into_iter().map(|(kind, name)| wire::PlanFunction { kind, name }).collect())
}

/// What is to be done with the rows, and the query that gives them.
fn action(plan: &LogicalPlan) -> datafusion::error::Result<(Option<client_plan::Action>, LogicalPlan)> {
    let explain = |verbose, analyze| Some(client_plan::Action::Explain(wire::ExplainAction { verbose, analyze }));
    Ok(match plan {
        LogicalPlan::Explain(explained) => {
            // What a COPY writes does not change its stages.
            let query = match explained.plan.as_ref() {
                LogicalPlan::Copy(copy) => copy.input.as_ref(),
                query => query,
            };
            (explain(explained.verbose, false), query.clone())
        }
        LogicalPlan::Analyze(analyzed) => (explain(analyzed.verbose, true), analyzed.input.as_ref().clone()),
        LogicalPlan::Copy(copy) => (Some(client_plan::Action::Copy(copy_action(copy)?)), copy.input.as_ref().clone()),
        query => (None, query.clone()),
    })
}

/// The stock encoding of a COPY loses its options.
fn copy_action(copy: &CopyTo) -> datafusion::error::Result<wire::CopyAction> {
    let (format, format_options) = formats::encode(file_type_to_format(&copy.file_type)?.as_ref())?;
    Ok(wire::CopyAction {
        url: copy.output_url.clone(),
        format: format.to_owned(),
        format_options,
        options: copy.options.clone().into_iter().collect(),
        partition_by: copy.partition_by.clone(),
    })
}

/// Runs what recurses through a plan on a thread of its own.
async fn on_deep_stack<T: Send + 'static>(
    work: impl FnOnce() -> datafusion::error::Result<T> + Send + 'static,
) -> Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("tidemill-encode".to_owned()).stack_size(STACK_BYTES);
    let spawned = thread.spawn(move || {
        // Who went away needs no plan.
        let _ = done.send(work().map_err(|e| from_datafusion(&e)));
    });
    spawned.map_err(|e| Error::unavailable(format!("a thread to encode the plan cannot start: {e}")))?;
    result.await.unwrap_or_else(|_| Err(Error::internal("encoding the plan panicked")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::catalog::TableProvider;
    use datafusion::common::internal_err;
    use datafusion::error::Result;
    use datafusion::logical_expr::LogicalPlan;
    use datafusion::prelude::SessionContext;

    use super::{ReceivedPlan, ReceivedTable, Secrecy, arrival, encode_plan};
    use crate::error::to_datafusion;

    /// Queries whose plans have what the stock encoding changes, beside what it keeps.
    const QUERIES: &[&str] = &[
        "SELECT a, sum(b) FROM t GROUP BY a HAVING sum(b) > 1 ORDER BY a LIMIT 3",
        "SELECT * FROM t OFFSET 2",
        "SELECT * FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a) AND b NOT IN (SELECT b FROM u)",
        "SELECT a FROM t WHERE b = (SELECT max(b) FROM u)",
        "SELECT * FROM (SELECT * FROM t WHERE false) e FULL JOIN u ON e.a = u.a",
        "SELECT a, row_number() OVER (PARTITION BY a ORDER BY b) FROM t",
        "SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b",
        "SELECT a, c FROM (SELECT a, unnest(make_array(b, 1)) AS c FROM t)",
        "WITH RECURSIVE r AS (SELECT 1 AS n, 2 AS m UNION ALL SELECT n + 1, m FROM r WHERE n < 5) SELECT n FROM r",
        "SELECT CASE WHEN a > 1 THEN b END, CAST(a AS VARCHAR) LIKE '1%', a BETWEEN 1 AND 2 FROM t",
        "SELECT a + b AS x, a + b + 1 AS y, (a + b) * (a + b) AS z FROM t",
        "VALUES (1, 'x'), (NULL, 'y')",
        "SELECT a FROM t UNION ALL SELECT a FROM u UNION ALL SELECT b FROM t UNION ALL SELECT 1.5",
        "SELECT v.s.x.y FROM (SELECT named_struct('x', named_struct('y', a)) AS s FROM t) v",
        r#"SELECT "T x"."p.q", "Ü".a FROM (SELECT a AS "p.q" FROM t) AS "T x" JOIN u AS "Ü" ON "T x"."p.q" = "Ü".a"#,
        "SELECT a + INTERVAL '1 month 2 days', DATE '2020-02-29', arrow_cast('x', 'LargeUtf8'), 1.5::decimal(9, 3) \
         FROM (SELECT DATE '2020-01-01' AS a FROM t)",
        "SELECT a, b, grouping(a), count(DISTINCT b) FROM t GROUP BY CUBE (a, b)",
        "SELECT a, count(*) FROM t GROUP BY GROUPING SETS ((a), (), (a, b))",
        "SELECT array_agg(b ORDER BY a DESC) FILTER (WHERE a > 1), first_value(b ORDER BY a) IGNORE NULLS FROM t",
        "SELECT sum(b) OVER (ORDER BY a RANGE BETWEEN 1 PRECEDING AND CURRENT ROW), lag(b) IGNORE NULLS OVER \
         (ORDER BY a), count(*) FILTER (WHERE a > 1) OVER (PARTITION BY b ROWS UNBOUNDED PRECEDING) FROM t",
        "SELECT * FROM t, LATERAL (SELECT sum(b) AS s FROM u WHERE u.a = t.a) s",
        "SELECT a, (SELECT max(b) FROM u WHERE u.a = t.a) FROM t",
        "SELECT a FROM t EXCEPT SELECT a FROM u INTERSECT ALL SELECT b FROM t",
        "SELECT * FROM t JOIN u USING (a) WHERE (t.b IS DISTINCT FROM u.b) OR (CAST(t.a AS VARCHAR) LIKE '1!_' ESCAPE '!')",
        "SELECT count(*), a - (b - 1) - a, TRY_CAST('x' AS INT) FROM (SELECT * FROM t LIMIT 0) GROUP BY a, b",
        "SELECT a, t.a AS b FROM t ORDER BY b NULLS FIRST LIMIT 2 OFFSET 1",
    ];

    async fn context() -> Result<SessionContext> {
        let context = SessionContext::new();
        context.sql("CREATE TABLE t AS VALUES (1, 2), (2, NULL), (3, 4)").await?.collect().await?;
        context.sql("CREATE TABLE u AS VALUES (1, 2), (5, 6)").await?.collect().await?;
        for table in ["t", "u"] {
            let named = format!("CREATE OR REPLACE TABLE {table} AS SELECT column1 AS a, column2 AS b FROM {table}");
            context.sql(&named).await?.collect().await?;
        }
        Ok(context)
    }

    async fn travelled(context: &SessionContext, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let bytes = encode_plan(plan, Secrecy::Open, context.task_ctx()).await.map_err(to_datafusion)?;
        let received = ReceivedPlan::read(&bytes).map_err(to_datafusion)?;
        received.check_functions(&context.state()).map_err(to_datafusion)?;
        let mut tables: Vec<Arc<dyn TableProvider>> = Vec::new();
        for table in received.tables(&context.task_ctx()).map_err(to_datafusion)? {
            let ReceivedTable::Sent(table) = table else { return internal_err!("{table:?} was not sent") };
            tables.push(table);
        }
        received.into_plan(tables, &context.task_ctx()).map_err(to_datafusion)
    }

    #[tokio::test]
    async fn a_plan_that_travelled_means_the_same() -> Result<()> {
        let context = context().await?;
        let mut wrong = Vec::new();
        for sql in QUERIES {
            let state = context.state();
            let plan = context.sql(sql).await?.into_optimized_plan()?;
            match travelled(&context, &plan).await {
                Ok(decoded) => {
                    // Scans have lost how many rows are wanted, which optimising finds again.
                    let (before, after) =
                        (arrival::text(state.optimize(&plan)?)?, arrival::text(state.optimize(&decoded)?)?);
                    if before != after {
                        wrong.push(format!("{sql}\n{before}\n{after}"));
                    }
                }
                Err(error) => wrong.push(format!("{sql}\n{error}")),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
        Ok(())
    }

    #[tokio::test]
    async fn a_table_whose_name_would_be_read_as_another_is_refused() -> Result<()> {
        let context = context().await?;
        // `public.t` would mean the table: other rows.
        let plan =
            context.sql(r#"SELECT "public.t".a FROM u AS "public.t" CROSS JOIN t"#).await?.into_optimized_plan()?;
        let refused = encode_plan(&plan, Secrecy::Open, context.task_ctx()).await.err().map(|e| e.message);
        assert!(refused.as_ref().is_some_and(|text| text.contains("`public.t`")), "{refused:?}");
        Ok(())
    }

    #[tokio::test]
    async fn looks_are_those_of_what_is_asked() -> Result<()> {
        let context = context().await?;
        let plan = context.sql("EXPLAIN SELECT * FROM t").await?.into_optimized_plan()?;
        let bytes = encode_plan(&plan, Secrecy::Secret, context.task_ctx()).await.map_err(to_datafusion)?;
        let looks = ReceivedPlan::looks_of(&bytes);
        assert!(looks.is_express && !looks.may_change && looks.has_secret, "{looks:?}");
        let plan = context.sql("COPY t TO 'x.csv'").await?.into_optimized_plan()?;
        let bytes = encode_plan(&plan, Secrecy::Open, context.task_ctx()).await.map_err(to_datafusion)?;
        let looks = ReceivedPlan::looks_of(&bytes);
        assert!(!looks.is_express && looks.may_change && !looks.has_secret, "{looks:?}");
        let damaged = ReceivedPlan::looks_of(b"no plan");
        assert!(damaged.may_change && damaged.has_secret);
        Ok(())
    }
}
