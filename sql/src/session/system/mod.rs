//! The system tables: what the coordinator knows, as rows. Timestamps UTC, sizes in bytes.

mod columns;
mod executors;
mod intervals;
mod jobs;
mod run_checks;
mod run_inputs;
mod runs;
mod secrets;
mod stages;
mod tasks;

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use tidemill_core::Millis;
use tidemill_core::record::State;
use tidemill_engine::error::to_datafusion;
use tidemill_engine::planner::PlanRequest;

use columns::Columns;

pub(super) use tidemill_engine::runtime::SYSTEM_SCHEMA as SCHEMA;

/// The tables' names.
pub(super) const TABLES: &[&str] =
    &["executors", "intervals", "jobs", "run_checks", "run_inputs", "runs", "secrets", "stages", "tasks"];

/// A system table as it is now.
pub(super) async fn table(name: &str, request: &PlanRequest) -> Result<Option<Arc<dyn TableProvider>>> {
    let fill: fn(&State, Millis) -> Columns = match name {
        "executors" => executors::rows,
        "intervals" => intervals::rows,
        "jobs" => jobs::rows,
        "run_checks" => run_checks::rows,
        "run_inputs" => run_inputs::rows,
        "runs" => runs::rows,
        "secrets" => secrets::rows,
        "stages" => stages::rows,
        "tasks" => tasks::rows,
        _ => return Ok(None),
    };
    let state = request.state.state().await.map_err(to_datafusion)?;
    let batch = fill(&state, request.now).finish()?;
    Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
}
