//! An interval that begins or ends inside of files: what these have outside is kept, in other files.
//!
//! ```text
//! Sort by the partition columns and MARK
//!   Union
//!     the statement's rows                                     MARK = 0, new: they must lie inside
//!     rows of the files that lie outside, or have no value     MARK = 1, 2, 3: before it, behind it, nowhere
//! ```
//!
//! A file has rows of one mark, so that those that come of it lie wholly on one side of this interval when it is replaced again.
//!
//! Invariant: a row of such a file is replaced if it lies inside, and is in exactly one of the new files otherwise.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit, when};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use tidemill_core::{Error, Result};
use tidemill_engine::dataset::{MARK, NEW, Within};

use super::statement::planned;
use super::table::DatasetTable;
use super::write::sorted;
use crate::session::{Planning, physical};

/// The files as a plan calls them.
const KEPT: &str = "kept";
/// Where a row lies that is kept, seen from the interval.
const BEFORE: i8 = 1;
const BEHIND: i8 = 2;
const NOWHERE: i8 = 3;

/// What the crossing files have outside of the interval, with its mark; `None` where no file crosses it.
pub(super) async fn rows(
    planning: &Planning<'_>,
    table: &DatasetTable,
    crossing: Option<&BTreeSet<String>>,
    within: &Within,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let (Some(files), Within::Interval { column, from, to }) = (crossing, within) else { return Ok(None) };
    let (name, folder) = (table.name.clone(), table.folder.clone());
    let files = DatasetTable { name, folder, version: table.version.of_files(files) };
    let names: Vec<String> = files.version.schema.fields().iter().map(|field| field.name().clone()).collect();
    if names.iter().any(|name| name == MARK) {
        return Err(Error::invalid(format!(
            "the interval ends inside of files, whose other rows are marked in a column `{MARK}`, and the table has one of this name: \
             rename it"
        )));
    }
    let of = |name: &str| Expr::Column(Column::new(Some(KEPT), name));
    let value = || of(column);
    let before = value().lt(Expr::Literal(from.clone(), None));
    let behind = value().gt_eq(Expr::Literal(to.clone(), None));
    let outside = before.clone().or(behind.clone()).or(value().is_null());
    let mark = planned(when(before, lit(BEFORE)).when(behind, lit(BEHIND)).otherwise(lit(NOWHERE)))?;
    let columns: Vec<Expr> = names.iter().map(|name| of(name)).chain([mark.alias(MARK)]).collect();
    let scan = planned(LogicalPlanBuilder::scan(KEPT, provider_as_source(Arc::new(files)), None))?;
    let plan =
        planned(scan.filter(outside).and_then(|kept| kept.project(columns)).and_then(LogicalPlanBuilder::build))?;
    physical(planning, &plan).await.map(Some)
}

/// The statement's rows, which have the table's columns, and those that are kept, for one sink.
pub(super) async fn beside(
    planning: &Planning<'_>,
    new: LogicalPlan,
    kept: Arc<dyn ExecutionPlan>,
    partition_by: &[String],
) -> Result<Arc<dyn ExecutionPlan>> {
    let columns = new.schema().columns().into_iter().map(Expr::Column);
    let columns: Vec<Expr> = columns.chain([lit(NEW).alias(MARK)]).collect();
    let new = planned(LogicalPlanBuilder::from(new).project(columns).and_then(LogicalPlanBuilder::build))?;
    let both = planned(UnionExec::try_new(vec![physical(planning, &new).await?, kept]))?;
    let by: Vec<String> = partition_by.iter().cloned().chain([MARK.to_owned()]).collect();
    sorted(both, &by)
}
