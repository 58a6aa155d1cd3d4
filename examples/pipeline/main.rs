//! Clicks and ad spend: raw files of each hour become clean datasets, these one joined dataset, and that a summary of each day.
//!
//! ```sh
//! cargo run -p tidemill-examples --bin pipeline                                    # in this process
//! cargo run -p tidemill-examples --bin pipeline -- --folder /tmp/ads --only-generate
//! cargo run -p tidemill-examples --bin pipeline -- --folder /tmp/ads --connect http://127.0.0.1:7878
//! ```
//!
//! What it is stands in `tables.sql` and `jobs.sql`; this program makes input, runs these files, and asks for what is over.
//! `docs/pipeline.md` does the same by hand, and breaks it.

mod data;

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use tidemill::Session;
use tidemill::session::statements;

/// How long the pipeline may take to publish a further interval.
const PATIENCE: Duration = Duration::from_secs(300);

/// The pipeline from raw files to days.
#[derive(Parser)]
struct Options {
    /// Hours of input, from the first of March 2026
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u64).range(1..=data::MOST_HOURS))]
    hours: u64,
    /// Clicks of each hour
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1 << 31))]
    events: u64,
    /// Where input and datasets lie [default: a temporary folder, removed at the end]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// A cluster that reaches the folder, instead of one in this process
    #[arg(long)]
    connect: Option<String>,
    /// Write the input and end
    #[arg(long)]
    only_generate: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let temporary = tempfile::tempdir()?;
    let folder = options.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    let start = Instant::now();
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    (0..options.hours).try_for_each(|hour| data::write_hour(&folder, hour, options.events))?;
    let (hours, events) = (options.hours, options.events);
    println!("{hours} hours with {events} clicks each in {}, after {:.1?}", folder.display(), start.elapsed());
    if options.only_generate {
        return Ok(());
    }
    let session = match &options.connect {
        Some(url) => tidemill::connect(url),
        None => tidemill::local(),
    };
    let session = session.start().await?;
    let place = folder.display().to_string();
    for file in [include_str!("tables.sql"), include_str!("jobs.sql")] {
        for statement in statements::split(&data::placed(file, &place, &place))? {
            session.sql(&statement).await?;
        }
    }
    load(&session, hours).await?;
    wait(&session, hours).await?;
    println!("published, after {:.1?}\n", start.elapsed());
    show(&session, hours).await
}

/// Says that the raw tables are complete, and asks for what is over already: what is due from now on comes by itself.
async fn load(session: &Session, hours: u64) -> Result<(), Box<dyn Error>> {
    let span = format!("FROM '{}' TO '{}'", data::time(0), data::time(hours));
    // The last job is asked first: it waits for the others.
    for job in ["join_hours", "clean_spend", "clean_clicks"] {
        session.sql(&format!("BACKFILL JOB {job} {span} MAX RUNS 2")).await?;
    }
    for table in ["raw_clicks", "raw_spend"] {
        session.sql(&format!("ALTER DATASET {table} COMPLETE {span}")).await?;
    }
    Ok(())
}

/// Waits until all hours and all whole days are published.
async fn wait(session: &Session, hours: u64) -> Result<(), Box<dyn Error>> {
    let wanted = i64::try_from(3 * hours + hours / 24)?;
    let (mut published, mut since) = (0, Instant::now());
    while published < wanted {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = number(session, "SELECT count(*) FROM system.intervals WHERE state = 'published'").await?;
        if now > published {
            (published, since) = (now, Instant::now());
        }
        let failed = number(session, "SELECT count(*) FROM system.intervals WHERE state = 'failed'").await?;
        if failed > 0 || since.elapsed() > PATIENCE {
            session.sql(include_str!("stopped.sql")).await?.show().await?;
            return Err(format!("{published} of {wanted} intervals are published, and it does not go on").into());
        }
    }
    Ok(())
}

async fn number(session: &Session, sql: &str) -> Result<i64, Box<dyn Error>> {
    let batches = session.sql(sql).await?.collect().await?;
    let batch = batches.iter().find(|batch| batch.num_rows() == 1).ok_or("a count has no row")?;
    Ok(batch.column(0).as_primitive::<Int64Type>().value(0))
}

/// What there is now.
async fn show(session: &Session, hours: u64) -> Result<(), Box<dyn Error>> {
    let span = format!("FROM '{}' TO '{}'", data::time(0), data::time(hours));
    for statement in [
        format!("SHOW INTERVALS OF join_hours {span}"),
        "SELECT job, reason, depends_on, complete_until FROM system.jobs".to_owned(),
        "SELECT day, sum(impressions) AS impressions, sum(spend) AS spend, sum(clicks) AS clicks, sum(revenue) AS revenue \
         FROM ad_days GROUP BY day ORDER BY day"
            .to_owned(),
    ] {
        println!("{statement}");
        session.sql(&statement).await?.show().await?;
    }
    Ok(())
}
