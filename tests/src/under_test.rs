//! The `tidemill` binary, built with the tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemill::cli::main()
}
