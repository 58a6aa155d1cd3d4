//! Where the rows are looked at: with little memory, and not for ever.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use tidemill_core::{Error, ErrorKind, Result};
use tidemill_engine::error::from_datafusion;
use tidemill_engine::functions::Functions;
use tidemill_engine::runtime::planning_config;
use tokio::sync::Semaphore;

/// Bytes that the checks of one run may use in memory, and on the disk of the coordinator.
const MEMORY: usize = 128 << 20;
const SPILLED: u64 = 16 << 30;
/// Runs whose rows are looked at at once: the others wait.
static AT_ONCE: Semaphore = Semaphore::const_new(2);
/// How long looking may take, and waiting for it.
const WITHIN: Duration = Duration::from_secs(30 * 60);
/// Parts in which files are read.
const PARTITIONS: usize = 2;

/// What checks are run with: the process's stores and functions.
#[derive(Clone)]
pub(crate) struct Bounds {
    stores: Arc<dyn ObjectStoreRegistry>,
    functions: Functions,
}

impl fmt::Debug for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bounds")
    }
}

impl Bounds {
    pub(crate) fn of(runtime: &RuntimeEnv, functions: &Functions) -> Self {
        Self { stores: Arc::clone(&runtime.object_store_registry), functions: functions.clone() }
    }

    /// A session of its own, with memory of its own.
    fn session(&self) -> Result<SessionContext> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(MEMORY)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_max_temp_directory_size(SPILLED))
            .with_object_store_registry(Arc::clone(&self.stores));
        let runtime = runtime.build_arc().map_err(|e| from_datafusion(&e))?;
        let config = planning_config(PARTITIONS, None, &BTreeMap::new()).map_err(|e| from_datafusion(&e))?;
        let state = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
        let mut state = state.build();
        self.functions.register(&mut state)?;
        Ok(SessionContext::new_with_state(state))
    }

    /// Looks, when it is its turn, for as long as it may take.
    pub(in crate::datasets) async fn within<T, F>(&self, look: impl FnOnce(SessionContext) -> F + Send) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let late = |what: &str| {
            Error::resources_exhausted(format!(
                "the checks of what was written {what} {} minutes: nothing is published",
                WITHIN.as_secs() / 60
            ))
        };
        let turn = tokio::time::timeout(WITHIN, AT_ONCE.acquire()).await;
        let _turn = turn
            .map_err(|_| late("waited for others longer than"))?
            .map_err(|_| Error::internal("nobody may check what was written"))?;
        let looked = tokio::time::timeout(WITHIN, look(self.session()?)).await;
        looked.unwrap_or_else(|_| Err(late("took longer than"))).map_err(short_of_memory)
    }
}

/// Says which memory it is, and what needs less.
fn short_of_memory(error: Error) -> Error {
    if error.kind != ErrorKind::ResourcesExhausted || !error.message.contains("memory") {
        return error;
    }
    let what = error.message.split(';').next().unwrap_or_default();
    Error::resources_exhausted(format!(
        "the checks of what was written have {} MiB: {what}; EXPECT UNIQUE (…) goes to disk, count(DISTINCT …) keeps all values in memory",
        MEMORY >> 20
    ))
}
