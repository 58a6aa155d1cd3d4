//! Datasets: tables in Delta Lake's format, versioned, each version complete or absent. See `docs/datasets.md`.
//!
//! ```text
//! statement ──► pins: one version of each table        table ──► scans of its files, fewer by `pruning`
//!           └─► write: files by tasks ──► target: what becomes of them ──► commit: one entry of the log, once
//! ```
//!
//! Invariant: a version is read whole or not at all; a run makes at most one.

mod around;
mod as_of;
mod checkpoint;
mod checks;
mod cleanup;
mod commit;
mod conflicts;
mod create;
mod declared;
mod entry;
mod exact;
mod folder;
mod history;
mod inputs;
mod kept;
mod local;
mod log;
mod optimize;
mod pins;
mod profile;
mod pruning;
mod replaced;
mod restore;
mod statement;
mod table;
mod target;
mod times;
mod types;
#[cfg(test)]
mod unanswered;
mod upkeep;
mod version;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{ScalarValue, TableReference};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{DmlStatement, LogicalPlan, WriteOp};
use tidemill_core::{Error, Result, Role, RunId};
use tidemill_engine::planner::Plan;

pub(crate) use around::check_outside;
pub(crate) use as_of::{AsOf, named, table_name};
pub(crate) use checks::{Before, Check, Checks, Condition, Over, Violation, read};
pub(crate) use create::{check_external, create_external, is_dataset, reopened, table_of};
pub(crate) use declared::{planned_in, redeclared};
pub(crate) use inputs::input_versions;
pub(crate) use pins::{Datasets, Pins};
pub(crate) use statement::{DatasetStatement, parse};
pub(crate) use table::DatasetTable;
pub(crate) use target::Target;
pub(crate) use version::Version;

use crate::session::Planning;
use replaced::Replaced;

/// How rows that are written meet those that are there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum WriteMode {
    /// They are added.
    Append,
    /// They are added, and must lie from `from` to before `to`.
    AppendInterval {
        /// By this column.
        column: String,
        /// Its least value.
        from: ScalarValue,
        /// The first that is beyond.
        to: ScalarValue,
    },
    /// They take the place of all.
    Overwrite,
    /// They take the place of those of these partitions, and must be of them.
    ReplacePartitions(Vec<BTreeMap<String, Option<String>>>),
    /// They take the place of those from `from` to before `to`, and must be there.
    ReplaceInterval {
        /// By this column.
        column: String,
        /// Its least value.
        from: ScalarValue,
        /// The first that is beyond.
        to: ScalarValue,
    },
}

/// What a commit says of itself. Exactly once: a version with this application id and this or a higher version is this commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publication {
    /// Who commits, as the log knows it.
    pub(crate) application: String,
    /// Rises when the same is to be done again.
    pub(crate) version: i64,
    /// For those who read the history.
    pub(crate) info: BTreeMap<String, String>,
    /// What must hold of the rows, or they are not published.
    pub(crate) checks: Checks,
}

impl Publication {
    /// That of a statement.
    pub(crate) fn of_run(run: &RunId) -> Self {
        Self { application: format!("tidemill/{run}"), version: 1, info: BTreeMap::new(), checks: Checks::default() }
    }
}

/// The plan of writing a query's rows into a dataset of the catalogue, `schema.table`.
pub(crate) async fn write(
    planning: &Planning<'_>,
    table: &str,
    query: LogicalPlan,
    mode: WriteMode,
    publication: Option<Publication>,
) -> Result<Plan> {
    let name = match table.split_once('.') {
        Some((schema, table)) => TableReference::partial(schema, table),
        None => TableReference::bare(table),
    };
    let dataset = write::dataset(planning, &name, "a job's result").await?;
    write::write_to(planning, &dataset, query, mode, publication).await
}

/// Carries out a statement that only datasets know.
pub(crate) async fn carry_out(planning: &Planning<'_>, statement: DatasetStatement) -> Result<Plan> {
    let by = &planning.request.by;
    match statement {
        DatasetStatement::History { table, limit } => history::history(planning, &table, limit).await,
        DatasetStatement::CreateAs(create) => {
            by.require(Role::Write, "CREATE TABLE")?;
            create::create_as(planning, *create).await
        }
        DatasetStatement::Replace { insert, replaced } => {
            by.require(Role::Write, "INSERT")?;
            crate::session::check_names(planning, &insert)?;
            match planning.logical_bound(*insert).await? {
                LogicalPlan::Dml(dml) => insert_rows(planning, dml, Some(replaced)).await,
                other => Err(Error::internal(format!("an INSERT is planned as {}", other.display()))),
            }
        }
        DatasetStatement::Restore { table, at } => {
            by.require(Role::Write, "RESTORE")?;
            restore::restore(planning, &table, at).await
        }
        DatasetStatement::Optimize { table } => {
            by.require(Role::Write, "OPTIMIZE")?;
            optimize::optimize(planning, &table).await
        }
        DatasetStatement::Vacuum { table, hours, dry_run } => {
            by.require(Role::Write, "VACUUM")?;
            upkeep::vacuum(planning, &table, hours, dry_run).await
        }
    }
}

/// `INSERT`: into datasets only.
pub(crate) async fn insert(planning: &Planning<'_>, dml: DmlStatement) -> Result<Plan> {
    insert_rows(planning, dml, None).await
}

async fn insert_rows(planning: &Planning<'_>, dml: DmlStatement, replaced: Option<Replaced>) -> Result<Plan> {
    let mode = match (&dml.op, replaced) {
        (WriteOp::Insert(InsertOp::Append), None) => WriteMode::Append,
        (WriteOp::Insert(InsertOp::Append), Some(Replaced::Values(values))) => {
            WriteMode::ReplacePartitions(vec![values.into_iter().collect()])
        }
        (WriteOp::Insert(InsertOp::Append), Some(Replaced::Interval { column, from, to })) => {
            let (from, to) = (ScalarValue::Utf8(Some(from)), ScalarValue::Utf8(Some(to)));
            WriteMode::ReplaceInterval { column, from, to }
        }
        (WriteOp::Insert(InsertOp::Overwrite), None) => WriteMode::Overwrite,
        (other, _) => {
            return Err(Error::invalid(format!(
                "{} is not supported: datasets take INSERT INTO and INSERT OVERWRITE",
                other.name().to_uppercase()
            )));
        }
    };
    if AsOf::of_name(dml.table_name.table())?.1 != AsOf::Newest {
        return Err(Error::invalid("rows are written into the newest version: name the table without one"));
    }
    let dataset = write::dataset(planning, &dml.table_name, "INSERT").await?;
    write::write_to(planning, &dataset, Arc::unwrap_or_clone(dml.input), mode, None).await
}

/// The columns of what a statement of ours answers.
pub(crate) fn answer_columns(statement: &DatasetStatement) -> Arc<Schema> {
    let numbers = |names: &[&str]| {
        let field = |name: &&str| Field::new(*name, DataType::Int64, false);
        Arc::new(Schema::new(names.iter().map(field).collect::<Vec<_>>()))
    };
    match statement {
        DatasetStatement::History { .. } => history::columns(),
        DatasetStatement::Restore { .. } => numbers(&restore::RESTORED),
        DatasetStatement::Vacuum { .. } => numbers(&upkeep::VACUUMED),
        DatasetStatement::CreateAs(_) | DatasetStatement::Replace { .. } | DatasetStatement::Optimize { .. } => {
            Arc::new(Schema::empty())
        }
    }
}
