//! How long the smallest statement takes, on a running cluster and from a cold start; and a short query beside a long
//! one.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tidemill::client::Client;
use tidemill::tpch::{QUERIES, create_tables};
use tidemill::{Error, Result};

use crate::cluster::{Cluster, command};
use crate::report::median;

const STATEMENT: &str = "SELECT 1";
const WARM: usize = 200;
const COLD: usize = 11;
/// A scan of one table, and joins and groups of the largest ones.
const SHORT: &str = "q06";
const LONG: &str = "q18";
const BESIDE: usize = 15;

/// Medians.
pub(crate) struct Latencies {
    /// `SELECT 1` on a running cluster of two executors.
    pub(crate) running: Duration,
    /// `tidemill sql -c 'SELECT 1'`, process start to end.
    pub(crate) cold: Duration,
    /// A short query alone on two executors, and beside a long one.
    pub(crate) short: (Duration, Duration),
}

pub(crate) async fn measure(data: &Path) -> Result<Latencies> {
    let cluster = Cluster::start(2)?;
    let mut client = Client::connect(&cluster.url).await?;
    let mut running = Vec::new();
    for _ in 0..WARM {
        let start = Instant::now();
        client.execute(STATEMENT).await?.collect().await?;
        running.push(start.elapsed());
    }
    let mut cold = Vec::new();
    for _ in 0..COLD {
        let start = Instant::now();
        let status = command(&["sql", "-c", STATEMENT])?.stdout(Stdio::null()).status();
        if !status.is_ok_and(|s| s.success()) {
            return Err(Error::internal("the cold start failed"));
        }
        cold.push(start.elapsed());
    }
    let short = fairness(&cluster, client, data).await?;
    Ok(Latencies { running: median(&mut running), cold: median(&mut cold), short })
}

async fn fairness(cluster: &Cluster, mut client: Client, data: &Path) -> Result<(Duration, Duration)> {
    let mut other = Client::connect(&cluster.url).await?;
    for create in create_tables(data) {
        client.execute(&create).await?.collect().await?;
    }
    let query = |name: &str| QUERIES.iter().find(|(n, _)| *n == name).map(|(_, sql)| sql.trim().trim_end_matches(';'));
    let unknown = || Error::internal("TPC-H has no such query");
    let (short, long) = (query(SHORT).ok_or_else(unknown)?, query(LONG).ok_or_else(unknown)?);
    let alone = times(&mut client, short).await?;
    let again = async {
        loop {
            if let Err(error) = async { other.execute(long).await?.collect().await }.await {
                return error;
            }
        }
    };
    let beside = tokio::select! {
        error = again => return Err(error),
        beside = times(&mut client, short) => beside?,
    };
    Ok((alone, beside))
}

async fn times(client: &mut Client, sql: &str) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..BESIDE {
        let start = Instant::now();
        client.execute(sql).await?.collect().await?;
        times.push(start.elapsed());
    }
    Ok(median(&mut times))
}
