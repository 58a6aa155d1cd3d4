//! Texts to conditions: of each row, of all rows together, or of keys that come once.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue, exec_err};
use datafusion::error::DataFusionError;
use datafusion::execution::registry::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{ColumnarValue, Expr, ExprSchemable, ScalarUDF, Volatility, create_udf};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use tidemill_core::interval::MOST_COUNTED;
use tidemill_core::{Error, Result};
use tidemill_engine::error::{from_datafusion, to_datafusion};

/// `rows_before(n)`: rows of the last n published intervals before this one, on average.
const ROWS_BEFORE: &str = "rows_before";
/// What conditions of keys begin with.
const UNIQUE: &str = "UNIQUE";

/// A condition, read.
pub(crate) enum Condition {
    /// It is about one row.
    Row(Expr),
    /// It is about all rows together.
    All(Together),
    /// Each combination of values of these columns comes once.
    Unique(Vec<String>),
}

/// A condition over aggregates.
pub(crate) struct Together {
    /// What is computed of all rows, as it was typed, under the names that [`Self::holds`] has.
    pub(super) aggregates: Vec<Aggregate>,
    /// The condition over these.
    pub(super) holds: Expr,
    /// The n of each `rows_before(n)` in it.
    pub(crate) before: Vec<u64>,
}

/// One aggregate of a condition.
pub(super) struct Aggregate {
    pub(super) shown: String,
    pub(super) column: String,
    pub(super) of: Expr,
}

/// Reads a condition over a table's columns.
///
/// # Errors
/// It cannot be read, or is of no kind that can be checked: what, to stand behind the name of the check.
pub(crate) fn read(mut state: SessionState, text: &str, schema: &DFSchema) -> Result<Condition> {
    if let Some(keys) = keys(text) {
        return unique(keys?, schema);
    }
    state.register_udf(Arc::new(rows_before())).map_err(|e| from_datafusion(&e))?;
    let wrong = |e: DataFusionError| {
        let error = from_datafusion(&e);
        Error { message: format!("cannot be read: {}", error.message), ..error }
    };
    let condition = state.create_logical_expr(text, schema).map_err(wrong)?;
    let is_other = |expr: &Expr| {
        matches!(
            expr,
            Expr::WindowFunction(_)
                | Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
                | Expr::Placeholder(_)
        )
    };
    if condition.exists(|expr| Ok(is_other(expr))).map_err(wrong)? {
        return Err(Error::invalid(
            "has a window, a subquery or a placeholder: a check is of the rows that are written, by columns, aggregates and \
             rows_before(n)",
        ));
    }
    match condition.get_type(schema).map_err(wrong)? {
        DataType::Boolean => {}
        other => return Err(Error::invalid(format!("is a value of type {other} and no condition"))),
    }
    let is_together = |expr: &Expr| matches!(expr, Expr::AggregateFunction(_)) || counts_before(expr).is_some();
    match condition.exists(|expr| Ok(is_together(expr))).map_err(wrong)? {
        false => Ok(Condition::Row(condition)),
        true => together(condition).map(Condition::All),
    }
}

/// Divides a condition into its aggregates and what it says of them.
fn together(condition: Expr) -> Result<Together> {
    let (mut aggregates, mut before) = (Vec::<Aggregate>::new(), Vec::new());
    let holds = condition.transform_down(|expr| {
        if let Some(n) = counts_before(&expr) {
            before.push(n.map_err(to_datafusion)?);
            return Ok(Transformed::new(expr, false, TreeNodeRecursion::Jump));
        }
        let (shown, of) = match expr {
            Expr::Alias(alias) if matches!(*alias.expr, Expr::AggregateFunction(_)) => (alias.name, *alias.expr),
            of @ Expr::AggregateFunction(_) => {
                let shown = of.human_display().to_string();
                (shown, of)
            }
            Expr::Column(column) => {
                return Err(to_datafusion(Error::invalid(format!(
                    "speaks of `{}` of one row and of all rows together: put it into an aggregate, or write two checks",
                    column.name
                ))));
            }
            other => return Ok(Transformed::no(other)),
        };
        let known = aggregates.iter().position(|known| known.of == of);
        let position = known.unwrap_or_else(|| {
            let column = format!("aggregate_{}", aggregates.len());
            aggregates.push(Aggregate { shown, column, of });
            aggregates.len() - 1
        });
        let column = Column::from_name(format!("aggregate_{position}"));
        Ok(Transformed::new(Expr::Column(column), true, TreeNodeRecursion::Jump))
    });
    let holds = holds.data().map_err(|e| from_datafusion(&e))?;
    Ok(Together { aggregates, holds, before })
}

impl Together {
    /// What it says where intervals before have so many rows on average.
    pub(super) fn bound(&self, mean: &dyn Fn(u64) -> Option<f64>) -> Result<Expr> {
        let holds = self.holds.clone().transform_up(|expr| match counts_before(&expr) {
            Some(n) => {
                let mean = mean(n.map_err(to_datafusion)?);
                Ok(Transformed::yes(Expr::Literal(ScalarValue::Float64(mean), None)))
            }
            None => Ok(Transformed::no(expr)),
        });
        holds.data().map_err(|e| from_datafusion(&e))
    }
}

/// The function is in no plan that is run: its value stands in its place by then.
fn rows_before() -> ScalarUDF {
    let never = |_: &[ColumnarValue]| -> datafusion::error::Result<ColumnarValue> {
        exec_err!("{ROWS_BEFORE} was left in a plan")
    };
    create_udf(ROWS_BEFORE, vec![DataType::Int64], DataType::Float64, Volatility::Stable, Arc::new(never))
}

/// The n of `rows_before(n)`, if that is it.
fn counts_before(expr: &Expr) -> Option<Result<u64>> {
    let Expr::ScalarFunction(call) = expr else { return None };
    if call.func.name() != ROWS_BEFORE {
        return None;
    }
    let n = match call.args.as_slice() {
        [Expr::Literal(ScalarValue::Int64(Some(n)), _)] => u64::try_from(*n).ok(),
        _ => None,
    };
    let most = MOST_COUNTED as u64;
    Some(n.filter(|n| (1..=most).contains(n)).ok_or_else(|| {
        Error::invalid(format!("takes {ROWS_BEFORE} of something else than a number of intervals between 1 and {most}"))
    }))
}

/// The columns of `UNIQUE (a, b)`, if that is it.
fn keys(text: &str) -> Option<Result<Vec<String>>> {
    let tokens = Tokenizer::new(&GenericDialect, text).tokenize().ok()?;
    let mut tokens = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_)));
    let is_unique = matches!(tokens.next(), Some(Token::Word(word)) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(UNIQUE));
    if !is_unique || tokens.next() != Some(Token::LParen) {
        return None;
    }
    let wrong = || Error::invalid("is not UNIQUE (column, …), which takes names of columns and stands alone");
    let mut keys = Vec::new();
    loop {
        match tokens.next() {
            Some(Token::Word(word)) if word.quote_style.is_some() => keys.push(word.value),
            Some(Token::Word(word)) => keys.push(word.value.to_lowercase()),
            _ => return Some(Err(wrong())),
        }
        match tokens.next() {
            Some(Token::Comma) => {}
            Some(Token::RParen) if tokens.next().is_none() => return Some(Ok(keys)),
            _ => return Some(Err(wrong())),
        }
    }
}

fn unique(keys: Vec<String>, schema: &DFSchema) -> Result<Condition> {
    for (index, key) in keys.iter().enumerate() {
        if keys.get(..index).is_some_and(|before| before.contains(key)) {
            return Err(Error::invalid(format!("names the column `{key}` twice")));
        }
        if !schema.has_column_with_unqualified_name(key) {
            return Err(Error::invalid(format!("names a column `{key}`, which the dataset has not")));
        }
    }
    Ok(Condition::Unique(keys))
}

#[cfg(test)]
#[expect(clippy::panic, reason = "a test that meets the unexpected should say so and end")]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use datafusion::prelude::SessionContext;

    use super::*;

    fn read(text: &str) -> Result<Condition> {
        let field = |name: &str, kind| Field::new(name, kind, true);
        let schema = Schema::new(vec![
            field("day", DataType::Date32),
            field("ad", DataType::Int64),
            field("Odd", DataType::Utf8),
        ]);
        let schema = DFSchema::try_from(schema).map_err(|e| from_datafusion(&e))?;
        super::read(SessionContext::new().state(), text, &schema)
    }

    fn together(text: &str) -> (Vec<String>, String, Vec<u64>) {
        match read(text) {
            Ok(Condition::All(all)) => {
                (all.aggregates.into_iter().map(|a| a.shown).collect(), all.holds.to_string(), all.before)
            }
            Ok(_) => panic!("{text} is not about all rows"),
            Err(error) => panic!("{text}: {error}"),
        }
    }

    #[test]
    fn conditions_are_of_rows_of_all_rows_or_of_keys() {
        assert!(matches!(read("ad > 0 OR day IS NULL"), Ok(Condition::Row(_))));
        let (shown, holds, _) = together("count(*) = count(DISTINCT ad) AND count(*) BETWEEN 1 AND 9");
        assert_eq!(shown, ["count(*)", "count(DISTINCT ad)"]);
        assert_eq!(holds, "aggregate_0 = aggregate_1 AND aggregate_0 BETWEEN Int64(1) AND Int64(9)");
        let (_, _, before) = together("count(*) > 0.5 * rows_before(7) AND count(*) < 2 * rows_before(1)");
        assert_eq!(before, [7, 1]);
        assert!(matches!(read(" unique (day , \"Odd\")"), Ok(Condition::Unique(keys)) if keys == ["day", "Odd"]));
    }

    #[test]
    fn what_cannot_be_checked_is_named() {
        for (text, expected) in [
            ("ad + 1", "no condition"),
            ("adds > 1", "cannot be read"),
            ("ad > 0 AND count(*) > 0", "`ad` of one row and of all rows"),
            ("count(*) > rows_before(0)", "between 1 and"),
            ("count(*) > rows_before(ad)", "between 1 and"),
            ("row_number() OVER () < 3", "a window"),
            ("ad > $1", "a placeholder"),
            ("UNIQUE (day, day)", "`day` twice"),
            ("UNIQUE (odd)", "`odd`, which the dataset has not"),
            ("UNIQUE (day) AND ad > 0", "stands alone"),
            ("UNIQUE (day, 1)", "names of columns"),
        ] {
            match read(text) {
                Err(error) => assert!(error.message.contains(expected), "{text}: {error}"),
                Ok(_) => panic!("{text} was read"),
            }
        }
    }

    #[test]
    fn the_intervals_before_are_a_number_or_nothing() {
        let Ok(Condition::All(all)) = read("count(*) > rows_before(7)") else { panic!("no condition") };
        let bound = |mean: Option<f64>| all.bound(&|n| mean.filter(|_| n == 7)).map(|holds| holds.to_string());
        assert_eq!(bound(Some(2.5)), Ok("aggregate_0 > Float64(2.5)".to_owned()));
        assert_eq!(bound(None), Ok("aggregate_0 > Float64(NULL)".to_owned()));
    }
}
