//! `tidemill sql`.

use std::io::{IsTerminal, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::Args;
use tidemill_core::{Error, Result, RunId};

use super::Done;
use super::serve::MemoryArgs;
use super::texts::Texts;
use crate::client::{Client, QueryResult};
use crate::output::{Format, PrintError, print};
use crate::session::statements;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill sql -c 'SELECT 1'
  tidemill sql --connect http://127.0.0.1:7878 -f report.sql --format csv > report.csv
  echo 'SHOW TABLES' | tidemill sql --connect http://127.0.0.1:7878")]
pub(super) struct SqlArgs {
    /// The coordinator's URL, or several, divided by commas, where others stand by; without it, the statements run in this process
    #[arg(long, env = "TIDEMILL_CONNECT", value_name = "URL")]
    connect: Option<String>,
    #[command(flatten)]
    texts: Texts,
    /// Print the result of a run again that has finished, instead of running a statement; system.runs lists runs
    #[arg(long, value_name = "RUN_ID", conflicts_with_all = ["command", "file"])]
    run: Option<String>,
    /// table, csv, json or jsonl
    #[arg(long, default_value = "table", value_parser = Format::from_str)]
    format: Format,
    /// A setting of the session, such as datafusion.execution.target_partitions=8
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    pub(super) memory: MemoryArgs,
}

pub(super) async fn run(args: SqlArgs) -> Result<Done> {
    if let Some(run) = &args.run {
        return again(&args, RunId(run.clone())).await;
    }
    let statements = args.texts.read()?;
    let mut client = match &args.connect {
        Some(url) => Client::connect(url).await?,
        None => Client::embedded(args.memory.embedded()?)?,
    };
    for setting in &args.set {
        let (key, value) =
            setting.split_once('=').ok_or_else(|| Error::invalid(format!("--set {setting}: write --set KEY=VALUE")))?;
        client.set(key.trim(), value.trim())?;
    }
    let closed = AtomicBool::new(false);
    let mut terminated = std::pin::pin!(super::serve::terminated());
    for text in statements {
        for statement in statements::split(&text)? {
            tokio::select! {
                done = execute(&mut client, &statement, args.format, &closed) => match done {
                    Ok(()) => {}
                    Err(error) => return ended(error, &closed),
                },
                // Leaving drops the result, which cancels its run.
                _ = &mut terminated => {
                    drop(client);
                    return Ok(Done::Interrupted);
                }
            }
        }
    }
    Ok(Done::Well)
}

/// Prints a kept result.
async fn again(args: &SqlArgs, run: RunId) -> Result<Done> {
    let url = args.connect.as_ref().ok_or_else(|| {
        Error::invalid("--run needs --connect URL: results are kept by a coordinator that was started with --state")
    })?;
    let start = Instant::now();
    let result = Client::connect(url).await?.fetch(&run).await?;
    let closed = AtomicBool::new(false);
    match show(result, start, args.format, &closed).await {
        Ok(()) => Ok(Done::Well),
        Err(error) => ended(error, &closed),
    }
}

/// How a command ends whose output ended.
fn ended(error: PrintError, closed: &AtomicBool) -> Result<Done> {
    match error {
        _ if closed.load(Ordering::Relaxed) => Ok(Done::Well),
        PrintError::Run(error) => Err(error),
        PrintError::Output(error) => Err(Error::unavailable(format!("the output cannot be written: {error}"))),
    }
}

/// Standard output that remembers whether its reader went away, as `head` does: no error of ours, but writers of formats
/// report it in words of their own.
struct Output<'a> {
    closed: &'a AtomicBool,
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::io::stdout().write(bytes).inspect_err(|e| self.note(e))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stdout().flush().inspect_err(|e| self.note(e))
    }
}

impl Output<'_> {
    fn note(&self, error: &std::io::Error) {
        self.closed.fetch_or(error.kind() == std::io::ErrorKind::BrokenPipe, Ordering::Relaxed);
    }
}

async fn execute(client: &mut Client, statement: &str, format: Format, closed: &AtomicBool) -> Result<(), PrintError> {
    let start = Instant::now();
    show(client.execute(statement).await?, start, format, closed).await
}

async fn show(result: QueryResult, start: Instant, format: Format, closed: &AtomicBool) -> Result<(), PrintError> {
    let run = result.run.as_ref().map(|run| format!(", run {run}")).unwrap_or_default();
    let shows_rows = !result.schema.fields().is_empty();
    let mut out = std::io::BufWriter::new(Output { closed });
    let rows = print(result, format, &mut out).await?;
    if shows_rows && format == Format::Table && std::io::stderr().is_terminal() {
        let plural = if rows == 1 { "" } else { "s" };
        // A closed stderr is no reason to fail.
        let _ = writeln!(std::io::stderr(), "{rows} row{plural} in {:.3} s{run}", start.elapsed().as_secs_f64());
    }
    Ok(())
}
