//! The benchmark of the front door on a small scale: its clusters start, every side gives the same rows, nobody is told an
//! error, and the report says so. What the numbers are is not looked at.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// More than it takes where much else is built and run.
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn a_small_crowd_is_answered_without_an_error() -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, report) = (folder.path().join("data"), folder.path().join("report.md"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill-benches"));
    command.args(["--front-door", "--scale", "0.01", "--seconds", "1", "--clients", "8", "--rows", "10000"]);
    command.args(["--questions", "10"]);
    command.arg("--data").arg(&data).arg("--to").arg(&report);
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
    reports(&report)
}

fn reports(report: &Path) -> std::io::Result<()> {
    let text = std::fs::read_to_string(report)?;
    for part in ["## One client", "in-process DataFusion", "## 8 clients for 1 s", "## The coordinator's memory"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    // Question, answers, per second, errors.
    let crowd: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.len() == 12 && matches!(cells[2], "`SELECT 1`" | "point query"))
        .collect();
    assert_eq!(crowd.len(), 4, "{text}");
    for row in crowd {
        assert!(row[3].parse::<u64>().is_ok_and(|answers| answers >= 8), "{row:?}: not everybody was answered");
        assert_eq!(row[5], "0", "{row:?}");
    }
    assert!(!text.contains("| 0 MiB |"), "the coordinator's memory is not known:\n{text}");
    Ok(())
}
