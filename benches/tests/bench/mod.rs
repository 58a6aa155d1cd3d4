//! Runs the benchmark's program as a user does.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// More than it takes where much else is built and run.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs it to its end, which must be a good one, and gives back the report.
pub(crate) fn report(args: &[&str], folder: &Path) -> std::io::Result<String> {
    let report = folder.join("report.md");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill-benches"));
    command.args(args).arg("--to").arg(&report);
    // A group of its own: what it started ends with it, should it hang.
    let mut bench = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = bench.try_wait()? {
            break status;
        }
        if start.elapsed() > PATIENCE {
            Command::new("kill").args(["-KILL", &format!("-{}", bench.id())]).status()?;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status} after {:?}", start.elapsed());
    std::fs::read_to_string(&report)
}
