//! `system.intervals`: what became of each interval of each job; why it waits, or failed. Of each job the latest, and the latest
//! of which more is known than that they are over: years of minutes would be millions of rows.

use std::collections::BTreeSet;

use tidemill_core::Millis;
use tidemill_core::interval::{Interval, Job, JobName, RunKey, Standing, standing};
use tidemill_core::record::State;

use super::Columns;

/// Intervals of a job of each kind, at the most.
const MOST: usize = 2_000;

struct Row<'a> {
    job: &'a JobName,
    interval: Interval,
    standing: Standing,
    run: Option<RunKey>,
    published: Option<(u32, Option<u64>)>,
    rows: Option<u64>,
}

/// Which intervals are shown, by position.
fn shown(job: &Job, now: Millis) -> BTreeSet<u64> {
    let end = job.calendar.containing(now).map_or(0, |last| last + 1);
    let mut shown: BTreeSet<u64> = (0..end).rev().take(MOST).collect();
    shown.extend(job.active.keys());
    let remaining = job.backfills.values().map(|backfill| &backfill.remaining);
    for waiting in [&job.due, &job.again, &job.requested].into_iter().chain(remaining) {
        shown.extend(waiting.numbers().rev().take(MOST));
    }
    let known: Vec<_> = job.ledger.pieces_in(0..u64::MAX).map(|(piece, _)| piece).collect();
    shown.extend(known.into_iter().rev().flat_map(Iterator::rev).take(MOST));
    shown
}

fn of_job<'a>(state: &'a State, name: &'a JobName, job: &'a Job, now: Millis) -> impl Iterator<Item = Row<'a>> {
    let intervals = shown(job, now).into_iter().map(|index| (index, job.calendar.interval(index)));
    intervals.filter(|(_, interval)| !interval.is_empty()).map(move |(index, interval)| {
        let active = job.active.get(&index).map(|active| (active.generation, active.attempt));
        let failed = job.ledger.failure(index).map(|failure| (failure.generation, failure.attempt));
        let key = |(generation, attempt)| RunKey {
            job: name.clone(),
            incarnation: job.incarnation,
            index,
            generation,
            attempt,
        };
        let entry = job.ledger.entry(index).filter(|entry| entry.published > 0);
        Row {
            job: name,
            interval,
            standing: standing(&state.jobs, job, index, now),
            run: active.or(failed).map(key),
            published: entry.map(|entry| (entry.published, job.ledger.version(index))),
            rows: job.ledger.rows(index),
        }
    })
}

fn waits_for(row: &Row<'_>) -> Option<String> {
    match &row.standing {
        Standing::Waiting { inputs } => {
            let names = inputs.iter().map(|input| input.0.strip_prefix("public.").unwrap_or(&input.0).to_owned());
            Some(format!("{} to be complete", names.collect::<Vec<_>>().join(", ")))
        }
        Standing::Queued => Some("its turn".to_owned()),
        Standing::Retrying { .. } => Some("the next try".to_owned()),
        Standing::Future
        | Standing::Missing
        | Standing::Running { .. }
        | Standing::Stopping { .. }
        | Standing::Published { .. }
        | Standing::Failed { .. }
        | Standing::Cancelled { .. }
        | Standing::Skipped { .. } => None,
    }
}

fn error(row: &Row<'_>) -> Option<String> {
    match &row.standing {
        Standing::Retrying { error, .. } => Some(error.message.clone()),
        Standing::Failed { error, .. } => error.as_ref().map(|error| error.message.clone()),
        _ => None,
    }
}

pub(super) fn rows(state: &State, now: Millis) -> Columns {
    let now = Millis(now.0.saturating_add_signed(state.clock_ahead_ms));
    let rows: Vec<Row<'_>> = state.jobs.jobs.iter().flat_map(|(name, job)| of_job(state, name, job, now)).collect();
    let all = || rows.iter();
    Columns::default()
        .text("job", all().map(|row| Some(row.job.0.clone())))
        .time("interval_start", all().map(|row| Some(row.interval.start)))
        .time("interval_end", all().map(|row| Some(row.interval.end)))
        .text("state", all().map(|row| Some(row.standing.name())))
        .text("waits_for", all().map(waits_for))
        .text("error", all().map(error))
        .text("run_id", all().map(|row| row.run.as_ref().map(|key| key.run().0)))
        .number("attempt", all().map(|row| row.run.as_ref().map(|key| key.attempt)))
        .number("generation", all().map(|row| row.run.as_ref().map(|key| key.generation)))
        .number("published_generation", all().map(|row| row.published.map(|(generation, _)| generation)))
        .count("published_version", all().map(|row| row.published.and_then(|(_, version)| version)))
        .count("published_rows", all().map(|row| row.rows))
}
