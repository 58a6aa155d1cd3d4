//! What is complete for which time.
//!
//! A dataset is complete where somebody who knows said so, and where *every* job that publishes into it has published, of
//! those whose intervals had begun by then.

use std::ops::Range;

use super::calendar::Interval;
use super::names::DatasetName;
use super::spans::Ranges;
use super::state::{Job, State};
use crate::Millis;

/// For which milliseconds of a stretch of time a dataset is complete.
#[must_use]
pub fn covered(state: &State, dataset: &DatasetName, within: Interval) -> Ranges {
    let Interval { start, end } = within;
    let stretch = start.0..end.0.max(start.0);
    let (mut all, mut first) = (Ranges::from(stretch.clone()), u64::MAX);
    for (_, producer) in state.producing(dataset) {
        let start = producer.calendar.boundary(0).0;
        let mut published = published(producer, within);
        // Nobody asks it for what was before its START.
        published.insert(0..start);
        all = all.intersection(&published);
        first = first.min(start);
    }
    let mut covered = all.within(first..u64::MAX);
    if let Some(reported) = state.datasets.get(dataset) {
        covered.insert_all(&reported.reported.within(stretch.clone()));
    }
    covered.within(stretch)
}

/// What a job has published, in milliseconds: whole intervals that share an instant with a stretch of time.
pub(super) fn published(job: &Job, within: Interval) -> Ranges {
    let overlapping = job.calendar.overlapping(within.start, within.end);
    let pieces = job.ledger.pieces_in(overlapping).filter(|(_, entry)| entry.published > 0);
    // Intervals without an instant are skipped by this: their neighbours touch.
    pieces.map(|(piece, _)| job.calendar.boundary(piece.start).0..job.calendar.boundary(piece.end).0).collect()
}

/// The intervals of a range that all inputs of a job cover, with what their windows read.
#[must_use]
pub fn ready(state: &State, job: &Job, range: Range<u64>) -> Ranges {
    let mut ready = Ranges::from(range.clone());
    if range.is_empty() {
        return ready;
    }
    let hull = Interval { start: job.window(range.start).start, end: job.calendar.boundary(range.end) };
    for input in job.spec.inputs() {
        if ready.is_empty() {
            break;
        }
        let pieces = covered(state, input, hull);
        let covered: Ranges = pieces.iter().map(|piece| inside(job, Millis(piece.start), Millis(piece.end))).collect();
        ready = ready.intersection(&covered);
    }
    ready
}

/// The intervals whose windows lie in a stretch of time.
fn inside(job: &Job, from: Millis, to: Millis) -> Range<u64> {
    let end = job.calendar.complete_to(to);
    let lookback = u64::from(job.spec.options.lookback);
    // Before START there is nothing to look back to.
    let first = match job.calendar.first_from(from) {
        0 => 0,
        first => first.saturating_add(lookback),
    };
    first.min(end)..end
}
