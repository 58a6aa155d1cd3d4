//! Clusters of processes of this very program.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidemill::client::Client;
use tidemill::{Error, Result};

use crate::durable::number;

/// Set in processes that play a role of the `tidemill` binary.
pub(crate) const ROLE: &str = "TIDEMILL_BENCH_ROLE";
/// How long executors may take to join.
const READY: Duration = Duration::from_secs(60);

/// Processes, killed when dropped.
pub(crate) struct Cluster {
    /// The coordinator's URL.
    pub(crate) url: String,
    processes: Vec<Child>,
    executors: usize,
    state: String,
}

impl Cluster {
    /// A coordinator and `executors` executors of one slot.
    pub(crate) fn start(executors: usize) -> Result<Self> {
        Self::durable(executors, "memory://")
    }

    /// The same, with its state somewhere.
    pub(crate) fn durable(executors: usize, state: &str) -> Result<Self> {
        let mut cluster = Self { url: String::new(), processes: Vec::new(), executors, state: state.to_owned() };
        cluster.begin("127.0.0.1:0")?;
        Ok(cluster)
    }

    /// Kills every process at once.
    pub(crate) fn kill(&mut self) {
        for process in &mut self.processes {
            // It may have ended by itself.
            let _ = process.kill();
        }
        for mut process in self.processes.drain(..) {
            let _ = process.wait();
        }
    }

    /// Starts them again, at the same address.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let address = self.url.trim_start_matches("http://").to_owned();
        self.begin(&address)
    }

    fn begin(&mut self, address: &str) -> Result<()> {
        let (coordinator, url) = spawn(&["coordinator", "--bind", address, "--state", &self.state])?;
        self.url.clone_from(&url);
        self.processes.push(coordinator);
        for _ in 0..self.executors {
            self.add_executor()?;
        }
        Ok(())
    }

    /// The most memory that the coordinator ever held, in bytes; 0 where the system does not tell.
    pub(crate) fn coordinator_memory(&self) -> u64 {
        let id = self.processes.first().map_or(0, Child::id);
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) << 10
    }

    /// Starts an executor.
    pub(crate) fn add_executor(&mut self) -> Result<()> {
        let (executor, _) = spawn(&["executor", "--connect", &self.url, "--slots", "1", "--memory", "2GiB"])?;
        self.processes.push(executor);
        Ok(())
    }

    /// Kills the executor that was started last.
    pub(crate) fn kill_executor(&mut self) {
        if let Some(mut executor) = self.processes.pop() {
            // It may have ended by itself.
            let _ = executor.kill();
            let _ = executor.wait();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until so many executors are there.
pub(crate) async fn until_ready(client: &Client, executors: usize) -> Result<()> {
    let alive = "SELECT CAST(count(*) AS DOUBLE) FROM system.executors WHERE state = 'alive'";
    let start = Instant::now();
    while number(client, alive).await? < executors as f64 {
        if start.elapsed() > READY {
            return Err(Error::unavailable(format!("{executors} executors did not come within {READY:?}")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A command that plays a role of the binary.
pub(crate) fn command(args: &[&str]) -> Result<Command> {
    let binary = std::env::current_exe().map_err(|e| Error::unavailable(e.to_string()))?;
    let mut command = Command::new(binary);
    command.args(args).env(ROLE, "1").stdin(Stdio::null());
    Ok(command)
}

fn spawn(args: &[&str]) -> Result<(Child, String)> {
    let failed = || Error::unavailable(format!("tidemill {} did not become ready", args.join(" ")));
    let mut child = command(args)?.stdout(Stdio::piped()).spawn().map_err(|_| failed())?;
    let output = child.stdout.take().ok_or_else(failed)?;
    // An executor says first that it waits, if it does.
    let mut lines = BufReader::new(output).lines().map_while(std::result::Result::ok);
    let line = lines.find(|line| line.contains("is ready at ")).ok_or_else(failed)?;
    let url = line.split_whitespace().find(|w| w.starts_with("http://")).ok_or_else(failed)?;
    Ok((child, url.trim_end_matches(';').to_owned()))
}
