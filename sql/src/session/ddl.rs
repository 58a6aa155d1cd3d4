//! Changes of the catalogue.

use std::sync::Arc;

use datafusion::catalog::{TableProvider, TableProviderFactory};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{TableReference, plan_err};
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::listing_table_factory::ListingTableFactory;
use datafusion::datasource::source_as_provider;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{CreateExternalTable, DdlStatement, LogicalPlan};
use datafusion::prelude::SessionContext;
use tidemill_core::record::{CatalogueEntry, CatalogueKind, Record};
use tidemill_core::{Error, Result};
use tidemill_engine::error::{from_datafusion, to_datafusion};
use tidemill_engine::files::on_disk;
use tidemill_engine::planner::Plan;
use tidemill_engine::runtime::{CATALOG, SCHEMA, register_stores};
use url::Url;

use super::{Planning, endings, locations, options, schemas, system, temporary, text_literal};
use crate::datasets::{check_external, create_external as create_external_dataset, is_dataset};
use crate::{connectors, jobs};

/// The formats that are read.
const FORMATS: &[&str] = &["PARQUET", "CSV", "JSON", "NDJSON", "JSONL", "ARROW"];

pub(super) async fn change(planning: &Planning<'_>, statement: DdlStatement) -> Result<Plan> {
    match statement {
        DdlStatement::CreateExternalTable(command) => create_external(planning, *command).await,
        DdlStatement::CreateView(view) => {
            only_lasting(view.temporary)?;
            let name = qualified(planning, &view.name)?;
            if let Some(done) = check_new(planning, &name, false, view.or_replace)? {
                return Ok(done);
            }
            let definition = planning.request.statement.clone();
            Ok(set(planning, name, CatalogueEntry { kind: CatalogueKind::View, definition }))
        }
        DdlStatement::DropTable(drop) => drop_entry(planning, &drop.name, drop.if_exists, "table").await,
        DdlStatement::CreateCatalogSchema(create) => schemas::create(planning, &create),
        DdlStatement::DropCatalogSchema(drop) => schemas::drop(planning, &drop),
        DdlStatement::DropView(drop) => drop_entry(planning, &drop.name, drop.if_exists, "view").await,
        other => Err(Error::invalid(format!("{} is not supported", other.name()))),
    }
}

/// Refuses what a client's own plan would make for all, though it was to be there for one.
fn only_lasting(temporary: bool) -> Result<()> {
    match temporary {
        true => Err(Error::invalid(
            "a plan makes nothing temporary: register it in the session, or send CREATE TEMPORARY as SQL",
        )),
        false => Ok(()),
    }
}

fn set(planning: &Planning<'_>, name: String, entry: CatalogueEntry) -> Plan {
    let expected = planning.request.catalogue.entries.get(&name).cloned();
    Plan::Change { record: Some(Box::new(Record::CatalogueSet { name, entry })), expected, blobs: Vec::new() }
}

async fn create_external(planning: &Planning<'_>, command: CreateExternalTable) -> Result<Plan> {
    only_lasting(command.temporary)?;
    let name = qualified(planning, &command.name)?;
    if let Some(done) = check_new(planning, &name, command.if_not_exists, command.or_replace)? {
        return Ok(done);
    }
    if is_dataset(&command) {
        let (command, definition) = anywhere(planning, command)?;
        return create_external_dataset(planning, name, &command, definition).await;
    }
    let definition = external_definition(planning, command).await?;
    Ok(set(planning, name, CatalogueEntry { kind: CatalogueKind::ExternalTable, definition }))
}

/// The definition of an external table that can be read: its locations mean the same wherever it is.
pub(super) async fn external_definition(planning: &Planning<'_>, command: CreateExternalTable) -> Result<String> {
    options::refuse_secrets(&command)?;
    if is_dataset(&command) {
        let (command, definition) = anywhere(planning, command)?;
        check_external(planning, &command).await?;
        return Ok(definition);
    }
    if connectors::is_connector(&command) {
        return connectors::definition(&command, planning.settings.directory.as_deref(), &planning.files).await;
    }
    if !FORMATS.contains(&command.file_type.to_uppercase().as_str()) {
        let known = FORMATS.join(", ");
        return Err(Error::invalid(format!(
            "STORED AS {} is not read: use {known}, DELTA for datasets, or POSTGRES, MYSQL or SQLITE for tables of other databases",
            command.file_type
        )));
    }
    let (command, definition) = anywhere(planning, command)?;
    let shown = command.locations.join(", ");
    let table = external_table(&planning.context, &command).await.map_err(|e| located(&e, &shown))?;
    if table.schema().fields().is_empty() {
        return Err(Error::not_found(format!(
            "{shown} holds no {} file to read columns from: of a folder, files with the format's ending are read, others by a \
             pattern, such as LOCATION 'FOLDER/*.csv.gz'",
            command.file_type
        )));
    }
    planning.tables.put(definition.clone(), table);
    Ok(definition)
}

/// The command and its text with locations that mean the same wherever they are read, as far as they may be.
fn anywhere(planning: &Planning<'_>, mut command: CreateExternalTable) -> Result<(CreateExternalTable, String)> {
    options::refuse_secrets(&command)?;
    // What must not be kept was refused: what is kept means the same later, also where a folder is called `token=5`.
    let mut definition = planning.request.statement.clone();
    let is_dataset = is_dataset(&command);
    for location in &mut command.locations {
        let written = text_literal(location);
        let directory = planning.settings.directory.as_deref();
        *location = match is_dataset {
            true => locations::to_write(location, directory)?,
            false => locations::to_read(location, directory, &planning.files)?,
        };
        definition = definition.replacen(&written, &text_literal(location), 1);
    }
    command.locations.iter().try_for_each(|location| planning.files.check(location))?;
    options::with_secret(&command)?;
    Ok((command, definition))
}

fn located(error: &DataFusionError, location: &str) -> Error {
    let error = from_datafusion(error);
    match error.message.contains(location) {
        true => error,
        false => Error { message: format!("{location} cannot be read: {}", error.message), ..error },
    }
}

/// The table of a `CREATE EXTERNAL TABLE`, its columns inferred from the files where they are not given.
pub(super) async fn external_table(
    context: &SessionContext,
    command: &CreateExternalTable,
) -> DataFusionResult<Arc<dyn TableProvider>> {
    if command.unbounded {
        return plan_err!("{} never ends, and its runs would not either: leave out UNBOUNDED", command.name);
    }
    if connectors::is_connector(command) {
        return connectors::table_of(command).map_err(to_datafusion);
    }
    let command = options::with_secret(command).map_err(to_datafusion)?;
    let command = &endings::completed(&command).map_err(to_datafusion)?;
    for location in &command.locations {
        match Url::parse(location) {
            Ok(url) => {
                register_stores(&context.runtime_env(), [&url]).map_err(to_datafusion)?;
                if let Some(path) = on_disk(&url) {
                    check_path(&path.display().to_string()).map_err(to_datafusion)?;
                }
            }
            Err(_) if location.contains(locations::PATTERN) => {}
            Err(_) => check_path(location).map_err(to_datafusion)?,
        }
    }
    ListingTableFactory::new().create(&context.state(), command).await
}

/// Whether the local files or folders that a plan reads still exist: DataFusion would read a missing one as empty. Of a pattern, and a
/// folder is one for files with an ending, it is the folder that all matches are in.
pub(super) fn check_sources(plan: &LogicalPlan) -> Result<()> {
    let looked = plan.apply_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(TreeNodeRecursion::Continue) };
        let Ok(table) = source_as_provider(&scan.source) else { return Ok(TreeNodeRecursion::Continue) };
        let paths = table.downcast_ref::<ListingTable>().map(ListingTable::table_paths).into_iter().flatten();
        for path in paths.filter(|path| path.scheme() == "file") {
            check_path(&format!("/{}", path.prefix())).map_err(to_datafusion)?;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    looked.map(|_| ()).map_err(|e| from_datafusion(&e))
}

/// A local path must exist: a table of nothing would read as empty.
fn check_path(location: &str) -> Result<()> {
    match std::fs::metadata(location) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::not_found(format!("{location} does not exist: check the LOCATION")))
        }
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(Error::denied(format!("{location} may not be read by the server: check its permissions")))
        }
        Err(e) => Err(Error::unavailable(format!("{location} cannot be read: {e}"))),
    }
}

async fn drop_entry(planning: &Planning<'_>, name: &TableReference, if_exists: bool, kind: &str) -> Result<Plan> {
    let qualified = qualified(planning, name)?;
    let entry = planning.request.catalogue.entries.get(&qualified);
    let is_view = entry.is_some_and(|e| e.kind == CatalogueKind::View);
    match entry {
        None if if_exists => Ok(Plan::Change { record: None, expected: None, blobs: Vec::new() }),
        None => Err(Error::not_found(format!("there is no {kind} `{name}` to drop: SHOW TABLES lists what there is"))),
        Some(_) if is_view != (kind == "view") => {
            let actual = if is_view { "view" } else { "table" };
            Err(Error::invalid(format!("`{name}` is a {actual}: use DROP {}", actual.to_uppercase())))
        }
        Some(_) => {
            if let Some(job) = jobs::reader_of(planning, &qualified).await? {
                return Err(Error::conflict(format!("the job {job} reads `{qualified}`: drop the job first")));
            }
            Ok(Plan::Change {
                expected: entry.cloned(),
                record: Some(Box::new(Record::CatalogueDropped { name: qualified })),
                blobs: Vec::new(),
            })
        }
    }
}

/// `schema.table`, in the only catalogue.
pub(crate) fn qualified(planning: &Planning<'_>, name: &TableReference) -> Result<String> {
    let resolved = name.clone().resolve(CATALOG, SCHEMA);
    if &*resolved.catalog != CATALOG {
        return Err(Error::not_found(format!(
            "there is no catalogue `{}`: the only one is {CATALOG}",
            resolved.catalog
        )));
    }
    if matches!(&*resolved.schema, system::SCHEMA | "information_schema") {
        return Err(Error::denied(format!("the schema `{}` belongs to the engine", resolved.schema)));
    }
    if &*resolved.schema == temporary::SCHEMA {
        return Err(Error::invalid(format!(
            "the schema `{}` holds what is temporary, for each session its own: write CREATE TEMPORARY …",
            temporary::SCHEMA
        )));
    }
    if !planning.request.catalogue.has_schema(&resolved.schema) {
        return Err(Error::not_found(format!(
            "there is no schema `{0}`: make it with CREATE SCHEMA {0}, or use {SCHEMA}",
            resolved.schema
        )));
    }
    Ok(format!("{}.{}", resolved.schema, resolved.table))
}

/// Checks that a name is free; `Some` where there is nothing to do.
pub(crate) fn check_new(
    planning: &Planning<'_>,
    name: &str,
    if_not_exists: bool,
    or_replace: bool,
) -> Result<Option<Plan>> {
    if or_replace || !planning.request.catalogue.entries.contains_key(name) {
        return Ok(None);
    }
    if if_not_exists {
        return Ok(Some(Plan::Change { record: None, expected: None, blobs: Vec::new() }));
    }
    let short = name.trim_start_matches(&format!("{SCHEMA}.")).to_owned();
    Err(Error::conflict(format!("`{short}` exists already: drop it, or use OR REPLACE or IF NOT EXISTS")))
}
