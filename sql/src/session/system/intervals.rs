//! `system.intervals`: what became of each interval of each job; why it waits, failed, or is stale. Of each job the latest, and the
//! latest of which more is known than that they are over: years of minutes would be millions of rows.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_core::Millis;
use tidemill_core::interval::{DatasetName, Inherited, Interval, Job, JobName, RunKey, Standing, held_up_by, standing};
use tidemill_core::record::{RunState, State};

use super::Columns;

/// Intervals of a job of each kind, at the most.
const MOST: usize = 2_000;

struct Row<'a> {
    job: &'a JobName,
    interval: Interval,
    standing: Standing,
    waits_for: Option<String>,
    upstream: Option<String>,
    stale: Option<String>,
    run: Option<RunKey>,
    published: Option<(u32, Option<u64>)>,
    rows: Option<u64>,
}

/// The runs of the history that published, by job, incarnation, position and generation.
type Publishers<'a> = BTreeMap<(&'a JobName, u64, u64, u32), &'a RunKey>;

fn publishers(state: &State) -> Publishers<'_> {
    let published = state.runs.values().filter(|run| run.state == RunState::Succeeded && run.version.is_some());
    let keys = published.filter_map(|run| run.spec.job.as_ref()).map(|job| &job.key);
    keys.map(|key| ((&key.job, key.incarnation, key.index, key.generation), key)).collect()
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

fn of_job<'a>(
    state: &'a State,
    inherited: &'a Inherited<'a>,
    publishers: &'a Publishers<'a>,
    (name, job): (&'a JobName, &'a Job),
    now: Millis,
) -> impl Iterator<Item = Row<'a>> {
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
        let standing = standing(&state.jobs, job, index, now);
        let publisher = || match standing {
            Standing::Published { generation, .. } => publishers.get(&(name, job.incarnation, index, generation)),
            _ => None,
        };
        let run = active.or(failed).map(key).or_else(|| publisher().map(|key| (*key).clone()));
        Row {
            job: name,
            interval,
            waits_for: waits_for(&standing, &inherited.holding(name, job, index)),
            upstream: upstream(state, job, index, &standing, now),
            stale: stale(inherited, name, job, index),
            standing,
            run,
            published: entry.map(|entry| (entry.published, job.ledger.version(index))),
            rows: job.ledger.rows(index),
        }
    })
}

fn shown_name(dataset: &DatasetName) -> &str {
    dataset.0.strip_prefix("public.").unwrap_or(&dataset.0)
}

fn listed<'a>(datasets: impl IntoIterator<Item = &'a DatasetName>) -> String {
    datasets.into_iter().map(shown_name).collect::<Vec<_>>().join(", ")
}

fn waits_for(standing: &Standing, holding: &[&DatasetName]) -> Option<String> {
    match standing {
        Standing::Waiting { inputs } => Some(format!("{} to be complete", listed(inputs))),
        Standing::Queued if holding.is_empty() => Some("its turn".to_owned()),
        Standing::Queued => Some(format!("{} to be computed again", listed(holding.iter().copied()))),
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

/// Which intervals of other jobs keep one waiting, and where these stand.
fn upstream(state: &State, job: &Job, index: u64, waiting: &Standing, now: Millis) -> Option<String> {
    let Standing::Waiting { inputs } = waiting else { return None };
    let held_up = inputs.iter().filter_map(|input| held_up_by(&state.jobs, job, index, input));
    let texts = held_up.map(|(name, producer, index)| {
        let (zone, start) = (producer.spec.zone, producer.calendar.boundary(index));
        let stands = standing(&state.jobs, producer, index, now);
        format!("{name} {} {}: {}", zone.local(start), zone.name(), stands.name())
    });
    let texts: Vec<String> = texts.collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

fn stale(inherited: &Inherited<'_>, name: &JobName, job: &Job, index: u64) -> Option<String> {
    let changed = job.changed(index).map(|input| format!("{} has other rows since", shown_name(input)));
    let read = inherited.inputs(name, index).into_iter().map(|input| format!("{} is stale", shown_name(input)));
    let why: Vec<String> = changed.chain(read).collect();
    (!why.is_empty()).then(|| why.join(", "))
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
    let inherited = Inherited::of(&state.jobs);
    let publishers = publishers(state);
    let jobs = state.jobs.jobs.iter();
    let rows: Vec<Row<'_>> = jobs.flat_map(|known| of_job(state, &inherited, &publishers, known, now)).collect();
    let all = || rows.iter();
    Columns::default()
        .text("job", all().map(|row| Some(row.job.0.clone())))
        .time("interval_start", all().map(|row| Some(row.interval.start)))
        .time("interval_end", all().map(|row| Some(row.interval.end)))
        .text("state", all().map(|row| Some(row.standing.name())))
        .text("waits_for", all().map(|row| row.waits_for.clone()))
        .text("upstream", all().map(|row| row.upstream.clone()))
        .text("error", all().map(error))
        .text("stale", all().map(|row| row.stale.clone()))
        .text("run_id", all().map(|row| row.run.as_ref().map(|key| key.run().0)))
        .number("attempt", all().map(|row| row.run.as_ref().map(|key| key.attempt)))
        .number("generation", all().map(|row| row.run.as_ref().map(|key| key.generation)))
        .number("published_generation", all().map(|row| row.published.map(|(generation, _)| generation)))
        .count("published_version", all().map(|row| row.published.and_then(|(_, version)| version)))
        .count("published_rows", all().map(|row| row.rows))
}
