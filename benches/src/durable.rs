//! What durability costs and saves: `always` beside `off` in alternating pairs, and every process killed at half-time beside
//! a start from zero.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use arrow::record_batch::RecordBatch;
use tidemill::client::Client;
use tidemill::oracle::{Oracle, compare};
use tidemill::tpch::{QUERIES, create_tables};
use tidemill::{Error, Result};
use tidemill_core::RunId;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::kills::{self, Victim};
use crate::report::{commit, machine, median, ms, ratio};

const EXECUTORS: usize = 2;
/// Those that are killed: the longest, of which q18 has the longest tasks, which lose most.
const KILLED: [&str; 3] = ["q09", "q18", "q21"];
/// What makes tasks encode every frame of their output, and count it.
const FORCE_ENCODE: &str = "tidemill.test.force_encode";

/// Rows.
pub(crate) type Batches = Vec<RecordBatch>;

struct Pair {
    name: &'static str,
    off: Duration,
    always: Duration,
    exchanged: f64,
    /// Bytes of the same as LZ4 frames.
    compressed: f64,
    /// The most that a run stored.
    stored: f64,
}

impl Pair {
    /// Of the compressed bytes, what went into the store.
    fn upload_share(&self) -> f64 {
        self.stored / self.compressed.max(1.0)
    }
}

struct Kill {
    name: &'static str,
    alone: Duration,
    killed: Duration,
    /// Of tasks that had succeeded and were done again, and of all.
    repeated: f64,
    all: f64,
    ready: Duration,
}

/// Measures and gives back the page.
pub(crate) async fn measure(scale: f64, data: &Path, pairs: usize) -> Result<String> {
    let folder = tempfile::tempdir().map_err(|e| Error::unavailable(e.to_string()))?;
    let (mut cluster, mut client) = durable_cluster(folder.path(), data).await?;
    let mut measured = Vec::new();
    for (name, sql) in QUERIES {
        measured.push(pair(&mut client, name, sql.trim().trim_end_matches(';'), pairs).await?);
    }
    client.set("tidemill.durability", "always")?;
    let oracle = oracle_of(data).await?;
    let mut kills = Vec::new();
    for (name, sql) in QUERIES.into_iter().filter(|(name, _)| KILLED.contains(name)) {
        kills.push(kill(&mut cluster, &client, &oracle, name, sql.trim().trim_end_matches(';')).await?);
    }
    Ok(page(scale, pairs, &measured, &kills))
}

/// Kills each query at so many points in both ways, and gives back the page.
pub(crate) async fn measure_kills(scale: f64, data: &Path, points: u32) -> Result<String> {
    let folder = tempfile::tempdir().map_err(|e| Error::unavailable(e.to_string()))?;
    let (mut cluster, mut client) = durable_cluster(folder.path(), data).await?;
    let oracle = oracle_of(data).await?;
    let mut swept = Vec::new();
    // However many executors are there when it is planned.
    client.set("datafusion.execution.target_partitions", "2")?;
    for (name, sql) in QUERIES.into_iter().filter(|(name, _)| KILLED.contains(name)) {
        let sql = sql.trim().trim_end_matches(';');
        let victim = Victim { name, sql, client: &client, oracle: &oracle, points };
        swept.push(victim.sweep(&mut cluster).await?);
    }
    Ok(kills::page(scale, points, &swept))
}

/// A cluster with its state in `folder`, and the tables.
async fn durable_cluster(folder: &Path, data: &Path) -> Result<(Cluster, Client)> {
    let cluster = Cluster::durable(EXECUTORS, &format!("file://{}", folder.display()))?;
    let mut client = Client::connect(&cluster.url).await?;
    for create in create_tables(data) {
        client.execute(&create).await?.collect().await?;
    }
    Ok((cluster, client))
}

async fn oracle_of(data: &Path) -> Result<Oracle> {
    let oracle = Oracle::new(EXECUTORS, 4 << 30)?;
    oracle.register(data, &tidemill::generate::TPCH_TABLES).await?;
    Ok(oracle)
}

async fn pair(client: &mut Client, name: &'static str, sql: &str, pairs: usize) -> Result<Pair> {
    let mut times: [Vec<Duration>; 2] = Default::default();
    let (mut exchanged, mut stored) = (0.0, 0.0_f64);
    for repetition in 0..=pairs {
        // Neither is always the first.
        for side in [repetition % 2, 1 - repetition % 2] {
            client.set("tidemill.durability", if side == 0 { "off" } else { "always" })?;
            let start = Instant::now();
            let run = finished(client, sql).await?;
            if repetition > 0 {
                times.get_mut(side).into_iter().for_each(|times| times.push(start.elapsed()));
            }
            if side == 1 {
                let [all, uploaded] = numbers(client, &run, ["exchanged_bytes", "durable_bytes"]).await?;
                (exchanged, stored) = (all, stored.max(uploaded));
            }
        }
    }
    let compressed = compressed(client, sql).await?;
    let [off, always] = times.map(|mut times| median(&mut times));
    eprintln!("{name}: off {off:.2?}, always {always:.2?}");
    Ok(Pair { name, off, always, exchanged, compressed, stored })
}

/// Bytes of the frames of all that a query exchanges. Otherwise much of it is never encoded.
async fn compressed(client: &mut Client, sql: &str) -> Result<f64> {
    client.set("tidemill.durability", "off")?;
    client.set(FORCE_ENCODE, "true")?;
    let run = finished(client, sql).await;
    client.set(FORCE_ENCODE, "false")?;
    let [encoded] = numbers(client, &run?, ["encoded_bytes"]).await?;
    Ok(encoded)
}

async fn finished(client: &Client, sql: &str) -> Result<RunId> {
    let result = client.query(sql).await?;
    let run = result.run.clone().ok_or_else(|| Error::internal("a query is no run"))?;
    result.collect().await?;
    Ok(run)
}

async fn kill(cluster: &mut Cluster, client: &Client, oracle: &Oracle, name: &'static str, sql: &str) -> Result<Kill> {
    let start = Instant::now();
    client.query(sql).await?.collect().await?;
    let alone = start.elapsed();
    let start = Instant::now();
    let (run, reading) = started(client, sql).await?;
    tokio::time::sleep(alone / 2).await;
    let again = Instant::now();
    cluster.kill();
    cluster.restart()?;
    let ready = again.elapsed();
    let ours = reading.await.map_err(|e| Error::internal(e.to_string()))??;
    let killed = start.elapsed();
    if let Some(difference) = compare(&oracle.answer(sql).await?, &ours)? {
        return Err(Error::internal(format!("{name} differs from DataFusion: {difference}")));
    }
    let [repeated, all] = numbers(client, &run, ["repeated_task_seconds", "task_seconds"]).await?;
    eprintln!("{name}: alone {alone:.2?}, killed {killed:.2?}, repeated {repeated:.2} of {all:.2} task seconds");
    Ok(Kill { name, alone, killed, repeated, all, ready })
}

/// A run that is under way, and its answer.
pub(crate) async fn started(client: &Client, sql: &str) -> Result<(RunId, JoinHandle<Result<Batches>>)> {
    let result = client.query(sql).await?;
    let run = result.run.clone().ok_or_else(|| Error::internal("a query is no run"))?;
    Ok((run, tokio::spawn(result.collect())))
}

/// The only value of an answer.
pub(crate) async fn number(client: &Client, sql: &str) -> Result<f64> {
    let rows = client.query(sql).await?.collect().await?;
    let row = rows.iter().find(|b| b.num_rows() == 1).ok_or_else(|| Error::internal("there is no such row"))?;
    Ok(row.column(0).as_primitive::<Float64Type>().value(0))
}

async fn numbers<const N: usize>(client: &Client, run: &RunId, columns: [&str; N]) -> Result<[f64; N]> {
    let columns = columns.map(|column| format!("CAST({column} AS DOUBLE)")).join(", ");
    let row =
        client.query(&format!("SELECT {columns} FROM system.runs WHERE run_id = '{run}'")).await?.collect().await?;
    let row = row.iter().find(|b| b.num_rows() == 1).ok_or_else(|| Error::internal("the run is not recorded"))?;
    Ok(std::array::from_fn(|column| row.column(column).as_primitive::<Float64Type>().value(0)))
}

fn page(scale: f64, pairs: usize, measured: &[Pair], kills: &[Kill]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# What durability costs and saves

Written by `cargo run --release -p tidemill-benches -- --durable --scale {scale} --repetitions {pairs}`; do not edit.

- commit: {commit}
- machine: {machine}
- TPC-H at scale {scale}, a coordinator and two executors of one slot, state on the local disk
- medians of {pairs} alternating pairs, after one that warms up
- *exchanged*: Arrow bytes of all that tasks handed on; *compressed*: the same as LZ4 frames, as they lie on disk and in the
  store, of one more run in which every frame was encoded; *upload*: bytes of all complete objects that exchange data went
  into, with their indexes, the most of any run with `always`. What was not stored when its run ended is not in it.

| query | off | always | ratio | exchanged | compressed | upload | upload / compressed |
|---|---:|---:|---:|---:|---:|---:|---:|
",
        commit = commit(),
        machine = machine(),
    );
    let mib = |bytes: f64| format!("{:.1} MiB", bytes / f64::from(1 << 20));
    for p in measured {
        let (off, always, ratio) = (ms(p.off), ms(p.always), ratio(p.always, p.off));
        let (exchanged, compressed, stored) = (mib(p.exchanged), mib(p.compressed), mib(p.stored));
        let share = p.upload_share();
        let _ = writeln!(
            text,
            "| {} | {off} | {always} | {ratio:.2} | {exchanged} | {compressed} | {stored} | {share:.3} |",
            p.name
        );
    }
    let ratios = measured.iter().map(|p| ratio(p.always, p.off));
    let mean = (ratios.clone().map(f64::ln).sum::<f64>() / measured.len().max(1) as f64).exp();
    let worst = ratios.fold(0.0, f64::max);
    let sum = |of: fn(&Pair) -> f64| measured.iter().map(of).sum::<f64>();
    let uploaded = sum(|p| p.stored) / sum(|p| p.compressed).max(1.0);
    let most = measured.iter().map(Pair::upload_share).fold(0.0, f64::max);
    let _ = write!(
        text,
        "\nAlways beside off: geometric mean **{mean:.2}**, worst **{worst:.2}**.
Upload beside compressed exchange bytes: all queries together **{uploaded:.3}**, worst **{most:.3}**.

## Every process killed at half-time

*From zero* is what an engine takes that begins again: half of the run, the start of the processes, and the run.

| query | undisturbed | killed at half-time | from zero | repeated task seconds | of |
|---|---:|---:|---:|---:|---:|
"
    );
    for k in kills {
        let zero = k.alone / 2 + k.ready + k.alone;
        let (alone, killed, zero) = (ms(k.alone), ms(k.killed), ms(zero));
        let _ = writeln!(text, "| {} | {alone} | {killed} | {zero} | {:.2} | {:.2} |", k.name, k.repeated, k.all);
    }
    text.push_str(
        "\nTasks that were running when they were killed are done again, too; they are not among the repeated.\n",
    );
    text
}
