//! Names as a session's statements mean them: its own come first, then the cluster's.
//!
//! Unqualified names belong to the schema `temporary` where a session has any, and that schema passes on what it has not.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, plan_err};
use datafusion::datasource::{TableType, ViewTable};
use datafusion::error::Result;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::prelude::SessionConfig;
use tidemill_core::Role;
use tidemill_core::record::{CatalogueEntry, CatalogueKind};
use tidemill_engine::error::to_datafusion;

use super::{Kind, SCHEMA, Temporaries, Temporary, in_datafusions_order, plain, rows_of};
use crate::datasets::AsOf;
use crate::session::catalogue::Names;
use crate::session::{memory_table, statements};

/// Lets unqualified names mean the session's own first.
pub(in crate::session) fn search_first(config: &mut SessionConfig, temporaries: &Temporaries) {
    if !temporaries.is_empty() {
        SCHEMA.clone_into(&mut config.options_mut().catalog.default_schema);
    }
}

/// The schema of the session's own names, if it has any; `shared` is the one behind it.
pub(in crate::session) fn schema(
    names: &Arc<Names>,
    shared: Option<Arc<dyn SchemaProvider>>,
) -> Option<Arc<dyn SchemaProvider>> {
    let has_own = !names.settings.temporaries.is_empty();
    has_own.then(|| Arc::new(TemporarySchema { names: Arc::clone(names), shared }) as _)
}

#[derive(Debug)]
struct TemporarySchema {
    names: Arc<Names>,
    shared: Option<Arc<dyn SchemaProvider>>,
}

impl TemporarySchema {
    fn own(&self) -> &Temporaries {
        &self.names.settings.temporaries
    }
}

#[async_trait]
impl SchemaProvider for TemporarySchema {
    fn table_names(&self) -> Vec<String> {
        self.own().names().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if let Some(temporary) = self.own().get(name) {
            return self.names.temporary(name, temporary).await.map(Some);
        }
        if self.own().is_gone(name) {
            return plan_err!("the temporary `{name}`, which a temporary view reads, was dropped: drop the view, too");
        }
        match &self.shared {
            Some(shared) => shared.table(name).await,
            None => Ok(None),
        }
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>, DataFusionError> {
        match (self.own().get(name).map(|temporary| &temporary.kind), &self.shared) {
            (Some(Kind::View { .. }), _) => Ok(Some(TableType::View)),
            (Some(Kind::ExternalTable | Kind::Table { .. }), _) => Ok(Some(TableType::Temporary)),
            (None, Some(shared)) => shared.table_type(name).await,
            (None, None) => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.own().get(name).is_some() || self.shared.as_ref().is_some_and(|shared| shared.table_exist(name))
    }
}

impl Names {
    async fn temporary(&self, name: &str, temporary: &Temporary) -> Result<Arc<dyn TableProvider>> {
        match &temporary.kind {
            Kind::View { uses } => {
                let context = self.deeper(self.settings.temporaries.only(uses))?;
                let statement = statements::parse_one(&temporary.definition).map_err(to_datafusion)?;
                let statement = plain(statement, &Temporaries::default());
                let LogicalPlan::Ddl(DdlStatement::CreateView(view)) =
                    context.state().statement_to_plan(statement).await?
                else {
                    return plan_err!("the definition of a temporary view is no CREATE VIEW");
                };
                Ok(Arc::new(ViewTable::new(view.input.as_ref().clone(), view.definition)))
            }
            Kind::ExternalTable => {
                // The definition came with the statement: it may be one that nobody was let create.
                self.request.by.require(Role::Write, "a temporary external table").map_err(to_datafusion)?;
                let definition = in_datafusions_order(&temporary.definition).into_owned();
                let entry = CatalogueEntry { kind: CatalogueKind::ExternalTable, definition };
                self.external(None, &entry, &AsOf::Newest).await
            }
            Kind::Table { run } => {
                // Not among the tables that are kept made: these outlive sessions.
                match rows_of(&self.request, run) {
                    Some(rows) => memory_table::decode(&rows),
                    None => plan_err!(
                        "the rows of the temporary table `{name}` are gone: nobody heard of its session for too long, or \
                         the server ended and has no --state; drop it, and create it again"
                    ),
                }
            }
        }
    }
}
