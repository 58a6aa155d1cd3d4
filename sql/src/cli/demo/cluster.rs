//! A coordinator and executors as separate processes of this binary, on free loopback ports.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tidemill_core::{Error, Result, RunId};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a process may take to say that it is ready, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Processes that end with this value at the latest.
pub(super) struct Cluster {
    url: String,
    /// The coordinator first.
    processes: Vec<Child>,
    /// Its state, and what executors wrote of their attempts.
    folder: TempDir,
    /// How often everything was started.
    lives: u32,
}

impl Cluster {
    pub(super) async fn start(executors: u32) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|e| Error::unavailable(format!("a temporary folder: {e}")))?;
        let mut cluster = Self { url: String::new(), processes: Vec::new(), folder, lives: 0 };
        cluster.spawn_all("127.0.0.1:0", executors).await?;
        Ok(cluster)
    }

    async fn spawn_all(&mut self, address: &str, executors: u32) -> Result<()> {
        self.lives += 1;
        let state = format!("file://{}", self.folder.path().join("state").display());
        let (coordinator, url) = spawn(&["coordinator", "--bind", address, "--state", &state], None).await?;
        self.processes.push(coordinator);
        self.url = url;
        for executor in 0..executors {
            let journal = self.journal(self.lives, executor);
            let args = ["executor", "--connect", &self.url, "--slots", "1"];
            let (executor, _) = spawn(&args, Some(&journal)).await?;
            self.processes.push(executor);
        }
        Ok(())
    }

    fn journal(&self, life: u32, executor: u32) -> PathBuf {
        self.folder.path().join(format!("attempts-{life}-{executor}"))
    }

    /// Kills every process without a warning.
    pub(super) async fn kill(&mut self) {
        for process in &mut self.processes {
            // It may have ended by itself.
            let _ = process.start_kill();
        }
        for mut process in self.processes.drain(..) {
            let _ = process.wait().await;
        }
    }

    /// The same commands again.
    pub(super) async fn restart(&mut self, executors: u32) -> Result<()> {
        let address = self.url.trim_start_matches("http://").to_owned();
        self.spawn_all(&address, executors).await
    }

    /// Tasks of a run that executors began since the last restart, by their own word.
    pub(super) fn started_after_restart(&self, run: &RunId) -> Result<usize> {
        let mut tasks = BTreeSet::new();
        for executor in 0..u32::try_from(self.processes.len()).unwrap_or(u32::MAX) {
            let journal = self.journal(self.lives, executor);
            if !journal.exists() {
                continue;
            }
            let text = std::fs::read_to_string(&journal).map_err(|e| Error::internal(format!("a journal: {e}")))?;
            tasks.extend(text.lines().filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
                [_, "started", of, task, _] if of == run.0 => Some(task.to_owned()),
                _ => None,
            }));
        }
        Ok(tasks.len())
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
async fn spawn(args: &[&str], journal: Option<&Path>) -> Result<(Child, String)> {
    let failed = |e: std::io::Error| Error::unavailable(format!("tidemill {} cannot be started: {e}", args.join(" ")));
    let binary = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(binary);
    if let Some(journal) = journal {
        command.env("TIDEMILL_ATTEMPT_JOURNAL", journal);
    }
    let mut child =
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().map_err(failed)?;
    let unready = || Error::unavailable(format!("tidemill {} did not become ready within 10 s", args.join(" ")));
    let output = child.stdout.take().ok_or_else(unready)?;
    let mut lines = BufReader::new(output).lines();
    let ready = async {
        loop {
            match lines.next_line().await {
                // An executor says first that it waits, if it does.
                Ok(Some(line)) if !line.contains("is ready at ") => {}
                line => break line,
            }
        }
    };
    let line = tokio::time::timeout(PATIENCE, ready).await.map_err(|_| unready())?.map_err(failed)?;
    let line = line.ok_or_else(unready)?;
    let url = line.split_whitespace().find(|w| w.starts_with("http://")).ok_or_else(unready)?;
    Ok((child, url.trim_end_matches(';').to_owned()))
}
