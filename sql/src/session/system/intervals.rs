//! `system.intervals`: what became of each interval of each job; why it waits, failed, or is stale. Of each job the latest, and the
//! latest of which more is known than that they are over: years of minutes would be millions of rows.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_core::Millis;
use tidemill_core::interval::{
    DatasetName, Inherited, Interval, Job, JobName, RunKey, Standing, deadline, held_up_by, standing,
};
use tidemill_core::record::{RunState, State};

use super::Columns;

/// Intervals of a job of each kind, at the most.
const MOST: usize = 2_000;
/// The name of [`Standing::Waiting`].
const WAITING: &str = "waiting";
/// What a published interval waits for whose job computes it again by itself.
const LATE: &str = "its turn, because of late data";

struct Row<'a> {
    job: &'a JobName,
    interval: Interval,
    standing: Standing,
    /// Its name; one that could run waits, where it reads what is to be computed before.
    stands: &'static str,
    waits_for: Option<String>,
    upstream: Option<String>,
    stale: Option<String>,
    run: Option<RunKey>,
    published: Option<(u32, Option<u64>)>,
    rows: Option<u64>,
    deadline: Option<Millis>,
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

/// What rows are made of.
struct Look<'a> {
    state: &'a State,
    inherited: Inherited<'a>,
    publishers: Publishers<'a>,
    now: Millis,
}

impl<'a> Look<'a> {
    fn rows_of(&'a self, (name, job): (&'a JobName, &'a Job)) -> impl Iterator<Item = Row<'a>> {
        let intervals = shown(job, self.now).into_iter().map(|index| (index, job.calendar.interval(index)));
        let intervals = intervals.filter(|(_, interval)| !interval.is_empty());
        let late = job.late(self.now);
        intervals.map(move |(index, interval)| {
            let mut row = self.row(name, job, index, interval);
            if late.contains(index) {
                row.waits_for = Some(LATE.to_owned());
            }
            row
        })
    }

    fn row(&'a self, name: &'a JobName, job: &'a Job, index: u64, interval: Interval) -> Row<'a> {
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
        let standing = standing(&self.state.jobs, job, index, self.now);
        let holding = match standing {
            Standing::Queued if !job.holds_back(index) => self.inherited.holding(name, job, index),
            _ => Vec::new(),
        };
        let publisher = || match standing {
            Standing::Published { generation, .. } => self.publishers.get(&(name, job.incarnation, index, generation)),
            _ => None,
        };
        let run = active.or(failed).map(key).or_else(|| publisher().map(|key| (*key).clone()));
        Row {
            job: name,
            interval,
            stands: if holding.is_empty() { standing.name() } else { WAITING },
            waits_for: waits_for(job, index, &standing, &holding),
            upstream: self.upstream(job, index, &standing, &holding),
            stale: stale(&self.inherited, name, job, index),
            standing,
            run,
            published: entry.map(|entry| (entry.published, job.ledger.version(index))),
            rows: job.ledger.rows(index),
            deadline: deadline(job, index),
        }
    }

    /// Which intervals of other jobs keep one waiting, and where these stand.
    fn upstream(&self, job: &Job, index: u64, waiting: &Standing, holding: &[&DatasetName]) -> Option<String> {
        let jobs = &self.state.jobs;
        let told = |(name, producer, index): (&JobName, &Job, u64), published: &'static str| {
            let (zone, start) = (producer.spec.zone, producer.calendar.boundary(index));
            let stands = match standing(jobs, producer, index, self.now) {
                Standing::Published { .. } => published,
                stands => stands.name(),
            };
            format!("{name} {} {}: {stands}", zone.local(start), zone.name())
        };
        let texts: Vec<String> = match waiting {
            Standing::Waiting { inputs } => {
                let held_up = inputs.iter().filter_map(|input| held_up_by(jobs, job, index, input));
                held_up.map(|interval| told(interval, "published")).collect()
            }
            _ => {
                let held_up = holding.iter().filter_map(|input| self.inherited.first_read(jobs, job, index, input));
                held_up.map(|interval| told(interval, "stale")).collect()
            }
        };
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

fn shown_name(dataset: &DatasetName) -> &str {
    dataset.0.strip_prefix("public.").unwrap_or(&dataset.0)
}

fn listed<'a>(datasets: impl IntoIterator<Item = &'a DatasetName>) -> String {
    datasets.into_iter().map(shown_name).collect::<Vec<_>>().join(", ")
}

fn waits_for(job: &Job, index: u64, standing: &Standing, holding: &[&DatasetName]) -> Option<String> {
    match standing {
        Standing::Waiting { inputs } => Some(format!("{} to be complete", listed(inputs))),
        Standing::Queued if job.holds_back(index) => Some("the job to be resumed".to_owned()),
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

/// Whether an interval is not published by its deadline. Nobody waits for what was skipped, or never asked for.
fn is_late(row: &Row<'_>, now: Millis) -> Option<bool> {
    let is_awaited = row.published.is_none() && !matches!(row.standing, Standing::Skipped { .. } | Standing::Missing);
    row.deadline.map(|deadline| is_awaited && deadline <= now)
}

pub(super) fn rows(state: &State, now: Millis) -> Columns {
    let now = Millis(now.0.saturating_add_signed(state.clock_ahead_ms));
    let look = Look { state, inherited: Inherited::of(&state.jobs), publishers: publishers(state), now };
    let rows: Vec<Row<'_>> = state.jobs.jobs.iter().flat_map(|known| look.rows_of(known)).collect();
    let all = || rows.iter();
    Columns::default()
        .text("job", all().map(|row| Some(row.job.0.clone())))
        .time("interval_start", all().map(|row| Some(row.interval.start)))
        .time("interval_end", all().map(|row| Some(row.interval.end)))
        .text("state", all().map(|row| Some(row.stands)))
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
        .time("deadline", all().map(|row| row.deadline))
        .flag("late", all().map(|row| is_late(row, now)))
}
