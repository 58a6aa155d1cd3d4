//! `tidemill demo`: TPC-H on a real cluster of processes, each answer compared with DataFusion's; then every process is
//! killed in the middle of a job.

mod cluster;
mod kill;
mod report;

use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use clap::Args;
use tidemill_core::{Error, Result, RunId};

use super::Done;
use crate::client::Client;
use crate::compose::default_memory;
use crate::generate::{Progress, TPCH_TABLES, TpchOptions, tpch as generate_tpch};
use crate::oracle::{Oracle, compare};
use crate::tpch::{QUERIES, create_tables};
use cluster::Cluster;
use report::{Report, Row};

/// Executors, each with one slot.
const EXECUTORS: u32 = 2;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill demo
  tidemill demo --scale 0.1 --data /tmp/tpch")]
pub(super) struct DemoArgs {
    /// TPC-H scale factor
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Folder that keeps the generated data [default: below the user's cache folder]
    #[arg(long)]
    data: Option<PathBuf>,
}

pub(super) async fn run(args: DemoArgs) -> Result<Done> {
    let data = match args.data {
        Some(data) => data,
        None => cache_dir()?.join(format!("tpch-sf{}", args.scale)),
    };
    let report = Report::begin(args.scale, &data, EXECUTORS);
    let options = TpchOptions { scale: args.scale, to: data.clone(), progress: Progress::Bar };
    let generated = tokio::task::spawn_blocking(move || generate_tpch(&options)).await;
    generated
        .map_err(|e| Error::internal(format!("generating panicked: {e}")))?
        .map_err(|e| Error::invalid(e.to_string()))?;
    let mut cluster = Cluster::start(EXECUTORS).await?;
    let ended = tokio::select! {
        ended = show(&mut cluster, &data, report) => ended,
        _ = tokio::signal::ctrl_c() => Ok(Done::Interrupted),
    };
    cluster.stop().await?;
    ended
}

async fn show(cluster: &mut Cluster, data: &Path, report: Report) -> Result<Done> {
    let oracle = Oracle::new(EXECUTORS as usize, default_memory(EXECUTORS))?;
    oracle.register(data, &TPCH_TABLES).await?;
    match queries(cluster, data, &oracle, report).await? {
        Done::Well => kill::pull_the_plug(cluster, data, &oracle).await,
        other => Ok(other),
    }
}

async fn queries(cluster: &Cluster, data: &Path, oracle: &Oracle, mut report: Report) -> Result<Done> {
    let mut client = Client::connect(cluster.url()).await?;
    for statement in create_tables(data) {
        client.execute(&statement).await?.collect().await?;
    }
    report.header(cluster);
    for (name, sql) in QUERIES {
        let start = Instant::now();
        let sql = sql.trim().trim_end_matches(';');
        let result = client.execute(sql).await?;
        let run = result.run.clone();
        let ours = result.collect().await?;
        let time = start.elapsed();
        let start = Instant::now();
        let expected = oracle.answer(sql).await?;
        let alone = start.elapsed();
        let difference = compare(&expected, &ours)?;
        let counts = match run {
            Some(run) => counts(&client, &run).await?,
            None => [0; 4],
        };
        let rows = ours.iter().map(|b| b.num_rows()).sum();
        report.row(&Row { name, rows, time, alone, counts, difference });
    }
    Ok(report.end())
}

/// Stages, tasks, exchanged and remote bytes of a run.
async fn counts(client: &Client, run: &RunId) -> Result<[u64; 4]> {
    let sql = format!("SELECT stages, tasks, exchanged_bytes, remote_bytes FROM system.runs WHERE run_id = '{run}'");
    let batches = client.query(&sql).await?.collect().await?;
    let batch = batches.iter().find(|b| b.num_rows() == 1);
    let batch = batch.ok_or_else(|| Error::internal(format!("run {run} is not in system.runs")))?;
    Ok(std::array::from_fn(|column| batch.column(column).as_primitive::<UInt64Type>().value(0)))
}

/// Where generated data stays between runs.
fn cache_dir() -> Result<PathBuf> {
    let from = |variable: &str| std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    from("XDG_CACHE_HOME")
        .or_else(|| Some(from("HOME")?.join(".cache")))
        .map(|cache| cache.join("tidemill"))
        .ok_or_else(|| Error::invalid("there is no HOME to keep generated data in: use --data DIR"))
}
