//! Jobs in SQL: `CREATE JOB` and the statements around it, and the runs that jobs submit. `docs/jobs.md`.
//!
//! A statement is read by `parser.rs` with `tokens.rs` and `clauses.rs` into the values of `statement.rs`; `spec.rs`, `settings.rs`,
//! `query.rs` with `bind.rs`, `target.rs` and `checks.rs` say what a job's clauses mean, `create.rs` tries and makes it, `show.rs`
//! and `strip.rs` show it. `builder.rs` is the same for Rust.
//!
//! Invariant: a job is kept as its statement. What it runs is planned from that text, whoever leads by then.

mod bind;
mod builder;
mod checks;
mod clauses;
mod create;
mod parser;
mod query;
mod settings;
mod show;
mod spec;
mod statement;
mod strip;
mod target;
mod tokens;

use chrono::DateTime;
use datafusion::common::TableReference;
use tidemill_core::interval::{CALENDAR_END, Event, Job, JobName, Local, Request, State, Zone};
use tidemill_core::schedule::Command;
use tidemill_core::{Error, Millis, Result, Role, RunId};
use tidemill_engine::planner::Plan;

pub use builder::{BackfillBuilder, JobBuilder, JobHandle};
pub(crate) use checks::condition_of;
pub(crate) use create::run;
pub(crate) use parser::{is_begun_by, parse};
use statement::{Alteration, At, Backfill, JobStatement};

use crate::session::{Planning, nearest, reads};

/// What a statement about jobs means.
///
/// # Errors
/// It is wrong, names what is not there, or its user may not.
pub(crate) async fn meaning(planning: &Planning<'_>, statement: JobStatement) -> Result<Plan> {
    let by = &planning.request.by;
    match statement {
        JobStatement::Create(create) => create::create(planning, &create).await,
        JobStatement::Alter { job, if_exists, change } => {
            by.require(Role::Write, "ALTER JOB")?;
            if if_exists && !jobs(planning).await?.jobs.contains_key(&job.value) {
                return Ok(nothing());
            }
            alter(planning, job, change).await
        }
        JobStatement::Drop { job, if_exists } => {
            by.require(Role::Write, "DROP JOB")?;
            let jobs = jobs(planning).await?;
            if if_exists && !jobs.jobs.contains_key(&job.value) {
                return Ok(nothing());
            }
            known(&jobs, &job)?;
            Ok(ask(Event::JobDropped { job: job.value }))
        }
        JobStatement::Execute { job, start } => {
            by.require(Role::Write, "EXECUTE JOB")?;
            let jobs = jobs(planning).await?;
            let start = instant(known(&jobs, &job)?.spec.zone, &start)?;
            Ok(ask(Event::Requested { job: job.value, start }))
        }
        JobStatement::Backfill(backfill) => {
            if !backfill.dry_run {
                by.require(Role::Write, "BACKFILL JOB")?;
            }
            self::backfill(planning, backfill).await
        }
        JobStatement::Complete { dataset, from, to, zone } => {
            by.require(Role::Write, "ALTER DATASET")?;
            complete(planning, &dataset, [&from, &to], zone.as_ref()).await
        }
        // Whose run it is decides, and the coordinator knows that.
        JobStatement::CancelRun { run } => Ok(Plan::Command(Command::CancelRun { run: RunId(run.value) })),
        JobStatement::CancelBackfill { id, job } => {
            by.require(Role::Write, "CANCEL BACKFILL")?;
            known(&jobs(planning).await?, &job)?;
            Ok(ask(Event::BackfillCancelled { job: job.value, id }))
        }
        JobStatement::ShowJobs => show::jobs(planning).await,
        JobStatement::ShowCreate { job } => show::create(known(&jobs(planning).await?, &job)?, &job.value),
        JobStatement::ShowIntervals { job, from, to } => {
            let state = planning.request.state.state().await?;
            let known = known(&state.jobs, &job)?;
            let (from, to) = stretch(known.spec.zone, from.as_ref(), to.as_ref())?;
            strip::show(&state, (&job.value, known), from, to, planning.request.now)
        }
    }
}

/// What changes nothing.
fn nothing() -> Plan {
    Plan::Change { record: None, expected: None, blobs: Vec::new() }
}

fn ask(event: Event) -> Plan {
    Plan::Command(Command::Job { event: Box::new(event), basis: None })
}

async fn jobs(planning: &Planning<'_>) -> Result<State> {
    Ok(planning.request.state.state().await?.jobs)
}

/// A job whose query reads a table or view, by the name in the catalogue.
///
/// # Errors
/// Nobody knows the jobs.
pub(crate) async fn reader_of(planning: &Planning<'_>, name: &str) -> Result<Option<JobName>> {
    let jobs = jobs(planning).await?;
    let is_reader = |job: &Job| create::definition(job).is_ok_and(|job| reads(planning, &job.query.value, name));
    Ok(jobs.jobs.iter().find(|(_, job)| is_reader(job)).map(|(job, _)| job.clone()))
}

/// The job of a name.
fn known<'a>(jobs: &'a State, job: &At<JobName>) -> Result<&'a Job> {
    jobs.jobs.get(&job.value).ok_or_else(|| {
        let hint = match nearest(&job.value.0, jobs.jobs.keys().map(|name| name.0.as_str())) {
            Some(alike) => format!("did you mean `{alike}`?"),
            None => "SHOW JOBS lists them".to_owned(),
        };
        Error::not_found(format!("there is no job `{}`: {hint}", job.value)).at(job.place)
    })
}

/// An instant, as the clocks of a zone show it; or with its own offset, as system tables show it: clocks show some times twice.
fn instant(zone: Zone, at: &At<String>) -> Result<Millis> {
    let exact = DateTime::parse_from_rfc3339(at.value.trim()).ok();
    let exact = exact.and_then(|exact| u64::try_from(exact.timestamp_millis()).ok()).map(Millis);
    if let Some(exact) = exact.filter(|exact| *exact < CALENDAR_END) {
        return Ok(exact);
    }
    Local::parse(&at.value).map(|local| zone.instant(local)).map_err(|e| e.at(at.place))
}

/// What lies between two instants, as far as they are given.
fn stretch(zone: Zone, from: Option<&At<String>>, to: Option<&At<String>>) -> Result<(Option<Millis>, Option<Millis>)> {
    let end = |at: Option<&At<String>>| at.map(|at| instant(zone, at)).transpose();
    match (end(from)?, end(to)?) {
        (Some(start), Some(end)) if start >= end => {
            let place = from.and_then(|from| from.place);
            Err(Error::invalid("there is no time between FROM and TO: TO must be later").at(place))
        }
        ends => Ok(ends),
    }
}

/// Somebody who knows says that a table is complete for some time: what waits for that may run.
async fn complete(
    planning: &Planning<'_>,
    table: &At<TableReference>,
    [from, to]: [&At<String>; 2],
    zone: Option<&At<String>>,
) -> Result<Plan> {
    planning.check_table(&table.value).map_err(|e| e.at(table.place))?;
    let zone = zone.map_or(Ok(Zone::UTC), |zone| Zone::parse(&zone.value).map_err(|e| e.at(zone.place)))?;
    let dataset = spec::dataset(table);
    let (from, to) = (instant(zone, from)?, instant(zone, to)?);
    let jobs = jobs(planning).await?;
    let mut producers = jobs.producers.get(&dataset).into_iter().flatten();
    // What was there before its START is none of its business.
    if let Some(job) = producers.find(|name| jobs.jobs.get(name).is_some_and(|job| job.calendar.boundary(0) < to)) {
        return Err(Error::conflict(format!(
            "the job {job} publishes into `{dataset}`, which is complete when all its intervals are published: BACKFILL JOB runs what is \
             missing"
        ))
        .at(table.place));
    }
    // Said again, it is another update.
    let version = planning.request.now.0;
    Ok(ask(Event::DatasetCovered { dataset, from, to, version }))
}

async fn alter(planning: &Planning<'_>, job: At<JobName>, change: Alteration) -> Result<Plan> {
    match change {
        Alteration::Set(settings) => create::set(planning, &job, &settings).await,
        Alteration::Unset(keys) => create::unset(planning, &job, &keys).await,
        Alteration::Suspend | Alteration::Resume => {
            known(&jobs(planning).await?, &job)?;
            Ok(ask(match change {
                Alteration::Resume => Event::JobResumed { job: job.value },
                Alteration::Suspend | Alteration::Set(_) | Alteration::Unset(_) => {
                    Event::JobSuspended { job: job.value }
                }
            }))
        }
    }
}

async fn backfill(planning: &Planning<'_>, backfill: Backfill) -> Result<Plan> {
    let state = planning.request.state.state().await?;
    let zone = known(&state.jobs, &backfill.job)?.spec.zone;
    let Backfill { job, from, to, reprocess, max_runs, order, dry_run } = backfill;
    let (start, end) = (instant(zone, &from)?, instant(zone, &to)?);
    let request = Request { from: start, to: end, reprocess, max_runs, order };
    if dry_run {
        // Clocks on the wall say what is over.
        let now = Millis(planning.request.now.0.saturating_add_signed(state.clock_ahead_ms));
        let plan =
            tidemill_core::interval::plan(&state.jobs, &job.value, &request, now).map_err(|e| e.at(from.place))?;
        return show::dry_run(&plan, zone);
    }
    Ok(ask(Event::BackfillRequested { job: job.value, request }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_comes_twice_is_told_apart_by_its_offset() {
        let new_york = Zone::parse("America/New_York");
        let at = |text: &str| {
            instant(new_york.clone()?, &At::nowhere(text.to_owned())).map_err(|e| Error { place: None, ..e })
        };
        let five = Millis(1_793_509_200_000);
        let six = Millis(five.0 + 3_600_000);
        assert_eq!(at("2026-11-01 01:00"), Ok(five), "clocks alone say the first");
        for first in ["2026-11-01T05:00:00Z", "2026-11-01 01:00:00-04:00"] {
            assert_eq!(at(first), Ok(five), "{first}");
        }
        for second in ["2026-11-01T06:00:00Z", "2026-11-01 01:00:00-05:00", " 2026-11-01t07:00:00.000+01:00 "] {
            assert_eq!(at(second), Ok(six), "{second}");
        }
        for wrong in [
            "1969-12-31T23:00:00Z",
            "2100-01-01T00:00:00Z",
            "9999-12-31T23:59:59-23:59",
            "2026-11-01T06:00Z",
            "2026-11-01Z",
        ] {
            assert!(at(wrong).is_err_and(|error| error.message.contains(wrong)), "{wrong}");
        }
    }

    #[test]
    fn what_ends_before_it_begins_is_no_time() {
        let at = |text: &str| At::nowhere(text.to_owned());
        let (first, second) = (at("2026-03-01"), at("2026-03-02"));
        let between = |from, to| stretch(Zone::UTC, from, to).map_err(|e| e.message);
        assert!(between(Some(&first), Some(&second)).is_ok_and(|ends| ends.0.is_some() && ends.0 < ends.1));
        assert_eq!(between(None, None), Ok((None, None)));
        for from in [&first, &second] {
            assert!(between(Some(from), Some(&first)).is_err_and(|message| message.contains("TO must be later")));
        }
    }
}
