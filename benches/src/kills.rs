//! Kills of everybody, and of one executor of two, spread over the runs of several queries.
//!
//! After a kill of one, a run is *allowed* the time until the kill, and what the executor that is left takes alone for the work
//! that is left. What is left is all but the safe: tasks that had finished, wherever their outputs were, and the part of
//! the survivor's running tasks that was done. So the dead one's running task may begin again, because no engine saves half a
//! task; but finished tasks of the dead one that were not in the store yet and run again, and noticing that it is dead, are
//! the engine's own fault: they are in the wall time and not in what is allowed.
//!
//! Safe work is measured as its share of the task seconds of an undisturbed run with both executors, because with both it was
//! done: side by side they take more task seconds for the same work than one does alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use arrow::record_batch::RecordBatch;
use tidemill::client::Client;
use tidemill::oracle::{Answer, Oracle, compare};
use tidemill::{Error, Result};
use tidemill_core::RunId;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::durable::{Batches, number, started};
use crate::report::{commit, machine, median, ms};

/// How often a point is tried at which the run was over: each time earlier.
const TRIES: u32 = 4;

/// What the kills of one query cost.
pub(crate) struct Swept {
    name: &'static str,
    /// Undisturbed, on two executors and on one.
    alone: Duration,
    on_one: Duration,
    all: Vec<AllKilled>,
    one: Vec<OneKilled>,
}

/// What a run takes that nobody disturbs.
#[derive(Clone, Copy)]
struct Undisturbed {
    wall: Duration,
    /// Of all its tasks.
    task_seconds: f64,
}

struct AllKilled {
    /// Task seconds that were finished.
    finished: f64,
    /// Of these, what the engine says that it did again: what it knew to be finished.
    repeated: f64,
    /// Of these, what was done again.
    again: f64,
    /// From the moment that every process was up.
    first_task: Duration,
}

struct OneKilled {
    wall: Duration,
    allowed: Duration,
}

impl OneKilled {
    fn ratio(&self) -> f64 {
        self.wall.as_secs_f64() / self.allowed.as_secs_f64()
    }
}

/// A query to be disturbed.
pub(crate) struct Victim<'a> {
    pub(crate) name: &'static str,
    pub(crate) sql: &'a str,
    pub(crate) client: &'a Client,
    pub(crate) oracle: &'a Oracle,
    /// Kills of each kind.
    pub(crate) points: u32,
}

impl Victim<'_> {
    /// Kills everybody at every point, and one executor at every point.
    pub(crate) async fn sweep(&self, cluster: &mut Cluster) -> Result<Swept> {
        let expected = self.oracle.answer(self.sql).await?;
        self.until_both_are_there().await?;
        let both = self.undisturbed().await?;
        let mut all = Vec::new();
        for point in 0..self.points {
            for at in self.moments(both.wall, point) {
                if let Some(killed) = self.kill_all(cluster, at, &expected).await? {
                    all.push(killed);
                    break;
                }
            }
        }
        cluster.kill_executor();
        let single = self.undisturbed().await?;
        let on_one = single.wall;
        eprintln!(
            "{}: {:.2?} and {:.2} task seconds on two executors, {on_one:.2?} and {:.2} on one",
            self.name, both.wall, both.task_seconds, single.task_seconds
        );
        let mut one = Vec::new();
        for point in 0..self.points {
            for at in self.moments(both.wall, point) {
                cluster.add_executor()?;
                self.until_both_are_there().await?;
                if let Some(killed) = self.kill_one(cluster, at, &expected, both, on_one).await? {
                    one.push(killed);
                    break;
                }
            }
        }
        cluster.add_executor()?;
        Ok(Swept { name: self.name, alone: both.wall, on_one, all, one })
    }

    /// The middle of the `point`-th part of a run; and earlier moments, should that run be over by then.
    fn moments(&self, alone: Duration, point: u32) -> impl Iterator<Item = Duration> {
        let at = alone * (2 * point + 1) / (2 * self.points);
        (0..TRIES).map(move |attempt| at.mul_f64(1.0 - 0.1 * f64::from(attempt)))
    }

    async fn until_both_are_there(&self) -> Result<()> {
        let alive = "SELECT CAST(count(*) AS DOUBLE) FROM system.executors WHERE state = 'alive'";
        while number(self.client, alive).await? < 2.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The middle of three, of both measures.
    async fn undisturbed(&self) -> Result<Undisturbed> {
        let (mut walls, mut seconds) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let start = Instant::now();
            let (run, reading) = started(self.client, self.sql).await?;
            reading.await.map_err(|e| Error::internal(e.to_string()))??;
            walls.push(start.elapsed());
            seconds.push(number(self.client, &finished(&run)).await?);
        }
        Ok(Undisturbed { wall: median(&mut walls), task_seconds: middle(&mut seconds) })
    }

    /// Task seconds of a run that are not lost with the executor that came last.
    async fn safe_seconds(&self, run: &RunId) -> Result<f64> {
        let last = "SELECT executor_id FROM system.executors WHERE state = 'alive' ORDER BY joined_at DESC LIMIT 1";
        let running = format!("state = 'running' AND executor_id <> ({last})");
        number(self.client, &task_seconds(run, &format!("(state = 'succeeded' OR {running})"))).await
    }

    /// `None` if it was over before.
    async fn kill_all(&self, cluster: &mut Cluster, at: Duration, expected: &Answer) -> Result<Option<AllKilled>> {
        let (run, reading) = started(self.client, self.sql).await?;
        tokio::time::sleep(at).await;
        let before = self.tasks(&run, "state = 'succeeded'").await?;
        if reading.is_finished() {
            return Ok(None);
        }
        cluster.kill();
        // What the log says of the dead is no task that runs.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        cluster.restart()?;
        let up = Instant::now();
        let since = format!("started_at >= to_timestamp_millis({since})");
        let running = format!("SELECT CAST(count(*) AS DOUBLE) FROM system.tasks WHERE run_id = '{run}' AND {since}");
        while !reading.is_finished() && number(self.client, &running).await.unwrap_or(0.0) == 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let first_task = up.elapsed();
        self.compared(reading, expected).await?;
        let repeated = format!("SELECT CAST(repeated_task_seconds AS DOUBLE) FROM system.runs WHERE run_id = '{run}'");
        let repeated = number(self.client, &repeated).await?;
        let finished = before.values().sum::<f64>();
        // The sum of no floats is minus zero.
        let again = 0.0 + self.tasks(&run, &since).await?.keys().filter_map(|task| before.get(task)).sum::<f64>();
        eprintln!(
            "{} all killed at {at:.1?}: {repeated:.2}, in truth {again:.2}, of {finished:.2}, first task {first_task:.2?}",
            self.name
        );
        Ok(Some(AllKilled { finished, repeated, again, first_task }))
    }

    /// Some of a run's tasks and the seconds of their latest attempts.
    async fn tasks(&self, run: &RunId, which: &str) -> Result<BTreeMap<String, f64>> {
        let columns = "concat(stage_id, '.', task_id), coalesce(task_seconds, 0.0)";
        let sql = format!("SELECT {columns} FROM system.tasks WHERE run_id = '{run}' AND {which}");
        let batches = self.client.query(&sql).await?.collect().await?;
        let of_batch = |batch: &RecordBatch| {
            let seconds = batch.column(1).as_primitive::<Float64Type>().values().to_vec();
            let names = batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned);
            names.zip(seconds).collect::<Vec<_>>()
        };
        Ok(batches.iter().flat_map(of_batch).collect())
    }

    async fn kill_one(
        &self,
        cluster: &mut Cluster,
        at: Duration,
        expected: &Answer,
        both: Undisturbed,
        on_one: Duration,
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
        let wall = self.compared(reading, expected).await? - start;
        let allowed = killed + on_one.mul_f64(1.0 - (safe / both.task_seconds).min(1.0));
        eprintln!("{} one killed at {at:.1?}: {wall:.2?}, allowed {allowed:.2?}", self.name);
        Ok(Some(OneKilled { wall, allowed }))
    }

    /// When the answer was there, which is right.
    async fn compared(&self, reading: JoinHandle<Result<Batches>>, expected: &Answer) -> Result<Instant> {
        let ours = reading.await.map_err(|e| Error::internal(e.to_string()))??;
        let end = Instant::now();
        match compare(expected, &ours)? {
            Some(difference) => Err(Error::internal(format!("{} differs from DataFusion: {difference}", self.name))),
            None => Ok(end),
        }
    }
}

/// Task seconds of some of a run's tasks.
fn task_seconds(run: &RunId, of: &str) -> String {
    format!("SELECT coalesce(sum(task_seconds), 0.0) FROM system.tasks WHERE run_id = '{run}' AND {of}")
}

/// Of those that have finished.
fn finished(run: &RunId) -> String {
    task_seconds(run, "state = 'succeeded'")
}

/// The middle of the values, or nothing.
fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The page.
pub(crate) fn page(scale: f64, points: u32, swept: &[Swept]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# Kills at many points of several queries

Written by `cargo run --release -p tidemill-benches -- --kills --scale {scale} --points {points}`; do not edit.

- commit: {commit}
- machine: {machine}
- TPC-H at scale {scale}, a coordinator and two executors of one slot, state on the local disk
- each query is killed in the middle of each of {points} parts of its run, once in each way; earlier if it was over by then;
  every answer was compared with DataFusion's

*All*: every process is killed and started again. *Repeated* is the share of the finished task seconds that was done
again, over all kills: *counted*, as `system.runs` says, of tasks that the log knew to be finished; *in truth*, of all that
`system.tasks` showed as finished just before the kill, also in the last 200 ms, of which the log may know nothing. Tasks that
were running are done again, too; they were not finished. *First task* is the time from the moment that all processes were up.

*One*: one executor of two is killed and stays dead. *Allowed* is the time until then, and for the rest of the work what one
executor takes alone: *on one executor*, less the share that is safe. Safe are tasks that had finished, on either, and the part
of the other one's running task that was done; their share is that of their task seconds in those of an undisturbed run on
two executors. So what the dead one was running may begin again. Not allowed, and in the wall time, are noticing that it is
dead, and doing again what it had finished and not stored.

| query | alone | on one executor | kills of all | repeated, counted | in truth | worst first task | kills of one | wall / allowed, median | worst |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
",
        commit = commit(),
        machine = machine(),
    );
    for s in swept {
        row(&mut text, &format!("{} | {} | {}", s.name, ms(s.alone), ms(s.on_one)), &[s]);
    }
    row(&mut text, "**all** | |", &swept.iter().collect::<Vec<_>>());
    text
}

/// One row, over all kills of some queries.
fn row(text: &mut String, name: &str, swept: &[&Swept]) {
    let all = || swept.iter().flat_map(|s| &s.all);
    let finished: f64 = all().map(|k| k.finished).sum();
    let share = |of: fn(&AllKilled) -> f64| 100.0 * all().map(of).sum::<f64>() / finished.max(f64::MIN_POSITIVE);
    let first = all().map(|k| k.first_task).max().unwrap_or_default();
    let mut ratios: Vec<f64> = swept.iter().flat_map(|s| &s.one).map(OneKilled::ratio).collect();
    let median = middle(&mut ratios);
    let worst = ratios.last().copied().unwrap_or_default();
    let _ = writeln!(
        text,
        "| {name} | {} | {:.1} % | {:.1} % | {} | {} | {median:.2} | {worst:.2} |",
        all().count(),
        share(|k| k.repeated),
        share(|k| k.again),
        ms(first),
        ratios.len(),
    );
}
