//! The 22 TPC-H queries, each on the oracle, embedded, and on two executors, one right after the other.

use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use tidemill::client::Client;
use tidemill::compose::EmbeddedConfig;
use tidemill::generate::TPCH_TABLES;
use tidemill::oracle::{Oracle, compare};
use tidemill::tpch::{QUERIES, create_tables};
use tidemill::{Error, Result};

use crate::cluster::Cluster;
use crate::report::median;

/// Cores, slots and partitions of every side.
const CORES: u32 = 2;
const MEMORY: usize = 4 << 30;

/// One query's medians.
pub(crate) struct Query {
    pub(crate) name: &'static str,
    pub(crate) oracle: Duration,
    pub(crate) embedded: Duration,
    pub(crate) cluster: Duration,
    /// Task seconds by part, of the last repetition.
    pub(crate) embedded_split: Split,
    pub(crate) cluster_split: Split,
    pub(crate) exchanged_bytes: f64,
    pub(crate) remote_bytes: f64,
}

/// Seconds of all tasks: scan, operators, encode, exchange, wait; and the wall time of the run.
#[derive(Clone, Copy, Default)]
pub(crate) struct Split(pub(crate) [f64; 6]);

pub(crate) async fn measure(data: &Path, repetitions: usize) -> Result<Vec<Query>> {
    let oracle = Oracle::new(CORES as usize, MEMORY)?;
    oracle.register(data, &TPCH_TABLES).await?;
    let work = tempfile::tempdir().map_err(|e| Error::unavailable(e.to_string()))?;
    let config =
        EmbeddedConfig { slots: CORES, memory: MEMORY, work_dir: work.path().to_owned(), ..EmbeddedConfig::default() };
    let mut embedded = Client::embedded(config)?;
    let cluster = Cluster::start(CORES as usize)?;
    let mut remote = Client::connect(&cluster.url).await?;
    for create in create_tables(data) {
        embedded.execute(&create).await?.collect().await?;
        remote.execute(&create).await?.collect().await?;
    }
    let mut queries = Vec::new();
    for (name, sql) in QUERIES {
        let sql = sql.trim().trim_end_matches(';');
        let mut times: [Vec<Duration>; 3] = Default::default();
        let mut measured = (Measured::default(), Measured::default());
        for repetition in 0..=repetitions {
            let start = Instant::now();
            let expected = oracle.answer(sql).await?;
            let alone = start.elapsed();
            measured.0 = run(&mut embedded, sql).await?;
            measured.1 = run(&mut remote, sql).await?;
            for side in [&measured.0, &measured.1] {
                if let Some(difference) = compare(&expected, &side.batches)? {
                    return Err(Error::internal(format!("{name} differs from DataFusion: {difference}")));
                }
            }
            if repetition > 0 {
                times[0].push(alone);
                times[1].push(measured.0.time);
                times[2].push(measured.1.time);
            }
        }
        let [oracle, embedded, cluster] = times.map(|mut t| median(&mut t));
        eprintln!("{name}: {oracle:.2?} {embedded:.2?} {cluster:.2?}");
        queries.push(Query {
            name,
            oracle,
            embedded,
            cluster,
            embedded_split: measured.0.split,
            cluster_split: measured.1.split,
            exchanged_bytes: measured.1.exchanged,
            remote_bytes: measured.1.remote,
        });
    }
    Ok(queries)
}

#[derive(Default)]
struct Measured {
    time: Duration,
    batches: Vec<arrow::record_batch::RecordBatch>,
    split: Split,
    exchanged: f64,
    remote: f64,
}

async fn run(client: &mut Client, sql: &str) -> Result<Measured> {
    let start = Instant::now();
    let result = client.execute(sql).await?;
    let run = result.run.clone().ok_or_else(|| Error::internal("a query is no run"))?;
    let batches = result.collect().await?;
    let time = start.elapsed();
    let split = format!(
        "SELECT scan_seconds, operator_seconds, encode_seconds, exchange_seconds, wait_seconds,
                CAST(exchanged_bytes AS DOUBLE), CAST(remote_bytes AS DOUBLE), task_seconds
         FROM system.runs WHERE run_id = '{run}'"
    );
    let row = client.query(&split).await?.collect().await?;
    let row = row.iter().find(|b| b.num_rows() == 1).ok_or_else(|| Error::internal("the run is not recorded"))?;
    let value = |column: usize| row.column(column).as_primitive::<Float64Type>().value(0);
    let split = Split([value(0), value(1), value(2), value(3), value(4), value(7)]);
    Ok(Measured { time, batches, split, exchanged: value(5), remote: value(6) })
}
