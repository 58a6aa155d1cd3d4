//! DuckDB beside it, from PyPI, in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tidemill::{Error, Result};

use super::client::Fetched;
use super::rows::Speed;

const PACKAGES: [&str; 2] = ["duckdb==2.0.0", "pyarrow==26.0.1"];
/// Runs the statement a few times; prints rows, bytes, the sum of the first column, and the median of the seconds.
const SCRIPT: &str = include_str!("duckdb.py");

/// Measures it; its rows must be those.
pub(super) fn measure(data: &Path, sql: &str, rows: &Fetched) -> Result<Speed> {
    let python = set_up()?;
    let pattern = data.join("lineitem/*.parquet").display().to_string();
    let output = Command::new(python).args(["-c", SCRIPT, &pattern, sql]).stdin(Stdio::null()).output();
    let output = output.map_err(|e| Error::unavailable(format!("Python cannot be run: {e}")))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let fields: Vec<&str> = said.split_whitespace().collect();
    let [version, count, bytes, sum, seconds] = fields[..] else {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(Error::internal(format!("DuckDB said {said:?}: {why}")));
    };
    let number = |text: &str| text.parse::<u64>().map_err(|e| Error::internal(format!("DuckDB said {text}: {e}")));
    let (count, bytes) = (number(count)?, number(bytes)?);
    let fetched = Fetched { rows: count, bytes, sum: sum.parse().unwrap_or_default() };
    if !fetched.has_rows_of(rows) {
        return Err(Error::internal(format!("DuckDB gave {fetched:?}, and others {rows:?}")));
    }
    let seconds: f64 = seconds.parse().map_err(|e| Error::internal(format!("DuckDB said {seconds}: {e}")))?;
    let name = format!("in-process DuckDB {version}, written as Arrow IPC");
    Ok(Speed { name, fetched, time: Duration::from_secs_f64(seconds.max(0.0)) })
}

/// The Python that has it, installed once.
fn set_up() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    let version = PACKAGES[0].rsplit('=').next().unwrap_or_default();
    let folder = home.join(".cache/tidemill").join(format!("duckdb-{version}"));
    let python = folder.join("bin/python");
    let works = || {
        let mut command = Command::new(&python);
        let command = command.args(["-c", "import duckdb, pyarrow"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if works() {
        return Ok(python);
    }
    eprintln!("setting up {} in {}", PACKAGES.join(", "), folder.display());
    let steps = [
        Command::new("python3").args(["-m", "venv"]).arg(&folder).status(),
        Command::new(folder.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .args(PACKAGES)
            .status(),
    ];
    if works() {
        return Ok(python);
    }
    let (packages, folder) = (PACKAGES.join(", "), folder.display());
    Err(Error::unavailable(format!("{packages} could not be installed into {folder} with python3 and pip: {steps:?}")))
}
