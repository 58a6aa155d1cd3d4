//! Budgets: what operators may use, what the exchange may hold, and where both spill.

use std::path::Path;
use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use tidemill_engine::files::FileAccess;

/// What is remembered of Parquet files takes at most one part in so many of the operators' memory.
const FOOTERS_PART: usize = 64;

/// How an executor's memory is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Bytes for operators: sorts, hash tables.
    pub operators: usize,
    /// Bytes of exchange data held in memory; more goes to disk.
    pub exchange: usize,
}

impl MemoryLimits {
    /// Divides `total` bytes: three fifths for operators, two fifths for the exchange.
    #[must_use]
    pub const fn of(total: usize) -> Self {
        Self { operators: total / 5 * 3, exchange: total / 5 * 2 }
    }
}

/// The runtime environment that all tasks of a process share, in which they reach the files that they may.
pub(crate) fn runtime_env(limits: MemoryLimits, spill: &Path, files: &FileAccess) -> Result<Arc<RuntimeEnv>> {
    std::fs::create_dir_all(spill)?;
    let top = std::num::NonZeroUsize::new(3).unwrap_or(std::num::NonZeroUsize::MIN);
    let pool = TrackConsumersPool::new(FairSpillPool::new(limits.operators), top);
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![spill.to_owned()]));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).with_disk_manager_builder(disk);
    // It is beside the pool, and would grow with the number of files that were ever read.
    let runtime = runtime.with_metadata_cache_limit(limits.operators / FOOTERS_PART);
    runtime.with_object_store_registry(files.registry()).build_arc()
}
