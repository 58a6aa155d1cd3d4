//! `EXPECT (…)`: what must hold of the rows of an interval before they are published.
//!
//! Conditions of single rows that may not fail are checked as the rows are written: the first violation fails the run. Whatever
//! needs all rows together (sums, uniqueness, the volume of the intervals before), and what only warns, is looked at between the
//! last task's end and the commit, by [`datasets::Checks`].

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use tidemill_core::interval::State;
use tidemill_core::record::{JobRun, MOST_CHECKS};
use tidemill_core::{Error, Result};
use tidemill_engine::error::from_datafusion;
use tidemill_engine::expect::{SHOWN, expect};

use super::parser::parse;
use super::statement::{CreateJob, Expectation, JobStatement, Violation};
use crate::datasets::{self, Before, Check, Checks, Condition, Over};
use crate::session::Planning;

/// A job's query with all that is expected of its rows.
pub(super) struct Guarded {
    pub(super) query: LogicalPlan,
    pub(super) checks: Checks,
    /// The n of each `rows_before(n)`.
    pub(super) before: BTreeSet<u64>,
}

/// The rows of a job's query, for a dataset of these columns, with all that it expects of them.
///
/// # Errors
/// A condition is none, or nothing that can be checked.
pub(super) async fn guarded(
    planning: &Planning<'_>,
    query: LogicalPlan,
    create: &CreateJob,
    columns: &SchemaRef,
) -> Result<Guarded> {
    if create.expect.len() > MOST_CHECKS {
        let message = format!("a job has at most {MOST_CHECKS} checks, and this one {}", create.expect.len());
        return Err(Error::invalid(message).at(create.job.place));
    }
    let (mut checks, mut before, mut each) = (Checks::default(), BTreeSet::new(), Vec::new());
    for expectation in &create.expect {
        let place = expectation.predicate.place;
        let wrong = |e: Error| Error { message: format!("the check `{}` {}", expectation.shown(), e.message), ..e };
        let condition = datasets::read(planning.context.state(), &expectation.predicate.value, query.schema());
        let over = match condition.map_err(|e| Error { place: None, ..wrong(e) }.at(place))? {
            Condition::Row(holds) => {
                if expectation.violation == Violation::Fail {
                    each.push((expectation.shown(), holds));
                }
                Over::EachRow
            }
            Condition::All(together) => {
                before.extend(together.before);
                Over::AllRows
            }
            Condition::Unique(_) => Over::AllRows,
        };
        checks.list.push(check(expectation, over));
        let last = Checks { list: checks.list.last().cloned().into_iter().collect(), before: BTreeMap::new() };
        last.try_over(planning, columns).await.map_err(|e| Error { place: None, ..e }.at(place))?;
    }
    Ok(Guarded { query: watched(query, each)?, checks, before })
}

/// Refuses two checks of one name: what is told of one would be taken for the other's.
///
/// # Errors
/// There are two; the place is that of the second.
pub(super) fn check_names(create: &CreateJob) -> Result<()> {
    let mut known = BTreeSet::new();
    for Expectation { name, predicate, .. } in &create.expect {
        if let Some(name) = name
            && !known.insert(name)
        {
            return Err(Error::invalid(format!("two checks are called `{name}`: rename one")).at(predicate.place));
        }
    }
    Ok(())
}

fn check(expectation: &Expectation, over: Over) -> Check {
    let violation = match expectation.violation {
        Violation::Fail => datasets::Violation::Fail,
        Violation::Warn => datasets::Violation::Warn,
    };
    Check { name: expectation.shown(), condition: expectation.predicate.value.clone(), over, violation }
}

/// The rows, each of which must be as expected: an error tells of the first that is not.
fn watched(query: LogicalPlan, each: Vec<(String, Expr)>) -> Result<LogicalPlan> {
    let schema = query.schema().as_ref().clone();
    let columns = || schema.columns().into_iter();
    let Some(first) = columns().next().filter(|_| !each.is_empty()) else { return Ok(query) };
    let shown: Vec<_> = columns().take(SHOWN).map(|column| (column.name.clone(), Expr::Column(column))).collect();
    let guarded = each
        .into_iter()
        .fold(Expr::Column(first.clone()), |value, (check, holds)| expect(value, holds, &check, shown.clone()));
    let rest = columns().skip(1).map(Expr::Column);
    let projection: Vec<Expr> = std::iter::once(guarded.alias(first.name)).chain(rest).collect();
    let plan = LogicalPlanBuilder::from(query).project(projection).and_then(LogicalPlanBuilder::build);
    plan.map_err(|e| from_datafusion(&e))
}

/// What the check of a name expects of each row, in a job's own statement.
pub(crate) fn condition_of(statement: &str, check: &str) -> Option<String> {
    let Ok(Some(JobStatement::Create(create))) = parse(statement) else { return None };
    let named = create.expect.into_iter().find(|expectation| expectation.shown() == check);
    named.map(|expectation| expectation.predicate.value)
}

/// What the scheduler knows of the intervals before that of a run.
pub(super) fn rows_before(jobs: &State, of: &JobRun, asked: &BTreeSet<u64>) -> BTreeMap<u64, Before> {
    let job = jobs.jobs.get(&of.key.job).filter(|job| job.incarnation == of.key.incarnation);
    let before = |n: u64| {
        let known = job.into_iter().flat_map(|job| job.ledger.rows_before(of.key.index));
        let most = usize::try_from(n).unwrap_or(usize::MAX);
        known.take(most).fold(Before::default(), |Before { intervals, rows: sum }, rows| Before {
            intervals: intervals + 1,
            rows: sum.saturating_add(rows),
        })
    };
    asked.iter().map(|n| (*n, before(*n))).collect()
}

#[cfg(test)]
#[expect(clippy::panic, reason = "a test that meets the unexpected should say so and end")]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_one_check() {
        let checked = |names: [&str; 2]| {
            let checks = names.map(|name| format!("{name} EXPECT (x > 0)")).join(" ");
            match parse(&format!("CREATE JOB j INTO s {checks} AS SELECT 1")) {
                Ok(Some(JobStatement::Create(create))) => check_names(&create),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(checked(["CONSTRAINT a", "CONSTRAINT b"]), Ok(()));
        assert_eq!(checked(["", ""]), Ok(()), "what has no name is called by what it says");
        let twice = checked(["CONSTRAINT a", "CONSTRAINT \"a\""]);
        assert!(twice.is_err_and(|error| error.message.contains("two checks are called `a`") && error.place.is_some()));
    }
}
