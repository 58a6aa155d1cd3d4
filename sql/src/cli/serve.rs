//! `tidemill server`, `tidemill coordinator`, `tidemill executor`.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tidemill_coordinator::LocalLink;
use tidemill_coordinator::log::{self, Leader, Objects};
use tidemill_core::{Error, ErrorKind, Result, Settings};
use tidemill_engine::coordinators::without_password;
use tidemill_engine::exchange::LocalBlocks;
use tidemill_engine::functions::Functions;
use tidemill_executor::GrpcLink;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::security::SecurityArgs;
use super::{Done, not_begun};
use crate::compose::{
    CoordinatorOptions, CoordinatorProcess, EmbeddedConfig, ExecutorProcess, LateBlocks, Listener, default_memory,
    default_slots, default_work_dir, parse_memory,
};
use crate::output::size;
use crate::security::{Listens, Security};

/// The port of a coordinator or server.
const PORT: &str = "127.0.0.1:7878";
/// After this long an executor says that it waits for its coordinator.
const JOINS_LATE: Duration = Duration::from_secs(1);
/// An executor takes any free port: others learn it from the coordinator.
const ANY_PORT: &str = "127.0.0.1:0";

#[derive(Debug, Args)]
pub(super) struct MemoryArgs {
    /// Tasks at once [default: one per core]
    #[arg(long, env = "TIDEMILL_SLOTS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,
    /// Memory for tasks and exchange, such as 4GiB [default: 1GiB per slot]
    #[arg(long, env = "TIDEMILL_MEMORY", value_name = "SIZE", value_parser = parse_memory)]
    memory: Option<usize>,
    /// Folder for what does not fit in memory [default: below the temporary folder]
    #[arg(long, env = "TIDEMILL_WORK_DIR", value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// What plans may call beside DataFusion's functions: compiled in.
    #[arg(skip)]
    pub(super) functions: Functions,
}

impl MemoryArgs {
    fn slots(&self) -> u32 {
        self.slots.unwrap_or_else(default_slots)
    }

    fn memory(&self) -> usize {
        self.memory.unwrap_or_else(|| default_memory(self.slots()))
    }

    fn work_dir(&self) -> PathBuf {
        self.work_dir.clone().unwrap_or_else(default_work_dir)
    }

    /// What an embedded cluster has, for people.
    pub(super) fn shown(&self) -> String {
        let (slots, plural) = (self.slots(), if self.slots() == 1 { "" } else { "s" });
        format!("{slots} slot{plural}, {} of memory", size(self.memory() as u64))
    }

    pub(super) fn embedded(&self) -> Result<EmbeddedConfig> {
        let (settings, functions) = (Settings::default(), self.functions.clone());
        Ok(EmbeddedConfig {
            slots: self.slots(),
            memory: self.memory(),
            work_dir: self.work_dir(),
            settings,
            functions,
        })
    }

    fn executor(&self, bind: SocketAddr, security: Security) -> ExecutorProcess {
        let (slots, memory, work_dir, functions) =
            (self.slots(), self.memory(), self.work_dir(), self.functions.clone());
        ExecutorProcess { bind, advertise: None, slots, memory, work_dir, functions, security }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill coordinator                                     on loopback, and nothing survives a restart
  tidemill coordinator --bind 10.0.0.1:7878 --state s3://bucket/tide
  AWS_ENDPOINT_URL=http://minio:9000 tidemill coordinator --state s3://bucket/tide

At an address that other machines reach, it wants TLS, --users and --cluster-token-file: docs/security.md.

A second coordinator on the same --state stands by, and leads when the first ends. Until then it answers with who leads:
give executors and clients both addresses, --connect http://A:7878,http://B:7878.")]
pub(super) struct CoordinatorArgs {
    /// Address to listen on; port 0 takes any free one
    #[arg(long, env = "TIDEMILL_BIND", default_value = PORT, value_name = "ADDR")]
    bind: SocketAddr,
    /// Where durable state lives: memory://, file:///FOLDER, s3://BUCKET/PREFIX, or, untested, gs://BUCKET/PREFIX and
    /// az://CONTAINER/PREFIX
    #[arg(long, env = "TIDEMILL_STATE", default_value = "memory://", value_name = "URL")]
    state: String,
    /// A run fails after waiting this many seconds for a first executor
    #[arg(long, env = "TIDEMILL_NO_EXECUTOR_TIMEOUT", default_value_t = 60, value_name = "SECONDS")]
    no_executor_timeout: u64,
    /// An executor that is silent for this many seconds is dead; one whose port refuses is dead at once
    #[arg(long, env = "TIDEMILL_EXECUTOR_TIMEOUT", default_value_t = 15, value_name = "SECONDS")]
    executor_timeout: u64,
    /// A task that takes this many seconds, and twice the median of its stage, is given to an idle executor, too; 0 is never
    #[arg(long, env = "TIDEMILL_STRAGGLER_AFTER", default_value_t = 10, value_name = "SECONDS")]
    straggler_after: u64,
    /// How many seconds the result of a finished run can be fetched again, with --state
    #[arg(long, env = "TIDEMILL_RESULT_RETENTION", default_value_t = 3600, value_name = "SECONDS")]
    result_retention: u64,
    /// After an executor was lost, the store is searched for what it left, every so many seconds until nothing is
    #[arg(long, env = "TIDEMILL_SWEEP_INTERVAL", default_value_t = 60, value_name = "SECONDS")]
    sweep_interval: u64,
    /// The users' file, to which `tidemill user add` adds; with it, clients have to show who they are
    #[arg(long, env = "TIDEMILL_USERS", value_name = "FILE", help_heading = "Security (docs/security.md)")]
    users: Option<PathBuf>,
    #[command(flatten)]
    security: SecurityArgs,
    /// As of [`MemoryArgs`].
    #[arg(skip)]
    pub(super) functions: Functions,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill executor --connect http://127.0.0.1:7878
  tidemill executor --connect http://10.0.0.1:7878 --bind 10.0.0.2:7879 --slots 8 --memory 16GiB --work-dir /scratch
  tidemill executor --connect http://10.0.0.1:7878,http://10.0.0.9:7878      where a coordinator stands by at 10.0.0.9")]
pub(super) struct ExecutorArgs {
    /// The coordinator's URL; several, divided by commas, where others stand by
    #[arg(long, env = "TIDEMILL_CONNECT", value_name = "URL", hide_env_values = true, hide_default_value = true)]
    connect: String,
    /// Address to listen on for readers of its blocks; port 0 takes any free one
    #[arg(long, env = "TIDEMILL_BIND", default_value = ANY_PORT, value_name = "ADDR")]
    bind: SocketAddr,
    /// Address at which other executors reach it, where that is not the one it listens on
    #[arg(long, env = "TIDEMILL_ADVERTISE", value_name = "ADDR")]
    advertise: Option<SocketAddr>,
    #[command(flatten)]
    pub(super) memory: MemoryArgs,
    #[command(flatten)]
    security: SecurityArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill server                                          on loopback, and nothing survives a restart
  tidemill server --state file:///var/lib/tidemill --slots 8 --memory 16GiB
  tidemill sql --connect http://127.0.0.1:7878             the shell of this server")]
pub(super) struct ServerArgs {
    #[command(flatten)]
    pub(super) memory: MemoryArgs,
    #[command(flatten)]
    pub(super) coordinator: CoordinatorArgs,
}

/// What a coordinator's flags name: who may call it, and where its log lies, if anything lasts.
struct Prepared {
    security: Security,
    objects: Option<Arc<dyn Objects>>,
}

impl CoordinatorArgs {
    fn settings(&self) -> Settings {
        Settings {
            no_executor_timeout_ms: self.no_executor_timeout.saturating_mul(1000),
            executor_timeout_ms: self.executor_timeout.saturating_mul(1000),
            straggler_ms: self.straggler_after.saturating_mul(1000),
            result_retention_ms: self.result_retention.saturating_mul(1000),
            ..Settings::default()
        }
    }

    /// Takes the address, then waits for its turn to lead.
    async fn start(
        &self,
        role: &str,
        Prepared { security, objects }: &Prepared,
        local: Option<Arc<dyn LocalBlocks>>,
    ) -> Result<(CoordinatorProcess, Listener)> {
        let mut listener = Listener::bind(self.bind).await?;
        let (settings, functions, scheme) = (self.settings(), self.functions.clone(), security.scheme());
        let options = CoordinatorOptions { settings, functions, security: security.clone(), local };
        let Some(objects) = objects.clone() else {
            return Ok((CoordinatorProcess::with(options)?, listener));
        };
        let address = listener.address;
        let (leads, leader) = watch::channel(None);
        let standing_by = move |leader: Option<&Leader>| {
            leads.send_replace(leader.map(|leader| leader.address.clone()));
            if let Some(leader) = leader {
                say(&format!("tidemill {role} stands by at {scheme}://{address}; {scheme}://{} leads", leader.address));
            }
        };
        let every = Duration::from_secs(self.sweep_interval.max(1));
        let leading = CoordinatorProcess::lead(options, &self.state, objects, address, every, standing_by);
        let process = listener.refuse_until(security, leader, leading).await??;
        Ok((process, listener))
    }

    fn prepared(&self, listens: Listens) -> Result<Prepared> {
        let security = self.security.config(self.users.clone())?.load(listens, self.bind)?;
        Ok(Prepared { security, objects: log::open(&self.state)? })
    }

    /// What survives a restart, for the line that says that it is ready.
    fn survives(&self) -> String {
        match self.state.starts_with("memory:") {
            true => "; nothing survives a restart without --state".to_owned(),
            false => format!("; state at {}", self.state),
        }
    }
}

pub(super) async fn coordinator(args: CoordinatorArgs) -> Result<Done> {
    let prepared = match args.prepared(Listens::Coordinator) {
        Ok(prepared) => prepared,
        Err(error) => return not_begun(error),
    };
    let (process, listener) = tokio::select! {
        started = args.start("coordinator", &prepared, None) => started?,
        terminated = terminated() => return terminated.map(|()| Done::Well),
    };
    let server = process.serve(listener)?;
    ready("coordinator", &prepared.security, server.address, &args.survives());
    let coordinator = server.coordinator().clone();
    let ended = tokio::select! {
        terminated = terminated() => terminated.map(|()| Done::Well),
        error = coordinator.deposed() => Err(error),
    };
    server.stop().await;
    ended
}

impl ExecutorArgs {
    fn prepared(&self) -> Result<(Security, Arc<GrpcLink>)> {
        let security = self.security.config(None)?.load(Listens::Executor, self.bind)?;
        let link = Arc::new(GrpcLink::through(&self.connect, security.peers())?);
        Ok((security, link))
    }
}

pub(super) async fn executor(args: ExecutorArgs) -> Result<Done> {
    let (security, link) = match args.prepared() {
        Ok(prepared) => prepared,
        Err(error) => return not_begun(error),
    };
    let process = args.memory.executor(args.bind, security.clone());
    let mut process = ExecutorProcess { advertise: args.advertise, ..process };
    let mut server = match process.clone().start(Arc::clone(&link) as _).await {
        Ok(server) => server,
        Err(error) => return not_begun(error),
    };
    process.bind = server.address;
    let coordinators = without_password(&args.connect);
    let place = format!("; {} slots for {coordinators}", args.memory.slots());
    let (mut has_joined, mut has_waited) = (false, false);
    let mut joins_late = std::pin::pin!(tokio::time::sleep(JOINS_LATE));
    let mut terminated = std::pin::pin!(terminated());
    loop {
        tokio::select! {
            () = server.joined(), if !has_joined => {
                has_joined = true;
                ready("executor", &security, server.address, &place);
            }
            () = &mut joins_late, if !has_joined && !has_waited => {
                has_waited = true;
                say(&format!("tidemill executor waits for the coordinator at {coordinators}"));
            }
            ended = server.ended() => match ended {
                // It was silent for so long that its work was given to others: it joins again as a new executor.
                Err(error) if error.kind == ErrorKind::Conflict => {
                    tracing::warn!(%error, "joining again under a new name");
                    server.stop().await;
                    server = process.clone().start(Arc::clone(&link) as _).await?;
                }
                ended => {
                    ended?;
                    break;
                }
            },
            terminated = &mut terminated => {
                terminated?;
                break;
            }
        }
    }
    server.stop().await;
    Ok(Done::Well)
}

pub(super) async fn server(args: ServerArgs) -> Result<Done> {
    let prepared = match args.coordinator.prepared(Listens::Server) {
        Ok(prepared) => prepared,
        Err(error) => return not_begun(error),
    };
    let security = &prepared.security;
    let blocks = Arc::new(LateBlocks::default());
    let (coordinator, listener) = tokio::select! {
        started = args.coordinator.start("server", &prepared, Some(Arc::clone(&blocks) as _)) => started?,
        terminated = terminated() => return terminated.map(|()| Done::Well),
    };
    let leading = coordinator.coordinator().clone();
    let link = Arc::new(LocalLink::new(coordinator.coordinator().clone()));
    let executor = args.memory.executor(blocks_at(args.coordinator.bind), security.clone());
    let mut executor = match executor.start(link).await {
        Ok(executor) => executor,
        Err(error) => return not_begun(error),
    };
    blocks.set(executor.executor().shared().blocks());
    let server = coordinator.serve(listener)?;
    ready(
        "server",
        security,
        server.address,
        &format!("; {} slots{}", args.memory.slots(), args.coordinator.survives()),
    );
    let ended = tokio::select! {
        ended = executor.ended() => ended,
        terminated = terminated() => terminated,
        error = leading.deposed() => Err(error),
    };
    executor.stop().await;
    server.stop().await;
    ended.map(|()| Done::Well)
}

/// Where a server serves its blocks: beside its own port, or to itself alone where that is every address.
fn blocks_at(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, 0)
}

/// The one line that says that the process is ready.
fn ready(role: &str, security: &Security, address: SocketAddr, more: &str) {
    say(&format!("tidemill {role} is ready at {}://{address}{more}", security.scheme()));
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    // Whoever started the process may have closed its output.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

pub(super) async fn terminated() -> Result<()> {
    let unusable = |e| Error::unavailable(format!("signals cannot be received: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(unusable)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unusable)?;
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
