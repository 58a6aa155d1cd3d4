//! The executor process: its runtimes, its shared parts, its start and its end.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::prelude::SessionConfig;
use tidemill_core::{Attempt, Error, ExecutorId, Result};
use tidemill_engine::control::{CONTROL_QUEUE, ControlLink};
use tidemill_engine::exchange::{BlockSource, BlockTransport, FlightBlocks, LocalBlocks, PondSlot};
use tidemill_engine::files::FileAccess;
use tidemill_engine::functions::Functions;
use tidemill_engine::peers::Peers;
use tidemill_engine::wire;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, watch};

use crate::agent;
use crate::blobs::BlobCache;
use crate::memory::{MemoryLimits, runtime_env};
use crate::packer::{Packer, PackerParts, StoreRate};
use crate::store::BlockStore;
use crate::trim;
use crate::work_dir::WorkDir;

/// Deep plans recurse in DataFusion's optimiser and codec; the memory is only reserved.
const CPU_STACK_BYTES: usize = 32 << 20;

/// What an executor is started with.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// Its name: one life of one process.
    pub executor: ExecutorId,
    /// Where others reach its Flight service: `http://host:port`, or `local` inside the coordinator's process.
    pub endpoint: String,
    /// Tasks it runs at once.
    pub slots: u32,
    /// Bytes it may use.
    pub memory: MemoryLimits,
    /// Where operators and the exchange spill; made if absent, and cleared of this executor's files at the end.
    pub work_dir: PathBuf,
    /// What plans may call beside DataFusion's functions.
    pub functions: Functions,
    /// How it speaks with other processes.
    pub peers: Peers,
    /// Which files tasks may read and write.
    pub files: FileAccess,
}

/// What all attempts of a process share.
pub struct ExecutorShared {
    pub(crate) config: ExecutorConfig,
    pub(crate) blobs: BlobCache,
    pub(crate) store: Arc<BlockStore>,
    pub(crate) source: Arc<dyn BlockSource>,
    pub(crate) runtime: Arc<RuntimeEnv>,
    pub(crate) cpu: Handle,
    pub(crate) pond: PondSlot,
    pub(crate) packer: Packer,
    /// Packs that are durable, until the agent takes this end.
    pub(crate) packs: Mutex<Option<mpsc::Receiver<wire::PackDurable>>>,
    functions: SessionState,
}

impl ExecutorShared {
    /// A fresh task context over the shared runtime, or a copy of it with the task's own view of files.
    pub(crate) fn task_context(
        &self,
        attempt: Attempt,
        config: SessionConfig,
        runtime: Arc<RuntimeEnv>,
    ) -> TaskContext {
        TaskContext::new(
            Some(attempt.to_string()),
            attempt.to_string(),
            config,
            self.functions.scalar_functions().clone(),
            self.functions.higher_order_functions().clone(),
            self.functions.aggregate_functions().clone(),
            self.functions.window_functions().clone(),
            runtime,
        )
    }

    /// The store, for a transport inside the same process.
    #[must_use]
    pub fn blocks(&self) -> Arc<dyn LocalBlocks> {
        Arc::clone(&self.store) as _
    }
}

/// A running executor. Dropping it stops its tasks and removes its files.
pub struct Executor {
    shared: Arc<ExecutorShared>,
    stop: watch::Sender<bool>,
    /// Whether a coordinator took it in.
    joined: watch::Sender<bool>,
    /// Taken at the end, because a runtime must not be dropped on another runtime's thread.
    cpu: Option<Runtime>,
    work_dir: WorkDir,
}

impl Executor {
    /// Makes the executor's parts; [`Self::serve`] connects it.
    ///
    /// # Errors
    /// The work directory cannot be used, a function has the name of another, or a runtime cannot start.
    pub fn new(config: ExecutorConfig, link: Arc<dyn ControlLink>) -> Result<Self> {
        // Before the runtime, which must not be dropped here.
        let functions = config.functions.registry()?;
        let unusable = |e: &dyn std::fmt::Display| {
            Error::invalid(format!("--work-dir {} cannot be used: {e}", config.work_dir.display()))
        };
        let work_dir = WorkDir::new(&config.work_dir, &config.executor.0).map_err(|e| unusable(&e))?;
        let own = work_dir.path();
        let store = BlockStore::new(config.executor.clone(), config.memory.exchange, &own.join("exchange"));
        let store = Arc::new(store.map_err(|e| unusable(&e))?);
        let runtime = runtime_env(config.memory, &own.join("spill"), &config.files).map_err(|e| unusable(&e))?;
        let cpu = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.slots.max(1) as usize)
            .thread_name("tidemill-cpu")
            .thread_stack_size(CPU_STACK_BYTES)
            // One for each attempt, which more than one run may have on a slot, and others for files.
            .max_blocking_threads(512 + 4 * config.slots as usize)
            .enable_all()
            .build()
            .map_err(|e| Error::unavailable(format!("the cpu runtime cannot start: {e}")))?;
        let local: Arc<dyn LocalBlocks> = Arc::clone(&store) as _;
        let pond = PondSlot::default();
        pond.ask(Arc::clone(&link));
        let remote = FlightBlocks::new(Handle::current(), pond.clone(), config.peers.clone());
        let source = Arc::new(BlockTransport::new(Some(local), Arc::new(remote)));
        let (written, packs) = mpsc::channel(CONTROL_QUEUE);
        let parts = PackerParts {
            rate: StoreRate::expected(),
            store: Arc::clone(&store),
            pond: pond.clone(),
            executor: config.executor.clone(),
            cpu: cpu.handle().clone(),
            written,
        };
        let packer = Packer::start(parts, config.memory.exchange);
        let shared = ExecutorShared {
            blobs: BlobCache::new(Arc::clone(&link), config.memory.operators),
            store,
            source,
            runtime,
            cpu: cpu.handle().clone(),
            pond,
            packer,
            packs: Mutex::new(Some(packs)),
            functions,
            config,
        };
        let ((stop, _), (joined, _)) = (watch::channel(false), watch::channel(false));
        Ok(Self { shared: Arc::new(shared), stop, joined, cpu: Some(cpu), work_dir })
    }

    /// What attempts share.
    #[must_use]
    pub const fn shared(&self) -> &Arc<ExecutorShared> {
        &self.shared
    }

    /// The block store, to be served.
    #[must_use]
    pub fn store(&self) -> Arc<BlockStore> {
        Arc::clone(&self.shared.store)
    }

    /// The runtime that tasks run on.
    #[must_use]
    pub fn cpu(&self) -> Handle {
        self.shared.cpu.clone()
    }

    /// Registers with the coordinator and does what it says, until [`Self::stop`] or a refusal.
    ///
    /// # Errors
    /// The coordinator refused this executor, or never answered.
    pub async fn serve(&self, link: Arc<dyn ControlLink>) -> Result<()> {
        let MemoryLimits { operators, exchange } = self.shared.config.memory;
        tokio::select! {
            served = agent::serve(Arc::clone(&self.shared), link, &self.joined, self.stop.subscribe()) => served,
            never = trim::keep_below(operators + exchange) => match never {},
        }
    }

    /// Becomes true when a coordinator has taken it in.
    #[must_use]
    pub fn joined(&self) -> watch::Receiver<bool> {
        self.joined.subscribe()
    }

    /// Removes the executor's files, for a process that ends without waiting for its tasks.
    pub fn remove_files(&self) {
        self.work_dir.remove();
    }

    /// Ends [`Self::serve`].
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.stop();
        if let Some(cpu) = self.cpu.take() {
            cpu.shutdown_background();
        }
    }
}
