//! A coordinator and executors as separate processes of this binary, on free loopback ports.

use std::process::Stdio;
use std::time::Duration;

use tidemill_core::{Error, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a process may take to say that it is ready, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Processes that end with this value at the latest.
pub(super) struct Cluster {
    url: String,
    /// The coordinator first.
    processes: Vec<Child>,
}

impl Cluster {
    pub(super) async fn start(executors: u32) -> Result<Self> {
        let (coordinator, url) = spawn(&["coordinator", "--bind", "127.0.0.1:0"]).await?;
        let mut cluster = Self { url, processes: vec![coordinator] };
        for _ in 0..executors {
            let (executor, _) = spawn(&["executor", "--connect", &cluster.url, "--slots", "1"]).await?;
            cluster.processes.push(executor);
        }
        Ok(cluster)
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.processes.iter().filter_map(Child::id).collect()
    }

    /// Asks every process to end, executors first, and waits for it.
    pub(super) async fn stop(mut self) -> Result<()> {
        while let Some(mut process) = self.processes.pop() {
            if let Some(pid) = process.id() {
                terminate(pid).await?;
            }
            match tokio::time::timeout(PATIENCE, process.wait()).await {
                Ok(Ok(_)) => {}
                Ok(Err(e)) => return Err(Error::internal(format!("a process cannot be waited for: {e}"))),
                Err(_) => return Err(Error::internal("a process did not end within 10 s of SIGTERM and was killed")),
            }
        }
        Ok(())
    }
}

async fn terminate(pid: u32) -> Result<()> {
    let status = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
    status.map(|_| ()).map_err(|e| Error::unavailable(format!("process {pid} cannot be signalled: {e}")))
}

/// Starts this binary with `args` and waits for its ready line, which names its URL.
async fn spawn(args: &[&str]) -> Result<(Child, String)> {
    let failed = |e: std::io::Error| Error::unavailable(format!("tidemill {} cannot be started: {e}", args.join(" ")));
    let binary = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(binary)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let unready = || Error::unavailable(format!("tidemill {} did not become ready within 10 s", args.join(" ")));
    let output = child.stdout.take().ok_or_else(unready)?;
    let mut lines = BufReader::new(output).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.map_err(|_| unready())?.map_err(failed)?;
    let line = line.ok_or_else(unready)?;
    let url = line.split_whitespace().find(|w| w.starts_with("http://")).ok_or_else(unready)?;
    Ok((child, url.trim_end_matches(';').to_owned()))
}
