//! One interval: asked for, published, and where its time went.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMillisecondType;
use arrow::record_batch::RecordBatch;
use arrow::temporal_conversions::timestamp_s_to_datetime;
use arrow::util::display::array_value_to_string;
use tidemill::client::Client;
use tidemill::oracle::Oracle;
use tidemill::{Error, Result};

use super::{AUDITED, FEED, HOUR, PLAIN, ROLLED, START, query, run, sums_of};

/// How long an interval may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the log of a dataset is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// How often the coordinator is asked whether a run has ended.
const ASK: Duration = Duration::from_millis(10);

/// Who asks, and where things are.
pub(super) struct Bench<'a> {
    pub(super) client: &'a Client,
    pub(super) oracle: &'a Oracle,
    /// Has the clicks and the datasets.
    pub(super) folder: &'a Path,
}

/// An interval of a job.
pub(super) struct Published {
    /// From the statement until the version was there.
    pub(super) latency: Duration,
    pub(super) phases: Phases,
}

/// Milliseconds from the statement to the first of these, and from each to the next: the run is accepted, its first task
/// begins, its last task ends, the version is there, the run has ended. Some are of another process's clock, in whole
/// milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Phases(pub(super) [f64; 5]);

impl Phases {
    fn between(sent: f64, points: [f64; 5]) -> Self {
        let mut before = sent;
        Self(points.map(|point| point - std::mem::replace(&mut before, point)))
    }
}

/// The same hour, everywhere.
pub(super) struct Turn {
    pub(super) audited: Published,
    pub(super) plain: Published,
    /// The query on the cluster: its rows fetched, or written as a file.
    pub(super) select: Duration,
    pub(super) copy: Duration,
    /// In-process DataFusion, which writes a file.
    pub(super) alone: Duration,
}

impl Bench<'_> {
    /// Everything that one hour of clicks is good for, one after the other. Of the jobs neither is always the first.
    pub(super) async fn turn(&self, hour: u64) -> Result<Turn> {
        let (audited, plain) = if hour.is_multiple_of(2) {
            let audited = self.publish(AUDITED, hour).await?;
            (audited, self.publish(PLAIN, hour).await?)
        } else {
            let plain = self.publish(PLAIN, hour).await?;
            (self.publish(AUDITED, hour).await?, plain)
        };
        let from = START.1 + hour * HOUR;
        let query = query(&format!("ts >= to_timestamp({from}) AND ts < to_timestamp({})", from + HOUR));
        let to = |who: &str| format!("{}/{who}-{hour}.parquet", self.folder.join("copied").display());
        let start = Instant::now();
        run(self.client, &query).await?;
        let select = start.elapsed();
        let start = Instant::now();
        run(self.client, &format!("COPY ({query}) TO '{}'", to("cluster"))).await?;
        let copy = start.elapsed();
        let start = Instant::now();
        self.oracle.answer(&format!("COPY ({query}) TO '{}' STORED AS PARQUET", to("alone"))).await?;
        Ok(Turn { audited, plain, select, copy, alone: start.elapsed() })
    }

    /// Asks for an interval, and waits until it is published and its run has ended.
    async fn publish(&self, job: &str, hour: u64) -> Result<Published> {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let sent = Instant::now();
        let ((), there) = tokio::try_join!(self.ask_for(job, hour), self.there(job, hour))?;
        let latency = there - sent;
        let row = self.run_of(job, hour).await?;
        let run = array_value_to_string(row.column(2), 0).map_err(|e| Error::internal(e.to_string()))?;
        let tasks = "SELECT min(started_at), max(finished_at) FROM system.tasks WHERE state = 'succeeded' AND";
        let tasks = self.row(&format!("{tasks} run_id = '{run}'")).await?;
        let unknown = || Error::internal(format!("it is not known when run {run} and its tasks began and ended"));
        let [submitted, finished] = times(&row).ok_or_else(unknown)?;
        let [first, last] = tasks.as_ref().and_then(times).ok_or_else(unknown)?;
        let sent = clock.as_secs_f64() * 1e3;
        let there = sent + latency.as_secs_f64() * 1e3;
        Ok(Published { latency, phases: Phases::between(sent, [submitted, first, last, there, finished]) })
    }

    /// From the version of what feeds a job until that of the job.
    pub(super) async fn update(&self, hour: u64) -> Result<Duration> {
        let ((), fed) = tokio::try_join!(self.ask_for(FEED, hour), self.there(FEED, hour))?;
        let took = self.there(ROLLED, hour).await? - fed;
        self.run_of(ROLLED, hour).await?;
        Ok(took)
    }

    async fn ask_for(&self, job: &str, hour: u64) -> Result<()> {
        let begins = i64::try_from(START.1 + hour * HOUR).ok().and_then(timestamp_s_to_datetime);
        let begins = begins.ok_or_else(|| Error::invalid(format!("{hour} hours are too many")))?;
        run(self.client, &format!("EXECUTE JOB {job} FOR INTERVAL '{begins}'")).await
    }

    /// When the dataset's version of an hour was in its log, where every reader finds it. Version 0 is the empty table.
    async fn there(&self, job: &str, hour: u64) -> Result<Instant> {
        let entry = format!("_delta_log/{:020}.json", hour + 1);
        let (entry, start) = (self.folder.join(sums_of(job)).join(entry), Instant::now());
        while !entry.exists() {
            if start.elapsed() > PATIENCE {
                return Err(self.late(job).await);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Instant::now())
    }

    /// When the run of an interval was accepted, when it ended, which is waited for, and its name.
    async fn run_of(&self, job: &str, hour: u64) -> Result<RecordBatch> {
        let begins = (START.1 + hour * HOUR) * 1_000;
        let sql = format!(
            "SELECT submitted_at, finished_at, run_id FROM system.runs WHERE job = '{job}' AND state = 'succeeded' \
             AND interval_start = to_timestamp_millis({begins})"
        );
        let start = Instant::now();
        loop {
            if let Some(row) = self.row(&sql).await? {
                return Ok(row);
            }
            if start.elapsed() > PATIENCE {
                return Err(self.late(job).await);
            }
            tokio::time::sleep(ASK).await;
        }
    }

    /// The only row of an answer; none of another one.
    async fn row(&self, sql: &str) -> Result<Option<RecordBatch>> {
        let rows = self.client.query(sql).await?.collect().await?;
        Ok(rows.into_iter().find(|batch| batch.num_rows() == 1))
    }

    /// An interval did not come: where it stands.
    async fn late(&self, job: &str) -> Error {
        let sql = format!(
            "SELECT state, coalesce(error, waits_for) FROM system.intervals WHERE job = '{job}' \
             AND state NOT IN ('published', 'missing', 'skipped', 'future') LIMIT 1"
        );
        let stands = async {
            let row = self.row(&sql).await?.ok_or_else(|| Error::internal("none is known"))?;
            let shown = |column: usize| array_value_to_string(row.column(column), 0);
            let shown = shown(0).and_then(|state| Ok(format!("{state}: {}", shown(1)?)));
            shown.map_err(|e| Error::internal(e.to_string()))
        };
        let stands = stands.await.unwrap_or_else(|error: Error| error.to_string());
        Error::unavailable(format!("an interval of {job} was not published within {PATIENCE:?}; {stands}"))
    }
}

/// The first two columns of a row, which are times, in milliseconds.
fn times(row: &RecordBatch) -> Option<[f64; 2]> {
    let columns = [row.column(0), row.column(1)];
    let is_known = columns.iter().all(|column| column.is_valid(0));
    is_known.then(|| columns.map(|column| column.as_primitive::<TimestampMillisecondType>().value(0) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up_to_what_passed() {
        let phases = Phases::between(100.0, [103.0, 110.0, 150.0, 160.0, 162.0]);
        assert_eq!(phases, Phases([3.0, 7.0, 40.0, 10.0, 2.0]));
        assert_eq!(phases.0.iter().sum::<f64>(), 62.0);
    }
}
