//! The `tidemill` binary, built with the tests, and with the functions of `harness/functions.rs`.

use std::process::ExitCode;

// Freed memory is used again by other threads, and goes back to the system: `--memory` is what a process takes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tidemill::cli::main_with(&tidemill_tests::harness::functions())
}
