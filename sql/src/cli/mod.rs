//! The commands of the binary, one file each.

mod demo;
mod generate;
mod serve;
mod sql;
mod texts;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidemill_core::{Error, Result};
use tidemill_engine::functions::Functions;
use tracing_subscriber::EnvFilter;

/// A distributed dataflow engine on Apache Arrow.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, about, long_about = None, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run SQL, on a cluster or in this process
    Sql(sql::SqlArgs),
    /// Run a coordinator and an executor in one process
    Server(serve::ServerArgs),
    /// Run a coordinator
    Coordinator(serve::CoordinatorArgs),
    /// Run an executor
    Executor(serve::ExecutorArgs),
    /// Run TPC-H on a small cluster of processes and compare it with DataFusion
    Demo(demo::DemoArgs),
    /// Write benchmark data
    #[command(subcommand)]
    Generate(generate::GenerateCommand),
}

/// How a command ended without an error.
enum Done {
    /// As it should.
    Well,
    /// It ran, and found that something is not as it should be.
    Badly,
    /// By Ctrl-C.
    Interrupted,
}

/// Runs the binary.
#[must_use]
pub fn main() -> ExitCode {
    main_with(&Functions::default())
}

/// Runs a binary of one's own, whose coordinators and executors know these functions too.
#[must_use]
pub fn main_with(functions: &Functions) -> ExitCode {
    let mut cli = Cli::parse();
    cli.command.give(functions);
    let filter = EnvFilter::try_from_env("TIDEMILL_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(cli.command) {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::Badly) => ExitCode::FAILURE,
        Ok(Done::Interrupted) => ExitCode::from(130),
        Err(error) => {
            // Nothing is left to do if stderr is closed too.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Command {
    fn give(&mut self, functions: &Functions) {
        match self {
            Self::Sql(args) => args.memory.functions = functions.clone(),
            Self::Server(args) => {
                args.coordinator.functions = functions.clone();
                args.memory.functions = functions.clone();
            }
            Self::Coordinator(args) => args.functions = functions.clone(),
            Self::Executor(args) => args.memory.functions = functions.clone(),
            Self::Demo(_) | Self::Generate(_) => {}
        }
    }
}

fn run(command: Command) -> Result<Done> {
    if let Command::Generate(command) = command {
        return generate::run(&command);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("tidemill-io")
        .build()
        .map_err(|e| Error::unavailable(format!("the runtime cannot start: {e}")))?;
    let done = runtime.block_on(async {
        match command {
            Command::Sql(args) => sql::run(args).await,
            Command::Server(args) => serve::server(args).await,
            Command::Coordinator(args) => serve::coordinator(args).await,
            Command::Executor(args) => serve::executor(args).await,
            Command::Demo(args) => demo::run(args).await,
            Command::Generate(command) => generate::run(&command),
        }
    });
    runtime.shutdown_background();
    done
}
