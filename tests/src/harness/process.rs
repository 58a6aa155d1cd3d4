//! Real processes of the binary under test.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How long a process may take to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// What an executor says that has not joined yet.
const WAITS: &str = "waits for the coordinator at";
/// How long it may take to say that it is ready.
const READY: Duration = Duration::from_secs(120);

/// Characters that are kept of what a process says.
const HEARD: usize = 1 << 20;

/// The user without rights.
const NOBODY: u32 = 65_534;
/// A shell's words that become the program they are given, which is told of its files' limits by errors instead of a signal.
pub(super) const IGNORING_LIMITS: &str = "trap '' XFSZ; exec \"$0\" \"$@\"";

/// The binary in a folder: the way to the binary itself may be closed to others.
fn program_of_nobody(directory: &Path) -> PathBuf {
    let program = directory.join("tidemill-of-nobody");
    if !program.exists() && std::fs::hard_link(binary(), &program).is_err() {
        std::fs::copy(binary(), &program).expect("a copy of the binary");
    }
    program
}

/// Whether the command will be another user's: only root may become somebody else.
fn become_nobody(command: &mut Command, directory: &Path) -> bool {
    use std::os::unix::process::CommandExt;
    command.current_dir(directory).env("TMPDIR", directory);
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
    if is_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    is_root
}

/// The binary under test: cargo builds it for the tests of this package.
pub(super) fn binary() -> PathBuf {
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
    said: Arc<Mutex<String>>,
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
        let mut command = Command::new(program_of_nobody(directory));
        become_nobody(&mut command, directory);
        Self::finish(&mut command, args)
    }

    /// Starts a server of some role in a folder, which becomes its user's: one without rights if this one may do everything. A
    /// file that may not grow is an error to it, not its end. Waits for its ready line.
    ///
    /// # Panics
    /// It does not become ready.
    pub fn start_as_nobody(directory: &Path, args: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", IGNORING_LIMITS]).arg(program_of_nobody(directory));
        if become_nobody(&mut shell, directory) {
            std::os::unix::fs::chown(directory, Some(NOBODY), Some(NOBODY)).expect("a folder of another");
        }
        Self::wait_for(Self::spawn(shell, args, &[("NO_COLOR", "1".to_owned())]), args, "is ready at http://")
    }

    /// Runs a command to its end, with variables in its environment.
    ///
    /// # Panics
    /// It does not end within 30 s: a hang.
    pub fn run_with(args: &[&str], environment: &[(&str, String)]) -> Output {
        Self::finish(Command::new(binary()).envs(environment.iter().map(|(name, value)| (name, value))), args)
    }

    /// Runs a command to its end whose standard output goes to a file.
    ///
    /// # Panics
    /// It does not end within 30 s: a hang.
    pub fn run_into(stdout: std::fs::File, args: &[&str]) -> Output {
        Self::finish_into(stdout.into(), &mut Command::new(binary()), args)
    }

    fn finish(command: &mut Command, args: &[&str]) -> Output {
        Self::finish_into(Stdio::piped(), command, args)
    }

    fn finish_into(stdout: Stdio, command: &mut Command, args: &[&str]) -> Output {
        let start = Instant::now();
        command.args(args).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        // Settings of whoever runs the tests are not the tests'.
        if command.get_envs().all(|(name, _)| name != "TIDEMILL_CONFIG") {
            command.env("TIDEMILL_CONFIG", "");
        }
        let mut child = command.spawn().expect("the binary starts");
        let (out, mut err) = (child.stdout.take(), child.stderr.take().expect("stderr"));
        let out = std::thread::spawn(move || out.map(|mut out| text(&mut out)).unwrap_or_default());
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

    /// Starts one that may never be ready, and waits for nothing.
    ///
    /// # Panics
    /// The binary does not start.
    pub fn begin(args: &[&str]) -> Self {
        Self::spawn(Command::new(binary()), args, &[])
    }

    /// Waits until it has said something on standard error.
    ///
    /// # Panics
    /// It does not within 60 s.
    pub async fn until_said(&self, what: &str) {
        let start = Instant::now();
        while !self.said().contains(what) {
            assert!(start.elapsed() < Duration::from_secs(60), "it never says `{what}`: {}", self.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts a server that may have so many files open at first, and as many as the system allows if it asks for them.
    ///
    /// # Panics
    /// It does not become ready.
    pub fn start_with_open_files(files: u32, args: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -Sn \"$0\" && exec \"$@\"", &files.to_string()]).arg(binary());
        Self::wait_for(Self::spawn(shell, args, &[]), args, "is ready at http://")
    }

    pub(super) fn wait_for(mut process: Self, args: &[&str], says: &str) -> Self {
        let start = Instant::now();
        let stdout = process.child.stdout.take().expect("stdout");
        let (to, said) = mpsc::channel();
        let wanted = says.to_owned();
        // Ends with the process, if nobody waits for it any more.
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let next = || {
                let mut line = String::new();
                stdout.read_line(&mut line).map(|_| line)
            };
            // An executor says first that it waits, if it does.
            let is_last = |line: &std::io::Result<String>| {
                line.as_ref().map_or(true, |line| line.contains(&wanted) || !line.contains(WAITS))
            };
            if let Some(line) = std::iter::repeat_with(next).find(is_last) {
                let _ = to.send(line);
            }
        });
        let line = said.recv_timeout(READY);
        let line = line.unwrap_or_else(|_| panic!("tidemill {} said nothing within {READY:?}", args.join(" ")));
        process.ready = line.expect("a ready line");
        assert!(process.ready.contains(says), "tidemill {}: {:?}", args.join(" "), process.ready);
        process.ready_after = start.elapsed();
        process
    }

    pub(super) fn spawn(mut command: Command, args: &[&str], environment: &[(&str, String)]) -> Self {
        let mut child = command
            .args(args)
            .env("TIDEMILL_CONFIG", "")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let said = Arc::default();
        hear(child.stderr.take().expect("stderr"), Arc::clone(&said));
        Self { child, said, ready: String::new(), ready_after: Duration::ZERO }
    }

    /// What it said on standard error so far; of very much the end. The test's own output has it too.
    ///
    /// # Panics
    /// Never.
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How it ended, if it has: its exit code, or none if a signal ended it.
    ///
    /// # Panics
    /// The system does not tell.
    pub fn exit_code(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().expect("a process can be waited for").map(|status| status.code())
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
        let is_url = |word: &&str| word.starts_with("http://") || word.starts_with("https://");
        let url = self.ready.split_whitespace().find(is_url).expect("a URL");
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

    /// Changes how large files may be that one of [`Self::start_as_nobody`] writes, in bytes.
    ///
    /// # Panics
    /// There is no `prlimit` command.
    pub fn limit_files_of_nobody(&self, bytes: &str) {
        let mut prlimit = Command::new("prlimit");
        // A process's limits are its user's matter.
        become_nobody(&mut prlimit, Path::new("/"));
        let status = prlimit.args(["--pid", &self.pid().to_string(), &format!("--fsize={bytes}:")]).status();
        assert!(status.expect("prlimit runs").success(), "a limit of {bytes} bytes");
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

/// Keeps what a process says, and passes it on to the test's output. Ends with the process.
fn hear(from: impl Read + Send + 'static, said: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            let text = String::from_utf8_lossy(&line);
            eprint!("{text}");
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.push_str(&text);
            if said.len() > 2 * HEARD {
                let tail = said.char_indices().map(|(at, _)| at).find(|at| *at >= HEARD).unwrap_or_default();
                said.drain(..tail);
            }
            drop(said);
            line.clear();
        }
    });
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
