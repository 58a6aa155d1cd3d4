//! The `tidemill` binary, built with the tests, and with the functions of `harness/functions.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemill::cli::main_with(&tidemill_tests::harness::functions())
}
