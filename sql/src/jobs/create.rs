//! `CREATE JOB` and `ALTER JOB … SET`: a job that cannot be planned is refused, with the place in its statement.

use datafusion::logical_expr::LogicalPlan;
use tidemill_core::interval::{Calendar, Event, Interval, Job, JobName, Mode, Spec, State, is_retried};
use tidemill_core::record::JobRun;
use tidemill_core::schedule::{Basis, Command};
use tidemill_core::{Error, Result, Role};
use tidemill_engine::planner::Plan;

use super::checks;
use super::parser::parse;
use super::query::{bound, fitted};
use super::spec::spec_of;
use super::statement::{At, CreateJob, JobStatement, Setting};
use super::target::{Target, check_alone};
use crate::datasets::{self, Publication, WriteMode};
use crate::session::{Planning, redact};

/// Makes a job, or gives it other clauses.
pub(super) async fn create(planning: &Planning<'_>, create: &CreateJob) -> Result<Plan> {
    planning.request.by.require(Role::Write, "CREATE JOB")?;
    let jobs = planning.request.state.state().await?.jobs;
    let known = jobs.jobs.get(&create.job.value);
    let by = planning.request.by.clone().recorded();
    let identity = known.map_or_else(|| ulid::Ulid::new().to_string(), |known| known.spec.identity.clone());
    let spec = spec_of(create, identity, by)?;
    check(planning, &jobs, create, &spec).await?;
    let (job, basis) = (create.job.value.clone(), known.map(|known| basis(&create.job.value, known)));
    let event = match create.or_replace {
        true => Event::JobReplaced { job, spec },
        false => Event::JobCreated { job, spec },
    };
    let basis = basis.filter(|_| create.or_replace);
    Ok(Plan::Command(Command::Job { event: Box::new(event), basis }))
}

/// `ALTER JOB … SET`: these settings take the place of those of the same name.
pub(super) async fn set(planning: &Planning<'_>, job: &At<JobName>, settings: &[Setting]) -> Result<Plan> {
    let jobs = planning.request.state.state().await?.jobs;
    let known = super::known(&jobs, job)?;
    let mut create = definition(known)?;
    for setting in settings {
        create.settings.retain(|old| old.key.value != setting.key.value);
        create.settings.push(setting.clone());
    }
    let spec = spec_of(&create, known.spec.identity.clone(), known.spec.by.clone())?;
    // Places in the statement that the job keeps are none in the one that was typed.
    check(planning, &jobs, &create, &spec).await.map_err(|e| Error { place: None, ..e })?;
    let event = Box::new(Event::JobAltered { job: job.value.clone(), spec });
    Ok(Plan::Command(Command::Job { event, basis: Some(basis(&job.value, known)) }))
}

/// The statement that a job keeps; its places are of no use to anybody who types another.
pub(super) fn definition(job: &Job) -> Result<CreateJob> {
    let Some(JobStatement::Create(mut create)) = parse(&job.spec.statement)? else {
        return Err(Error::internal("the statement that a job keeps is no CREATE JOB"));
    };
    create.settings.iter_mut().for_each(|setting| (setting.key.place, setting.value.place) = (None, None));
    Ok(*create)
}

pub(super) fn basis(name: &JobName, job: &Job) -> Basis {
    Basis { job: name.clone(), incarnation: job.incarnation, revision: job.revision }
}

/// Whether a job could run: its query is planned for one of its intervals, as far as the write.
async fn check(planning: &Planning<'_>, jobs: &State, create: &CreateJob, spec: &Spec) -> Result<()> {
    if redact(&spec.statement) != spec.statement {
        return Err(Error::invalid(
            "the job's statement holds what looks like a password or key, and would be kept with it: leave it out, or name a \
             secret of the servers",
        )
        .at(create.job.place));
    }
    for input in &create.depends_on {
        planning.check_table(&input.value).map_err(|e| e.at(input.place))?;
    }
    if let Some(super::statement::TriggerClause::Update(of)) = &create.trigger {
        for input in of {
            planning.check_table(&input.value).map_err(|e| e.at(input.place))?;
        }
    }
    check_alone(jobs, &create.job.value, spec, &create.output)?;
    let now = planning.request.now;
    let start = spec.start.unwrap_or_else(|| Calendar::default_start(spec.zone, spec.interval, now));
    let calendar = Calendar { zone: spec.zone, length: spec.interval, start };
    let interval = calendar.interval(calendar.last_complete(now).unwrap_or(0));
    let prepared = prepare(planning, create, spec, interval).await?;
    match datasets::write(planning, &prepared.table, prepared.query, prepared.mode, None).await {
        // What is busy or full now may not be when it runs.
        Err(error) if !is_retried(error.kind) => Err(error.at(create.output.place)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What a run of a job writes.
struct Prepared {
    table: String,
    query: LogicalPlan,
    mode: WriteMode,
}

async fn prepare(planning: &Planning<'_>, create: &CreateJob, spec: &Spec, interval: Interval) -> Result<Prepared> {
    let target = Target::of(planning, create).await?;
    let mode = target.mode(create, spec, interval)?;
    let query = fitted(bound(planning, create, spec, interval).await?, &target.columns, create)?;
    let query = checks::guarded(planning, query, create)?;
    Ok(Prepared { table: target.name, query, mode })
}

/// Plans the run of an interval.
///
/// # Errors
/// As for the job itself: something changed since it was created.
pub(crate) async fn run(planning: &Planning<'_>, job: &JobRun) -> Result<Plan> {
    let Some(JobStatement::Create(create)) = parse(&planning.request.statement)? else {
        return Err(Error::internal("the statement of a job's run is no CREATE JOB"));
    };
    let spec = spec_of(&create, job.identity.clone(), None)?;
    let prepared = prepare(planning, &create, &spec, job.interval).await?;
    let publication = Some(publication(planning, job, &spec));
    datasets::write(planning, &prepared.table, prepared.query, prepared.mode, publication).await
}

/// What the commit of an interval says of itself. Generations of one interval follow each other; those of others, and of
/// jobs of other clusters, have nothing to do with it.
fn publication(planning: &Planning<'_>, job: &JobRun, spec: &Spec) -> Publication {
    let key = &job.key;
    let time = |at: tidemill_core::Millis| {
        let at = i64::try_from(at.0).ok().and_then(chrono::DateTime::from_timestamp_millis);
        at.map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)).unwrap_or_default()
    };
    let info = [
        ("tidemill.run", planning.request.run.0.clone()),
        ("tidemill.job", key.job.0.clone()),
        ("tidemill.interval_start", time(job.interval.start)),
        ("tidemill.interval_end", time(job.interval.end)),
        ("tidemill.generation", key.generation.to_string()),
        ("tidemill.attempt", key.attempt.to_string()),
        ("tidemill.cause", job.cause.name().to_owned()),
    ];
    Publication {
        application: format!("tidemill/{}/{}/{}", job.identity, key.incarnation, key.index),
        // What is added is there once, whichever generation it was that added it and could not say so.
        version: match spec.options.mode {
            Mode::ReplaceInterval => key.generation.into(),
            Mode::Append => 1,
        },
        info: info.map(|(key, value)| (key.to_owned(), value)).into(),
    }
}
