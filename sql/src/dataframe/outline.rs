//! A plan in one line, for `system.runs`, and whether it holds a secret.
//!
//! ```text
//! DataFrame: Sort(Aggregate(Inner Join(orders, Filter(lineitem))))
//! ```
//!
//! Invariant: the line has names of nodes and tables, and no values: there is nothing in it to hide.

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};
use tidemill_engine::codec::logical::Secrecy;

use crate::session::sounds_secret;

/// Characters of a line, at the most.
const LINE: usize = 200;

/// The line.
pub(super) fn line(plan: &LogicalPlan) -> String {
    let mut line = "DataFrame: ".to_owned();
    write(plan, &mut line);
    if line.chars().count() > LINE {
        line = line.chars().take(LINE - 1).chain(['…']).collect();
    }
    line
}

fn write(plan: &LogicalPlan, line: &mut String) {
    // What is cut off needs not be written.
    if line.len() > 4 * LINE {
        return;
    }
    match plan {
        LogicalPlan::TableScan(scan) => line.push_str(scan.table_name.table()),
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            for input in plan.inputs() {
                write(input, line);
            }
        }
        node => {
            let shown = node.display().to_string();
            let name = shown.split([':', '(']).next().unwrap_or_default();
            line.push_str(name.trim());
            let inputs = node.inputs();
            if inputs.is_empty() {
                return;
            }
            for (before, input) in std::iter::once("(").chain(std::iter::repeat(", ")).zip(inputs) {
                line.push_str(before);
                write(input, line);
            }
            line.push(')');
        }
    }
}

/// Whether an expression of the plan has a text beside the name of what sounds like a secret.
pub(super) fn secrecy(plan: &LogicalPlan) -> Result<Secrecy> {
    let mut found = Secrecy::Open;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Copy(copy) = node
            && copy.options.keys().any(|key| sounds_secret(key))
        {
            found = Secrecy::Secret;
        }
        node.apply_expressions(|expr| {
            if is_secret(expr)? {
                found = Secrecy::Secret;
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

fn is_secret(expr: &Expr) -> Result<bool> {
    let (mut names, mut texts) = (false, false);
    expr.apply(|inner| {
        match inner {
            Expr::Column(column) => names |= sounds_secret(&column.name),
            Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Utf8View(_) | ScalarValue::LargeUtf8(_), _) => {
                texts = true;
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names && texts)
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};
    use datafusion::prelude::SessionContext;
    use tidemill_engine::codec::logical::Secrecy;

    use super::{line, secrecy};

    #[tokio::test]
    async fn a_plan_is_shown_without_its_values() -> datafusion::error::Result<()> {
        let rows = SessionContext::new().sql("VALUES (1, 'a'), (2, 'b')").await?;
        let token = LogicalPlanBuilder::from(rows.into_unoptimized_plan())
            .project([col("column1"), col("column2").alias("token")])?
            .build()?;
        let plan = LogicalPlanBuilder::from(token)
            .filter(col("token").eq(lit("hush")))?
            .sort([col("column1").sort(true, true)])?
            .limit(0, Some(3))?
            .build()?;
        assert_eq!(line(&plan), "DataFrame: Limit(Sort(Filter(Values)))");
        assert_eq!(secrecy(&plan)?, Secrecy::Secret);
        let open = LogicalPlanBuilder::from(plan.inputs()[0].inputs()[0].inputs()[0].clone());
        let open = open.filter(col("column1").gt(lit(1)))?.build()?;
        assert_eq!(secrecy(&open)?, Secrecy::Open);
        Ok(())
    }
}
