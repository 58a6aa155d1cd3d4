//! Real processes of the binary under test.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a process may take to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to say that it is ready.
const READY: Duration = Duration::from_secs(120);

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

    pub(super) fn wait_for(mut process: Self, args: &[&str], says: &str) -> Self {
        let start = Instant::now();
        let stdout = process.child.stdout.take().expect("stdout");
        let (to, said) = mpsc::channel();
        // Ends with the process, if nobody waits for it any more.
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = to.send(BufReader::new(stdout).read_line(&mut line).map(|_| line));
        });
        let line = said.recv_timeout(READY);
        let line = line.unwrap_or_else(|_| panic!("tidemill {} said nothing within {READY:?}", args.join(" ")));
        process.ready = line.expect("a ready line");
        assert!(process.ready.contains(says), "tidemill {}: {:?}", args.join(" "), process.ready);
        process.ready_after = start.elapsed();
        process
    }

    pub(super) fn spawn(mut command: Command, args: &[&str], environment: &[(&str, String)]) -> Self {
        let child = command
            .args(args)
            .env("TIDEMILL_CONFIG", "")
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
