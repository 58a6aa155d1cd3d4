//! Real processes of the binary under test.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;
use tidemill::client::Client;

/// How long a process may take to become ready or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The binary under test: cargo builds it for the tests of this package.
fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its binary");
    let profile = test.ancestors().nth(2).expect("a test lies in a target folder");
    profile.join("tidemill-under-test")
}

/// What a finished command printed.
#[derive(Debug)]
pub struct Output {
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub time: Duration,
}

/// A process of the binary under test, killed when dropped.
pub struct Process {
    child: Child,
    /// The line that said that it is ready.
    pub ready: String,
    /// How long that took.
    pub ready_after: Duration,
}

impl Process {
    /// Runs a command to its end.
    ///
    /// # Panics
    /// It does not end within 30 s: a hang.
    pub fn run(args: &[&str]) -> Output {
        Self::run_in(Path::new("."), args)
    }

    /// Runs a command in a folder to its end.
    ///
    /// # Panics
    /// It does not end within 30 s: a hang.
    pub fn run_in(directory: &Path, args: &[&str]) -> Output {
        Self::finish(Command::new(binary()).current_dir(directory), args)
    }

    /// Runs a command in a folder to its end, as a user without rights if this one may read everything.
    ///
    /// # Panics
    /// It does not end within 30 s: a hang.
    pub fn run_as_nobody(directory: &Path, args: &[&str]) -> Output {
        use std::os::unix::process::CommandExt;
        let program = directory.join("tidemill-of-nobody");
        // The way to the binary itself may be closed to others.
        if std::fs::hard_link(binary(), &program).is_err() {
            std::fs::copy(binary(), &program).expect("a copy of the binary");
        }
        let mut command = Command::new(program);
        command.current_dir(directory).env("TMPDIR", directory);
        // Only root may become somebody else.
        let root = std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
        if root {
            command.uid(65_534).gid(65_534);
        }
        Self::finish(&mut command, args)
    }

    /// Runs a command to its end, with variables in its environment.
    ///
    /// # Panics
    /// It does not end within 30 s: a hang.
    pub fn run_with(args: &[&str], environment: &[(&str, String)]) -> Output {
        Self::finish(Command::new(binary()).envs(environment.iter().map(|(name, value)| (name, value))), args)
    }

    fn finish(command: &mut Command, args: &[&str]) -> Output {
        let start = Instant::now();
        let mut child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (mut out, mut err) = (child.stdout.take().expect("stdout"), child.stderr.take().expect("stderr"));
        let out = std::thread::spawn(move || text(&mut out));
        let err = std::thread::spawn(move || text(&mut err));
        let code = wait(&mut child).unwrap_or_else(|| {
            let _ = child.kill();
            panic!("tidemill {} did not end within {PATIENCE:?}", args.join(" "))
        });
        let stdout = out.join().expect("stdout can be read");
        let stderr = err.join().expect("stderr can be read");
        Output { code, stdout, stderr, time: start.elapsed() }
    }

    /// Starts a server of some role and waits for its ready line.
    ///
    /// # Panics
    /// It does not become ready.
    pub fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[])
    }

    /// The same, with variables in its environment.
    ///
    /// # Panics
    /// It does not become ready.
    pub fn start_with(args: &[&str], environment: &[(&str, String)]) -> Self {
        Self::start_saying(args, environment, "is ready at http://")
    }

    /// The same, when what it says first is something else.
    ///
    /// # Panics
    /// It says that not.
    pub fn start_saying(args: &[&str], environment: &[(&str, String)], says: &str) -> Self {
        Self::wait_for(Self::spawn(Command::new(binary()), args, environment), args, says)
    }

    fn wait_for(mut process: Self, args: &[&str], says: &str) -> Self {
        let start = Instant::now();
        let stdout = process.child.stdout.take().expect("stdout");
        BufReader::new(stdout).read_line(&mut process.ready).expect("a ready line");
        assert!(process.ready.contains(says), "tidemill {}: {:?}", args.join(" "), process.ready);
        process.ready_after = start.elapsed();
        process
    }

    fn spawn(mut command: Command, args: &[&str], environment: &[(&str, String)]) -> Self {
        let child = command
            .args(args)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        Self { child, ready: String::new(), ready_after: Duration::ZERO }
    }

    /// Whether it ended by SIGKILL.
    ///
    /// # Panics
    /// It ended otherwise.
    pub fn was_killed(&mut self) -> bool {
        let Some(status) = self.child.try_wait().expect("a process can be waited for") else { return false };
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "it ended by itself: {status}");
        true
    }

    /// The URL of the ready line.
    ///
    /// # Panics
    /// There is none.
    pub fn url(&self) -> String {
        let url = self.ready.split_whitespace().find(|w| w.starts_with("http://")).expect("a URL");
        url.trim_end_matches(';').to_owned()
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory it ever held, in bytes.
    ///
    /// # Panics
    /// The system does not tell.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a process's status");
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("a peak");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a size") << 10
    }

    /// Kills it without a warning.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by name.
    ///
    /// # Panics
    /// There is no `kill` command.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(status.expect("kill runs").success(), "signal {name}");
    }

    /// Waits for its end and answers the exit code.
    ///
    /// # Panics
    /// It does not end within 30 s.
    pub fn wait(mut self) -> Option<i32> {
        wait(&mut self.child).expect("the process ends in time")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn text(from: &mut impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).expect("text");
    text
}

/// `None` if it does not end in time, otherwise its exit code.
fn wait(child: &mut Child) -> Option<Option<i32>> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().expect("a process can be waited for") {
            return Some(status.code());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

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
        shell.args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\""]).arg(binary());
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
