//! Catalogue entries as DataFusion's tables: made when a statement names them, kept while their definition stays.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, SchemaProvider, TableProvider,
};
use datafusion::common::{DataFusionError, plan_err};
use datafusion::datasource::{TableType, ViewTable};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::prelude::SessionContext;
use tidemill_core::record::{CatalogueEntry, CatalogueKind};
use tidemill_core::{Error, Result};
use tidemill_engine::error::{from_datafusion, to_datafusion};
use tidemill_engine::functions::Functions;
use tidemill_engine::plan::WindowFilters;
use tidemill_engine::planner::PlanRequest;
use tidemill_engine::runtime::{CATALOG, SCHEMA};

use super::settings::RunSettings;
use super::temporary::Temporaries;
use super::{ddl, memory_table, statements, system, temporary};
use crate::datasets::{AsOf, DatasetTable, is_dataset, reopened, table_name, table_of};

/// How deep views may name views.
const MAX_VIEW_DEPTH: usize = 64;

/// Tables by definition: schemas were inferred once, when the table was created.
#[derive(Debug, Default)]
pub(crate) struct TableCache(Mutex<HashMap<String, Arc<dyn TableProvider>>>);

/// Definitions kept; beyond this all are made anew.
const MAX_CACHED: usize = 10_000;

impl TableCache {
    fn get(&self, key: &str) -> Option<Arc<dyn TableProvider>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(super) fn put(&self, key: String, table: Arc<dyn TableProvider>) {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.len() >= MAX_CACHED {
            cached.clear();
        }
        cached.insert(key, table);
    }
}

/// A session in which the catalogue's names mean what they say.
pub(super) fn session(
    request: &PlanRequest,
    settings: &RunSettings,
    runtime: &Arc<RuntimeEnv>,
    cache: &Arc<TableCache>,
    functions: &Functions,
) -> Result<SessionContext> {
    session_at(request, settings, runtime, cache, functions, 0)
}

fn session_at(
    request: &PlanRequest,
    settings: &RunSettings,
    runtime: &Arc<RuntimeEnv>,
    cache: &Arc<TableCache>,
    functions: &Functions,
    depth: usize,
) -> Result<SessionContext> {
    let names = Arc::new(Names {
        request: request.clone(),
        settings: settings.clone(),
        runtime: Arc::clone(runtime),
        cache: Arc::clone(cache),
        functions: functions.clone(),
        depth,
    });
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog(CATALOG.to_owned(), Arc::new(Catalog(names)));
    let mut config = settings.config.clone();
    temporary::search_first(&mut config, &settings.temporaries);
    // Places in a view's definition are none in the statement that names the view.
    config.options_mut().sql_parser.collect_spans = depth == 0;
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(Arc::clone(runtime))
        .with_catalog_list(Arc::new(catalogs))
        .with_default_features()
        .with_analyzer_rule(Arc::new(WindowFilters))
        .build();
    functions.register(&mut state)?;
    Ok(SessionContext::new_with_state(state))
}

/// What names are resolved with.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) request: PlanRequest,
    pub(super) settings: RunSettings,
    runtime: Arc<RuntimeEnv>,
    cache: Arc<TableCache>,
    functions: Functions,
    depth: usize,
}

impl Names {
    /// The table of an entry, `schema.table`.
    async fn table(&self, name: &str, entry: &CatalogueEntry, at: &AsOf) -> DataFusionResult<Arc<dyn TableProvider>> {
        match &entry.kind {
            CatalogueKind::ExternalTable => self.external(Some(name), entry, at).await,
            _ if *at != AsOf::Newest => {
                plan_err!("it has no versions: only datasets have, CREATE EXTERNAL TABLE … STORED AS DELTA")
            }
            CatalogueKind::View => self.view(entry).await.map_err(|e| in_view(name, &e)),
            CatalogueKind::Schema => plan_err!("a schema is no table"),
            CatalogueKind::Table { rows } => {
                if let Some(table) = self.cache.get(&rows.0) {
                    return Ok(table);
                }
                let Some(bytes) = self.request.blobs.read(rows) else {
                    return plan_err!("the rows of this table are gone: create it again");
                };
                let table = memory_table::decode(&bytes)?;
                self.cache.put(rows.0.clone(), Arc::clone(&table));
                Ok(table)
            }
        }
    }

    /// The table of a definition, and its name in the catalogue, if it is there.
    pub(super) async fn external(
        &self,
        name: Option<&str>,
        entry: &CatalogueEntry,
        at: &AsOf,
    ) -> DataFusionResult<Arc<dyn TableProvider>> {
        let table = match self.cache.get(&entry.definition) {
            Some(table) => table,
            None => self.made(entry, at).await?,
        };
        if let Some(dataset) = table.downcast_ref::<DatasetTable>() {
            // The newest version when it was first named is not that of this statement.
            let opened = reopened(&self.settings.pins, name, dataset.location(), at, &self.runtime).await;
            return Ok(Arc::new(opened.map_err(to_datafusion)?));
        }
        match at {
            AsOf::Newest => Ok(table),
            _ => plan_err!("these files have no versions: only datasets have, CREATE EXTERNAL TABLE … STORED AS DELTA"),
        }
    }

    /// The table of a definition, which is kept. Of a dataset no other version is looked at: the newest may be none that is read here.
    async fn made(&self, entry: &CatalogueEntry, at: &AsOf) -> DataFusionResult<Arc<dyn TableProvider>> {
        // It names no other table; of its own name, planning would ask what it means.
        let nothing = PlanRequest { catalogue: Arc::default(), ..self.request.clone() };
        let settings = self.settings.seeing(Temporaries::default());
        let context = session_at(&nothing, &settings, &self.runtime, &self.cache, &self.functions, self.depth);
        let context = context.map_err(to_datafusion)?;
        let plan = context.state().create_logical_plan(&entry.definition).await?;
        let LogicalPlan::Ddl(DdlStatement::CreateExternalTable(command)) = plan else {
            return plan_err!("the definition of an external table is no CREATE EXTERNAL TABLE");
        };
        let table: Arc<dyn TableProvider> = match is_dataset(&command) {
            true => Arc::new(table_of(&self.settings.pins, &command, at, &self.runtime).await.map_err(to_datafusion)?),
            false => ddl::external_table(&context, &command).await?,
        };
        self.cache.put(entry.definition.clone(), Arc::clone(&table));
        Ok(table)
    }

    async fn view(&self, entry: &CatalogueEntry) -> DataFusionResult<Arc<dyn TableProvider>> {
        // A view that lasts means the same to all.
        let context = self.deeper(Temporaries::default())?;
        let statement = statements::parse_one(&entry.definition).map_err(to_datafusion)?;
        let plan = context.state().statement_to_plan(statement).await?;
        let LogicalPlan::Ddl(DdlStatement::CreateView(view)) = plan else {
            return plan_err!("the definition of a view is no CREATE VIEW");
        };
        Ok(Arc::new(ViewTable::new(view.input.as_ref().clone(), view.definition)))
    }

    pub(super) fn deeper(&self, temporaries: Temporaries) -> DataFusionResult<SessionContext> {
        if self.depth >= MAX_VIEW_DEPTH {
            return plan_err!("views are nested more than {MAX_VIEW_DEPTH} deep: does one name itself?");
        }
        let depth = self.depth + 1;
        let settings = self.settings.seeing(temporaries);
        session_at(&self.request, &settings, &self.runtime, &self.cache, &self.functions, depth).map_err(to_datafusion)
    }
}

/// What is wrong with a view's own words: tables that it reads changed since, and the statement names only the view. Of nested ones it
/// is the innermost.
fn in_view(name: &str, error: &DataFusionError) -> DataFusionError {
    let error = from_datafusion(error);
    let is_told = error.message.starts_with("the view `");
    let shown = name.strip_prefix("public.").unwrap_or(name);
    to_datafusion(match is_told {
        true => error,
        false => Error { message: format!("the view `{shown}` cannot be read: {}", error.message), ..error },
    })
}

#[derive(Debug)]
struct Catalog(Arc<Names>);

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        let entries = self.0.request.catalogue.entries.keys();
        let mut names: Vec<String> =
            entries.map(|n| n.split_once('.').map_or(n.as_str(), |(schema, _)| schema).to_owned()).collect();
        names.extend([SCHEMA.to_owned(), system::SCHEMA.to_owned()]);
        if !self.0.settings.temporaries.is_empty() {
            names.push(temporary::SCHEMA.to_owned());
        }
        names.sort();
        names.dedup();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == temporary::SCHEMA {
            let behind = self.0.settings.config.options().catalog.default_schema.as_str();
            let shared = if behind == temporary::SCHEMA { None } else { self.schema(behind) };
            return temporary::schema(&self.0, shared);
        }
        let tables = match name {
            system::SCHEMA => BTreeMap::new(),
            _ => {
                let entries = self.0.request.catalogue.entries.iter();
                let own = entries.filter_map(|(qualified, entry)| {
                    let (schema, table) = qualified.split_once('.')?;
                    (schema == name).then(|| (table.to_owned(), entry.clone()))
                });
                own.collect()
            }
        };
        self.schema_names().iter().any(|n| n == name).then(|| {
            let (names, is_system) = (Arc::clone(&self.0), name == system::SCHEMA);
            Arc::new(Schema { names, name: name.to_owned(), is_system, tables }) as _
        })
    }
}

#[derive(Debug)]
struct Schema {
    names: Arc<Names>,
    name: String,
    is_system: bool,
    tables: BTreeMap<String, CatalogueEntry>,
}

#[async_trait]
impl SchemaProvider for Schema {
    fn table_names(&self) -> Vec<String> {
        match self.is_system {
            true => system::TABLES.iter().map(|t| (*t).to_owned()).collect(),
            false => self.tables.keys().cloned().collect(),
        }
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if self.is_system {
            return system::table(name, &self.names.request).await;
        }
        // One that is called like that itself comes first.
        let (table, at) = match self.tables.contains_key(name) {
            true => (name, AsOf::Newest),
            false => AsOf::of_name(name).map_err(to_datafusion)?,
        };
        match self.tables.get(table) {
            Some(entry) => self.names.table(&format!("{}.{table}", self.name), entry, &at).await.map(Some),
            None => Ok(None),
        }
    }

    /// Without reading the table: one that is broken must not keep others from being listed.
    async fn table_type(&self, name: &str) -> Result<Option<TableType>, DataFusionError> {
        let known = match (self.is_system, self.tables.get(name).map(|entry| &entry.kind)) {
            (true, _) => system::TABLES.contains(&name).then_some(TableType::View),
            (false, Some(CatalogueKind::View)) => Some(TableType::View),
            (false, Some(CatalogueKind::ExternalTable | CatalogueKind::Table { .. })) => Some(TableType::Base),
            (false, Some(CatalogueKind::Schema) | None) => None,
        };
        Ok(known)
    }

    fn table_exist(&self, name: &str) -> bool {
        match self.is_system {
            true => system::TABLES.contains(&name),
            false => self.tables.contains_key(name) || self.tables.contains_key(table_name(name)),
        }
    }
}
