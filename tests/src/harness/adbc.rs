//! Python with its ADBC driver for Flight SQL, which `cargo run -p tidemill-tests` sets up from PyPI.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The packages that are set up. The folder is named after the first one's version.
pub const PACKAGES: [&str; 3] = ["adbc-driver-flightsql==1.13.0", "adbc-driver-manager==1.13.0", "pyarrow==26.0.1"];

/// Where Python is set up.
#[must_use]
pub fn python() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    let version = PACKAGES[0].rsplit('=').next().unwrap_or_default();
    home.join(".cache/tidemill").join(format!("adbc-{version}")).join("bin/python")
}

/// Whether Python and its packages are there.
#[must_use]
pub fn is_set_up() -> bool {
    let script = "import adbc_driver_flightsql.dbapi, pyarrow";
    let mut command = Command::new(python());
    let command = command.args(["-c", script]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs one check of `tests/adbc/checks.py` against a server.
///
/// # Panics
/// The check fails, or takes longer than `limit`; or Python is not set up.
pub fn check(url: &str, arguments: &[&str], limit: Duration) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/adbc/checks.py");
    let url = url.replace("http://", "grpc://");
    run(&python(), script, &[&[url.as_str()], arguments].concat(), &[], limit);
}

/// Runs a script of Python's to its end.
///
/// # Panics
/// It fails, or takes longer than `limit`; or Python is not set up.
pub(super) fn run(
    python: &Path,
    script: &str,
    arguments: &[&str],
    environment: &[(&'static str, String)],
    limit: Duration,
) {
    assert!(python.exists(), "{} is missing: `cargo run -p tidemill-tests` sets it up", python.display());
    let start = Instant::now();
    let mut command = Command::new(python);
    command.arg(script).args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("Python starts");
    let stderr = child.stderr.take().expect("stderr");
    let said = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
    let status = loop {
        if let Some(status) = child.try_wait().expect("a process can be waited for") {
            break status;
        }
        if start.elapsed() > limit {
            // It may end just then.
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let said = said.join().expect("no panic");
    assert!(status.success(), "{arguments:?} ended with {status} after {:?} of {limit:?}:\n{said}", start.elapsed());
}
