//! A coordinator and executors as real processes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;
use tidemill::client::Client;

use super::process::{IGNORING_LIMITS, PATIENCE, Process, binary};

/// A coordinator and executors as processes.
pub struct ProcessCluster {
    /// The coordinator.
    pub coordinator: Process,
    /// The executors.
    pub executors: Vec<Process>,
    /// How the coordinator is started again.
    coordinator_args: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// How many executors were ever started.
    started: usize,
    journals: TempDir,
    work: TempDir,
}

/// A free port that nobody is given who asks for any: a process that starts again finds it free again.
///
/// # Panics
/// There is none.
#[must_use]
pub fn lasting_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ports = std::iter::repeat_with(|| fastrand::u16(20_000..32_000));
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.find(|port| is_free(port) && given.insert(*port)).expect("a free port")
}

impl ProcessCluster {
    /// Starts a cluster and waits until it knows its executors.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start(executors: usize, slots: u32) -> Self {
        Self::durable(executors, slots, "memory://").await
    }

    /// The same, with its state somewhere.
    ///
    /// # Panics
    /// It does not start.
    pub async fn durable(executors: usize, slots: u32, state: &str) -> Self {
        Self::with(executors, slots, state, &[]).await
    }

    /// The same, with variables in every process's environment.
    ///
    /// # Panics
    /// It does not start.
    pub async fn with(executors: usize, slots: u32, state: &str, environment: &[(&'static str, String)]) -> Self {
        let address = format!("127.0.0.1:{}", lasting_port());
        let coordinator_args = ["coordinator", "--bind", &address, "--state", state].map(str::to_owned).to_vec();
        let coordinator = Process::start_with(&["coordinator", "--bind", &address, "--state", state], environment);
        let environment = environment.to_vec();
        let folder = || tempfile::tempdir().expect("a temporary folder");
        let (work, journals) = (folder(), folder());
        let mut cluster =
            Self { coordinator, executors: Vec::new(), coordinator_args, environment, started: 0, journals, work };
        for _ in 0..executors {
            cluster.add_executor(slots);
        }
        cluster.wait_for_executors(executors).await;
        cluster
    }

    /// Starts one more executor.
    pub fn add_executor(&mut self, slots: u32) {
        self.add_executor_with(slots, &[]);
    }

    /// The same, with more variables in its environment.
    pub fn add_executor_with(&mut self, slots: u32, more: &[(&'static str, String)]) {
        let url = self.coordinator.url();
        self.add_executor_through(slots, &url, more);
    }

    /// The same, for one that reaches its coordinator at another URL.
    pub fn add_executor_through(&mut self, slots: u32, url: &str, more: &[(&'static str, String)]) {
        self.add_executor_by(Command::new(binary()), slots, url, more);
    }

    /// Starts an executor that cannot write files of more than a few MiB, as if its disk were full.
    pub fn add_executor_with_small_files(&mut self, slots: u32) {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -f 2048; {IGNORING_LIMITS}")]).arg(binary());
        let url = self.coordinator.url();
        self.add_executor_by(shell, slots, &url, &[]);
    }

    fn add_executor_by(&mut self, command: Command, slots: u32, url: &str, more: &[(&'static str, String)]) {
        let work = self.work_dir().display().to_string();
        let slots = slots.to_string();
        let args = ["executor", "--connect", url, "--slots", &slots, "--work-dir", &work];
        self.started += 1;
        let journal = self.journal(self.started).display().to_string();
        let mut environment = vec![("TIDEMILL_MEMORY", "256MiB".to_owned())];
        environment.extend_from_slice(&self.environment);
        environment.push(("TIDEMILL_ATTEMPT_JOURNAL", journal));
        environment.extend_from_slice(more);
        let process = Process::spawn(command, &args, &environment);
        self.executors.push(Process::wait_for(process, &args, "is ready at http://"));
    }

    fn journal(&self, executor: usize) -> PathBuf {
        self.journals.path().join(executor.to_string())
    }

    /// What each executor that was ever started wrote of its attempts, as it came to pass.
    ///
    /// # Panics
    /// A journal cannot be read.
    #[must_use]
    pub fn journals(&self) -> Vec<Vec<String>> {
        let read = |executor| match std::fs::read_to_string(self.journal(executor)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.expect("a journal"),
        };
        (1..=self.started).map(|executor| read(executor).lines().map(str::to_owned).collect()).collect()
    }

    /// Kills the coordinator and starts it again on the same address and state. When it was killed.
    ///
    /// # Panics
    /// It does not start.
    pub fn restart_coordinator(&mut self) -> SystemTime {
        self.restart_coordinator_with(&[])
    }

    /// The same, with more variables in its environment.
    ///
    /// # Panics
    /// It does not start.
    pub fn restart_coordinator_with(&mut self, more: &[(&'static str, String)]) -> SystemTime {
        let killed = self.kill_coordinator();
        let environment = [self.environment.as_slice(), more].concat();
        self.coordinator = Process::start_with(&self.coordinator_args(), &environment);
        killed
    }

    /// Kills the coordinator. When that was.
    pub fn kill_coordinator(&mut self) -> SystemTime {
        self.coordinator.kill();
        SystemTime::now()
    }

    /// Starts a coordinator that is killed while it takes over.
    ///
    /// # Panics
    /// It is not.
    pub fn succeed_and_die(&self, more: &[(&'static str, String)], context: &str) {
        let environment = [self.environment.as_slice(), more].concat();
        let mut process = Process::spawn(Command::new(binary()), &self.coordinator_args(), &environment);
        let start = Instant::now();
        while !process.was_killed() {
            assert!(start.elapsed() < PATIENCE, "{context}: the point was not reached");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn coordinator_args(&self) -> Vec<&str> {
        self.coordinator_args.iter().map(String::as_str).collect()
    }

    /// Waits until so many executors are alive.
    ///
    /// # Panics
    /// They do not come.
    pub async fn wait_for_executors(&self, executors: usize) {
        let mut client = self.client().await;
        let known = "SELECT count(*) FROM system.executors WHERE state = 'alive'";
        let start = Instant::now();
        while super::value(&mut client, known).await != executors.to_string() {
            assert!(start.elapsed() < PATIENCE, "{executors} executors do not come");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Where executors spill.
    #[must_use]
    pub fn work_dir(&self) -> &Path {
        self.work.path()
    }

    /// A client of the cluster.
    ///
    /// # Panics
    /// It cannot connect.
    pub async fn client(&self) -> Client {
        Client::connect(&self.coordinator.url()).await.expect("a client connects")
    }
}
