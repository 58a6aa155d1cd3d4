//! Python with other engines that read and write Delta tables, which `cargo run -p tidemill-tests` sets up from PyPI.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

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

/// Adds a column to a table in a folder, as another engine does: by an entry of its own, whose number it answers. Its type is in
/// Delta's words.
///
/// # Panics
/// There is no table.
pub fn add_column(table: &Path, name: &str, kind: &str) -> u64 {
    alter(table, |metadata| {
        let columns = metadata["schemaString"].as_str().expect("columns");
        let mut columns: Value = serde_json::from_str(columns).expect("columns");
        let field = json!({ "name": name, "type": kind, "nullable": true, "metadata": {} });
        columns["fields"].as_array_mut().expect("fields").push(field);
        metadata["schemaString"] = columns.to_string().into();
    })
}

/// Changes what a table in a folder says of itself, in the same way.
///
/// # Panics
/// There is no table.
pub fn alter(table: &Path, change: impl FnOnce(&mut Value)) -> u64 {
    let lines = |version: u64| -> Vec<Value> {
        let text = std::fs::read_to_string(entry(table, version)).expect("an entry");
        text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect()
    };
    let next = (0..).find(|version| !entry(table, *version).exists()).expect("a version");
    let mut known = (0..next).rev().flat_map(lines);
    let mut line = known.find(|line| line.get("metaData").is_some()).expect("a table");
    change(&mut line["metaData"]);
    std::fs::write(entry(table, next), format!("{line}\n")).expect("an entry");
    next
}

/// Where an entry of a table's log is.
#[must_use]
pub fn entry(table: &Path, version: u64) -> PathBuf {
    table.join(format!("_delta_log/{version:020}.json"))
}
