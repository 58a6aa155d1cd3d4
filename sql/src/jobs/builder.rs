//! Jobs from Rust: the same statements, put together by name.

use std::fmt;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use datafusion::common::TableReference;
use tidemill_core::interval::{JobName, Order, Reprocess};
use tidemill_core::{Error, Result};

use super::statement::{At, CreateJob, Expectation, Setting, TriggerClause, Violation};
use crate::Session;
use crate::session::text_literal;

/// A job of a session's cluster, by name. Begun by [`Session::job`].
///
/// ```no_run
/// # async fn example() -> tidemill::Result<()> {
/// let session = tidemill::connect("http://10.0.0.1:7878").start().await?;
/// let daily = session.job("daily_spend");
/// daily
///     .publishes_into("spend_daily")
///     .schedule("15 2 * * *")
///     .time_zone("America/New_York")
///     .interval("1 day")
///     .start("2026-01-01")
///     .depends_on("clicks")
///     .set("interval_column", "day")
///     .expect("spend >= 0")
///     .query("SELECT $interval_start::date AS day, ad, sum(cost) AS spend FROM clicks \
///             WHERE ts >= $interval_start AND ts < $interval_end GROUP BY 1, 2")
///     .create()
///     .await?;
/// daily.backfill("2026-01-01", "2026-03-01").max_runs(4).run().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct JobHandle {
    session: Session,
    name: JobName,
}

impl JobHandle {
    pub(crate) const fn new(session: Session, name: String) -> Self {
        Self { session, name: JobName(name) }
    }

    fn quoted(&self) -> String {
        quote(&self.name.0)
    }

    async fn run(&self, statement: &str) -> Result<Vec<RecordBatch>> {
        self.session.run_on_cluster(statement).await
    }

    /// A job that publishes into a dataset: what else it is follows.
    pub fn publishes_into(&self, dataset: &str) -> JobBuilder {
        let output = At::nowhere(TableReference::from(dataset));
        let create = CreateJob::new(At::nowhere(self.name.clone()), output);
        JobBuilder { job: self.clone(), create, nameless: None }
    }

    /// Runs one interval, named by when it begins on the clocks of the job's zone, once more or for the first time. It answers
    /// the name of the run, as `system.runs` has it when it begins; it may wait for its inputs first.
    ///
    /// # Errors
    /// There is no such job or interval, or it is not over.
    pub async fn execute(&self, start: &str) -> Result<String> {
        let rows = self.run(&format!("EXECUTE JOB {} FOR INTERVAL {}", self.quoted(), text_literal(start))).await?;
        let names = rows.iter().filter_map(|rows| rows.column_by_name("run_id")?.as_string_opt::<i32>());
        let name = names.flat_map(|names| names.iter().flatten()).next().map(str::to_owned);
        name.ok_or_else(|| Error::internal("EXECUTE JOB answers no run"))
    }

    /// A backfill of the intervals between two times.
    pub fn backfill(&self, from: &str, to: &str) -> BackfillBuilder {
        let (reprocess, order) = (Reprocess::Missing, Order::Forward);
        BackfillBuilder { job: self.clone(), from: from.to_owned(), to: to.to_owned(), reprocess, max_runs: 1, order }
    }

    /// Lets the job start nothing by itself any more.
    ///
    /// # Errors
    /// There is no such job.
    pub async fn suspend(&self) -> Result<()> {
        self.run(&format!("ALTER JOB {} SUSPEND", self.quoted())).await.map(|_| ())
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// There is no such job.
    pub async fn resume(&self) -> Result<()> {
        self.run(&format!("ALTER JOB {} RESUME", self.quoted())).await.map(|_| ())
    }

    /// Sets some of its settings.
    ///
    /// # Errors
    /// There is no such job or setting, or a value does not fit.
    pub async fn set<'a>(&self, settings: impl IntoIterator<Item = (&'a str, &'a str)> + Send) -> Result<()> {
        let settings = settings.into_iter().map(|(key, value)| format!("{} = {}", quote(key), text_literal(value)));
        let settings = settings.collect::<Vec<_>>().join(", ");
        self.run(&format!("ALTER JOB {} SET ({settings})", self.quoted())).await.map(|_| ())
    }

    /// Ends a run, named as in `system.runs`: its interval counts as cancelled, unless it was past its commit.
    ///
    /// # Errors
    /// There is no such run in progress, or it is somebody else's.
    pub async fn cancel_run(&self, run: &str) -> Result<()> {
        self.run(&format!("CANCEL RUN {}", text_literal(run))).await.map(|_| ())
    }

    /// Lets one of its backfills begin no more intervals.
    ///
    /// # Errors
    /// There is no such job, or no such backfill that is not done.
    pub async fn cancel_backfill(&self, id: u64) -> Result<()> {
        self.run(&format!("CANCEL BACKFILL {id} OF {}", self.quoted())).await.map(|_| ())
    }

    /// The statement that makes it as it is now, in the column `definition`.
    ///
    /// # Errors
    /// There is no such job.
    pub async fn definition(&self) -> Result<Vec<RecordBatch>> {
        self.run(&format!("SHOW CREATE JOB {}", self.quoted())).await
    }

    /// Its intervals between two times, a line for each day, month or year with a sign for each of them.
    ///
    /// # Errors
    /// There is no such job, or no such time.
    pub async fn intervals(&self, from: &str, to: &str) -> Result<Vec<RecordBatch>> {
        self.run(&format!("SHOW INTERVALS OF {} FROM {} TO {}", self.quoted(), text_literal(from), text_literal(to)))
            .await
    }

    /// Drops it. What it published stays.
    ///
    /// # Errors
    /// There is no such job.
    pub async fn drop_job(&self) -> Result<()> {
        self.run(&format!("DROP JOB {}", self.quoted())).await.map(|_| ())
    }
}

/// A job that is about to be created. Methods are named after the clauses of `CREATE JOB`, see `docs/jobs.md`.
#[derive(Debug, Clone)]
#[must_use = "nothing is created before `create` is called"]
pub struct JobBuilder {
    job: JobHandle,
    create: CreateJob,
    /// What a check was to be called before there was one.
    nameless: Option<String>,
}

impl JobBuilder {
    /// `SCHEDULE CRON`.
    pub fn schedule(mut self, cron: &str) -> Self {
        self.create.trigger = Some(TriggerClause::Cron(At::nowhere(cron.to_owned())));
        self
    }

    /// `TRIGGER ON UPDATE OF`; several times for several datasets.
    pub fn on_update_of(mut self, dataset: &str) -> Self {
        let dataset = At::nowhere(TableReference::from(dataset));
        match &mut self.create.trigger {
            Some(TriggerClause::Update(of)) => of.push(dataset),
            other => *other = Some(TriggerClause::Update(vec![dataset])),
        }
        self
    }

    /// `AT TIME ZONE`.
    pub fn time_zone(mut self, zone: &str) -> Self {
        self.create.zone = Some(At::nowhere(zone.to_owned()));
        self
    }

    /// `INTERVAL`.
    pub fn interval(mut self, length: &str) -> Self {
        self.create.interval = Some(At::nowhere(length.to_owned()));
        self
    }

    /// `START`.
    pub fn start(mut self, start: &str) -> Self {
        self.create.start = Some(At::nowhere(start.to_owned()));
        self
    }

    /// `CATCHUP TRUE`.
    pub fn catch_up(mut self) -> Self {
        self.create.catch_up = Some(true);
        self
    }

    /// `DEPENDS ON … COMPLETE`; several times for several datasets.
    pub fn depends_on(mut self, dataset: &str) -> Self {
        self.create.depends_on.push(At::nowhere(TableReference::from(dataset)));
        self
    }

    /// `EXPECT (…) ON VIOLATION FAIL`.
    pub fn expect(self, condition: &str) -> Self {
        self.expecting(condition.to_owned(), Violation::Fail)
    }

    /// `EXPECT (…) ON VIOLATION WARN`; `UNIQUE (a, b)` may stand there, too.
    pub fn warn(self, condition: &str) -> Self {
        self.expecting(condition.to_owned(), Violation::Warn)
    }

    /// `EXPECT UNIQUE (…) ON VIOLATION FAIL`: these columns have each combination of values once.
    pub fn unique<'a>(self, columns: impl IntoIterator<Item = &'a str>) -> Self {
        let columns: Vec<String> = columns.into_iter().map(quote).collect();
        self.expecting(format!("UNIQUE ({})", columns.join(", ")), Violation::Fail)
    }

    /// `CONSTRAINT`: what the check is called that was added last. Before any check it is an error when the job is created.
    pub fn constraint(mut self, name: &str) -> Self {
        match self.create.expect.last_mut() {
            Some(last) => last.name = Some(name.to_owned()),
            None => self.nameless = Some(name.to_owned()),
        }
        self
    }

    fn expecting(mut self, condition: String, violation: Violation) -> Self {
        self.create.expect.push(Expectation { name: None, predicate: At::nowhere(condition), violation });
        self
    }

    /// One of `WITH (…)`.
    pub fn set(mut self, key: &str, value: impl fmt::Display) -> Self {
        let (key, value) = (At::nowhere(key.to_owned()), At::nowhere(value.to_string()));
        self.create.settings.push(Setting { key, value });
        self
    }

    /// What it computes, with `$interval_start` and `$interval_end`.
    pub fn query(mut self, sql: &str) -> Self {
        self.create.query = At::nowhere(sql.trim().to_owned());
        self
    }

    /// The statement that this is.
    #[must_use]
    pub fn statement(&self) -> String {
        self.create.to_string()
    }

    /// Creates the job.
    ///
    /// # Errors
    /// It makes no sense, its query cannot be planned, or there is one of the name.
    pub async fn create(self) -> Result<JobHandle> {
        self.send("").await
    }

    /// Creates the job, or gives one of the name these clauses.
    ///
    /// # Errors
    /// It makes no sense, or its query cannot be planned.
    pub async fn create_or_replace(self) -> Result<JobHandle> {
        self.send("OR REPLACE ").await
    }

    async fn send(self, or_replace: &str) -> Result<JobHandle> {
        if self.create.query.value.is_empty() {
            return Err(Error::invalid(format!("the job {} computes nothing: give it a query", self.job.name)));
        }
        if let Some(name) = &self.nameless {
            let message =
                format!("`{name}` names no check: call constraint behind the expect, warn or unique that it names");
            return Err(Error::invalid(message));
        }
        let statement = self.statement().replacen("CREATE ", &format!("CREATE {or_replace}"), 1);
        self.job.run(&statement).await?;
        Ok(self.job)
    }
}

/// A backfill that is about to be asked for.
#[derive(Debug, Clone)]
#[must_use = "nothing is asked for before `run` or `dry_run` is called"]
pub struct BackfillBuilder {
    job: JobHandle,
    from: String,
    to: String,
    reprocess: Reprocess,
    max_runs: u32,
    order: Order,
}

impl BackfillBuilder {
    /// `REPROCESS FAILED`.
    pub const fn failed(mut self) -> Self {
        self.reprocess = Reprocess::Failed;
        self
    }

    /// `REPROCESS STALE`.
    pub const fn stale(mut self) -> Self {
        self.reprocess = Reprocess::Stale;
        self
    }

    /// `REPROCESS ALL`.
    pub const fn all(mut self) -> Self {
        self.reprocess = Reprocess::All;
        self
    }

    /// `MAX RUNS`.
    pub const fn max_runs(mut self, runs: u32) -> Self {
        self.max_runs = runs;
        self
    }

    /// `REVERSE`.
    pub const fn reverse(mut self) -> Self {
        self.order = Order::Reverse;
        self
    }

    fn statement(&self) -> String {
        let reprocess = match self.reprocess {
            Reprocess::Missing => "MISSING",
            Reprocess::Failed => "FAILED",
            Reprocess::Stale => "STALE",
            Reprocess::All => "ALL",
        };
        let order = match self.order {
            Order::Forward => "",
            Order::Reverse => " REVERSE",
        };
        let (job, from, to) = (self.job.quoted(), text_literal(&self.from), text_literal(&self.to));
        format!("BACKFILL JOB {job} FROM {from} TO {to} REPROCESS {reprocess} MAX RUNS {}{order}", self.max_runs)
    }

    /// Asks for it: its number, for [`JobHandle::cancel_backfill`]; none if there is nothing for it to run.
    ///
    /// # Errors
    /// There is no such job, or no such time.
    pub async fn run(self) -> Result<Option<u64>> {
        let rows = self.job.run(&self.statement()).await?;
        let numbers = rows.first().and_then(|rows| rows.column_by_name("backfill")?.as_primitive_opt::<Int64Type>());
        Ok(numbers.and_then(|numbers| numbers.iter().next().flatten()).and_then(|number| u64::try_from(number).ok()))
    }

    /// The intervals that it would run, in their order: `interval_start`, `interval_end`, `local_start`.
    ///
    /// # Errors
    /// There is no such job, or no such time.
    pub async fn dry_run(self) -> Result<Vec<RecordBatch>> {
        self.job.run(&format!("{} DRY RUN", self.statement())).await
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
