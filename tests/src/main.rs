//! Sets up what the tests need and runs them: `cargo run -p tidemill-tests` the bounded part that CI runs,
//! `cargo run -p tidemill-tests -- full` everything, with the report that is committed.

use std::process::{Command, ExitCode};

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

fn succeeds(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("error: {command:?} cannot be run: {error}");
            false
        }
    }
}
