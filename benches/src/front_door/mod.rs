//! What a client of Flight SQL sees: how long small statements take, how fast a large answer comes, and how a crowd is
//! served.

mod client;
mod crowd;
mod duckdb;
mod page;
mod rows;

use std::path::Path;
use std::time::Duration;

use tidemill::client::Client;
use tidemill::oracle::Oracle;
use tidemill::tpch::create_tables;
use tidemill::{Error, Result};

use crate::cluster::{Cluster, until_ready};
use client::Door;
use crowd::Crowd;
use rows::Speed;

const EXECUTORS: usize = 2;
const MEMORY: usize = 4 << 30;
/// Finds one row of a table of Parquet files.
const POINT: &str = "SELECT o_orderkey, o_custkey, o_totalprice, o_orderdate FROM orders WHERE o_orderkey = ?";
/// Of so many questions one more warms up.
const WARM_UP: usize = 10;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Of TPC-H.
    pub(crate) scale: f64,
    /// Rows of the large answer, about.
    pub(crate) rows: u64,
    /// Small statements of each kind that one client asks.
    pub(crate) questions: usize,
    pub(crate) clients: usize,
    /// How long they ask.
    pub(crate) seconds: u64,
    /// Whether to measure DuckDB too, which is installed from PyPI if it is not there.
    pub(crate) duckdb: bool,
}

/// Order keys that there are: of each 32 the first eight, from 1.
#[derive(Debug, Clone, Copy)]
struct Keys {
    orders: u64,
}

impl Keys {
    /// One of them; neighbours are far from each other.
    fn of(self, number: u64) -> i64 {
        let order = number.wrapping_mul(2_654_435_761) % self.orders.max(1) + 1;
        i64::try_from((order / 8) * 32 + order % 8).unwrap_or(i64::MAX)
    }
}

/// What one cluster did.
struct Side {
    name: &'static str,
    /// One client alone: `SELECT 1`, and the prepared statement.
    ones: Vec<Duration>,
    points: Vec<Duration>,
    crowd: Crowd,
    /// The coordinator's peak memory: after the large answers, and after the crowd.
    memory: [u64; 2],
}

/// Measures and gives back the page, and how many errors clients were told.
pub(crate) async fn measure(size: Size, data: &Path) -> Result<(String, usize)> {
    let state = tempfile::tempdir().map_err(|e| Error::unavailable(e.to_string()))?;
    let url = format!("file://{}", state.path().display());
    let clusters = [
        ("without state", Cluster::start(EXECUTORS)?),
        ("state on the local disk", Cluster::durable(EXECUTORS, &url)?),
    ];
    let oracle = Oracle::new(EXECUTORS, MEMORY)?;
    oracle.register(data, &["lineitem"]).await?;
    let mut doors = Vec::new();
    for (name, cluster) in &clusters {
        create(cluster, data).await?;
        doors.push((*name, Door::connect(&cluster.url).await?));
    }
    let sql = rows::statement(size.rows);
    let mut speeds = rows::measure(&mut doors, &oracle, &sql).await?;
    if size.duckdb {
        let first = speeds.first().map(|speed| speed.fetched).unwrap_or_default();
        speeds.push(duckdb::measure(data, &sql, &first)?);
    }
    let mut sides = Vec::new();
    for ((name, cluster), (_, door)) in clusters.iter().zip(doors) {
        sides.push(side(name, cluster, door, size).await?);
    }
    let errors = sides.iter().map(|side| side.crowd.errors).sum();
    Ok((page::page(size, &speeds, &sides), errors))
}

async fn create(cluster: &Cluster, data: &Path) -> Result<()> {
    let mut client = Client::connect(&cluster.url).await?;
    for create in create_tables(data) {
        client.execute(&create).await?.collect().await?;
    }
    // Both executors are there before anything is measured.
    until_ready(&client, EXECUTORS).await
}

async fn side(name: &'static str, cluster: &Cluster, mut door: Door, size: Size) -> Result<Side> {
    let after_rows = cluster.coordinator_memory();
    // What the generator makes: 1.5 million orders at scale 1.
    let keys = Keys { orders: (size.scale * 1.5e6) as u64 };
    let (mut ones, mut points) = (Vec::new(), Vec::new());
    let mut point = door.prepare(POINT).await?;
    let warm_up = size.questions.div_ceil(WARM_UP);
    for number in 0..warm_up + size.questions {
        let (one, one_took) = door.query("SELECT 1").await?;
        let (row, row_took) = door.look_up(&mut point, keys.of(number as u64)).await?;
        if (one.rows, row.rows) != (1, 1) {
            return Err(Error::internal(format!("{} and {} rows came instead of one each", one.rows, row.rows)));
        }
        if number >= warm_up {
            ones.push(one_took);
            points.push(row_took);
        }
    }
    let crowd = crowd::measure(&cluster.url, keys, size.clients, Duration::from_secs(size.seconds)).await?;
    eprintln!("{name}: {} errors in the crowd", crowd.errors);
    Ok(Side { name, ones, points, crowd, memory: [after_rows, cluster.coordinator_memory()] })
}
