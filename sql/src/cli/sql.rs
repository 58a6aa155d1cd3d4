//! `tidemill sql`: statements from the command line, from files and pipes, or from a person.

use std::io::IsTerminal;
use std::time::Instant;

use clap::Args;
use tidemill_core::{Error, Result, RunId};
use tidemill_engine::coordinators::without_password;

use super::errors::report;
use super::screen::{Remarks, Screen};
use super::security::AccessArgs;
use super::serve::MemoryArgs;
use super::texts::{Texts, standard_input};
use super::{Done, not_begun, shell};
use crate::client::Client;
use crate::output::{Format, PrintError};
use crate::session::statements;

/// Rows of one result that a person is shown.
const ROWS: usize = 40;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill sql                                  a shell with a cluster of its own; \\? lists its commands
  tidemill sql -c 'SELECT 1'
  tidemill sql --connect http://127.0.0.1:7878 -f report.sql --format csv > report.csv
  echo 'SHOW TABLES' | tidemill sql --connect http://127.0.0.1:7878

Exit codes: 0 all statements succeeded, 1 one failed, 2 the command line is wrong, 75 the cluster is not available:
try again later, 130 Ctrl-C.")]
pub(super) struct SqlArgs {
    /// The coordinator's URL, or several, divided by commas, where others stand by; without it, the statements run in this process
    #[arg(long, env = "TIDEMILL_CONNECT", value_name = "URL", hide_env_values = true, hide_default_value = true)]
    connect: Option<String>,
    #[command(flatten)]
    texts: Texts,
    /// Print the result of a run again that has finished, instead of running a statement; system.runs lists runs
    #[arg(long, value_name = "RUN_ID", conflicts_with_all = ["command", "file"])]
    run: Option<String>,
    /// How results are printed [default: box on a terminal, else table]
    #[arg(long, env = "TIDEMILL_FORMAT", value_name = "FORMAT")]
    format: Option<Format>,
    /// Print results and errors only: no progress, no rows and times
    #[arg(long, short)]
    quiet: bool,
    /// A setting of the session, such as datafusion.execution.target_partitions=8; `tidemill config` lists them
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    pub(super) memory: MemoryArgs,
    #[command(flatten)]
    access: AccessArgs,
    /// Settings of the session that the settings file has.
    #[arg(skip)]
    pub(super) sessions: Vec<(String, String)>,
    /// Where that is.
    #[arg(skip)]
    pub(super) settings_file: String,
}

pub(super) async fn run(mut args: SqlArgs) -> Result<Done> {
    if let Some(run) = &args.run {
        return again(&args, RunId(run.clone())).await;
    }
    let by_person = args.texts.is_empty() && std::io::stdin().is_terminal();
    let piped = if args.texts.is_empty() && !by_person { Some(standard_input()?) } else { None };
    let (mut client, given) = match prepared(&mut args).await {
        Ok(prepared) => prepared,
        Err(error) => return not_begun(error),
    };
    let texts = piped.map_or(given, |text| vec![text]);
    let remarks = |otherwise| if args.quiet { Remarks::None } else { otherwise };
    if by_person {
        let screen = Screen::new(args.format, remarks(Remarks::Conversation), Some(ROWS));
        let place = args.connect.map(|urls| without_password(&urls));
        let place = place.unwrap_or_else(|| format!("a cluster in this process, {}", args.memory.shown()));
        return shell::run(client, screen, &place).await;
    }
    let screen = Screen::new(args.format, remarks(Remarks::Scripts), None);
    let done = script(&mut client, &texts, &screen).await;
    client.close().await;
    done
}

/// What runs the statements, and those that were given.
async fn prepared(args: &mut SqlArgs) -> Result<(Client, Vec<String>)> {
    let texts = std::mem::take(&mut args.texts).read()?;
    let mut client = match &args.connect {
        Some(url) => Client::connect_with(url, &args.access.access()?).await?,
        None => Client::embedded(args.memory.embedded()?)?,
    };
    for (key, value) in &args.sessions {
        let of_file = |e: Error| Error { message: format!("{}, [set]: {}", args.settings_file, e.message), ..e };
        client.set(key, value).map_err(of_file)?;
    }
    for setting in &args.set {
        let (key, value) =
            setting.split_once('=').ok_or_else(|| Error::invalid(format!("--set {setting}: write --set KEY=VALUE")))?;
        client.set(key.trim(), value.trim())?;
    }
    Ok((client, texts))
}

/// Runs statements until one fails.
async fn script(client: &mut Client, texts: &[String], screen: &Screen) -> Result<Done> {
    let mut terminated = std::pin::pin!(super::serve::terminated());
    for text in texts {
        let statements = match statements::split(text) {
            Ok(statements) => statements,
            Err(error) => return Ok(failed(screen, error.into(), text)),
        };
        for statement in statements {
            tokio::select! {
                done = screen.execute(client, &statement) => match done {
                    Ok(()) => {}
                    Err(error) => return Ok(failed(screen, error, &statement)),
                },
                // Leaving drops the result, which cancels its run.
                _ = &mut terminated => return Ok(Done::Interrupted),
            }
        }
    }
    Ok(Done::Well)
}

/// Prints a kept result.
async fn again(args: &SqlArgs, run: RunId) -> Result<Done> {
    let start = Instant::now();
    let client = match keeper(args).await {
        Ok(client) => client,
        Err(error) => return not_begun(error),
    };
    let result = client.fetch(&run).await?;
    let screen = Screen::new(args.format, if args.quiet { Remarks::None } else { Remarks::Scripts }, None);
    match screen.show(result, start, None).await {
        Ok(()) => Ok(Done::Well),
        Err(error) => Ok(failed(&screen, error, "")),
    }
}

/// Who keeps results.
async fn keeper(args: &SqlArgs) -> Result<Client> {
    let url = args.connect.as_ref().ok_or_else(|| {
        Error::invalid("--run needs --connect URL: results are kept by a coordinator that was started with --state")
    })?;
    Client::connect_with(url, &args.access.access()?).await
}

/// How a script ends whose output ended.
fn failed(screen: &Screen, error: PrintError, statement: &str) -> Done {
    match screen.failure(error) {
        Some(error) => {
            report(&error, statement);
            Done::Failed(error.kind)
        }
        None => Done::Well,
    }
}
