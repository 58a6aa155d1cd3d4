//! What is computed of the rows: one row about all of them, and the keys that come more than once.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::empty::EmptyTable;
use datafusion::functions_aggregate::count::count_all;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{Expr, ExprFunctionExt, lit};
use datafusion::prelude::SessionContext;
use tidemill_core::{Error, Result};
use tidemill_engine::error::from_datafusion;

use super::super::statement::planned;
use super::condition::{Aggregate, Together};
use super::{Check, Checks, Condition, Over, read};

/// How many rows there are, beside the answers to checks.
pub(super) const ROWS: &str = "tidemill_rows";
/// How often a key comes.
pub(super) const TIMES: &str = "tidemill_times";

/// A check that rows have to be read for.
pub(super) struct Question<'a> {
    pub(super) check: &'a Check,
    pub(super) of: Asked,
}

/// What is asked of the rows.
pub(super) enum Asked {
    /// How many there are of which this does not hold, under this name.
    Violations { holds: Expr, column: String },
    /// Whether something holds of their aggregates.
    Together {
        /// Whether it does, under this name.
        column: String,
        /// What each aggregate is called, and its name.
        aggregates: Vec<(String, String)>,
        /// The n of each `rows_before(n)`, and what it is.
        before: Vec<(u64, Option<f64>)>,
    },
    /// Which keys come more than once.
    Unique(Vec<String>),
}

/// A column by its name, whatever letters it has.
pub(super) fn column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

/// The checks, and the plan of the row that answers most of them.
///
/// # Errors
/// A condition has no meaning over these columns: it had, when the run was planned.
pub(super) fn asked<'a>(
    checks: &'a Checks,
    rows: &DataFrame,
    context: &SessionContext,
) -> Result<(Vec<Question<'a>>, DataFrame)> {
    let schema = planned(DFSchema::try_from(Arc::clone(rows.schema().inner())))?;
    let mut summary = Summary { computed: vec![count_all().alias(ROWS)], answers: vec![column(ROWS)] };
    let mut questions = Vec::new();
    for (index, check) in checks.list.iter().enumerate().filter(|(_, check)| !check.was_guarded()) {
        let of = match (read(context.state(), &check.condition, &schema)?, check.over) {
            (Condition::Row(holds), Over::EachRow) => summary.violations(index, holds)?,
            (Condition::All(together), Over::AllRows) => summary.together(index, together, checks)?,
            (Condition::Unique(keys), Over::AllRows) => Asked::Unique(keys),
            (Condition::Row(_), Over::AllRows) | (Condition::All(_) | Condition::Unique(_), Over::EachRow) => {
                let what = format!("the check `{}` is not what it was when the run was planned", check.name);
                return Err(Error::internal(what));
            }
        };
        questions.push(Question { check, of });
    }
    let Summary { computed, answers } = summary;
    let summary = rows.clone().aggregate(Vec::new(), computed).and_then(|all| all.select(answers));
    Ok((questions, planned(summary)?))
}

/// One row about all rows, in the making.
struct Summary {
    /// Aggregates of the rows.
    computed: Vec<Expr>,
    /// What is made of these.
    answers: Vec<Expr>,
}

impl Summary {
    fn compute(&mut self, of: Expr, name: &str) {
        self.computed.push(of.alias(name));
        self.answers.push(column(name));
    }

    fn violations(&mut self, index: usize, holds: Expr) -> Result<Asked> {
        let name = format!("tidemill_{index}_violations");
        self.compute(planned(count(lit(1_i64)).filter(holds.clone().is_not_true()).build())?, &name);
        Ok(Asked::Violations { holds, column: name })
    }

    fn together(&mut self, index: usize, together: Together, checks: &Checks) -> Result<Asked> {
        let own = |column: &str| format!("tidemill_{index}_{column}");
        let mean = |n| checks.before.get(&n).copied().unwrap_or_default().mean();
        let holds = renamed(together.bound(&mean)?, &own)?;
        let before = together.before.iter().map(|n| (*n, mean(*n))).collect();
        let mut aggregates = Vec::new();
        for Aggregate { shown, column, of } in together.aggregates {
            self.compute(of, &own(&column));
            aggregates.push((shown, own(&column)));
        }
        let name = own("holds");
        self.answers.push(holds.alias(&name));
        Ok(Asked::Together { column: name, aggregates, before })
    }
}

/// A condition over a check's own names.
fn renamed(holds: Expr, own: &dyn Fn(&str) -> String) -> Result<Expr> {
    let renamed = holds.transform_up(|expr| match expr {
        Expr::Column(of) => Ok(Transformed::yes(column(&own(&of.name)))),
        other => Ok(Transformed::no(other)),
    });
    planned(renamed.data())
}

/// The keys that come more than once, and how often.
///
/// # Errors
/// A column is gone.
pub(super) fn doubled(rows: &DataFrame, keys: &[String]) -> Result<DataFrame> {
    let keys = keys.iter().map(|key| column(key)).collect();
    let counted = rows.clone().aggregate(keys, vec![count_all().alias(TIMES)]);
    planned(counted.and_then(|counted| counted.filter(column(TIMES).gt(lit(1_i64)))))
}

/// Plans all that would be computed, over no rows.
///
/// # Errors
/// Something cannot be.
pub(super) async fn tried(checks: &Checks, context: &SessionContext, schema: &SchemaRef) -> Result<()> {
    let rows = planned(context.read_table(Arc::new(EmptyTable::new(Arc::clone(schema)))))?;
    let (questions, summary) = asked(checks, &rows, context)?;
    summary.create_physical_plan().await.map_err(|e| from_datafusion(&e))?;
    for question in &questions {
        if let Asked::Unique(keys) = &question.of {
            planned(doubled(&rows, keys)?.create_physical_plan().await)?;
        }
    }
    Ok(())
}
