//! Schemas: names below which tables and views stand. They are entries of the catalogue without a `.` in their names.

use datafusion::catalog::information_schema::INFORMATION_SCHEMA;
use datafusion::logical_expr::{CreateCatalogSchema, DropCatalogSchema};
use tidemill_core::record::{CatalogueEntry, CatalogueKind, Record};
use tidemill_core::{Error, Result};
use tidemill_engine::planner::Plan;
use tidemill_engine::runtime::{CATALOG, SCHEMA};

use super::{Planning, redact, system, temporary};

/// Schemas that nobody makes or drops.
const ENGINES: [&str; 4] = [SCHEMA, system::SCHEMA, temporary::SCHEMA, INFORMATION_SCHEMA];

pub(super) fn create(planning: &Planning<'_>, create: &CreateCatalogSchema) -> Result<Plan> {
    let schema = own(&create.schema_name)?;
    let catalogue = &planning.request.catalogue;
    match (ENGINES.contains(&schema) || catalogue.has_schema(schema), create.if_not_exists) {
        (true, true) => return Ok(nothing()),
        (true, false) => {
            return Err(Error::conflict(format!(
                "the schema `{schema}` exists already: drop it, or use IF NOT EXISTS"
            )));
        }
        (false, _) => {}
    }
    let entry = CatalogueEntry { kind: CatalogueKind::Schema, definition: redact(&planning.request.statement) };
    let record = Record::CatalogueSet { name: schema.to_owned(), entry };
    Ok(Plan::Change { record: Some(Box::new(record)), expected: None, blobs: Vec::new() })
}

pub(super) fn drop(planning: &Planning<'_>, drop: &DropCatalogSchema) -> Result<Plan> {
    let schema = drop.name.schema_name();
    let catalogue = &planning.request.catalogue;
    if ENGINES.contains(&schema) {
        return Err(Error::denied(format!("the schema `{schema}` belongs to the engine")));
    }
    if !catalogue.has_schema(schema) {
        return match drop.if_exists {
            true => Ok(nothing()),
            false => Err(Error::not_found(format!("there is no schema `{schema}` to drop"))),
        };
    }
    if let Some(table) = catalogue.below(schema) {
        return Err(Error::conflict(format!("the schema `{schema}` holds `{table}`: drop what it holds first")));
    }
    let expected = catalogue.entries.get(schema).cloned();
    let record = Record::CatalogueDropped { name: schema.to_owned() };
    Ok(Plan::Change { record: Some(Box::new(record)), expected, blobs: Vec::new() })
}

/// The schema's own name.
fn own(name: &str) -> Result<&str> {
    match name.split_once('.') {
        None => Ok(name),
        Some((CATALOG, schema)) if !schema.contains('.') => Ok(schema),
        Some((catalogue, _)) => {
            Err(Error::not_found(format!("there is no catalogue `{catalogue}`: the only one is {CATALOG}")))
        }
    }
}

const fn nothing() -> Plan {
    Plan::Change { record: None, expected: None, blobs: Vec::new() }
}
