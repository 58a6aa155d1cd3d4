//! A cluster of one executor inside this process: the same planner, scheduler, codec and exchange, no sockets.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidemill_coordinator::{Coordinator, LocalLink};
use tidemill_core::record::{LostOutput, Pack};
use tidemill_core::{BlobHash, Error, ExecutorId, Result, RunId, Settings};
use tidemill_engine::control::ControlLink;
use tidemill_engine::files::FileAccess;
use tidemill_engine::functions::Functions;
use tidemill_engine::peers::Peers;
use tidemill_engine::tls::choose_cryptography;
use tidemill_executor::{Executor, ExecutorConfig, MemoryLimits};

use super::{CoordinatorProcess, default_memory, default_slots, default_work_dir};
use crate::connectors;

/// How long what failed runs wrote may take to be removed: whoever runs a statement waits.
const REMOVAL: Duration = Duration::from_secs(3);

/// How an embedded cluster is made.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Tasks at once.
    pub slots: u32,
    /// Bytes that tasks and exchange may use.
    pub memory: usize,
    /// Where they spill.
    pub work_dir: PathBuf,
    /// The scheduler's limits.
    pub settings: Settings,
    /// What plans may call beside DataFusion's functions.
    pub functions: Functions,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        let slots = default_slots();
        let (memory, work_dir) = (default_memory(slots), default_work_dir());
        Self { slots, memory, work_dir, settings: Settings::default(), functions: Functions::default() }
    }
}

/// A running embedded cluster. Dropping it ends its runs and removes its files.
pub struct Embedded {
    coordinator: CoordinatorProcess,
    executor: Arc<Executor>,
}

impl Embedded {
    /// Starts a coordinator and an executor on the current runtime.
    ///
    /// # Errors
    /// The work directory cannot be used, or a function has the name of another.
    pub fn start(config: EmbeddedConfig) -> Result<Self> {
        let late = Arc::new(LateLink::default());
        // For the TLS of whoever embeds it, too.
        choose_cryptography();
        connectors::install(&FileAccess::everything());
        let executor = ExecutorConfig {
            executor: ExecutorId(format!("local-{}", ulid::Ulid::new())),
            endpoint: "local".to_owned(),
            slots: config.slots,
            memory: MemoryLimits::of(config.memory),
            work_dir: config.work_dir,
            functions: config.functions.clone(),
            peers: Peers::default(),
            files: FileAccess::everything(),
        };
        let executor = Arc::new(Executor::new(executor, Arc::clone(&late) as _)?);
        let blocks = Some(executor.shared().blocks());
        let coordinator = CoordinatorProcess::start(config.settings, config.functions, blocks)?;
        late.set(LocalLink::new(coordinator.coordinator().clone()));
        let (serving, link) = (Arc::clone(&executor), late);
        tokio::spawn(async move {
            if let Err(error) = serving.serve(link).await {
                tracing::error!(%error, "the embedded executor ended");
            }
        });
        Ok(Self { coordinator, executor })
    }

    /// Ends it. What failed and cancelled runs wrote is removed before that, as far as there is time; a cluster that is only
    /// dropped may leave it.
    pub async fn close(self) {
        if tokio::time::timeout(REMOVAL, self.coordinator().finish_removals()).await.is_err() {
            tracing::warn!("files of statements that did not succeed may be left: they could not be removed in time");
        }
    }

    /// The coordinator.
    #[must_use]
    pub const fn coordinator(&self) -> &Coordinator {
        self.coordinator.coordinator()
    }

    /// The executor.
    #[must_use]
    pub const fn executor(&self) -> &Arc<Executor> {
        &self.executor
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.executor.stop();
        self.executor.remove_files();
    }
}

/// A link that is known only after the executor is made, because the coordinator reads the executor's blocks.
#[derive(Debug, Default)]
struct LateLink(std::sync::OnceLock<LocalLink>);

impl LateLink {
    fn set(&self, link: LocalLink) {
        // Set once, right after it is made.
        let _ = self.0.set(link);
    }

    fn get(&self) -> Result<&LocalLink> {
        self.0.get().ok_or_else(|| Error::internal("the embedded executor was used before it was composed"))
    }
}

#[async_trait::async_trait]
impl ControlLink for LateLink {
    async fn attach(
        &self,
        from: tokio::sync::mpsc::Receiver<tidemill_engine::wire::FromExecutor>,
    ) -> Result<futures::stream::BoxStream<'static, Result<tidemill_engine::wire::ToExecutor>>> {
        self.get()?.attach(from).await
    }

    async fn fetch_blob(&self, hash: &BlobHash) -> Result<bytes::Bytes> {
        self.get()?.fetch_blob(hash).await
    }

    async fn locate(&self, run: &RunId, outputs: &[LostOutput]) -> Result<Vec<Option<Pack>>> {
        self.get()?.locate(run, outputs).await
    }
}
