//! The rows are read, and the checks have their answers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::TableProvider;
use datafusion::dataframe::DataFrame;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use tidemill_core::record::{Checked, Verdict};
use tidemill_core::{Error, Result};
use tidemill_engine::expect::{SAMPLES, SHOWN, shown};
use tidemill_engine::planner::Judgement;

use super::super::statement::planned;
use super::Checks;
use super::summary::{Asked, Question, ROWS, TIMES, asked, column, doubled};

/// Characters of an aggregate's value in an error: one may be made of all rows.
const VALUE_CHARS: usize = 200;

/// Looks at a table's rows, of which there should be so many.
///
/// # Errors
/// They cannot be read, or are not so many.
pub(in crate::datasets) async fn judge(
    checks: &Checks,
    table: Arc<dyn TableProvider>,
    expected: u64,
    context: &SessionContext,
) -> Result<Judgement> {
    let rows = planned(context.read_table(table))?;
    let (questions, summary) = asked(checks, &rows, context)?;
    let answers = Answers(planned(summary.collect().await)?);
    let found = answers.count(ROWS)?;
    if found != expected {
        return Err(Error::internal(format!(
            "the files that were written have {found} rows and should have {expected}, so nothing is published: please report this \
             as a bug"
        )));
    }
    let (mut checked, mut found) = (checks.guarded(), Vec::new());
    for question in &questions {
        let (answer, what) = answers.to(question, &rows).await?;
        if answer.verdict == Verdict::Failed {
            found.push(format!("the check `{}` does not hold{what}", answer.check));
        }
        checked.push(answer);
    }
    let others = found.len().saturating_sub(1);
    let refused = found.into_iter().next().map(|first| {
        let others =
            if others > 0 { format!("; {others} more do not hold, see system.run_checks") } else { String::new() };
        Error::invalid(format!("{first}{others}"))
    });
    Ok(Judgement { checks: checked, refused })
}

/// The one row about all rows.
struct Answers(Vec<RecordBatch>);

impl Answers {
    fn column(&self, name: &str) -> Result<&ArrayRef> {
        let row = self.0.iter().find(|batch| batch.num_rows() > 0);
        row.and_then(|row| row.column_by_name(name)).ok_or_else(|| Error::internal("a check has no answer"))
    }

    fn count(&self, name: &str) -> Result<u64> {
        let counts = self.column(name)?.as_primitive_opt::<Int64Type>();
        let count = counts.map_or(0, |counts| counts.value(0));
        u64::try_from(count).map_err(|_| Error::internal("a count is negative"))
    }

    /// The answer to a check, and how an error goes on.
    async fn to(&self, question: &Question<'_>, rows: &DataFrame) -> Result<(Checked, String)> {
        let check = question.check;
        match &question.of {
            Asked::Violations { holds, column } => {
                let violations = self.count(column)?;
                let mut checked = Checked { violations: Some(violations), ..check.checked(violations == 0) };
                if violations > 0 {
                    checked.sample = Some(samples(rows, holds).await?);
                }
                let what = format!(" for {violations} rows");
                Ok((checked, what))
            }
            Asked::Together { column, aggregates, before } => {
                let holds = self.column(column)?.as_boolean_opt();
                let holds = holds.filter(|holds| holds.is_valid(0)).map(|holds| holds.value(0));
                // What is not known is not true, unless there is nothing yet to compare with.
                let holds = holds.unwrap_or_else(|| before.iter().any(|(_, mean)| mean.is_none()));
                let value = self.values(aggregates, before)?;
                let what = format!(": {value}, so nothing is published");
                Ok((Checked { value: Some(value), ..check.checked(holds) }, what))
            }
            Asked::Unique(keys) => unique(question, rows, keys).await,
        }
    }

    /// `sum(spend) is -3, count(*) is 7`.
    fn values(&self, aggregates: &[(String, String)], before: &[(u64, Option<f64>)]) -> Result<String> {
        let options = FormatOptions::default().with_null("NULL");
        let value = |(shown, name): &(String, String)| {
            let column = self.column(name)?;
            let formatter = planned(ArrayFormatter::try_new(column.as_ref(), &options).map_err(Into::into))?;
            let value = formatter.value(0).to_string();
            Ok(match value.char_indices().nth(VALUE_CHARS) {
                Some((end, _)) => format!("{shown} is {}…", value.get(..end).unwrap_or_default()),
                None => format!("{shown} is {value}"),
            })
        };
        let mut values = aggregates.iter().map(value).collect::<Result<Vec<_>>>()?;
        values.extend(before.iter().map(|(n, mean)| match mean {
            Some(mean) => format!("rows_before({n}) is {mean}"),
            None => format!("rows_before({n}) is not known, as no interval before has rows"),
        }));
        Ok(values.join(", "))
    }
}

/// Some rows that are not as expected.
async fn samples(rows: &DataFrame, holds: &datafusion::logical_expr::Expr) -> Result<String> {
    let names: Vec<String> = rows.schema().fields().iter().take(SHOWN).map(|field| field.name().clone()).collect();
    let some = rows.clone().filter(holds.clone().is_not_true()).and_then(|some| some.limit(0, Some(SAMPLES)));
    let some = some.and_then(|some| some.select(names.iter().map(|name| column(name)).collect::<Vec<_>>()));
    let batches = planned(planned(some)?.collect().await)?;
    let mut texts = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            texts.push(planned(shown(row, names.iter().map(String::as_str), batch.columns()))?);
        }
    }
    Ok(texts.join(", "))
}

/// Counts keys that come more than once. They pass by: only some are kept.
async fn unique(question: &Question<'_>, rows: &DataFrame, keys: &[String]) -> Result<(Checked, String)> {
    let mut stream = planned(doubled(rows, keys)?.execute_stream().await)?;
    let (mut count, mut violations, mut texts) = (0, 0, Vec::new());
    while let Some(batch) = planned(stream.try_next().await)? {
        let times = batch.column_by_name(TIMES).and_then(|times| times.as_primitive_opt::<Int64Type>());
        let Some(times) = times else { return Err(Error::internal("keys were not counted")) };
        for row in 0..batch.num_rows() {
            count += 1;
            violations += u64::try_from(times.value(row)).unwrap_or_default();
            if texts.len() < SAMPLES {
                let key = planned(shown(row, keys.iter().map(String::as_str), batch.columns()))?;
                texts.push(format!("{key} {} times", times.value(row)));
            }
        }
    }
    let checked = question.check.checked(count == 0);
    if count == 0 {
        return Ok((Checked { violations: Some(0), ..checked }, String::new()));
    }
    let value = if count == 1 {
        "one key comes more than once".to_owned()
    } else {
        format!("{count} keys come more than once")
    };
    let sample = texts.join(", ");
    let what = format!(": {value}, in {violations} rows, so nothing is published; for example {sample}");
    Ok((Checked { value: Some(value), violations: Some(violations), sample: Some(sample), ..checked }, what))
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use datafusion::prelude::SessionContext;
    use tidemill_core::ErrorKind;

    use super::super::{Before, Check, Over, Violation};
    use super::*;

    fn check(condition: &str, over: Over, violation: Violation) -> Check {
        Check { name: condition.to_owned(), condition: condition.to_owned(), over, violation }
    }

    /// Judges five rows.
    async fn judged(list: Vec<Check>, before: BTreeMap<u64, Before>) -> Judgement {
        let context = SessionContext::new();
        let rows = "SELECT * FROM (VALUES ('a', 1, 5), ('a', 1, 6), ('b', 1, -7), ('b', NULL, 0), ('b', NULL, 1)) AS t(day, ad, cost)";
        let rows = context.sql(rows).await.expect("rows").into_view();
        judge(&Checks { list, before }, rows, 5, &context).await.expect("a judgement")
    }

    async fn all(condition: &str) -> (Judgement, Checked) {
        let judged = judged(vec![check(condition, Over::AllRows, Violation::Fail)], BTreeMap::new()).await;
        let first = judged.checks.first().cloned().expect("a check");
        (judged, first)
    }

    #[tokio::test]
    async fn aggregates_hold_or_nothing_is_published() {
        let (judgement, checked) = all("sum(cost) = 5 AND count(*) BETWEEN 1 AND 5").await;
        assert_eq!((judgement.refused, checked.verdict), (None, Verdict::Passed));
        assert_eq!(checked.value.as_deref(), Some("sum(cost) is 5, count(*) is 5"));
        for condition in ["sum(cost) > 5", "sum(NULLIF(cost, cost)) > 0"] {
            let (judgement, checked) = all(condition).await;
            let refused = judgement.refused.expect("an error");
            assert_eq!(
                (refused.kind, checked.verdict),
                (ErrorKind::Invalid, Verdict::Failed),
                "what is not known is not true"
            );
            assert!(refused.message.starts_with(&format!("the check `{condition}` does not hold: sum(")), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_value_that_is_made_of_all_rows_is_cut() {
        let (judgement, checked) = all("string_agg(repeat(concat(day, 'ä'), 1000), ',') = ''").await;
        let (refused, value) = (judgement.refused.expect("an error").message, checked.value.expect("a value"));
        assert!(value.ends_with('…') && value.chars().count() < 400, "{value}");
        assert!(refused.ends_with(&format!("{value}, so nothing is published")), "{refused}");
    }

    #[tokio::test]
    async fn keys_that_come_twice_are_shown() {
        let (judgement, checked) = all("UNIQUE (day, ad)").await;
        let refused = judgement.refused.expect("an error").message;
        assert!(
            refused.contains("2 keys come more than once, in 4 rows, so nothing is published; for example"),
            "{refused}"
        );
        assert!(
            refused.contains("(day = a, ad = 1) 2 times") && refused.contains("(day = b, ad = NULL) 2 times"),
            "{refused}"
        );
        assert_eq!(checked.violations, Some(4));
        let (judgement, checked) = all("UNIQUE (cost)").await;
        assert_eq!((judgement.refused, checked.violations), (None, Some(0)));
    }

    #[tokio::test]
    async fn a_warning_is_noted_and_refuses_nothing() {
        let list = vec![
            check("ad = 1", Over::EachRow, Violation::Warn),
            check("cost > -10", Over::EachRow, Violation::Fail),
            check("count(*) > 9", Over::AllRows, Violation::Warn),
        ];
        let judgement = judged(list, BTreeMap::new()).await;
        assert_eq!(judgement.refused, None);
        let told: Vec<_> = judgement.checks.iter().map(|c| (c.check.as_str(), c.verdict, c.violations)).collect();
        let expected = [
            ("cost > -10", Verdict::Passed, Some(0)),
            ("ad = 1", Verdict::Warned, Some(2)),
            ("count(*) > 9", Verdict::Warned, None),
        ];
        assert_eq!(told, expected);
        let sample = judgement.checks.get(1).and_then(|c| c.sample.clone()).expect("a sample");
        assert!(sample.contains("(day = b, ad = NULL, cost = 0)"), "{sample}");
    }

    #[tokio::test]
    async fn the_first_interval_has_nothing_to_be_compared_with() {
        let volume = || vec![check("count(*) > 0.5 * rows_before(7)", Over::AllRows, Violation::Fail)];
        let before = |intervals, rows| BTreeMap::from([(7, Before { intervals, rows })]);
        let first = judged(volume(), before(0, 0)).await;
        assert_eq!(first.refused, None);
        assert_eq!(
            first.checks.first().and_then(|c| c.value.as_deref()),
            Some("count(*) is 5, rows_before(7) is not known, as no interval before has rows")
        );
        assert_eq!(judged(volume(), before(3, 27)).await.refused, None, "5 is more than half of 9");
        let few = judged(volume(), before(2, 21)).await.refused.expect("an error");
        assert!(few.message.contains("count(*) is 5, rows_before(7) is 10.5, so nothing"), "{few}");
    }

    #[tokio::test]
    async fn rows_that_are_not_there_are_a_bug_of_ours() {
        let context = SessionContext::new();
        let rows = context.sql("SELECT 1 AS x").await.expect("rows").into_view();
        let checks =
            Checks { list: vec![check("UNIQUE (x)", Over::AllRows, Violation::Fail)], before: BTreeMap::new() };
        let error = judge(&checks, rows, 2, &context).await.expect_err("an error");
        assert_eq!(error.kind, ErrorKind::Internal);
    }
}
