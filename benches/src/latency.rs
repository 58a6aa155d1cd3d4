//! How long the smallest statement takes: on a running cluster, and from a cold start.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tidemill::client::Client;
use tidemill::{Error, Result};

use crate::cluster::{Cluster, command};
use crate::report::median;

const STATEMENT: &str = "SELECT 1";
const WARM: usize = 200;
const COLD: usize = 11;

/// Medians.
pub(crate) struct Latencies {
    /// `SELECT 1` on a running cluster of two executors.
    pub(crate) running: Duration,
    /// `tidemill sql -c 'SELECT 1'`, process start to end.
    pub(crate) cold: Duration,
}

pub(crate) async fn measure() -> Result<Latencies> {
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
    Ok(Latencies { running: median(&mut running), cold: median(&mut cold) })
}
