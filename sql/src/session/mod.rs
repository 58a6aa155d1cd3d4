//! What a statement means: the planner that coordinators ask.
//!
//! Invariant: planning changes nothing. A change of the catalogue leaves as a record for the coordinator to apply.

mod analyze;
mod catalogue;
mod copy;
mod create_table;
mod ddl;
mod describe;
mod endings;
mod explain;
mod finish;
mod ingest;
pub(crate) mod keep;
mod locations;
pub(crate) mod memory_table;
mod names;
mod options;
mod parameters;
mod plan;
mod query;
mod redact;
mod schemas;
mod settings;
mod show;
pub mod statements;
mod system;
pub(crate) mod temporary;
pub(crate) mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::TableReference;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use tidemill_core::{Error, Result, Role, RunId};
use tidemill_engine::error::from_datafusion;
use tidemill_engine::files::FileAccess;
use tidemill_engine::functions::Functions;
use tidemill_engine::planner::{Finish, Plan, PlanRequest, Planner};

use crate::datasets::{self, Datasets, Pins};
use crate::jobs;
use crate::security::check_plan;
use catalogue::TableCache;
pub(crate) use create_table::{quoted, sql_type, text_literal};
pub(crate) use ddl::{check_new, qualified};
pub use describe::{Description, ListedTable, Listing, TABLE_KINDS};
pub use explain::LINES;
pub(crate) use explain::answer;
pub(crate) use finish::dataset_finish;
pub use ingest::{IfMissing, IfPresent, Ingest};
pub(crate) use locations::to_write;
pub(crate) use names::{check as check_names, check_table, definition_of, nearest, reads};
pub(crate) use query::physical;
pub use redact::redact;
pub(crate) use redact::{HOOKS, opens_by_itself, sounds_secret};
pub(crate) use settings::RunSettings;
pub use settings::{CLIENT_DIRECTORY, ClientSettings, FORCE_ENCODE, SettingChange};
pub(crate) use statements::{dialect, place as place_of};

/// Bytes that planning and the coordinator's own rows may use.
const PLANNING_MEMORY: usize = 256 << 20;

/// Plans statements with DataFusion.
#[derive(Debug)]
pub struct SqlPlanner {
    runtime: Arc<RuntimeEnv>,
    tables: Arc<TableCache>,
    datasets: Arc<Datasets>,
    functions: Functions,
    files: FileAccess,
}

impl SqlPlanner {
    /// A planner with caches of its own, whose statements may call these functions too.
    ///
    /// # Errors
    /// The runtime environment cannot be made, or a function has the name of another.
    pub fn new(functions: Functions) -> Result<Self> {
        Self::with_files(functions, FileAccess::everything())
    }

    /// The same, which may touch no other files than these.
    ///
    /// # Errors
    /// See [`Self::new`].
    pub fn with_files(functions: Functions, files: FileAccess) -> Result<Self> {
        // Sessions are made for each statement: what is wrong with the functions is said once, and now.
        functions.registry()?;
        // Every statement lists its folders anew: a list that is kept would hide the files of the last hour.
        let caches = CacheManagerConfig::default().with_list_files_cache_limit(0);
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(PLANNING_MEMORY, 1.0).with_cache_manager(caches);
        let runtime = runtime.with_object_store_registry(files.registry()).build_arc();
        let runtime = runtime.map_err(|e| from_datafusion(&e))?;
        Ok(Self { runtime, tables: Arc::default(), datasets: Arc::default(), functions, files })
    }

    pub(crate) fn planning<'a>(&self, request: &'a PlanRequest) -> Result<Planning<'a>> {
        let mut settings = RunSettings::new(&request.settings, request.slots, request.task_memory)?;
        settings.pins = Pins::of_run(&self.datasets, &request.run);
        let context = catalogue::session(request, &settings, &self.runtime, &self.tables, &self.functions)?;
        let (tables, files) = (Arc::clone(&self.tables), self.files.clone());
        Ok(Planning { request, settings, context, tables, files })
    }
}

/// One statement being planned.
pub(crate) struct Planning<'a> {
    pub(crate) request: &'a PlanRequest,
    pub(crate) settings: RunSettings,
    pub(crate) context: SessionContext,
    pub(crate) tables: Arc<TableCache>,
    /// Which files the statement may name.
    pub(crate) files: FileAccess,
}

#[async_trait]
impl Planner for SqlPlanner {
    async fn plan(&self, request: PlanRequest) -> Result<Plan> {
        if let Some(job) = &request.job {
            return jobs::run(&self.planning(&request)?, job).await;
        }
        if request.plan.is_none()
            && let Some(statement) = jobs::parse(&request.statement)?
        {
            // What lasts is planned as it will be run: with the server's settings, and without what is a session's own.
            let lasting = PlanRequest { settings: BTreeMap::new(), ..request };
            return jobs::meaning(&self.planning(&lasting)?, statement).await;
        }
        let planning = self.planning(&request)?;
        if let Some(plan) = &request.plan {
            return plan::meaning(&planning, plan).await;
        }
        if let Some(ingest) = ingest::parse(&request.statement)? {
            request.by.require(Role::Write, "INGEST")?;
            return ingest::ingest(&planning, &ingest);
        }
        if let Some(statement) = datasets::parse(&request.statement)? {
            return datasets::carry_out(&planning, statement).await;
        }
        let statement = planning.statement()?;
        if let Some(answer) = show::create(&planning, &statement).await? {
            return Ok(answer);
        }
        if let Some(dropped) = temporary::dropped(&planning, &statement)? {
            return Ok(dropped);
        }
        let making = temporary::Making::of(&planning, &statement)?;
        let plan = parameters::bind(planning.logical(statement).await?, &request.parameters)?;
        check_plan(&request.by, making.as_ref().map_or(&plan, |_| temporary::reading(&plan)))?;
        match making {
            Some(making) => making.meaning(&planning, plan).await,
            None => planning.meaning(plan).await,
        }
    }

    fn redact(&self, statement: &str) -> String {
        redact(statement)
    }

    fn finish(&self, run: &RunId, spec: &[u8]) -> Result<Finish> {
        finish::FinishSpec::decode(spec, run, &self.runtime, &self.functions, &self.datasets)
    }

    fn is_express(&self, statement: &str) -> bool {
        statements::is_express(statement)
    }

    fn may_change(&self, statement: &str) -> bool {
        statements::may_change(statement)
    }

    fn holds_secret(&self, settings: &BTreeMap<String, String>) -> bool {
        temporary::hold_secret(settings)
    }
}

impl Planning<'_> {
    /// The statement, if it may be planned.
    fn statement(&self) -> Result<Statement> {
        let statement = statements::parse_one(&self.request.statement)?;
        analyze::check(&statement)?;
        names::check(self, &statement)?;
        Ok(statement)
    }

    /// The logical plan of a query that stands within another statement, with its placeholders.
    pub(crate) async fn query(&self, text: &str) -> Result<LogicalPlan> {
        let statement = statements::parse_one(text)?;
        names::check(self, &statement)?;
        self.logical(statement).await
    }

    /// The rows of a query about the cluster.
    pub(crate) async fn rows(&self, text: &str) -> Result<Plan> {
        query::run(self, self.query(text).await?).await
    }

    /// Checks that a table exists.
    pub(crate) fn check_table(&self, name: &TableReference) -> Result<()> {
        check_table(self, name)
    }

    /// The name of a table in the catalogue.
    pub(crate) fn qualified(&self, name: &TableReference) -> Result<String> {
        qualified(self, name)
    }

    /// The statement's logical plan, with its placeholders.
    async fn logical(&self, statement: Statement) -> Result<LogicalPlan> {
        let statement = endings::completed_copy(temporary::plain(statement, &self.settings.temporaries));
        let state = datasets::planned_in(self.context.state(), &statement);
        state.statement_to_plan(statement).await.map_err(|e| from_datafusion(&e))
    }

    /// The same, with its values in their places, for those who may run it.
    pub(crate) async fn logical_bound(&self, statement: Statement) -> Result<LogicalPlan> {
        let plan = parameters::bind(self.logical(statement).await?, &self.request.parameters)?;
        check_plan(&self.request.by, &plan)?;
        Ok(plan)
    }

    async fn meaning(&self, plan: LogicalPlan) -> Result<Plan> {
        check_plan(&self.request.by, &plan)?;
        match plan {
            LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => keep::create_table(self, table).await,
            LogicalPlan::Ddl(statement) => ddl::change(self, statement).await,
            LogicalPlan::Copy(copy) => copy::copy_to(self, copy).await,
            LogicalPlan::Explain(explain) => explain::explain(self, &explain).await,
            LogicalPlan::Analyze(analyze) => analyze::analyze(self, analyze).await,
            LogicalPlan::Dml(dml) => datasets::insert(self, dml).await,
            LogicalPlan::Statement(statement) => Err(Error::invalid(format!(
                "{} is not a statement for the server: SET and RESET belong to the client",
                statement.name()
            ))),
            query => query::run(self, query).await,
        }
    }
}
