//! A real MySQL-like server on loopback: MariaDB, the machine's own, or else Debian's package, which
//! `cargo run -p tidemill-tests` unpacks into the user's cache folder.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process_cluster::lasting_port;

/// The package with the server and what makes its own tables.
pub const PACKAGE: &str = "mariadb-server-core";
/// Libraries that it needs, and that a bare Debian has not.
pub const LIBRARIES: &[&str] = &["liburing2", "libnuma1", "libpcre2-8-0"];
/// Who may read everything.
pub const USER: &str = "reader";
/// The password of that user.
pub const PASSWORD: &str = "tide and mill";
/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is started before that is a failure.
const TRIES: usize = 5;
/// The user without rights: the server refuses to be root's.
const NOBODY: u32 = 65_534;

/// Where a package is unpacked that is not installed.
#[must_use]
pub fn folder() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    home.join(".cache/tidemill/mariadb")
}

/// The folder above `sbin/mariadbd` and `share/mysql`; `None` if it is still to be set up.
#[must_use]
pub fn base() -> Option<PathBuf> {
    let bases = [PathBuf::from("/usr"), folder().join("usr")];
    bases.into_iter().find(|base| server(base).exists() && base.join("share/mysql/mysql_system_tables.sql").exists())
}

fn server(base: &Path) -> PathBuf {
    base.join("sbin/mariadbd")
}

/// Whether the server of a folder finds its libraries.
#[must_use]
pub fn starts(base: &Path) -> bool {
    program(base).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The server, with the libraries that were unpacked beside it.
fn program(base: &Path) -> Command {
    let mut command = Command::new(server(base));
    let libraries = std::fs::read_dir(base.join("lib")).into_iter().flatten().flatten().map(|entry| entry.path());
    if base != Path::new("/usr")
        && let Some(folder) = libraries.filter(|path| path.join("liburing.so.2").exists()).min()
    {
        command.env("LD_LIBRARY_PATH", folder);
    }
    command
}

/// A running server, killed when dropped.
pub struct MariaDb {
    process: Option<Child>,
    /// Where it listens, on loopback.
    pub port: u16,
    base: PathBuf,
    data: TempDir,
}

impl MariaDb {
    /// Starts a server with a database `shop`, in which these statements were run, each of one line.
    ///
    /// # Panics
    /// It is not set up, or does not answer.
    pub fn start(statements: &str) -> Self {
        let found = base().expect("MariaDB is missing: `cargo run -p tidemill-tests` sets it up");
        let data = tempfile::tempdir().expect("a temporary folder");
        if let Some(nobody) = nobody() {
            chown(data.path(), Some(nobody), Some(nobody)).expect("a folder of another");
        }
        // Another user cannot enter the cache folder of this one.
        let base = if found.starts_with("/usr") { found } else { copied(&found, data.path()) };
        let users = format!(
            "CREATE DATABASE shop CHARACTER SET utf8mb4;\nCREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n\
             GRANT SELECT ON *.* TO '{USER}'@'127.0.0.1';\nUSE shop;\n"
        );
        let mut mariadb = Self { process: None, port: 0, base, data };
        std::fs::create_dir(mariadb.path("data")).expect("a folder");
        std::fs::write(mariadb.path("init.sql"), users + statements).expect("statements");
        if let Some(nobody) = nobody() {
            chown(mariadb.path("data"), Some(nobody), Some(nobody)).expect("a folder of another");
        }
        mariadb.make_tables();
        for _ in 0..TRIES {
            mariadb.port = lasting_port();
            if mariadb.run() {
                return mariadb;
            }
        }
        panic!("MariaDB does not start: {}", mariadb.log());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = program(&self.base);
        command.arg("--no-defaults").arg(format!("--datadir={}", self.path("data").display()));
        command.arg(format!("--lc-messages-dir={}", self.base.join("share/mysql").display()));
        command.args([
            "--innodb-buffer-pool-size=16M",
            "--innodb-flush-log-at-trx-commit=0",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
        ]);
        if let Some(nobody) = nobody() {
            command.uid(nobody).gid(nobody);
        }
        command.current_dir(self.data.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Makes the server's own tables, as its installation does.
    fn make_tables(&self) {
        let mut sql = "CREATE DATABASE mysql;\nUSE mysql;\n".to_owned();
        for script in ["mysql_system_tables.sql", "mysql_system_tables_data.sql"] {
            let path = self.base.join("share/mysql").join(script);
            File::open(path).expect("a script").read_to_string(&mut sql).expect("a script");
        }
        let mut bootstrap = self.command();
        bootstrap.arg("--bootstrap").stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut bootstrap = bootstrap.spawn().expect("MariaDB starts");
        let mut stdin = bootstrap.stdin.take().expect("stdin");
        let feeding = std::thread::spawn(move || stdin.write_all(sql.as_bytes()));
        let made = bootstrap.wait_with_output().expect("MariaDB ends");
        // It may have ended before it had read all, and says why.
        let _ = feeding.join().expect("no panic");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Starts it on its port; `false` if it ended by itself.
    fn run(&mut self) -> bool {
        let log = File::options().create(true).append(true).open(self.path("log")).expect("a log");
        let mut server = self.command();
        server.arg(format!("--port={}", self.port)).arg("--bind-address=127.0.0.1");
        server.arg(format!("--socket={}", self.path("socket").display()));
        server.arg(format!("--init-file={}", self.path("init.sql").display()));
        server.args(["--general-log=1", &format!("--general-log-file={}", self.path("data/statements").display())]);
        self.process = Some(server.stderr(log).spawn().expect("MariaDB starts"));
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.process.as_mut().expect("a process").try_wait().expect("a process").is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("MariaDB did not answer within {PATIENCE:?}: {}", self.log());
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("log")).unwrap_or_default()).into_owned()
    }

    /// Every statement that it was sent.
    ///
    /// # Panics
    /// It wrote none down.
    pub fn statements(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("data/statements")).expect("a log")).into_owned()
    }

    /// The variables of a process that knows it as the secret `mine`.
    #[must_use]
    pub fn environment(&self, password: &str) -> Vec<(&'static str, String)> {
        let port = self.port;
        let secret = format!(
            "{{ type = \"mysql\", host = \"127.0.0.1\", port = {port}, user = \"{USER}\", database = \"shop\", \
             sslmode = \"disabled\", password = \"{password}\" }}"
        );
        vec![("TIDEMILL_SECRET_MINE", secret)]
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The user that it runs as, where this one is root.
fn nobody() -> Option<u32> {
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0).then_some(NOBODY)
}

/// The package's files, where a user without rights finds them.
fn copied(base: &Path, to: &Path) -> PathBuf {
    let mut copy = Command::new("sh");
    copy.args(["-c", "mkdir -p \"$1\"/usr/share \"$1\"/usr/sbin \"$1\"/usr/lib && cp -r \"$0\"/share/mysql \"$1\"/usr/share/ && { [ ! -d \"$0\"/lib ] || cp -r \"$0\"/lib/. \"$1\"/usr/lib/; } && cp \"$0\"/sbin/mariadbd \"$1\"/usr/sbin/"]);
    assert!(copy.arg(base).arg(to).status().expect("cp runs").success(), "the package cannot be copied");
    to.join("usr")
}
