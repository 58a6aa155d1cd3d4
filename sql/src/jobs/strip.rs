//! `SHOW INTERVALS OF`: a job's intervals as a calendar would show them, one sign each.
//!
//! ```text
//! 2026-03-01  ########################
//! 2026-03-02  #####!##>...
//! ```

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use tidemill_core::interval::{Calendar, Inherited, Job, JobName, Local, Standing, Unit, standing};
use tidemill_core::record::State;
use tidemill_core::{Error, Millis, Result};
use tidemill_engine::error::from_datafusion;
use tidemill_engine::planner::Plan;

use crate::session::answer;

/// Lines that are shown where nothing is said.
const LINES: u64 = 31;
/// Intervals that are shown at the most.
const MOST: u64 = 20_000;
/// What the signs mean, as the column's name.
const LEGEND: &str =
    "#published *stale !failed >running ~retrying x:stopping .waits :queued -missing c:cancelled s:skipped";

/// The sign of a published interval that is stale.
const STALE: char = '*';
/// The sign of one that waits for others to be computed before.
const WAITS: char = '.';

const DAY_MS: i64 = 86_400_000;

/// The sign of an interval.
const fn sign(standing: &Standing) -> char {
    match standing {
        Standing::Future => ' ',
        Standing::Missing => '-',
        Standing::Waiting { .. } => WAITS,
        Standing::Queued => ':',
        Standing::Running { .. } => '>',
        Standing::Stopping { .. } => 'x',
        Standing::Retrying { .. } => '~',
        Standing::Published { .. } => '#',
        Standing::Failed { .. } => '!',
        Standing::Cancelled { .. } => 'c',
        Standing::Skipped { .. } => 's',
    }
}

/// What a line shows, as clocks have it where its first interval begins: an hour of minutes, a day of hours, a month of days, a
/// year of weeks or months, ten years.
fn line_of(unit: Unit, local: Local) -> String {
    let shown = local.to_string();
    let part = |length: usize| shown.get(..length).unwrap_or(&shown).to_owned();
    match unit {
        Unit::Minute => format!("{}:00", part(13)),
        Unit::Hour => part(10),
        Unit::Day => part(7),
        Unit::Week | Unit::Month => part(4),
        Unit::Year => format!("{}0s", part(3)),
    }
}

/// About how much time a line has, for the lines that are shown by themselves.
const fn line_ms(unit: Unit) -> i64 {
    match unit {
        Unit::Minute => 3_600_000,
        Unit::Hour => DAY_MS,
        Unit::Day => 31 * DAY_MS,
        Unit::Week | Unit::Month => 366 * DAY_MS,
        Unit::Year => 3_653 * DAY_MS,
    }
}

/// The lines of a job between two instants; by themselves the latest.
pub(super) fn show(
    state: &State,
    (name, job): (&JobName, &Job),
    from: Option<Millis>,
    to: Option<Millis>,
    now: Millis,
) -> Result<Plan> {
    let now = Millis(now.0.saturating_add_signed(state.clock_ahead_ms));
    let calendar = &job.calendar;
    let end = to.unwrap_or(now);
    // The one that is not over is shown, too.
    let last = calendar.containing(Millis(end.0.saturating_sub(u64::from(to.is_some()))));
    let end = last.map_or(0, |last| last + 1);
    let first = match from {
        Some(from) => calendar.containing(from).unwrap_or(0),
        None => latest(calendar, end),
    };
    if end.saturating_sub(first) > MOST {
        return Err(Error::invalid(format!(
            "these are {} intervals, and at most {MOST} are shown: give a shorter time with FROM and TO",
            end - first
        )));
    }
    let inherited = Inherited::of(&state.jobs);
    let is_stale = |index| job.changed(index).next().is_some() || !inherited.inputs(name, index).is_empty();
    let waits = |index| !job.holds_back(index) && !inherited.holding(name, job, index).is_empty();
    let mut lines: Vec<(String, String)> = Vec::new();
    for index in first..end {
        let interval = calendar.interval(index);
        if interval.is_empty() {
            continue;
        }
        let line = line_of(calendar.length.unit, calendar.zone.local(interval.start));
        let standing = standing(&state.jobs, job, index, now);
        let sign = match standing {
            Standing::Published { .. } if is_stale(index) => STALE,
            Standing::Queued if waits(index) => WAITS,
            _ => sign(&standing),
        };
        match lines.last_mut().filter(|(last, _)| *last == line) {
            Some((_, signs)) => signs.push(sign),
            None => lines.push((line, sign.to_string())),
        }
    }
    let (times, signs): (Vec<_>, Vec<_>) = lines.into_iter().unzip();
    let columns = [("time", times), (LEGEND, signs)];
    let columns = columns.map(|(name, values)| (name, Arc::new(StringArray::from(values)) as ArrayRef));
    answer(RecordBatch::try_from_iter(columns).map_err(|e| from_datafusion(&DataFusionError::from(e)))?)
}

fn latest(calendar: &Calendar, end: u64) -> u64 {
    let Some(last) = end.checked_sub(1) else { return 0 };
    let back = i64::try_from(LINES - 1).unwrap_or(0) * line_ms(calendar.length.unit);
    let begin = calendar.boundary(last).0.saturating_add_signed(-back);
    let first = calendar.containing(Millis(begin)).unwrap_or(0);
    // From the beginning of its line.
    let unit = calendar.length.unit;
    let line = |index: u64| line_of(unit, calendar.zone.local(calendar.boundary(index)));
    let wanted = line(first);
    (0..=first).rev().take_while(|index| line(*index) == wanted).last().unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_next_longer_time() {
        let local = Local::parse("2026-03-08 04:05");
        let line = |unit| local.clone().map(|local| line_of(unit, local)).unwrap_or_default();
        assert_eq!(line(Unit::Minute), "2026-03-08 04:00");
        assert_eq!(line(Unit::Hour), "2026-03-08");
        assert_eq!(line(Unit::Day), "2026-03");
        assert_eq!(line(Unit::Month), "2026");
        assert_eq!(line(Unit::Year), "2020s");
    }
}
