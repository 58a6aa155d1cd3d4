//! The commands of the binary, one file each.

mod completions;
mod config;
mod demo;
mod errors;
mod file;
mod generate;
mod progress;
mod screen;
mod secrets;
mod security;
mod serve;
mod shell;
mod sql;
mod texts;
mod user;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use file::SettingsFile;
use tidemill_core::{Error, ErrorKind, Result};
use tidemill_engine::functions::Functions;
use tracing_subscriber::EnvFilter;

use crate::compose::{IDLE_THREAD, raise_open_files};

/// As clap has it.
const WRONG_USE: u8 = 2;
/// What `EX_TEMPFAIL` is in `sysexits.h`.
const TRY_AGAIN: u8 = 75;

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
    /// Say who may use a cluster
    #[command(subcommand)]
    User(user::UserCommand),
    /// Write benchmark data
    #[command(subcommand)]
    Generate(generate::GenerateCommand),
    /// Show every setting, its value, and where it came from
    Config(config::ConfigArgs),
    /// Print a script by which a shell completes this command's arguments
    Completions(completions::CompletionsArgs),
}

/// How a command ended without an error.
enum Done {
    /// As it should.
    Well,
    /// It ran, and found that something is not as it should be.
    Badly,
    /// With an error that was told already.
    Failed(ErrorKind),
    /// Before it began: the command line or the settings file is wrong, which was told already.
    Misused,
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
    let mut cli = match SettingsFile::read().and_then(|file| parse(&file)) {
        Ok(cli) => cli,
        Err(error) => {
            errors::report(&error, "");
            return ExitCode::from(WRONG_USE);
        }
    };
    cli.command.give(functions);
    let filter = EnvFilter::try_from_env("TIDEMILL_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    // Colours where errors have them, too.
    let colors = console::colors_enabled_stderr();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colors).with_writer(std::io::stderr).init();
    match run(cli.command) {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::Badly) => ExitCode::FAILURE,
        Ok(Done::Interrupted) => ExitCode::from(130),
        Ok(Done::Failed(kind)) => failure(kind),
        Ok(Done::Misused) => ExitCode::from(WRONG_USE),
        Err(error) => {
            errors::report(&error, "");
            failure(error.kind)
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
            Self::Demo(_) | Self::User(_) | Self::Generate(_) | Self::Config(_) | Self::Completions(_) => {}
        }
    }
}

/// Scripts try again by it, or do not.
fn failure(kind: ErrorKind) -> ExitCode {
    match kind {
        ErrorKind::Unavailable => ExitCode::from(TRY_AGAIN),
        _ => ExitCode::FAILURE,
    }
}

/// How a command ends that could not begin: by its command line or settings file, unless something else than these is wrong.
fn not_begun(error: Error) -> Result<Done> {
    match error.kind {
        ErrorKind::Invalid | ErrorKind::NotFound => {
            errors::report(&error, "");
            Ok(Done::Misused)
        }
        _ => Err(error),
    }
}

/// What standard output did not take. No other try helps, as far as anybody knows.
fn unwritable(error: &std::io::Error) -> Error {
    Error::invalid(format!("the output cannot be written: {error}"))
}

/// Writes what a command prints. A reader that had enough is no error.
fn write_out(text: &[u8]) -> Result<Done> {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(unwritable(&error)),
        _ => Ok(Done::Well),
    }
}

/// The command line, with what the settings file says where it says nothing.
fn parse(file: &SettingsFile) -> Result<Cli> {
    let matches = file.apply(Cli::command())?.try_get_matches();
    let matches = matches.unwrap_or_else(|error| file.blame(error, &Cli::command()).exit());
    secrets::of(file)?.install();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Command::Sql(args) = &mut cli.command {
        args.sessions = file.sessions();
        args.settings_file = file.path.display().to_string();
    }
    Ok(cli)
}

fn run(command: Command) -> Result<Done> {
    match command {
        Command::Sql(args) => block_on(sql::run(args)),
        Command::Server(args) => block_on_server(serve::server(args)),
        Command::Coordinator(args) => block_on_server(serve::coordinator(args)),
        Command::Executor(args) => block_on_server(serve::executor(args)),
        Command::Demo(args) => block_on(demo::run(args)),
        Command::User(command) => user::run(&command),
        Command::Generate(command) => generate::run(&command),
        Command::Config(args) => config::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}

fn block_on_server(command: impl Future<Output = Result<Done>>) -> Result<Done> {
    raise_open_files();
    block_on(command)
}

fn block_on(command: impl Future<Output = Result<Done>>) -> Result<Done> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("tidemill-io")
        .thread_keep_alive(IDLE_THREAD)
        .build()
        .map_err(|e| Error::unavailable(format!("the runtime cannot start: {e}")))?;
    let done = runtime.block_on(command);
    runtime.shutdown_background();
    done
}
