//! Measures Tidemill beside in-process DataFusion, pair by pair in one run, and writes `docs/benchmarks.md`.
//!
//! `cargo run --release -p tidemill-benches -- --scale 1`

mod cluster;
mod durable;
mod kills;
mod latency;
mod report;
mod tpch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tidemill::generate::{Progress, TpchOptions, tpch as generate};
use tidemill::{Error, Result};

/// Measures Tidemill beside in-process DataFusion.
#[derive(Debug, Parser)]
struct Args {
    /// TPC-H scale factor
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Measured repetitions of each query, after one that warms up
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Folder that keeps the generated data
    #[arg(long)]
    data: Option<PathBuf>,
    /// Measure what durability costs and saves, instead
    #[arg(long)]
    durable: bool,
    /// Measure what is repeated after kills at many points, instead
    #[arg(long, conflicts_with = "durable")]
    kills: bool,
    /// Kills of each query, of everybody and of one executor each
    #[arg(long, default_value_t = 7)]
    points: u32,
    /// The report; by default that of its kind in `docs`
    #[arg(long)]
    to: Option<PathBuf>,
    /// Run one role of the binary instead: measured clusters are processes of this very program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    role: Vec<String>,
}

fn main() -> ExitCode {
    // The program starts itself as coordinator, executor and client.
    if std::env::var_os(cluster::ROLE).is_some() {
        return tidemill::cli::main();
    }
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let data = args.data.clone().unwrap_or_else(|| {
        let cache = std::env::var_os("HOME").map_or_else(std::env::temp_dir, |h| PathBuf::from(h).join(".cache"));
        cache.join("tidemill").join(format!("tpch-sf{}", args.scale))
    });
    let options = TpchOptions { scale: args.scale, to: data.clone(), progress: Progress::Bar };
    generate(&options).map_err(|e| Error::invalid(e.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::unavailable(format!("the runtime cannot start: {e}")))?;
    if args.durable {
        let text = runtime.block_on(durable::measure(args.scale, &data, args.repetitions))?;
        return write(args, &text);
    }
    if args.kills {
        return write(args, &runtime.block_on(durable::measure_kills(args.scale, &data, args.points))?);
    }
    let (queries, latencies) = runtime.block_on(async {
        let queries = tpch::measure(&data, args.repetitions).await?;
        let latencies = latency::measure(&data).await?;
        Ok::<_, Error>((queries, latencies))
    })?;
    write(args, &report::markdown(args.scale, args.repetitions, &queries, &latencies))
}

fn write(args: &Args, text: &str) -> Result<()> {
    let default = match (args.durable, args.kills) {
        (true, _) => "docs/benchmarks-durable.md",
        (_, true) => "docs/benchmarks-kills.md",
        _ => "docs/benchmarks.md",
    };
    let to = args.to.clone().unwrap_or_else(|| PathBuf::from(default));
    std::fs::write(&to, text).map_err(|e| Error::unavailable(format!("{}: {e}", to.display())))?;
    println!("{text}");
    Ok(())
}
