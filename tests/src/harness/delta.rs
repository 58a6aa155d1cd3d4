//! Python with other engines that read and write Delta tables, which `cargo run -p tidemill-tests` sets up from PyPI.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::adbc::run;

/// The packages that are set up. The folder is named after the first one's version.
pub const PACKAGES: [&str; 3] = ["deltalake==1.6.6", "polars==2.1.0", "pyarrow==26.0.1"];
/// How long a check may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Where Python is set up.
#[must_use]
pub fn python() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    let version = PACKAGES[0].rsplit('=').next().unwrap_or_default();
    home.join(".cache/tidemill").join(format!("deltalake-{version}")).join("bin/python")
}

/// Whether Python and its packages are there.
#[must_use]
pub fn is_set_up() -> bool {
    let mut command = Command::new(python());
    let command = command.args(["-c", "import deltalake, polars, pyarrow"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs one check of `tests/delta/checks.py` on a table.
///
/// # Panics
/// The check fails, or takes too long; or Python is not set up.
pub fn check(name: &str, location: &str, arguments: &[&str], environment: &[(&'static str, String)]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/delta/checks.py");
    run(&python(), script, &[&[name, location], arguments].concat(), environment, LIMIT);
}
