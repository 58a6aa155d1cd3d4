//! `tidemill sql`.

use std::io::{IsTerminal, Write};
use std::str::FromStr;
use std::time::Instant;

use clap::Args;
use tidemill_core::{Error, Result};

use super::Done;
use super::serve::MemoryArgs;
use super::texts::Texts;
use crate::client::Client;
use crate::output::{Format, PrintError, print};
use crate::session::statements;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill sql -c 'SELECT 1'
  tidemill sql --connect http://127.0.0.1:7878 -f report.sql --format csv > report.csv
  echo 'SHOW TABLES' | tidemill sql --connect http://127.0.0.1:7878")]
pub(super) struct SqlArgs {
    /// The coordinator's URL; without it, the statements run in this process
    #[arg(long, env = "TIDEMILL_CONNECT", value_name = "URL")]
    connect: Option<String>,
    #[command(flatten)]
    texts: Texts,
    /// table, csv, json or jsonl
    #[arg(long, default_value = "table", value_parser = Format::from_str)]
    format: Format,
    /// A setting of the session, such as datafusion.execution.target_partitions=8
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    memory: MemoryArgs,
}

pub(super) async fn run(args: SqlArgs) -> Result<Done> {
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
    for text in statements {
        for statement in statements::split(&text)? {
            tokio::select! {
                done = execute(&mut client, &statement, args.format) => match done {
                    Ok(()) => {}
                    Err(closed) if closed.is_closed() => return Ok(Done::Well),
                    Err(PrintError::Run(error)) => return Err(error),
                    Err(PrintError::Output(error)) => {
                        return Err(Error::unavailable(format!("the output cannot be written: {error}")));
                    }
                },
                // Leaving drops the result, which cancels its run.
                _ = tokio::signal::ctrl_c() => {
                    drop(client);
                    return Ok(Done::Interrupted);
                }
            }
        }
    }
    Ok(Done::Well)
}

async fn execute(client: &mut Client, statement: &str, format: Format) -> Result<(), PrintError> {
    let start = Instant::now();
    let result = client.execute(statement).await?;
    let shows_rows = !result.schema.fields().is_empty();
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let rows = print(result, format, &mut out).await?;
    if shows_rows && format == Format::Table && std::io::stderr().is_terminal() {
        let plural = if rows == 1 { "" } else { "s" };
        // A closed stderr is no reason to fail.
        let _ = writeln!(std::io::stderr(), "{rows} row{plural} in {:.3} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}
