//! Twenty kills of everybody, and twenty of one executor of two, spread over a run.

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidemill::client::Client;
use tidemill::oracle::{Answer, Oracle, compare};
use tidemill::{Error, Result};
use tidemill_core::RunId;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::durable::{Batches, number, started};
use crate::report::{commit, machine, median, ms};

/// Kills of each kind.
const POINTS: u32 = 20;

/// What the kills of one query cost.
pub(crate) struct Swept {
    name: &'static str,
    /// Undisturbed, on two executors and on one.
    alone: Duration,
    on_one: Duration,
    all: Vec<AllKilled>,
    one: Vec<OneKilled>,
}

struct AllKilled {
    /// Task seconds that were finished, and of these what was done again.
    finished: f64,
    repeated: f64,
    /// From the moment that every process was up.
    first_task: Duration,
}

struct OneKilled {
    wall: Duration,
    /// What the work that was left takes on the executor that was left: all but the tasks that were finished, and the one
    /// that it was running.
    allowed: Duration,
}

/// A query to be disturbed.
pub(crate) struct Victim<'a> {
    pub(crate) name: &'static str,
    pub(crate) sql: &'a str,
    pub(crate) client: &'a Client,
    pub(crate) oracle: &'a Oracle,
}

impl Victim<'_> {
    /// Kills everybody at every point, and one executor at every point.
    pub(crate) async fn sweep(&self, cluster: &mut Cluster) -> Result<Swept> {
        let expected = self.oracle.answer(self.sql).await?;
        let (alone, _) = self.undisturbed().await?;
        let mut swept = Swept { name: self.name, alone, on_one: Duration::ZERO, all: Vec::new(), one: Vec::new() };
        for point in 0..POINTS {
            swept.all.extend(self.kill_all(cluster, at(alone, point), &expected).await?);
        }
        cluster.kill_executor();
        let (on_one, seconds) = self.undisturbed().await?;
        swept.on_one = on_one;
        for point in 0..POINTS {
            cluster.add_executor()?;
            self.until_both_are_there().await?;
            let killed = self.kill_one(cluster, at(alone, point), &expected, (on_one, seconds)).await?;
            swept.one.extend(killed);
        }
        cluster.add_executor()?;
        Ok(swept)
    }

    async fn until_both_are_there(&self) -> Result<()> {
        let alive = "SELECT CAST(count(*) AS DOUBLE) FROM system.executors WHERE state = 'alive'";
        while number(self.client, alive).await? < 2.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The middle of three, and the last one's task seconds.
    async fn undisturbed(&self) -> Result<(Duration, f64)> {
        let (mut times, mut seconds) = (Vec::new(), 0.0);
        for _ in 0..3 {
            let start = Instant::now();
            let (run, reading) = started(self.client, self.sql).await?;
            reading.await.map_err(|e| Error::internal(e.to_string()))??;
            times.push(start.elapsed());
            seconds = number(self.client, &of_run(&run, "task_seconds")).await?;
        }
        Ok((median(&mut times), seconds))
    }

    /// Task seconds of a run that are not lost with the executor that came last.
    async fn safe_seconds(&self, run: &RunId) -> Result<f64> {
        let of = format!("FROM system.tasks WHERE run_id = '{run}' AND");
        let finished = format!("SELECT coalesce(sum(task_seconds), 0.0) {of} state = 'succeeded'");
        let since = "extract(epoch FROM now()) - extract(epoch FROM started_at)";
        let last = "SELECT executor_id FROM system.executors WHERE state = 'alive' ORDER BY joined_at DESC LIMIT 1";
        let running = format!("SELECT coalesce(sum({since}), 0.0) {of} state = 'running' AND executor_id <> ({last})");
        Ok(number(self.client, &finished).await? + number(self.client, &running).await?)
    }

    /// `None` if it was over before.
    async fn kill_all(&self, cluster: &mut Cluster, at: Duration, expected: &Answer) -> Result<Option<AllKilled>> {
        let (run, reading) = started(self.client, self.sql).await?;
        tokio::time::sleep(at).await;
        let tasks = format!("FROM system.tasks WHERE run_id = '{run}'");
        let finished = format!("SELECT coalesce(sum(task_seconds), 0.0) {tasks} AND state = 'succeeded'");
        let finished = number(self.client, &finished).await?;
        if reading.is_finished() {
            return Ok(None);
        }
        cluster.kill();
        // What the log says of the dead is no task that runs.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        cluster.restart()?;
        let up = Instant::now();
        let running = format!("SELECT CAST(count(*) AS DOUBLE) {tasks} AND started_at >= to_timestamp_millis({since})");
        while !reading.is_finished() && number(self.client, &running).await.unwrap_or(0.0) == 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let first_task = up.elapsed();
        self.compared(reading, expected).await?;
        let repeated = number(self.client, &of_run(&run, "repeated_task_seconds")).await?;
        eprintln!("{} all killed at {at:.1?}: {repeated:.2} of {finished:.2}, first task {first_task:.2?}", self.name);
        Ok(Some(AllKilled { finished, repeated, first_task }))
    }

    async fn kill_one(
        &self,
        cluster: &mut Cluster,
        at: Duration,
        expected: &Answer,
        (on_one, seconds): (Duration, f64),
    ) -> Result<Option<OneKilled>> {
        let start = Instant::now();
        let (run, reading) = started(self.client, self.sql).await?;
        tokio::time::sleep(at.saturating_sub(start.elapsed())).await;
        let safe = self.safe_seconds(&run).await?;
        if reading.is_finished() {
            cluster.kill_executor();
            return Ok(None);
        }
        let killed = start.elapsed();
        cluster.kill_executor();
        self.compared(reading, expected).await?;
        let wall = start.elapsed();
        let allowed = killed + on_one.mul_f64(1.0 - (safe / seconds).min(1.0));
        eprintln!("{} one killed at {at:.1?}: {wall:.2?}, allowed {allowed:.2?}", self.name);
        Ok(Some(OneKilled { wall, allowed }))
    }

    async fn compared(&self, reading: JoinHandle<Result<Batches>>, expected: &Answer) -> Result<()> {
        let ours = reading.await.map_err(|e| Error::internal(e.to_string()))??;
        match compare(expected, &ours)? {
            Some(difference) => Err(Error::internal(format!("{} differs from DataFusion: {difference}", self.name))),
            None => Ok(()),
        }
    }
}

/// The middle of the `point`-th part of a run.
fn at(alone: Duration, point: u32) -> Duration {
    alone * (2 * point + 1) / (2 * POINTS)
}

fn of_run(run: &RunId, column: &str) -> String {
    format!("SELECT CAST({column} AS DOUBLE) FROM system.runs WHERE run_id = '{run}'")
}

/// The page.
pub(crate) fn page(scale: f64, swept: &[Swept]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# Kills at {POINTS} points

Written by `cargo run --release -p tidemill-benches -- --kills --scale {scale}`; do not edit.

- commit: {commit}
- machine: {machine}
- TPC-H at scale {scale}, a coordinator and two executors of one slot, state on the local disk

*All*: every process is killed and started again. *Repeated* is the share of the finished task seconds that was done
again, over all kills, as the engine counts it: tasks that were running, or finished in the last 200 ms and not yet in the
log, are done again, too, and are not among them. *First task* is the time from
the moment that all processes were up. *One*: one executor of two is killed and stays dead; *allowed* is the time until then
and what the other takes for the rest: all task seconds of the query alone on it, less those of tasks that were finished
and of the one that it was running. What the dead one was running begins again.

| query | alone | on one executor | kills of all | repeated | worst first task | kills of one | wall beside allowed, median | worst |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
",
        commit = commit(),
        machine = machine(),
    );
    for s in swept {
        let finished: f64 = s.all.iter().map(|k| k.finished).sum();
        let repeated: f64 = s.all.iter().map(|k| k.repeated).sum();
        let first = s.all.iter().map(|k| k.first_task).max().unwrap_or_default();
        let mut ratios: Vec<f64> = s.one.iter().map(|k| k.wall.as_secs_f64() / k.allowed.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        let middle = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
        let worst = ratios.last().copied().unwrap_or_default();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {:.1} % | {} | {} | {middle:.2} | {worst:.2} |",
            s.name,
            ms(s.alone),
            ms(s.on_one),
            s.all.len(),
            100.0 * repeated / finished.max(f64::MIN_POSITIVE),
            ms(first),
            s.one.len(),
        );
    }
    text
}
