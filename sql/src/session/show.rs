//! `SHOW CREATE TABLE`: the statement that made a table or a view, as the session or the catalogue has it; of a dataset with the
//! columns that it has now.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::sql::parser::Statement;
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::{ShowCreateObject, Statement as Sql};
use tidemill_core::record::{CatalogueEntry, CatalogueKind};
use tidemill_core::{Error, Result};
use tidemill_engine::error::from_datafusion;
use tidemill_engine::planner::Plan;
use tidemill_engine::runtime::{CATALOG, SCHEMA};

use super::create_table::create_table;
use super::{Planning, ddl, explain, ingest, memory_table, temporary};
use crate::datasets::redeclared;

/// The answer, if that is what the statement asks for.
pub(super) async fn create(planning: &Planning<'_>, statement: &Statement) -> Result<Option<Plan>> {
    let Statement::Statement(sql) = statement else { return Ok(None) };
    let Sql::ShowCreate { obj_type, obj_name } = sql.as_ref() else { return Ok(None) };
    if !matches!(obj_type, ShowCreateObject::Table | ShowCreateObject::View) {
        return Err(Error::invalid(format!("SHOW CREATE {obj_type} is not known: use SHOW CREATE TABLE or VIEW")));
    }
    let name = object_name_to_table_reference(obj_name.clone(), true).map_err(|e| from_datafusion(&e))?;
    if let Some((table, known)) = planning.settings.temporaries.named(&name) {
        let definition = match known.rows().map(|run| (run, ingest::parse(&known.definition))) {
            Some((run, Ok(Some(_)))) => {
                let name = TableReference::bare(table);
                of_rows("TEMPORARY TABLE", &name, temporary::rows_of(planning.request, run))?
            }
            _ => known.definition.clone(),
        };
        return answer(temporary::SCHEMA, table, &definition).map(Some);
    }
    let qualified = ddl::qualified(planning, &name)?;
    let entry = planning.request.catalogue.entries.get(&qualified).ok_or_else(|| {
        Error::not_found(format!("there is no table or view `{name}`: SHOW TABLES lists what there is"))
    })?;
    let (schema, table) = qualified.split_once('.').unwrap_or_default();
    answer(schema, table, &definition(planning, schema, table, entry).await?).map(Some)
}

fn answer(schema: &str, table: &str, definition: &str) -> Result<Plan> {
    let columns =
        [("table_catalog", CATALOG), ("table_schema", schema), ("table_name", table), ("definition", definition)];
    let columns = columns.map(|(name, value)| (name, Arc::new(StringArray::from(vec![value])) as ArrayRef));
    let batch = RecordBatch::try_from_iter(columns).map_err(|e| from_datafusion(&DataFusionError::from(e)))?;
    explain::answer(batch)
}

/// A statement that can be typed.
async fn definition(planning: &Planning<'_>, schema: &str, table: &str, entry: &CatalogueEntry) -> Result<String> {
    if entry.kind == CatalogueKind::ExternalTable {
        return Ok(redeclared(planning, TableReference::partial(schema, table), &entry.definition).await);
    }
    let CatalogueKind::Table { rows } = &entry.kind else { return Ok(entry.definition.clone()) };
    if ingest::parse(&entry.definition)?.is_none() {
        return Ok(entry.definition.clone());
    }
    let name = match schema {
        SCHEMA => TableReference::bare(table),
        schema => TableReference::partial(schema, table),
    };
    of_rows("TABLE", &name, planning.request.blobs.read(rows))
}

fn of_rows(what: &str, name: &TableReference, rows: Option<Bytes>) -> Result<String> {
    let gone =
        || Error::not_found(format!("the rows of `{name}` are gone, and its columns with them: create it again"));
    let (columns, _) = memory_table::read(&rows.ok_or_else(gone)?).map_err(|e| from_datafusion(&e))?;
    Ok(create_table(what, &name.to_quoted_string(), &columns))
}
