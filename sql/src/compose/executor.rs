//! An executor that listens.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tidemill_core::{Error, ExecutorId, Result};
use tidemill_engine::control::ControlLink;
use tidemill_engine::functions::Functions;
use tidemill_executor::{BlockService, Executor, ExecutorConfig, MemoryLimits};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::coordinator::bind;
use crate::connectors;
use crate::security::{Security, Side};

/// What an executor process is started with.
#[derive(Debug, Clone)]
pub struct ExecutorProcess {
    /// Where it listens for block readers.
    pub bind: SocketAddr,
    /// Where others reach it, if that is elsewhere.
    pub advertise: Option<SocketAddr>,
    /// Tasks it runs at once.
    pub slots: u32,
    /// Bytes it may use.
    pub memory: usize,
    /// Where it spills.
    pub work_dir: PathBuf,
    /// What plans may call beside DataFusion's functions.
    pub functions: Functions,
    /// Who may call it, and which files its tasks may touch.
    pub security: Security,
}

/// A listening executor, connected to its coordinator.
pub struct ExecutorServer {
    /// Where it listens.
    pub address: SocketAddr,
    executor: Arc<Executor>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    agent: JoinHandle<Result<()>>,
}

impl ExecutorProcess {
    /// Starts the executor and registers it through `link`, again and again until it is stopped.
    ///
    /// # Errors
    /// The address or the work directory cannot be used, or a function has the name of another.
    pub async fn start(self, link: Arc<dyn ControlLink>) -> Result<ExecutorServer> {
        if self.bind.ip().is_unspecified() && self.advertise.is_none() {
            return Err(Error::invalid(format!(
                "--bind {} tells other executors no address: bind to the one that they reach, or name it with --advertise",
                self.bind
            )));
        }
        self.security.check_bind(self.bind)?;
        let security = self.security;
        connectors::install(security.files());
        let listener = bind(self.bind).await?;
        let address = listener.local_addr().map_err(|e| Error::unavailable(e.to_string()))?;
        let config = ExecutorConfig {
            executor: ExecutorId(format!("{}-{}", address.port(), ulid::Ulid::new())),
            endpoint: format!("{}://{}", security.scheme(), self.advertise.unwrap_or(address)),
            slots: self.slots,
            memory: MemoryLimits::of(self.memory),
            work_dir: self.work_dir,
            functions: self.functions,
            peers: security.peers().clone(),
            files: security.files().clone(),
        };
        let executor = Arc::new(Executor::new(config, Arc::clone(&link))?);
        let (stop, mut stopped) = watch::channel(false);
        let tickets = security.peers().tickets().clone();
        let service = BlockService::new(executor.store(), executor.cpu(), tickets).into_server();
        let server = security.server()?.add_service(security.gate().guard(service, Side::Cluster));
        let server = server.serve_with_incoming_shutdown(listener, async move {
            // An error means that the handle is gone, which is a stop too.
            let _ = stopped.changed().await;
        });
        let serving = tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the executor's server failed");
            }
        });
        let agent = tokio::spawn({
            let executor = Arc::clone(&executor);
            async move { executor.serve(link).await }
        });
        Ok(ExecutorServer { address, executor, stop, serving, agent })
    }
}

impl ExecutorServer {
    /// The executor.
    #[must_use]
    pub const fn executor(&self) -> &Arc<Executor> {
        &self.executor
    }

    /// Waits until a coordinator took the executor in.
    pub fn joined(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let mut joined = self.executor.joined();
        async move {
            // Who is gone without having joined never will.
            if joined.wait_for(|joined| *joined).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the coordinator refuses the executor or never answered.
    ///
    /// # Errors
    /// Why it ended.
    pub async fn ended(&mut self) -> Result<()> {
        match (&mut self.agent).await {
            Ok(ended) => ended,
            Err(panic) => Err(Error::internal(format!("the executor panicked: {panic}"))),
        }
    }

    /// Leaves the cluster: its tasks end, its blocks are gone, its address is free.
    pub async fn stop(self) {
        self.executor.stop();
        self.stop.send_replace(true);
        self.agent.abort();
        self.serving.abort();
        // Aborted tasks end at once, with an error that says that they were aborted.
        let _ = self.serving.await;
    }
}
