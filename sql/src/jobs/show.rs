//! What statements show of jobs.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, TimestampMillisecondArray};
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use tidemill_core::interval::{Job, JobName, Plan as Backfill, Zone};
use tidemill_core::{Error, Millis, Result};
use tidemill_engine::error::from_datafusion;
use tidemill_engine::planner::Plan;

use crate::session::{Planning, answer};

/// Rows of a dry run, at the most.
const MOST: usize = 100_000;
/// What `SHOW JOBS` shows of `system.jobs`.
const JOBS: &str = "SELECT job, output, reason, time_zone, \"interval\", state, next_fire, running, due, failures, complete_until \
                    FROM system.jobs ORDER BY job";

/// `SHOW JOBS`.
pub(super) async fn jobs(planning: &Planning<'_>) -> Result<Plan> {
    planning.rows(JOBS).await
}

/// `SHOW CREATE JOB`: the statement that makes it as it is now.
pub(super) fn create(job: &Job, name: &JobName) -> Result<Plan> {
    let columns = [("job", name.0.as_str()), ("definition", job.spec.statement.as_str())];
    let columns = columns.map(|(name, value)| (name, Arc::new(StringArray::from(vec![value])) as ArrayRef));
    batch(columns)
}

/// `BACKFILL … DRY RUN`: the intervals in the order in which they would begin.
pub(super) fn dry_run(plan: &Backfill, zone: Zone) -> Result<Plan> {
    if plan.intervals.count() > MOST as u64 {
        return Err(Error::invalid(format!(
            "the backfill would run {} intervals, and a dry run lists at most {MOST}: give it less time",
            plan.intervals.count()
        )));
    }
    let intervals: Vec<_> = plan.iter().collect();
    let time = |at: fn(&tidemill_core::interval::Interval) -> Millis| {
        let millis = intervals.iter().map(|interval| i64::try_from(at(interval).0).ok());
        Arc::new(millis.collect::<TimestampMillisecondArray>().with_timezone("UTC")) as ArrayRef
    };
    let local = intervals.iter().map(|interval| Some(zone.local(interval.start).to_string()));
    batch([
        ("interval_start", time(|interval| interval.start)),
        ("interval_end", time(|interval| interval.end)),
        ("local_start", Arc::new(local.collect::<StringArray>())),
    ])
}

fn batch(columns: impl IntoIterator<Item = (&'static str, ArrayRef)>) -> Result<Plan> {
    answer(RecordBatch::try_from_iter(columns).map_err(|e| from_datafusion(&DataFusionError::from(e)))?)
}
