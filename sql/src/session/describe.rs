//! What can be said of statements and tables without running anything.
//!
//! Invariant: a table that cannot be read does not keep others from being listed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::information_schema::{INFORMATION_SCHEMA, INFORMATION_SCHEMA_TABLES};
use datafusion::common::TableReference;
use datafusion::datasource::TableType;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use tidemill_core::{Error, Result};
use tidemill_engine::error::from_datafusion;
use tidemill_engine::planner::{Plan, PlanRequest};
use tidemill_engine::runtime::CATALOG;

use super::{SqlPlanner, explain, parameters};
use crate::{datasets, jobs};

/// A statement that does not run yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The result's columns; none where the statement only changes something. Types may depend on values that are not bound.
    pub columns: SchemaRef,
    /// The placeholders, as the columns of a row of values.
    pub parameters: SchemaRef,
}

impl Description {
    /// Of a statement that gives and takes nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self { columns: Arc::new(Schema::empty()), parameters: Arc::new(Schema::empty()) }
    }
}

/// The tables that statements may name.
#[derive(Debug)]
pub struct Listing(SessionState);

/// A table's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTable {
    /// The schema that it belongs to.
    pub schema: String,
    /// Its name in there.
    pub name: String,
    /// One of [`TABLE_KINDS`].
    pub kind: &'static str,
}

/// What [`ListedTable::kind`] may be.
pub const TABLE_KINDS: [&str; 3] = ["TABLE", "VIEW", "LOCAL TEMPORARY"];

impl SqlPlanner {
    /// What a statement gives and takes.
    ///
    /// # Errors
    /// The statement is wrong, or names what does not exist.
    pub async fn describe(&self, request: &PlanRequest) -> Result<Description> {
        if let Some(statement) = jobs::parse(&request.statement)? {
            let request = PlanRequest { settings: BTreeMap::new(), ..request.clone() };
            let meaning = jobs::meaning(&self.planning(&request)?, statement).await?;
            let columns = match meaning {
                Plan::Rows(rows) => rows.schema(),
                Plan::Command(command) => tidemill_coordinator::answer_columns(&command),
                _ => return Ok(Description::nothing()),
            };
            return Ok(Description { columns, ..Description::nothing() });
        }
        let planning = self.planning(request)?;
        if let Some(statement) = datasets::parse(&request.statement)? {
            let columns = datasets::answer_columns(&statement);
            return Ok(Description { columns, ..Description::nothing() });
        }
        let plan = planning.logical(planning.statement()?).await?;
        let parameters = parameters::schema(&parameters::expected(&plan)?);
        let plan = match request.parameters.is_empty() {
            true => plan,
            false => parameters::bind(plan, &request.parameters)?,
        };
        let columns = match &plan {
            LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::Copy(_) | LogicalPlan::Statement(_) => {
                Arc::new(Schema::empty())
            }
            LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => explain::column(),
            query => Arc::new(query.schema().as_arrow().clone()),
        };
        Ok(Description { columns, parameters })
    }

    /// The tables that a client's statements may name.
    ///
    /// # Errors
    /// The client's settings do not fit.
    pub fn listing(&self, request: &PlanRequest) -> Result<Listing> {
        Ok(Listing(self.planning(request)?.context.state()))
    }
}

impl Listing {
    /// The schemas of the only catalogue.
    #[must_use]
    pub fn schemas(&self) -> Vec<String> {
        let catalog = self.0.catalog_list().catalog(CATALOG);
        let mut schemas = catalog.map(|catalog| catalog.schema_names()).unwrap_or_default();
        schemas.push(INFORMATION_SCHEMA.to_owned());
        schemas.sort();
        schemas
    }

    /// All tables.
    ///
    /// # Errors
    /// A schema cannot be listed.
    pub async fn tables(&self) -> Result<Vec<ListedTable>> {
        let mut tables = Vec::new();
        let Some(catalog) = self.0.catalog_list().catalog(CATALOG) else { return Ok(tables) };
        for schema in catalog.schema_names() {
            let Some(provider) = catalog.schema(&schema) else { continue };
            for name in provider.table_names() {
                let kind = match provider.table_type(&name).await.map_err(|e| from_datafusion(&e))? {
                    Some(TableType::View) => "VIEW",
                    Some(TableType::Temporary) => "LOCAL TEMPORARY",
                    Some(TableType::Base) | None => "TABLE",
                };
                tables.push(ListedTable { schema: schema.clone(), name, kind });
            }
        }
        let of_information = INFORMATION_SCHEMA_TABLES.iter().map(|name| (*name).to_owned());
        tables.extend(of_information.map(|name| ListedTable {
            schema: INFORMATION_SCHEMA.to_owned(),
            name,
            kind: "VIEW",
        }));
        Ok(tables)
    }

    /// The columns of a table.
    ///
    /// # Errors
    /// There is no such table, or it cannot be read.
    pub async fn columns(&self, table: &ListedTable) -> Result<SchemaRef> {
        let name = TableReference::full(CATALOG, table.schema.as_str(), table.name.as_str());
        let provider = self.0.schema_for_ref(name.clone()).map_err(|e| from_datafusion(&e))?;
        let found: Option<Arc<dyn TableProvider>> =
            provider.table(&table.name).await.map_err(|e| from_datafusion(&e))?;
        found.map(|table| table.schema()).ok_or_else(|| Error::not_found(format!("there is no table `{name}`")))
    }
}
