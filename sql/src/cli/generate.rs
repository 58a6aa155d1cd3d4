//! `tidemill generate`.

use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;
use tidemill_core::{Error, Result};

use super::Done;
use crate::generate::{Progress, TpchOptions, tpch};

#[derive(Debug, Subcommand)]
pub(super) enum GenerateCommand {
    /// Write the eight TPC-H tables as Parquet, several files per large table
    #[command(after_help = "Examples:
  tidemill generate tpch --scale 1 --to /tmp/tpch
  tidemill sql -c \"CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION '/tmp/tpch/orders/'; SELECT count(*) FROM orders\"")]
    Tpch {
        /// Scale factor: 1 is about 1 GB of raw data
        #[arg(long, default_value_t = 1.0)]
        scale: f64,
        /// Folder to write to
        #[arg(long)]
        to: PathBuf,
    },
}

pub(super) fn run(command: &GenerateCommand) -> Result<Done> {
    let GenerateCommand::Tpch { scale, to } = command;
    let options = TpchOptions { scale: *scale, to: to.clone(), progress: Progress::Bar };
    let summary = tpch(&options).map_err(|e| Error::invalid(e.to_string()))?;
    let text = match summary.reused {
        true => format!("{} already holds TPC-H at scale {scale}", to.display()),
        false => format!("wrote {} rows in {} files to {}", summary.rows, summary.files, to.display()),
    };
    // A closed stderr is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{text}");
    Ok(Done::Well)
}
