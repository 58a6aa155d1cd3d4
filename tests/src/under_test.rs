//! The `tidemill` binary, built with the tests, and with the functions of `harness/functions.rs`.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "../../sql/src/allocator.rs"]
mod allocator;

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemill::cli::main_with(&tidemill_tests::harness::functions())
}
