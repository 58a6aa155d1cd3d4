//! Datasets: published, versioned tables.
//!
//! This is the seam that jobs write through. **Datasets are not built in this branch**: [`write`] refuses.

use std::collections::BTreeMap;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use tidemill_core::{Error, Result};
use tidemill_engine::planner::Plan;

use crate::session::Planning;

/// What a write does to the rows that are there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum WriteMode {
    /// They stay.
    Append,
    /// They go.
    Overwrite,
    /// Those of these partitions go.
    ReplacePartitions(Vec<BTreeMap<String, Option<String>>>),
    /// Those go whose value of a column lies between two others, the first included.
    ReplaceInterval { column: String, from: ScalarValue, to: ScalarValue },
}

/// What a commit says of itself. Exactly once: a version with this application id and this or a higher version is this commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) application: String,
    pub(crate) version: i64,
    pub(crate) info: BTreeMap<String, String>,
}

/// Plans a write of a query's rows into a dataset.
///
/// # Errors
/// Always, in this branch. It is worth another try as soon as another build runs.
pub(crate) async fn write(
    planning: &Planning<'_>,
    table: &str,
    query: LogicalPlan,
    mode: WriteMode,
    publication: Option<Publication>,
) -> Result<Plan> {
    let (columns, run) = (query.schema().fields().len(), &planning.request.run);
    tracing::debug!(%run, table, columns, ?mode, ?publication, "a write is refused");
    Err(Error::unavailable(format!(
        "UnsupportedDatasets: this build cannot write into `{table}`, as datasets are not in it"
    )))
}
