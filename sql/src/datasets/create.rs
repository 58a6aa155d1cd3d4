//! `CREATE … STORED AS DELTA`: a table that is there is taken as it is; one that is not is made, as its version 0.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::logical_expr::CreateExternalTable;
use datafusion::physical_plan::empty::EmptyExec;
use futures::TryStreamExt;
use object_store::path::Path;
use tidemill_core::record::{CatalogueEntry, CatalogueKind, Record};
use tidemill_core::{Error, Result};
use tidemill_engine::dataset::{DatasetWrite, Within};
use tidemill_engine::error::object_store_error;
use tidemill_engine::planner::Plan;
use tidemill_engine::secrets::check_location;

use super::as_of::AsOf;
use super::declared::declaration;
use super::entry::now;
use super::folder::Folder;
use super::inputs::input_versions;
use super::pins;
use super::statement::{CreateAs, definition};
use super::table::DatasetTable;
use super::target::{Made, Mode, Named, Target, writer};
use super::types::{new_table, stored};
use super::write::{in_columns, sorted, staged, with_inputs};
use super::{Publication, Version};
use crate::session::{Planning, check_names, check_new, physical, qualified, to_write};

/// The format's name in `STORED AS`.
pub(super) const DELTA: &str = "DELTA";
/// Of new tables: the size to which files grow, and after how many versions there is a checkpoint.
const FILE_BYTES: u64 = 128 << 20;
const CHECKPOINT_INTERVAL: u64 = 100;

/// Whether a table is a dataset.
pub(crate) fn is_dataset(command: &CreateExternalTable) -> bool {
    command.file_type.eq_ignore_ascii_case(DELTA)
}

/// `CREATE EXTERNAL TABLE … STORED AS DELTA`.
pub(crate) async fn create_external(
    planning: &Planning<'_>,
    name: String,
    command: &CreateExternalTable,
    definition: String,
) -> Result<Plan> {
    let (folder, version) = located(planning, command).await?;
    let expected = planning.request.catalogue.entries.get(&name).cloned();
    if let Some(version) = version {
        check_same(command, &version, folder.location())?;
        let entry = CatalogueEntry { kind: CatalogueKind::ExternalTable, definition };
        let record = Some(Box::new(Record::CatalogueSet { name, entry }));
        return Ok(Plan::Change { record, expected, blobs: Vec::new() });
    }
    if command.schema.fields().is_empty() {
        return Err(Error::not_found(format!(
            "there is no Delta table at {}: give the columns of a new one, or check the LOCATION",
            folder.location()
        )));
    }
    let schema = command.schema.as_arrow();
    let named = Named { name, definition, expected };
    let made = make(planning, &folder, schema, &command.table_partition_cols, named).await?;
    let nothing = Arc::new(EmptyExec::new(Arc::clone(&made.write.schema)));
    staged(planning, nothing, made.write, made.target, Vec::new()).await
}

/// The definition of a table that is there, for sessions that have it alone.
pub(crate) async fn check_external(planning: &Planning<'_>, command: &CreateExternalTable) -> Result<()> {
    match located(planning, command).await? {
        (folder, Some(version)) => check_same(command, &version, folder.location()),
        (folder, None) => Err(Error::not_found(format!(
            "there is no Delta table at {}: a temporary name makes none, CREATE EXTERNAL TABLE does",
            folder.location()
        ))),
    }
}

/// The table of a definition, for one statement.
pub(crate) async fn table_of(
    pins: &pins::Pins,
    command: &CreateExternalTable,
    at: &AsOf,
    runtime: &datafusion::execution::runtime_env::RuntimeEnv,
) -> Result<DatasetTable> {
    reopened(pins, None, only_location(command)?, at, runtime).await
}

/// The same, of a folder that is known, with its name in the catalogue, if it has one there.
pub(crate) async fn reopened(
    pins: &pins::Pins,
    name: Option<&str>,
    location: &str,
    at: &AsOf,
    runtime: &datafusion::execution::runtime_env::RuntimeEnv,
) -> Result<DatasetTable> {
    match pins::open(pins, location, at, runtime).await? {
        (folder, Some(version)) => {
            let name = name.unwrap_or_else(|| folder.location()).to_owned();
            Ok(DatasetTable { name, folder, version })
        }
        (folder, None) => Err(Error::not_found(format!("there is no Delta table at {} any more", folder.location()))),
    }
}

/// `CREATE TABLE … STORED AS DELTA … AS`.
pub(super) async fn create_as(planning: &Planning<'_>, create: CreateAs) -> Result<Plan> {
    let name = qualified(planning, &create.name)?;
    if let Some(done) = check_new(planning, &name, create.if_not_exists, create.or_replace)? {
        return Ok(done);
    }
    check_location(&create.location)?;
    let location = to_write(&create.location, planning.settings.directory.as_deref())?;
    planning.files.check(&location)?;
    let runtime = planning.context.runtime_env();
    let (folder, version) = pins::open(&planning.settings.pins, &location, &AsOf::Newest, &runtime).await?;
    if let Some(version) = version {
        return Err(Error::conflict(format!(
            "there is a table at {} already, at version {}: CREATE EXTERNAL TABLE takes it, INSERT OVERWRITE replaces its rows",
            folder.location(),
            version.number
        )));
    }
    let statement = create.query();
    check_names(planning, &statement)?;
    let query = planning.logical_bound(statement).await?;
    let expected = planning.request.catalogue.entries.get(&name).cloned();
    let named = Named { name, definition: definition(&create.name, &location)?, expected };
    let schema = stored(query.schema().as_arrow())?;
    let made = make(planning, &folder, &schema, &create.partition_by, named).await?;
    let plan = in_columns(query, &made.write.schema)?;
    let inputs = input_versions(&plan)?;
    let rows = sorted(physical(planning, &plan).await?, &made.write.partition_by)?;
    let mut target = made.target;
    target.info = with_inputs(target.info, &inputs)?;
    target.operation = "CREATE TABLE AS SELECT".to_owned();
    staged(planning, rows, made.write, target, inputs).await
}

struct Making {
    write: DatasetWrite,
    target: Target,
}

/// What makes a table in a folder where nothing is.
async fn make(
    planning: &Planning<'_>,
    folder: &Folder,
    schema: &Schema,
    partition_by: &[String],
    entry: Named,
) -> Result<Making> {
    check_empty(folder).await?;
    let new = new_table(schema, partition_by, &ulid_as_uuid(), now())?;
    let Publication { application, version, info, checks } = Publication::of_run(&planning.request.run);
    let location = folder.location().to_owned();
    let write = DatasetWrite {
        location: location.clone(),
        schema: new.schema,
        partition_by: partition_by.to_vec(),
        within: Within::Everything,
        keeps: false,
        file_bytes: FILE_BYTES,
        writer: writer(&planning.request.run),
    };
    let target = Target {
        location,
        writer: write.writer.clone(),
        base: None,
        made: Some(Made { protocol: new.protocol, metadata: new.metadata }),
        mode: Mode::Append,
        application,
        version,
        info,
        operation: "CREATE TABLE".to_owned(),
        checkpoint_interval: CHECKPOINT_INTERVAL,
        entry: Some(entry),
        checks,
    };
    Ok(Making { write, target })
}

/// A table's id, in the form that others expect.
fn ulid_as_uuid() -> String {
    let hex = format!("{:032x}", u128::from(ulid::Ulid::new()));
    let parts = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
    parts.map(|(from, to)| hex.get(from..to).unwrap_or_default().to_owned()).join("-")
}

/// Files of others would be deleted by VACUUM: no version names them.
async fn check_empty(folder: &Folder) -> Result<()> {
    let mut listed = folder.store.list(Some(&folder.prefix));
    let is_hidden = |path: &Path| {
        let below: Vec<_> = path.prefix_match(&folder.prefix).into_iter().flatten().collect();
        below.first().is_some_and(|part| part.as_ref().starts_with(['_', '.']))
    };
    while let Some(file) = listed.try_next().await.map_err(|e| object_store_error(&e))? {
        if !is_hidden(&file.location) {
            return Err(Error::conflict(format!(
                "{} holds {} and no Delta table: make the table in a folder of its own",
                folder.location(),
                file.location.filename().unwrap_or_default()
            )));
        }
    }
    Ok(())
}

async fn located(planning: &Planning<'_>, command: &CreateExternalTable) -> Result<(Folder, Option<Version>)> {
    let location = only_location(command)?;
    let unknown = command.options.keys().find(|key| !matches!(key.as_str(), "secret" | "format.secret"));
    if let Some(unknown) = unknown {
        let shown = unknown.strip_prefix("format.").unwrap_or(unknown);
        return Err(Error::invalid(format!("the option `{shown}` is not known of STORED AS DELTA: leave it out")));
    }
    if !command.order_exprs.is_empty()
        || command.constraints.iter().next().is_some()
        || !command.column_defaults.is_empty()
    {
        return Err(Error::invalid(
            "a dataset has no WITH ORDER, no keys and no defaults of columns: leave them out, NOT NULL is kept",
        ));
    }
    let runtime = planning.context.runtime_env();
    pins::open(&planning.settings.pins, location, &AsOf::Newest, &runtime).await
}

fn only_location(command: &CreateExternalTable) -> Result<&str> {
    match command.locations.as_slice() {
        [location] => Ok(location),
        _ => Err(Error::invalid("a dataset has one LOCATION: name its folder")),
    }
}

/// What is declared must be what the table is.
pub(super) fn check_same(command: &CreateExternalTable, version: &Version, location: &str) -> Result<()> {
    let declared = command.schema.as_arrow();
    if !declared.fields().is_empty() {
        let declared = stored(declared)?;
        let shape = |schema: &Schema| -> Vec<(String, arrow::datatypes::DataType)> {
            schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
        };
        if shape(&declared) != shape(&version.schema) {
            let columns = version.schema.fields().iter().map(|field| declaration(field));
            return Err(Error::conflict(format!(
                "the Delta table at {location} has other columns than are declared: leave them out, or declare {}",
                columns.collect::<Vec<_>>().join(", ")
            )));
        }
    }
    if !command.table_partition_cols.is_empty() && command.table_partition_cols != version.partition_by() {
        return Err(Error::conflict(format!(
            "the Delta table at {location} is divided by {}: leave PARTITIONED BY out, or declare that",
            match version.partition_by() {
                [] => "nothing".to_owned(),
                columns => columns.join(", "),
            }
        )));
    }
    Ok(())
}
