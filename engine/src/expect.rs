//! What must hold of each row that a job publishes: a function that hands a value on, unless its row is not as expected.
//!
//! ```text
//! tidemill_expect(value, holds, check, names, column, …) = value
//! ```
//!
//! It stands in the topmost projection of what is written, so that it sees exactly the rows that would be published; the
//! first batch with a row of which the condition is not true fails the task, and the run with it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use tidemill_core::Error;

use crate::error::to_datafusion;

/// The function's name in plans.
pub const EXPECT: &str = "tidemill_expect";
/// Rows that an error shows.
pub const SAMPLES: usize = 3;
/// Columns of each of these.
pub const SHOWN: usize = 8;
/// Characters of a value that it shows.
const VALUE_CHARS: usize = 60;
/// Arguments before the columns that are shown.
const LEADING: usize = 4;
/// Between names of columns.
const BETWEEN: char = '\u{1f}';

#[derive(Debug, PartialEq, Eq, Hash)]
struct Expect {
    signature: Signature,
}

/// The function itself, for whoever decodes a plan.
#[must_use]
pub fn function() -> ScalarUDF {
    ScalarUDF::new_from_impl(Expect { signature: Signature::variadic_any(Volatility::Immutable) })
}

/// `value`, as long as `holds` is true of its row; an error names the check and shows `columns` otherwise.
#[must_use]
pub fn expect(value: Expr, holds: Expr, check: &str, columns: Vec<(String, Expr)>) -> Expr {
    let (names, columns): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let leading = [value, holds, lit(check), lit(names.join(&BETWEEN.to_string()))];
    function().call(leading.into_iter().chain(columns).collect())
}

impl ScalarUDFImpl for Expect {
    fn name(&self) -> &str {
        EXPECT
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [value, holds, ..] if arguments.len() >= LEADING && *holds == DataType::Boolean => Ok(value.clone()),
            _ => plan_err!("{EXPECT} takes a value, a condition, a check and the names of columns"),
        }
    }

    fn invoke_with_args(&self, called: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = called.number_rows;
        let [value, holds, check, names, columns @ ..] = called.args.as_slice() else {
            return exec_err!("{EXPECT} was called with too little");
        };
        let holds = holds.to_array(rows)?;
        let Some(holds) = holds.as_boolean_opt() else { return exec_err!("{EXPECT} was given no condition") };
        // What is not known is not true.
        let is_violated = |row: &usize| !holds.is_valid(*row) || !holds.value(*row);
        let violated: Vec<usize> = (0..holds.len()).filter(is_violated).collect();
        if violated.is_empty() {
            return Ok(value.clone());
        }
        let columns = columns.iter().map(|column| column.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let names = text(names);
        let shown = violated
            .iter()
            .take(SAMPLES)
            .map(|row| shown(*row, names.split(BETWEEN), &columns))
            .collect::<Result<Vec<_>>>()?;
        Err(to_datafusion(Error::invalid(format!(
            "the check `{}` does not hold for {} of {} rows, so nothing is published; for example {}",
            text(check),
            violated.len(),
            holds.len(),
            shown.join(", ")
        ))))
    }
}

fn text(value: &ColumnarValue) -> String {
    match value {
        ColumnarValue::Scalar(scalar) => scalar.try_as_str().flatten().unwrap_or_default().to_owned(),
        ColumnarValue::Array(_) => String::new(),
    }
}

/// `(day = 2026-03-01, spend = -1)`.
///
/// # Errors
/// A value cannot be shown.
pub fn shown<'a>(row: usize, names: impl Iterator<Item = &'a str>, columns: &[ArrayRef]) -> Result<String> {
    let options = FormatOptions::default().with_null("NULL");
    let value = |(name, column): (&str, &ArrayRef)| {
        let value = ArrayFormatter::try_new(column.as_ref(), &options)?.value(row).to_string();
        let value: String = value.chars().take(VALUE_CHARS).collect();
        Ok(format!("{name} = {value}"))
    };
    let values = names.zip(columns).map(value).collect::<Result<Vec<_>>>()?;
    Ok(format!("({})", values.join(", ")))
}

/// What the error of a row that is not as expected says: its check, how many rows that were, of how many, and some of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violated {
    /// The check, as it is called.
    pub check: String,
    /// Rows of the first batch that had one.
    pub rows: u64,
    /// Some of them.
    pub sample: String,
}

/// Finds in an error's text what [`expect`] put there.
#[must_use]
pub fn violated(error: &str) -> Option<Violated> {
    let (_, rest) = error.split_once("the check `")?;
    let (check, rest) = rest.split_once("` does not hold for ")?;
    let (rows, rest) = rest.split_once(" of ")?;
    let (_, sample) = rest.split_once("for example ")?;
    Some(Violated { check: check.to_owned(), rows: rows.parse().ok()?, sample: sample.to_owned() })
}

/// The function under its name, if that is it.
pub(crate) fn named(name: &str) -> Option<Arc<ScalarUDF>> {
    (name == EXPECT).then(|| Arc::new(function()))
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use datafusion::prelude::{SessionContext, col};
    use tidemill_core::ErrorKind;

    use super::*;
    use crate::error::from_datafusion;

    async fn run(rows: &str, holds: Expr) -> Result<usize> {
        let context = SessionContext::new();
        let rows = context.sql(&format!("SELECT * FROM (VALUES {rows}) AS t(day, spend)")).await?;
        let columns = vec![("day".to_owned(), col("day")), ("spend".to_owned(), col("spend"))];
        let guarded = expect(col("spend"), holds, "positive", columns).alias("spend");
        let batches = rows.select(vec![col("day"), guarded])?.collect().await?;
        Ok(batches.iter().map(|batch| batch.num_rows()).sum())
    }

    #[tokio::test]
    async fn rows_that_are_as_expected_pass() {
        assert_eq!(run("('a', 1), ('b', 2)", col("spend").gt(lit(0))).await.expect("rows"), 2);
    }

    #[tokio::test]
    async fn a_row_that_is_not_ends_the_query_and_is_shown() {
        for rows in ["('a', 1), ('b', -2)", "('a', 1), ('b', NULL)"] {
            let error = from_datafusion(&run(rows, col("spend").gt(lit(0))).await.expect_err("a violation"));
            assert_eq!(error.kind, ErrorKind::Invalid);
            assert!(error.message.contains("the check `positive` does not hold for 1 of"), "{error}");
            assert!(error.message.contains("(day = b, spend = "), "{error}");
            let told = violated(&format!("task 0.1: {}", error.message)).expect("what was violated");
            assert_eq!((told.check.as_str(), told.rows), ("positive", 1));
            assert!(told.sample.starts_with("(day = b, ") && told.sample.ends_with(')'), "{told:?}");
        }
        assert_eq!(violated("the check `x` does not hold: sum(y) is 3, so nothing is published"), None);
    }
}
