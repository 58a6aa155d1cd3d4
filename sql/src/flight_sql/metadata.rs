//! What there is: catalogues, schemas, tables, keys, types, and what the server can do.
//!
//! Invariant: a table that cannot be read is listed without columns, and keeps no other from being listed.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::GetTablesBuilder;
use arrow_flight::sql::{Command, CommandGetDbSchemas, CommandGetTables};
use tidemill_coordinator::StatementRequest;
use tidemill_core::{Error, Result};
use tidemill_engine::planner::PlanRequest;
use tidemill_engine::runtime::CATALOG;

use super::identity::Caller;
use super::{FlightSql, info, views};
use crate::session::{ListedTable, Listing, TABLE_KINDS};

impl FlightSql {
    /// The columns of the answer to a question; `None` if it is none about the server.
    pub(super) fn columns_of_answer(command: &Command) -> Result<Option<SchemaRef>> {
        Ok(Some(match command {
            Command::CommandGetCatalogs(command) => command.into_builder().schema(),
            Command::CommandGetDbSchemas(command) => command.clone().into_builder().schema(),
            Command::CommandGetTables(command) => command.clone().into_builder().schema(),
            Command::CommandGetTableTypes(command) => command.into_builder().schema(),
            Command::CommandGetSqlInfo(_) => info::of_server()?.schema(),
            Command::CommandGetXdbcTypeInfo(_) => info::of_types()?.schema(),
            Command::CommandGetPrimaryKeys(_) => primary_keys(),
            Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => foreign_keys(),
            _ => return Ok(None),
        }))
    }

    /// The answer itself.
    pub(super) async fn answer(&self, caller: &Caller, command: Command) -> Result<Option<RecordBatch>> {
        let answer = match command {
            Command::CommandGetCatalogs(command) => {
                let mut catalogs = command.into_builder();
                catalogs.append(CATALOG);
                catalogs.build()
            }
            Command::CommandGetDbSchemas(command) => return self.schemas(caller, command).await.map(Some),
            Command::CommandGetTables(command) => return self.tables(caller, command).await.map(Some),
            Command::CommandGetTableTypes(command) => {
                let mut types = command.into_builder();
                TABLE_KINDS.iter().for_each(|kind| types.append(kind));
                types.build()
            }
            Command::CommandGetSqlInfo(command) => command.into_builder(&info::of_server()?).build(),
            Command::CommandGetXdbcTypeInfo(command) => command.into_builder(&info::of_types()?).build(),
            // There are no keys.
            command => return Ok(Self::columns_of_answer(&command)?.map(RecordBatch::new_empty)),
        };
        answer.map(Some).map_err(|e| unbuilt(&e))
    }

    async fn schemas(&self, caller: &Caller, command: CommandGetDbSchemas) -> Result<RecordBatch> {
        let (request, planner) = (self.question(caller).await?, Arc::clone(&self.0.planner));
        let mut schemas = command.into_builder();
        planner.listing(&request)?.schemas().iter().for_each(|schema| schemas.append(CATALOG, schema));
        schemas.build().map_err(|e| unbuilt(&e))
    }

    async fn tables(&self, caller: &Caller, command: CommandGetTables) -> Result<RecordBatch> {
        let keeps_views = self.0.sessions.settings(caller)?.keeps_views();
        let (request, planner) = (self.question(caller).await?, Arc::clone(&self.0.planner));
        let list = async move {
            let listing = planner.listing(&request)?;
            let mut wanted = listing.tables().await?;
            let names = matching(&command, &wanted).map_err(|e| unbuilt(&e))?;
            wanted.retain(|table| names.contains(&(table.schema.clone(), table.name.clone())));
            let mut tables = command.into_builder();
            for table in wanted {
                let columns = match tables.include_schema() {
                    true => columns(&listing, &table).await,
                    false => Arc::new(Schema::empty()),
                };
                let columns = if keeps_views { columns } else { views::expanded(&columns) };
                let added = tables.append(CATALOG, &table.schema, &table.name, table.kind, &columns);
                added.map_err(|e| unbuilt(&e))?;
            }
            tables.build().map_err(|e| unbuilt(&e))
        };
        self.on_cpu(list).await
    }

    /// What the planner is asked about the catalogue.
    async fn question(&self, caller: &Caller) -> Result<PlanRequest> {
        let settings = self.0.sessions.settings(caller)?.into_entries();
        self.0.coordinator.plan_request(StatementRequest { settings, ..StatementRequest::default() }).await
    }
}

async fn columns(listing: &Listing, table: &ListedTable) -> SchemaRef {
    listing.columns(table).await.unwrap_or_else(|error| {
        tracing::warn!(schema = table.schema, table = table.name, %error, "a table is listed without its columns");
        Arc::new(Schema::empty())
    })
}

/// The names that are asked for, before anybody reads the tables' columns.
fn matching(command: &CommandGetTables, tables: &[ListedTable]) -> Result<BTreeSet<(String, String)>, FlightError> {
    let command = CommandGetTables { include_schema: false, ..command.clone() };
    let mut names: GetTablesBuilder = command.into_builder();
    for table in tables {
        names.append(CATALOG, &table.schema, &table.name, table.kind, &Schema::empty())?;
    }
    let names = names.build()?;
    let (schemas, tables) = (names.column(1).as_string::<i32>(), names.column(2).as_string::<i32>());
    let name = |name: Option<&str>| name.unwrap_or_default().to_owned();
    Ok(schemas.iter().zip(tables).map(|(schema, table)| (name(schema), name(table))).collect())
}

fn unbuilt(error: &FlightError) -> Error {
    Error::internal(format!("an answer about the server cannot be made: {error}"))
}

/// The columns of primary keys, as the protocol has them.
fn primary_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("catalog_name"),
        text("db_schema_name"),
        text("table_name").with_nullable(false),
        text("column_name").with_nullable(false),
        text("key_name"),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

/// The columns of foreign keys.
fn foreign_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("pk_catalog_name"),
        text("pk_db_schema_name"),
        text("pk_table_name").with_nullable(false),
        text("pk_column_name").with_nullable(false),
        text("fk_catalog_name"),
        text("fk_db_schema_name"),
        text("fk_table_name").with_nullable(false),
        text("fk_column_name").with_nullable(false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name"),
        text("pk_key_name"),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}
