//! A coordinator that listens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use tidemill_coordinator::log::{Leader, Log, Objects, wait_for_turn};
use tidemill_coordinator::{ControlService, Coordinator, CoordinatorConfig, Sweeper};
use tidemill_core::{Error, Result, Settings};
use tidemill_engine::exchange::{BlockTransport, FlightBlocks, LocalBlocks, PondSlot};
use tidemill_engine::functions::Functions;
use tidemill_engine::wire::control_server::ControlServer;
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;

use super::limits::IDLE_THREAD;
use super::standby::Refusal;
use crate::flight_sql::FlightSql;
use crate::security::{Security, Side};
use crate::session::SqlPlanner;

/// Deep plans recurse in DataFusion's optimiser and codec; the memory is only reserved.
const CPU_STACK_BYTES: usize = 32 << 20;
/// Threads that plan.
const PLANNING_THREADS: usize = 2;
/// How often a silent peer is probed, and how long its answer may take: a client whose host vanished holds no run.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long open streams may take to end when the server stops.
const DRAIN: Duration = Duration::from_millis(500);

/// What a coordinator is started with.
#[derive(Debug, Clone, Default)]
pub struct CoordinatorOptions {
    /// The scheduler's limits.
    pub settings: Settings,
    /// What statements may call beside DataFusion's functions.
    pub functions: Functions,
    /// Who may call it, and which files it may touch.
    pub security: Security,
    /// Blocks of an executor that shares its process: they are read without a connection.
    pub local: Option<Arc<dyn LocalBlocks>>,
}

/// A coordinator and the runtime that plans for it.
pub struct CoordinatorProcess {
    coordinator: Coordinator,
    security: Security,
    planner: Arc<SqlPlanner>,
    /// Taken at the end, because a runtime must not be dropped on another runtime's thread.
    cpu: Option<Runtime>,
}

impl CoordinatorProcess {
    /// Starts a coordinator on the current runtime. `local` holds blocks where an executor shares the process.
    ///
    /// # Errors
    /// The planner or its runtime cannot be made.
    pub fn start(settings: Settings, functions: Functions, local: Option<Arc<dyn LocalBlocks>>) -> Result<Self> {
        Self::with(CoordinatorOptions { settings, functions, local, ..CoordinatorOptions::default() })
    }

    /// The same, with all that can be said of it.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn with(options: CoordinatorOptions) -> Result<Self> {
        let security = options.security.clone();
        let Parts { config, planner, cpu } = Parts::make(options, String::new())?;
        Ok(Self { coordinator: Coordinator::start(config), security, planner, cpu: Some(cpu) })
    }

    /// Waits until nobody else leads on `state`, and goes on from there. `standing_by` is told who does meanwhile, and when
    /// nobody does any more. From then on it looks every `sweep_every` for what lost executors left.
    ///
    /// # Errors
    /// The store does not answer, or holds what this build cannot read.
    pub async fn lead(
        options: CoordinatorOptions,
        state: &str,
        objects: Arc<dyn Objects>,
        address: SocketAddr,
        sweep_every: Duration,
        mut standing_by: impl FnMut(Option<&Leader>),
    ) -> Result<Self> {
        let leader = Leader::new(address.to_string());
        loop {
            let newest = wait_for_turn(objects.as_ref(), &leader, |leads| standing_by(Some(leads))).await?;
            standing_by(None);
            // Another may have been quicker.
            if let Some((log, recovered)) = Log::take_over(Arc::clone(&objects), leader.clone(), newest).await? {
                let security = options.security.clone();
                let Parts { config, planner, cpu } = Parts::make(options, state.to_owned())?;
                let sweeper = Sweeper::new(config.pond.clone(), objects, log.epoch());
                sweeper.sweep_before_first_run(&recovered.state).await;
                let coordinator = Coordinator::resume(config, log, recovered);
                sweeper.keep_sweeping(&coordinator, sweep_every);
                return Ok(Self { coordinator, security, planner, cpu: Some(cpu) });
            }
        }
    }

    /// The coordinator.
    #[must_use]
    pub const fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// Serves executors and clients at `address` until [`CoordinatorServer::stop`].
    ///
    /// # Errors
    /// The address cannot be bound, or others reach it and its guard does not allow that.
    pub async fn listen(self, address: SocketAddr) -> Result<CoordinatorServer> {
        self.security.check_bind(address)?;
        self.serve(Listener::bind(address).await?)
    }

    /// Serves executors and clients until [`CoordinatorServer::stop`].
    ///
    /// # Errors
    /// Others reach the address, and its guard does not allow that; or its certificates cannot be used.
    pub fn serve(self, listener: Listener) -> Result<CoordinatorServer> {
        let Listener { address, incoming } = listener;
        self.security.check_bind(address)?;
        let gate = self.security.gate().clone();
        let (stop, mut stopped) = watch::channel(false);
        let mut server = self
            .security
            .server()?
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .add_service(gate.guard(ControlService::server(self.coordinator.clone()), Side::Cluster));
        // Without its runtime a process serves nobody: it has ended.
        if let Some(cpu) = &self.cpu {
            let (planner, cpu) = (Arc::clone(&self.planner), cpu.handle().clone());
            let service = FlightSql::server(self.coordinator.clone(), planner, cpu, gate.clone());
            server = server.add_service(gate.guard(service, Side::Clients));
        }
        let server = server.serve_with_incoming_shutdown(incoming, async move {
            // An error means that the handle is gone, which is a stop too.
            let _ = stopped.changed().await;
        });
        let serving = tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the coordinator's server failed");
            }
        });
        Ok(CoordinatorServer { process: self, address, stop, serving })
    }
}

/// What a coordinator is made of, and what plans for it.
struct Parts {
    config: CoordinatorConfig,
    planner: Arc<SqlPlanner>,
    cpu: Runtime,
}

impl Parts {
    fn make(options: CoordinatorOptions, state: String) -> Result<Self> {
        let CoordinatorOptions { settings, functions, security, local } = options;
        let pond = PondSlot::default();
        pond.open(&state)?;
        // Before there is a runtime, which must not be dropped here.
        let planner = Arc::new(SqlPlanner::with_files(functions, security.files().clone())?);
        let cpu = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(PLANNING_THREADS)
            .thread_name("tidemill-plan")
            .thread_stack_size(CPU_STACK_BYTES)
            .thread_keep_alive(IDLE_THREAD)
            .enable_all()
            .build()
            .map_err(|e| Error::unavailable(format!("the planning runtime cannot start: {e}")))?;
        let peers = security.peers();
        let remote = FlightBlocks::of_results(Handle::current(), pond.clone(), peers.clone());
        let config = CoordinatorConfig {
            settings,
            planner: Arc::clone(&planner) as _,
            source: Arc::new(BlockTransport::new(local, Arc::new(remote))),
            cpu: cpu.handle().clone(),
            state,
            pond,
            tickets: peers.tickets().clone(),
        };
        Ok(Self { config, planner, cpu })
    }
}

impl Drop for CoordinatorProcess {
    fn drop(&mut self) {
        if let Some(cpu) = self.cpu.take() {
            cpu.shutdown_background();
        }
    }
}

/// A listening coordinator.
pub struct CoordinatorServer {
    process: CoordinatorProcess,
    /// Where it listens.
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl CoordinatorServer {
    /// The coordinator.
    #[must_use]
    pub const fn coordinator(&self) -> &Coordinator {
        self.process.coordinator()
    }

    /// Takes no more calls, gives open ones a moment, then ends them.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(DRAIN, &mut self.serving).await.is_err() {
            self.serving.abort();
        }
    }
}

/// A bound address that nobody serves yet.
pub struct Listener {
    /// The address, with the port that was taken.
    pub address: SocketAddr,
    incoming: TcpIncoming,
}

impl Listener {
    /// Takes an address.
    ///
    /// # Errors
    /// It cannot be bound; the error names it.
    pub async fn bind(address: SocketAddr) -> Result<Self> {
        let incoming = bind(address).await?;
        let address = incoming.local_addr().map_err(|e| Error::unavailable(e.to_string()))?;
        Ok(Self { address, incoming })
    }

    /// Waits for something while each call is refused with the address of the one who leads, so that its caller tries
    /// another.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub async fn refuse_until<T>(
        &mut self,
        security: &Security,
        leader: watch::Receiver<Option<String>>,
        turn: impl Future<Output = T>,
    ) -> Result<T> {
        let gate = security.gate();
        let control = Refusal::<ControlServer<ControlService>>::new(leader.clone());
        let clients = Refusal::<FlightServiceServer<FlightSql>>::new(leader);
        let (stop, mut stopped) = watch::channel(false);
        let refusing = security
            .server()?
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .add_service(gate.guard(control, Side::Cluster))
            .add_service(gate.guard(clients, Side::Clients))
            .serve_with_incoming_shutdown(&mut self.incoming, async move {
                // An error means that the wait is over, too.
                let _ = stopped.changed().await;
            });
        let mut refusing = std::pin::pin!(refusing);
        let mut turn = std::pin::pin!(turn);
        tokio::select! {
            answer = &mut turn => {
                // Who is connected connects again, to the services that lead; who does not let go has been told.
                stop.send_replace(true);
                let _ = tokio::time::timeout(DRAIN, refusing.as_mut()).await;
                Ok(answer)
            }
            ended = &mut refusing => {
                if let Err(error) = ended {
                    tracing::error!(%error, "calls to the coordinator that stands by are not answered");
                }
                Ok(turn.await)
            }
        }
    }
}

/// A listener, or an error that names the address.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpIncoming> {
    let listener = TcpListener::bind(address).await.map_err(|e| {
        Error::unavailable(format!("{address} cannot be listened on ({e}): choose another with --bind"))
    })?;
    // Without it small answers wait 40 ms for an acknowledgement.
    Ok(TcpIncoming::from(listener).with_nodelay(Some(true)))
}
