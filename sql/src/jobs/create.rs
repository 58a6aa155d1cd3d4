//! `CREATE JOB` and `ALTER JOB … SET`: a job that cannot be planned is refused, with the place in its statement.

use std::collections::BTreeSet;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemill_core::interval::{Calendar, Event, Interval, Job, JobName, Mode, Spec, State, Trigger, is_retried};
use tidemill_core::record::JobRun;
use tidemill_core::schedule::{Basis, Command};
use tidemill_core::{Error, Millis, Result, Role};
use tidemill_engine::planner::Plan;

use super::checks::{self, Guarded};
use super::parser::parse;
use super::query::{bound, fitted};
use super::settings::{Settings, check_hooks, check_key, check_use};
use super::spec::spec_of;
use super::statement::{At, CreateJob, JobStatement, Setting, TriggerClause};
use super::target::{Target, check_alone};
use crate::datasets::{self, Checks, Publication, WriteMode};
use crate::session::tokens::tokens;
use crate::session::{Planning, redact};

/// Makes a job, or gives it other clauses.
pub(super) async fn create(planning: &Planning<'_>, create: &CreateJob) -> Result<Plan> {
    planning.request.by.require(Role::Write, "CREATE JOB")?;
    let jobs = planning.request.state.state().await?.jobs;
    let known = jobs.jobs.get(&create.job.value);
    if create.if_missing && known.is_some() {
        return Ok(super::nothing());
    }
    let by = planning.request.by.clone().recorded();
    let identity = known.map_or_else(|| ulid::Ulid::new().to_string(), |known| known.spec.identity.clone());
    let spec = spec_of(create, identity, by)?;
    check_hooks(&create.settings)?;
    check_use(&create.settings, &spec)?;
    check(planning, &jobs, create, &spec).await?;
    let (job, basis) = (create.job.value.clone(), known.map(|known| basis(&create.job.value, known)));
    let event = match create.or_replace {
        true => Event::JobReplaced { job, spec },
        false => Event::JobCreated { job, spec },
    };
    let basis = basis.filter(|_| create.or_replace);
    Ok(Plan::Command(Command::Job { event: Box::new(event), basis }))
}

/// What is added must depend on the interval, or each would add the same rows once more.
fn check_adds_an_interval(create: &CreateJob, spec: &Spec) -> Result<()> {
    let query = tokens(&create.query.value).unwrap_or_default();
    if spec.options.mode != Mode::Append || query.iter().any(|token| matches!(token, Token::Placeholder(_))) {
        return Ok(());
    }
    Err(Error::invalid(
        "mode = 'append' would add the same rows for each interval, as the query names neither $interval_start nor $interval_end: \
         write WHERE ts >= $interval_start AND ts < $interval_end, with the column that has the time of a row",
    )
    .at(create.query.place))
}

/// `ALTER JOB … SET`: these settings take the place of those of the same name.
pub(super) async fn set(planning: &Planning<'_>, job: &At<JobName>, settings: &[Setting]) -> Result<Plan> {
    let jobs = planning.request.state.state().await?.jobs;
    let mut create = definition(super::known(&jobs, job)?)?;
    for setting in settings {
        create.settings.retain(|old| old.key.value != setting.key.value);
        create.settings.push(setting.clone());
    }
    Settings::of(&create.settings)?;
    check_hooks(settings)?;
    altered(planning, &jobs, job, &create).await
}

/// `ALTER JOB … UNSET`: these settings are what they are where nothing is said.
pub(super) async fn unset(planning: &Planning<'_>, job: &At<JobName>, keys: &[At<String>]) -> Result<Plan> {
    let jobs = planning.request.state.state().await?.jobs;
    let mut create = definition(super::known(&jobs, job)?)?;
    for key in keys {
        check_key(key)?;
        create.settings.retain(|old| old.key.value != key.value);
    }
    altered(planning, &jobs, job, &create).await
}

/// A job with other settings.
async fn altered(planning: &Planning<'_>, jobs: &State, job: &At<JobName>, create: &CreateJob) -> Result<Plan> {
    let known = super::known(jobs, job)?;
    // Places in the statement that the job keeps are none in the one that was typed.
    let elsewhere = |e: Error| Error { place: None, ..e }.at(job.place);
    let spec = spec_of(create, known.spec.identity.clone(), known.spec.by.clone()).map_err(elsewhere)?;
    check_use(&create.settings, &spec).map_err(elsewhere)?;
    check(planning, jobs, create, &spec).await.map_err(elsewhere)?;
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
    check_adds_an_interval(create, spec)?;
    for input in &create.depends_on {
        planning.check_table(&input.value).map_err(|e| e.at(input.place))?;
    }
    if let Some(TriggerClause::Update(of)) = &create.trigger {
        for input in of {
            planning.check_table(&input.value).map_err(|e| e.at(input.place))?;
        }
    }
    if let (Trigger::Schedule { cron }, Some(TriggerClause::Cron(text))) = (&spec.trigger, &create.trigger) {
        cron.check_names().map_err(|e| e.at(text.place))?;
    }
    check_alone(jobs, &create.job.value, spec, &create.output)?;
    checks::check_names(create)?;
    let now = planning.request.now;
    let calendar = calendar(jobs.jobs.get(&create.job.value), spec, now);
    let interval = calendar.interval(calendar.last_complete(now).unwrap_or(0));
    let prepared = prepare(planning, create, spec, interval).await?;
    match datasets::write(planning, &prepared.table, prepared.query, prepared.mode, None).await {
        // What is busy or full now may not be when it runs.
        Err(error) if !is_retried(error.kind) => Err(error.at(create.output.place)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The intervals that a job will have: one that is there keeps its own where nothing is said of a START.
fn calendar(known: Option<&Job>, spec: &Spec, now: Millis) -> Calendar {
    let is_kept = |old: &&Calendar| old.zone == spec.zone && old.length == spec.interval;
    let kept = known.filter(|known| known.spec.output == spec.output).map(|known| &known.calendar).filter(is_kept);
    let default = || kept.map_or_else(|| Calendar::default_start(spec.zone, spec.interval, now), |old| old.start);
    Calendar { zone: spec.zone, length: spec.interval, start: spec.start.unwrap_or_else(default) }
}

/// What a run of a job writes.
struct Prepared {
    table: String,
    query: LogicalPlan,
    mode: WriteMode,
    checks: Checks,
    /// The n of each `rows_before(n)`.
    before: BTreeSet<u64>,
}

async fn prepare(planning: &Planning<'_>, create: &CreateJob, spec: &Spec, interval: Interval) -> Result<Prepared> {
    let target = Target::of(planning, create).await?;
    let mode = target.mode(create, spec, interval)?;
    let query = fitted(bound(planning, create, spec, interval).await?, &target.columns, create)?;
    let Guarded { query, checks, before } = checks::guarded(planning, query, create, &target.columns).await?;
    Ok(Prepared { table: target.name, query, mode, checks, before })
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
    let Prepared { table, query, mode, mut checks, before } = prepared;
    if !before.is_empty() {
        checks.before = checks::rows_before(&planning.request.state.state().await?.jobs, job, &before);
    }
    let publication = Some(Publication { checks, ..publication(planning, job, &spec) });
    match datasets::write(planning, &table, query, mode, publication).await? {
        plan @ (Plan::Stages(_) | Plan::Published { .. }) => Ok(plan),
        // There is no client to take rows, and no version to record.
        Plan::Rows(_) | Plan::Change { .. } | Plan::Command(_) | Plan::Session { .. } => {
            Err(Error::internal("the write of a job was planned as something else"))
        }
    }
}

/// What the commit of an interval says of itself. Generations of one interval follow each other; those of others, and of
/// jobs of other clusters, have nothing to do with it.
fn publication(planning: &Planning<'_>, job: &JobRun, spec: &Spec) -> Publication {
    let key = &job.key;
    let time = |at: Millis| {
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
        checks: Checks::default(),
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::util::pretty::pretty_format_batches;
    use async_trait::async_trait;
    use datafusion::dataframe::DataFrame;
    use tidemill_core::interval::{Limits, Local, step};
    use tidemill_core::record::{Catalogue, CatalogueEntry, CatalogueKind, SessionRows, State};
    use tidemill_core::{BlobHash, Principal, RunId};
    use tidemill_engine::functions::Functions;
    use tidemill_engine::planner::{BlobReader, PlanRequest, StateReader};

    use super::*;
    use crate::session::SqlPlanner;

    #[derive(Debug)]
    struct Nothing;

    /// What a coordinator knows.
    #[derive(Debug, Default)]
    struct Known(State);

    #[async_trait]
    impl StateReader for Known {
        async fn state(&self) -> Result<State> {
            Ok(self.0.clone())
        }
    }

    impl BlobReader for Nothing {
        fn read(&self, _: &BlobHash) -> Option<bytes::Bytes> {
            None
        }
    }

    /// A folder with clicks of two hours and the tables that a job names.
    fn tables() -> (tempfile::TempDir, Catalogue) {
        let folder = tempfile::tempdir().expect("a folder");
        let rows = "2026-03-01T08:59:59.999Z,1,5\n2026-03-01T09:00:00Z,1,7\n2026-03-01T09:59:59Z,2,-1\n2026-03-01T10:00:00Z,1,9\n";
        std::fs::write(folder.path().join("clicks.csv"), format!("ts,ad,cost\n{rows}")).expect("a file");
        let path = folder.path().display();
        let table = |definition: String| CatalogueEntry { kind: CatalogueKind::ExternalTable, definition };
        let clicks = format!(
            "CREATE EXTERNAL TABLE t (ts TIMESTAMP, ad BIGINT, cost INT) STORED AS CSV LOCATION '{path}/clicks.csv' \
             OPTIONS ('format.has_header' 'true')"
        );
        let dataset = |name: &str| format!("CREATE EXTERNAL TABLE t STORED AS DELTA LOCATION '{path}/{name}'");
        delta(&folder.path().join("sums"), &[("hour", "timestamp_ntz"), ("ad", "long"), ("cost", "long")], &[]);
        delta(&folder.path().join("days"), &[("ad", "long"), ("cost", "long"), ("day", "date")], &["day"]);
        let entries = [("clicks", clicks), ("sums", dataset("sums")), ("days", dataset("days"))];
        let entries = entries.map(|(name, definition)| (format!("public.{name}"), table(definition))).into();
        (folder, Catalogue { version: 1, entries })
    }

    /// A Delta table without rows.
    fn delta(folder: &std::path::Path, columns: &[(&str, &str)], partitions: &[&str]) {
        let field = |(name, kind): &(&str, &str)| serde_json::json!({ "name": name, "type": kind, "nullable": true, "metadata": {} });
        let fields: Vec<_> = columns.iter().map(field).collect();
        let schema = serde_json::json!({ "type": "struct", "fields": fields }).to_string();
        let features = ["timestampNtz"];
        let lines = [
            serde_json::json!({ "protocol": { "minReaderVersion": 3, "minWriterVersion": 7,
                "readerFeatures": features, "writerFeatures": features } }),
            serde_json::json!({ "metaData": { "id": "5fba94ed-9794-4965-ba6e-6ee3c0d22af9", "schemaString": schema,
                "format": { "provider": "parquet", "options": {} }, "partitionColumns": partitions,
                "configuration": {}, "createdTime": 0 } }),
        ];
        let log = folder.join("_delta_log");
        std::fs::create_dir_all(&log).expect("a folder");
        let text = lines.map(|line| line.to_string()).join("\n");
        std::fs::write(log.join("00000000000000000000.json"), text).expect("a file");
    }

    fn request(statement: &str, catalogue: Catalogue) -> PlanRequest {
        PlanRequest {
            run: RunId("r".to_owned()),
            statement: statement.to_owned(),
            parameters: bytes::Bytes::new(),
            job: None,
            plan: None,
            settings: BTreeMap::new(),
            by: Principal::anybody(),
            catalogue: Arc::new(catalogue),
            session: SessionRows::default(),
            state: Arc::new(Known::default()),
            now: Millis(1_772_359_200_000),
            slots: 2,
            task_memory: None,
            blobs: Arc::new(Nothing),
        }
    }

    fn read(statement: &str) -> Result<(CreateJob, Spec)> {
        let Some(JobStatement::Create(create)) = parse(statement)? else { return Err(Error::invalid("no CREATE JOB")) };
        let spec = spec_of(&create, "id".to_owned(), None)?;
        Ok((*create, spec))
    }

    /// What the run of the interval with a position would write: how, and the rows.
    async fn written(statement: &str, index: u64) -> Result<(WriteMode, String)> {
        let (_folder, catalogue) = tables();
        let request = request(statement, catalogue);
        let planner = SqlPlanner::new(Functions::default())?;
        let planning = planner.planning(&request)?;
        let (create, spec) = read(statement)?;
        let start = spec.start.expect("START");
        let calendar = Calendar { zone: spec.zone, length: spec.interval, start };
        let prepared = prepare(&planning, &create, &spec, calendar.interval(index)).await?;
        let rows = DataFrame::new(planning.context.state(), prepared.query).collect().await;
        let rows = rows.map_err(|e| tidemill_engine::error::from_datafusion(&e))?;
        Ok((prepared.mode, pretty_format_batches(&rows).expect("a table").to_string()))
    }

    const HOURLY: &str = "CREATE JOB hourly INTO sums SCHEDULE CRON '@hourly' INTERVAL '1 hour' START '2026-03-01' \
        WITH (interval_column = 'hour') AS SELECT ad, sum(cost) AS cost, date_trunc('hour', ts) AS hour FROM clicks \
        WHERE ts >= $interval_start AND ts < $interval_end GROUP BY 1, 3 ORDER BY ad";

    #[tokio::test]
    async fn an_interval_is_half_open_and_its_columns_are_the_datasets() {
        let (mode, rows) = written(HOURLY, 9).await.expect("rows");
        let expected = [
            "+---------------------+----+------+",
            "| hour                | ad | cost |",
            "+---------------------+----+------+",
            "| 2026-03-01T09:00:00 | 1  | 7    |",
            "| 2026-03-01T09:00:00 | 2  | -1   |",
            "+---------------------+----+------+",
        ];
        assert_eq!(rows, expected.join("\n"));
        let nine = 1_772_355_600_000_000;
        let at = |hours: i64| {
            datafusion::common::ScalarValue::TimestampMicrosecond(Some(nine + hours * 3_600_000_000), None)
        };
        assert_eq!(mode, WriteMode::ReplaceInterval { column: "hour".to_owned(), from: at(0), to: at(1) });
    }

    #[tokio::test]
    async fn an_expectation_guards_what_would_be_published() {
        let expecting = HOURLY.replace("WITH", "CONSTRAINT positive EXPECT (cost >= 0) ON VIOLATION FAIL WITH");
        let error = written(&expecting, 9).await.expect_err("a violation");
        assert!(error.message.contains("the check `positive` does not hold for 1 of"), "{error}");
        assert!(error.message.contains("ad = 2, cost = -1"), "{error}");
        assert!(written(&expecting, 10).await.is_ok(), "the next hour is as expected");
    }

    #[tokio::test]
    async fn days_replace_partitions_and_hours_cannot_be_days() {
        let daily = "CREATE JOB daily INTO days SCHEDULE CRON '@daily' AT TIME ZONE 'America/New_York' INTERVAL '2 days' \
            START '2026-03-07' AS SELECT $interval_start::date AS day, ad, cost FROM clicks WHERE ts < $interval_end";
        let (mode, _) = written(daily, 0).await.expect("rows");
        let partition = |day: &str| BTreeMap::from([("day".to_owned(), Some(day.to_owned()))]);
        assert_eq!(mode, WriteMode::ReplacePartitions(vec![partition("2026-03-07"), partition("2026-03-08")]));
        let appending = HOURLY.replace("WITH (", "WITH (mode = 'append', ");
        let (mode, _) = written(&appending, 9).await.expect("rows");
        assert!(
            matches!(mode, WriteMode::AppendInterval { column, .. } if column == "hour"),
            "its rows must lie there"
        );
        let (mode, _) = written(&appending.replace(", interval_column = 'hour'", ""), 9).await.expect("rows");
        assert_eq!(mode, WriteMode::Append);
        let error = written(&daily.replace("2 days", "2 hours"), 0).await.expect_err("an error");
        assert!(error.message.contains("not of whole days"), "{error}");
    }

    #[tokio::test]
    async fn an_end_of_the_interval_is_in_each_place_what_it_meets_there() {
        // In Berlin the first of March begins at 23:00 of the day before.
        let daily = "CREATE JOB daily INTO days SCHEDULE CRON '@daily' AT TIME ZONE 'Europe/Berlin' INTERVAL '1 day' \
            START '2026-02-28' AS SELECT $interval_start::date AS day, count(*) AS ad, 0 AS cost FROM clicks, \
            (VALUES (DATE '2026-02-27'), (DATE '2026-02-28'), (DATE '2026-03-01'), (DATE '2026-03-02')) AS d(seen) \
            WHERE ts >= $interval_start AND ts < $interval_end AND seen >= $interval_start - INTERVAL '1 day' AND seen < $interval_end \
            GROUP BY 1";
        let (mode, rows) = written(daily, 1).await.expect("rows");
        assert!(rows.contains("| 8  | 0    | 2026-03-01 |"), "{rows}");
        let day = BTreeMap::from([("day".to_owned(), Some("2026-03-01".to_owned()))]);
        assert_eq!(mode, WriteMode::ReplacePartitions(vec![day]));
    }

    #[tokio::test]
    async fn what_is_replaced_without_a_start_is_tried_with_the_one_that_it_has() {
        let (_folder, catalogue) = tables();
        let daily = "CREATE OR REPLACE JOB daily INTO days SCHEDULE CRON '@daily' INTERVAL '1 day' \
            AS SELECT ts::date AS day, ad, cost FROM clicks";
        let (create, spec) = read(daily).expect("a job");
        let at_six = Spec { start: Some(Local::parse("2026-03-01 06:00").expect("a time")), ..spec };
        let (mut state, created) =
            (State::default(), Event::JobCreated { job: create.job.value.clone(), spec: at_six });
        let now = Millis(1_772_359_200_000);
        let _created = step(&mut state.jobs, &Limits::default(), created, now).expect("a job");
        let request = PlanRequest { state: Arc::new(Known(state)), ..request(daily, catalogue) };
        let planner = SqlPlanner::new(Functions::default()).expect("a planner");
        let planning = planner.planning(&request).expect("a session");
        let error = super::create(&planning, &create).await.err().expect("days from six to six are no days");
        assert!(error.message.contains("not of whole days"), "{error}");
    }

    #[tokio::test]
    async fn a_commit_names_its_interval_and_appends_once() {
        let (_folder, catalogue) = tables();
        let request = request(HOURLY, catalogue);
        let planner = SqlPlanner::new(Functions::default()).expect("a planner");
        let planning = planner.planning(&request).expect("a session");
        let publication_of = |statement: &str, generation| {
            let (create, spec) = read(statement).expect("a job");
            let key = tidemill_core::interval::RunKey {
                job: create.job.value,
                incarnation: 4,
                index: 9,
                generation,
                attempt: 2,
            };
            let interval = Interval { start: Millis(0), end: Millis(3_600_000) };
            let cause = tidemill_core::interval::Cause::Schedule;
            publication(&planning, &JobRun { key, interval, cause, revision: 1, identity: "id".to_owned() }, &spec)
        };
        let replaced = publication_of(HOURLY, 3);
        assert_eq!((replaced.application.as_str(), replaced.version), ("tidemill/id/4/9", 3));
        assert_eq!(replaced.info.get("tidemill.interval_end").map(String::as_str), Some("1970-01-01T01:00:00Z"));
        let appended = HOURLY.replace("interval_column = 'hour'", "mode = 'append'");
        assert_eq!(publication_of(&appended, 3).version, 1, "a later generation finds the rows of an earlier one");
    }

    #[test]
    fn what_is_added_depends_on_the_interval() {
        let told = |statement: &str| {
            let (create, spec) = read(statement).expect("a job");
            check_adds_an_interval(&create, &spec).map_err(|error| (error.message, error.place.is_some()))
        };
        let appended = HOURLY.replace("interval_column = 'hour'", "mode = 'append'");
        assert_eq!(told(&appended), Ok(()));
        let always =
            |statement: &str| statement.replace("$interval_start", "'2026-03-01'").replace("$interval_end", "now()");
        assert_eq!(told(&always(HOURLY)), Ok(()), "what replaces fails where rows lie outside");
        let refused = told(&always(&appended)).expect_err("the same rows each time");
        assert!(refused.0.contains("would add the same rows for each interval") && refused.1, "{}", refused.0);
    }

    #[tokio::test]
    async fn what_cannot_be_planned_is_refused_where_it_stands() {
        let wrong = |text: &str, by: &str| HOURLY.replacen(text, by, 1);
        let cases = [
            (wrong("FROM clicks", "FROM clickz"), "there is no table `clickz`: did you mean `clicks`?"),
            (wrong("$interval_start", "$interval_strat"), "did you mean `$interval_start`?"),
            (wrong("sum(cost) AS cost", "sum(cost) AS costs"), "did you mean `cost`?"),
            (wrong("SELECT ad, ", "SELECT ad AS \"Ad\", "), "did you mean `ad`?"),
            (wrong("sum(cost) AS cost", "'x' AS cost"), "CAST it"),
            (
                wrong("ts < $interval_end", "CAST(ad AS VARCHAR) < $interval_end"),
                "compare it with a timestamp or a date",
            ),
            (wrong("INTO sums", "INTO summs"), "did you mean `sums`?"),
            (wrong("WITH (interval_column = 'hour')", ""), "set interval_column"),
            (wrong("interval_column = 'hour'", "interval_column = 'our'"), "no column `our`: did you mean `hour`?"),
            (wrong("interval_column = 'hour'", "interval_column = 'ad'"), "`ad` is Int64, and a DATE or a timestamp"),
            (
                wrong("interval_column", "mode = 'append', interval_column").replace("'hour')", "'our')"),
                "no column `our`",
            ),
            (wrong("interval_column = 'hour'", "partition = 'hour'"), "is not partitioned by `hour`"),
            (wrong("WITH (", "EXPECT (sum(cost) > ad) WITH ("), "of one row and of all rows"),
            (wrong("WITH (", "EXPECT (sum(hour) > 0) WITH ("), "the check `sum(hour) > 0`"),
            (wrong("WITH (", "EXPECT (count(*) > rows_before(0)) WITH ("), "between 1 and 400"),
            (wrong("WITH (", "EXPECT UNIQUE (hour, add) WITH ("), "`add`, which the dataset has not"),
            (wrong("WITH (", &format!("{}WITH (", "EXPECT (ad > 0) ".repeat(33))), "at most 32 checks"),
            (wrong("WITH (", "EXPECT (cost + 1) WITH ("), "no condition"),
            (wrong("WITH (", "EXPECT (costs > 0) WITH ("), "cannot be read"),
            (wrong("AS SELECT ad", "AS DROP TABLE sums -- "), "must be a query"),
        ];
        let missing = "CREATE JOB j INTO sums SCHEDULE CRON '@hourly' INTERVAL '1 hour' START '2026-03-01' \
            WITH (interval_column = 'hour') AS SELECT ts AS hour, cost FROM clicks";
        let cases = cases.into_iter().chain([(missing.to_owned(), "gives no column `ad`")]);
        for (statement, expected) in cases {
            let error = written(&statement, 9).await.expect_err(&statement);
            assert!(error.message.contains(expected), "{statement}\n{error}");
            assert!(error.place.is_some(), "{statement}\n{error}");
        }
    }

    #[tokio::test]
    async fn a_place_in_the_query_is_one_in_the_statement() {
        let statement = "CREATE JOB j INTO sums SCHEDULE CRON '@hourly' INTERVAL '1 hour' START '2026-03-01'\n\
            WITH (interval_column = 'hour')\nAS SELECT ts AS hour,\n  ad, cost\n FROM clickz";
        let error = written(statement, 9).await.expect_err("an error");
        assert_eq!(error.place.map(|place| (place.line, place.column)), Some((5, 7)), "{error}");
    }
}
