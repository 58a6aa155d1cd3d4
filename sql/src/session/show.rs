//! `SHOW CREATE TABLE`: the statement that made a table or a view, as the catalogue has it.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::sql::parser::Statement;
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::{ShowCreateObject, Statement as Sql};
use tidemill_core::{Error, Result};
use tidemill_engine::error::from_datafusion;
use tidemill_engine::planner::Plan;
use tidemill_engine::runtime::CATALOG;

use super::{Planning, ddl, explain};

/// The answer, if that is what the statement asks for.
pub(super) fn create(planning: &Planning<'_>, statement: &Statement) -> Result<Option<Plan>> {
    let Statement::Statement(sql) = statement else { return Ok(None) };
    let Sql::ShowCreate { obj_type, obj_name } = sql.as_ref() else { return Ok(None) };
    if !matches!(obj_type, ShowCreateObject::Table | ShowCreateObject::View) {
        return Err(Error::invalid(format!("SHOW CREATE {obj_type} is not known: use SHOW CREATE TABLE or VIEW")));
    }
    let name = object_name_to_table_reference(obj_name.clone(), true).map_err(|e| from_datafusion(&e))?;
    let qualified = ddl::qualified(planning, &name)?;
    let entry = planning.request.catalogue.entries.get(&qualified).ok_or_else(|| {
        Error::not_found(format!("there is no table or view `{name}`: SHOW TABLES lists what there is"))
    })?;
    let (schema, table) = qualified.split_once('.').unwrap_or_default();
    let columns = [
        ("table_catalog", CATALOG),
        ("table_schema", schema),
        ("table_name", table),
        ("definition", entry.definition.as_str()),
    ];
    let columns = columns.map(|(name, value)| (name, Arc::new(StringArray::from(vec![value])) as ArrayRef));
    let batch = RecordBatch::try_from_iter(columns).map_err(|e| from_datafusion(&DataFusionError::from(e)))?;
    explain::answer(batch).map(Some)
}
