//! What a plan would arrive as, before it is sent: one that would arrive as another stays here.
//!
//! ```text
//! sent       Sort ← Filter ← scan of table 0        line by line, with names and types of columns
//! arriving   Sort ← Filter ← scan of table 0        equal, or refused with the first line that differs
//! ```
//!
//! Invariant: a plan that is sent arrives with the same nodes, expressions and columns.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::expr_rewriter::normalize_col;
use datafusion_proto::logical_plan::AsLogicalPlan;
use datafusion_proto::protobuf::LogicalPlanNode;
use tidemill_core::Error;

use super::nodes::{self, PlanCodec};
use crate::error::{from_datafusion, to_datafusion};

/// Characters of a plan's line in a message, at the most.
const SHOWN: usize = 200;

/// Decodes what is about to be sent, whose scans are of `positions`, and compares.
pub(super) fn check(
    sent: &LogicalPlan,
    node: &LogicalPlanNode,
    positions: Vec<Arc<dyn TableProvider>>,
    task: &TaskContext,
) -> Result<()> {
    let arriving = node.try_into_logical_plan(task, &PlanCodec { tables: positions }).map_err(|e| {
        let Error { kind, message, .. } = from_datafusion(&e);
        to_datafusion(Error::new(kind, format!("the plan cannot be sent, because it could not be read: {message}")))
    })?;
    let (sent, arriving) = (text(sent.clone())?, text(arriving)?);
    if sent == arriving {
        return Ok(());
    }
    let lines = |text: &str| text.lines().map(str::to_owned).chain([String::new()]).collect::<Vec<_>>();
    let differing = lines(&sent).into_iter().zip(lines(&arriving)).find(|(sent, arriving)| sent != arriving);
    let (sent, arriving) = differing.unwrap_or_default();
    Err(to_datafusion(Error::invalid(format!(
        "the plan cannot be sent: `{}` would arrive as `{}`; write the query in another way, or send it as SQL with \
         Session::client",
        shown(&sent),
        shown(&arriving)
    ))))
}

/// Refuses names of tables that are not read as they are written.
pub(super) fn check_names(plan: &LogicalPlan) -> Result<()> {
    let mut checked = HashSet::new();
    plan.apply_with_subqueries(|node| {
        for (qualifier, _) in node.schema().iter() {
            let Some(name) = qualifier.filter(|name| checked.insert((*name).clone())) else { continue };
            if TableReference::parse_str_normalized(&name.to_string(), true) != *name {
                return Err(to_datafusion(Error::invalid(format!(
                    "the plan cannot be sent with a table that is called `{}`: give it an alias without dots and quotes",
                    name.table()
                ))));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// The nodes, without what may differ: what has no end, what may be null, and whether columns name their table.
pub(super) fn text(plan: LogicalPlan) -> Result<String> {
    let plan = nodes::restore(plan)?.transform_down_with_subqueries(|node| {
        let [input] = node.inputs()[..] else { return Ok(Transformed::no(node)) };
        let input = input.clone();
        node.map_expressions(|expr| Ok(Transformed::yes(normalize_col(expr.clone(), &input).unwrap_or(expr))))
    })?;
    Ok(plan.data.display_indent_schema().to_string().replace(";N", ""))
}

fn shown(line: &str) -> String {
    let line = line.trim();
    if line.chars().count() <= SHOWN {
        return line.to_owned();
    }
    line.chars().take(SHOWN).chain(['…']).collect()
}
