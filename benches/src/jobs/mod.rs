//! What a small interval of a job takes, from the statement that asks for it until it is published, and where that time goes.

mod interval;
mod page;

use std::path::Path;
use std::time::Duration;

use tidemill::client::Client;
use tidemill::oracle::{Oracle, compare};
use tidemill::{Error, Result};

use crate::cluster::{Cluster, until_ready};
use interval::{Bench, Turn};

const EXECUTORS: usize = 2;
const MEMORY: usize = 1 << 30;
/// Of so many intervals one more warms up.
const WARM_UP: u64 = 10;
/// Where the first interval begins, also in seconds: all are over.
const START: (&str, u64) = ("2020-01-01", 1_577_836_800);
/// The seconds of an interval.
const HOUR: u64 = 3_600;

/// A job with checks, and the same without.
const AUDITED: &str = "audited";
const PLAIN: &str = "plain";
/// A job that another one follows, and that one.
const FEED: &str = "feed";
const ROLLED: &str = "rolled";

/// Both look at what was written, before it is published.
const CHECKS: &str =
    "EXPECT (sum(clicks) > 0 AND count(*) >= 0.5 * rows_before(7)) ON VIOLATION FAIL EXPECT UNIQUE (hour, ad)";
/// Fires at New Year: nothing runs but what is asked for.
const SCHEDULE: &str = "SCHEDULE CRON '0 0 1 1 *'";
const WITH: &str = "WITH (interval_column = 'hour', retries = 0)";

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Intervals of each kind.
    pub(crate) intervals: u64,
    /// Rows of the input in each of them.
    pub(crate) rows: u64,
}

impl Size {
    const fn warm_up(self) -> u64 {
        self.intervals.div_ceil(WARM_UP)
    }

    /// Those that warm up come first.
    const fn hours(self) -> u64 {
        self.warm_up() + self.intervals
    }
}

/// What was measured, without what warmed up.
struct Measured {
    turns: Vec<Turn>,
    /// From a version of what feeds a job until that of the job.
    updates: Vec<Duration>,
    /// The coordinator's peak memory, before anything was measured and behind it.
    memory: [u64; 2],
}

/// Measures and gives back the page.
pub(crate) async fn measure(size: Size) -> Result<String> {
    let folder = tempfile::tempdir().map_err(|e| Error::unavailable(e.to_string()))?;
    let state = folder.path().join("state");
    for folder in [&state, &folder.path().join("clicks"), &folder.path().join("copied")] {
        std::fs::create_dir_all(folder).map_err(|e| Error::unavailable(format!("{}: {e}", folder.display())))?;
    }
    let cluster = Cluster::durable(EXECUTORS, &format!("file://{}", state.display()))?;
    let client = Client::connect(&cluster.url).await?;
    until_ready(&client, EXECUTORS).await?;
    let oracle = Oracle::new(EXECUTORS, MEMORY)?;
    create(&client, &oracle, folder.path(), size).await?;
    let bench = Bench { client: &client, oracle: &oracle, folder: folder.path() };
    let mut measured = Measured { turns: Vec::new(), updates: Vec::new(), memory: [0; 2] };
    for hour in 0..size.hours() {
        if hour == size.warm_up() {
            measured.memory[0] = cluster.coordinator_memory();
        }
        let turn = bench.turn(hour).await?;
        if hour >= size.warm_up() {
            measured.turns.push(turn);
        }
    }
    eprintln!("{} intervals of each job were published", size.hours());
    // It runs for whatever its input has from now on, and would run beside the others.
    run(&client, &rolled()).await?;
    for hour in 0..size.hours() {
        let took = bench.update(hour).await?;
        if hour >= size.warm_up() {
            measured.updates.push(took);
        }
    }
    measured.memory[1] = cluster.coordinator_memory();
    compare_all(&client, &oracle).await?;
    Ok(page::page(size, &measured))
}

/// The input, the datasets, and the jobs but the last.
async fn create(client: &Client, oracle: &Oracle, folder: &Path, size: Size) -> Result<()> {
    let (rows, last, first) = (size.rows, size.hours() * size.rows - 1, START.1);
    let clicks = format!(
        "SELECT to_timestamp({first} + v * {HOUR} / {rows}) AS ts, v % 50 AS ad, v * 7919 % 1000 AS cost \
         FROM generate_series(0, {last}) AS t(v)"
    );
    let place = |name: &str| folder.join(name).display().to_string();
    oracle.answer(&format!("COPY ({clicks}) TO '{}/all.parquet' STORED AS PARQUET", place("clicks"))).await?;
    oracle.register(folder, &["clicks"]).await?;
    let table = |name: &str, columns: &str, format: &str| {
        format!("CREATE EXTERNAL TABLE {name} ({columns}) STORED AS {format} LOCATION '{}'", place(name))
    };
    run(client, &table("clicks", "ts TIMESTAMP, ad BIGINT, cost BIGINT", "PARQUET")).await?;
    for (job, checks) in [(AUDITED, CHECKS), (PLAIN, ""), (FEED, "")] {
        run(client, &table(&sums_of(job), "hour TIMESTAMP, ad BIGINT, clicks BIGINT, spend BIGINT", "DELTA")).await?;
        let query = query("ts >= $interval_start AND ts < $interval_end");
        let job = format!(
            "CREATE JOB {job} INTO {} {SCHEDULE} INTERVAL '1 hour' START '{}' {checks} {WITH} AS {query}",
            sums_of(job),
            START.0
        );
        run(client, &job).await?;
    }
    run(client, &table(&sums_of(ROLLED), "hour TIMESTAMP, ads BIGINT, clicks BIGINT", "DELTA")).await
}

/// What the jobs compute, of some of the clicks.
fn query(which: &str) -> String {
    format!(
        "SELECT date_trunc('hour', ts) AS hour, ad, count(*) AS clicks, sum(cost) AS spend FROM clicks WHERE {which} \
         GROUP BY 1, 2"
    )
}

/// The dataset of a job.
fn sums_of(job: &str) -> String {
    format!("{job}_sums")
}

/// The job that follows another one.
fn rolled() -> String {
    let query = "SELECT hour, count(*) AS ads, sum(clicks) AS clicks FROM";
    format!(
        "CREATE JOB {ROLLED} INTO {} TRIGGER ON UPDATE OF {from} INTERVAL '1 hour' START '{}' CATCHUP TRUE {WITH} \
         AS {query} {from} WHERE hour >= $interval_start AND hour < $interval_end GROUP BY hour",
        sums_of(ROLLED),
        START.0,
        from = sums_of(FEED),
    )
}

async fn run(client: &Client, sql: &str) -> Result<()> {
    client.query(sql).await?.collect().await?;
    Ok(())
}

/// What all of them published must be what DataFusion makes of the same clicks.
async fn compare_all(client: &Client, oracle: &Oracle) -> Result<()> {
    let all = query("true");
    let rolled = format!("(SELECT hour, count(*) AS ads, sum(clicks) AS clicks FROM ({all}) GROUP BY hour)");
    let sums = "to_unixtime(hour) AS hour, ad, clicks, spend";
    let pairs = [
        (AUDITED, sums, format!("({all})")),
        (PLAIN, sums, format!("({all})")),
        (FEED, sums, format!("({all})")),
        (ROLLED, "to_unixtime(hour) AS hour, ads, clicks", rolled),
    ];
    for (job, columns, expected) in pairs {
        let expected = oracle.answer(&format!("SELECT {columns} FROM {expected}")).await?;
        let ours = client.query(&format!("SELECT {columns} FROM {}", sums_of(job))).await?.collect().await?;
        if let Some(difference) = compare(&expected, &ours)? {
            return Err(Error::internal(format!("what {job} published differs from DataFusion: {difference}")));
        }
    }
    Ok(())
}
