//! Measures Tidemill beside in-process DataFusion, pair by pair in one run, and writes `docs/benchmarks.md`.
//!
//! `cargo run --release -p tidemill-benches -- --scale 1`

// The same as the servers', or the comparison would be one of allocators.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "../../sql/src/allocator.rs"]
mod allocator;
mod cluster;
mod durable;
mod front_door;
mod jobs;
mod kills;
mod latency;
mod report;
mod tpch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tidemill::generate::{Progress, TpchOptions, tpch as generate};
use tidemill::{Error, Result};
use tokio::runtime::Runtime;

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
    /// Measure what clients of Flight SQL see, instead
    #[arg(long, conflicts_with_all = ["durable", "kills"])]
    front_door: bool,
    /// Rows of the large answer at the front door, about
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Small statements of each kind that one client asks at the front door
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..))]
    questions: u16,
    /// Clients at the front door at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// How long they ask
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Measure DuckDB beside the large answer, too; it is installed from PyPI if it is not there
    #[arg(long)]
    with_duckdb: bool,
    /// Measure what an interval of a job takes, instead
    #[arg(long, conflicts_with_all = ["durable", "kills", "front_door"])]
    jobs: bool,
    /// Intervals of each job, after some that warm up
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    intervals: u16,
    /// Rows of a job's input in each interval
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    interval_rows: u32,
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::unavailable(format!("the runtime cannot start: {e}")))?;
    if args.jobs {
        let size = jobs::Size { intervals: args.intervals.into(), rows: args.interval_rows.into() };
        return write(args, &runtime.block_on(jobs::measure(size))?);
    }
    let data = args.data.clone().unwrap_or_else(|| {
        let cache = std::env::var_os("HOME").map_or_else(std::env::temp_dir, |h| PathBuf::from(h).join(".cache"));
        cache.join("tidemill").join(format!("tpch-sf{}", args.scale))
    });
    let options = TpchOptions { scale: args.scale, to: data.clone(), progress: Progress::Bar };
    generate(&options).map_err(|e| Error::invalid(e.to_string()))?;
    if args.durable {
        let text = runtime.block_on(durable::measure(args.scale, &data, args.repetitions))?;
        return write(args, &text);
    }
    if args.kills {
        return write(args, &runtime.block_on(durable::measure_kills(args.scale, &data, args.points))?);
    }
    if args.front_door {
        return at_the_front_door(args, &runtime, &data);
    }
    let (queries, latencies) = runtime.block_on(async {
        let queries = tpch::measure(&data, args.repetitions).await?;
        let latencies = latency::measure(&data).await?;
        Ok::<_, Error>((queries, latencies))
    })?;
    write(args, &report::markdown(args.scale, args.repetitions, &queries, &latencies))
}

/// Errors that clients are told are in the report, and then the measurement fails.
fn at_the_front_door(args: &Args, runtime: &Runtime, data: &Path) -> Result<()> {
    let size = front_door::Size {
        scale: args.scale,
        rows: args.rows,
        questions: usize::from(args.questions),
        clients: usize::from(args.clients),
        seconds: args.seconds,
        duckdb: args.with_duckdb,
    };
    let (text, errors) = runtime.block_on(front_door::measure(size, data))?;
    write(args, &text)?;
    if errors > 0 {
        return Err(Error::internal(format!("clients were told {errors} errors: the report names some of them")));
    }
    Ok(())
}

fn write(args: &Args, text: &str) -> Result<()> {
    let pages = [
        (args.durable, "docs/benchmarks-durable.md"),
        (args.kills, "docs/benchmarks-kills.md"),
        (args.front_door, "docs/benchmarks-front-door.md"),
        (args.jobs, "docs/benchmarks-jobs.md"),
    ];
    let default = pages.iter().find(|(is_asked_for, _)| *is_asked_for).map_or("docs/benchmarks.md", |(_, page)| *page);
    let to = args.to.clone().unwrap_or_else(|| PathBuf::from(default));
    std::fs::write(&to, text).map_err(|e| Error::unavailable(format!("{}: {e}", to.display())))?;
    println!("{text}");
    Ok(())
}
