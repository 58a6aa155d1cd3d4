//! What must hold of all rows that a run wrote, looked at before it is decided that they are published.
//!
//! ```text
//! planned: conditions as texts, in the target ──► after the last task: a scan of the written files ──► Judgement
//!          condition.rs reads them, tried.rs                session.rs bounds it, summary.rs says what
//!          plans them once over no rows                     it computes, judge.rs reads the answer
//! ```
//!
//! Invariant: what is planned here is planned again from the texts by whoever leads when the last task has ended.

mod condition;
mod judge;
mod session;
mod summary;

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use tidemill_core::Result;
use tidemill_core::record::{Checked, Verdict};

pub(crate) use condition::{Condition, read};
pub(super) use judge::judge;
pub(super) use session::Bounds;

use crate::session::Planning;

/// What a run's rows are checked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Checks {
    pub(crate) list: Vec<Check>,
    /// What `rows_before(n)` is, by n: it is the scheduler that knows, when the run is planned.
    pub(crate) before: BTreeMap<u64, Before>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
    /// What it is called in messages.
    pub(crate) name: String,
    /// As it was typed.
    pub(crate) condition: String,
    pub(crate) over: Over,
    pub(crate) violation: Violation,
}

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Over {
    /// Each row. Where a violation is a failure, it is found as the row is written, and not here.
    EachRow,
    /// All rows together.
    AllRows,
}

/// What a violation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Violation {
    /// Nothing is published.
    Fail,
    /// It is noted.
    Warn,
}

/// The published intervals before one: how many are known of those that were asked for, and their rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Before {
    pub(crate) intervals: u64,
    pub(crate) rows: u64,
}

impl Before {
    /// Rows of an interval, on average; none where there is no interval.
    fn mean(self) -> Option<f64> {
        // More rows than a double has digits for would be no mean to compare with.
        (self.intervals > 0).then(|| self.rows as f64 / self.intervals as f64)
    }
}

impl Check {
    /// Whether it was found to hold as the rows were written.
    const fn was_guarded(&self) -> bool {
        matches!((self.over, self.violation), (Over::EachRow, Violation::Fail))
    }

    /// What is noted of it.
    fn checked(&self, holds: bool) -> Checked {
        let verdict = match (holds, self.violation) {
            (true, _) => Verdict::Passed,
            (false, Violation::Fail) => Verdict::Failed,
            (false, Violation::Warn) => Verdict::Warned,
        };
        Checked {
            check: self.name.clone(),
            condition: self.condition.clone(),
            verdict,
            value: None,
            violations: None,
            sample: None,
        }
    }
}

impl Checks {
    /// Whether there is anything to find out that was not found as the rows were written.
    pub(super) fn read_rows(&self) -> bool {
        self.list.iter().any(|check| !check.was_guarded())
    }

    /// Those that were found to hold as the rows were written.
    pub(super) fn guarded(&self) -> Vec<Checked> {
        let guarded = |check: &Check| Checked { violations: Some(0), ..check.checked(true) };
        self.list.iter().filter(|check| check.was_guarded()).map(guarded).collect()
    }

    /// Plans them over no rows: what cannot be computed is refused when the job is created.
    ///
    /// # Errors
    /// A condition cannot be planned; the error names its check.
    pub(crate) async fn try_over(&self, planning: &Planning<'_>, schema: &SchemaRef) -> Result<()> {
        for check in self.list.iter().filter(|check| !check.was_guarded()) {
            let alone = Self { list: vec![check.clone()], before: self.before.clone() };
            summary::tried(&alone, &planning.context, schema).await.map_err(|e| tidemill_core::Error {
                message: format!("the check `{}` cannot be planned: {}", check.name, e.message),
                ..e
            })?;
        }
        Ok(())
    }
}
