//! Texts to statements about jobs. `TASK` means the same as `JOB`.

use datafusion::sql::sqlparser::tokenizer::Token;
use tidemill_core::interval::{JobName, Order, Reprocess};
use tidemill_core::{Error, Result};

use super::clauses;
use super::statement::{Alteration, At, Backfill, JobStatement};
use super::tokens::Tokens;

/// How many runs of a backfill are in progress at once where nothing is said.
const MAX_RUNS: u32 = 1;
/// The two words for one thing.
const JOB: [&str; 2] = ["JOB", "TASK"];

/// The statement about jobs that a text is; `None` if it is about something else.
///
/// # Errors
/// It begins as one and goes on as none.
pub(crate) fn parse(text: &str) -> Result<Option<JobStatement>> {
    if !is_begun_by(text) {
        return Ok(None);
    }
    let mut tokens = Tokens::of(text)?;
    let statement = statement(&mut tokens)?;
    tokens.end()?;
    Ok(Some(statement))
}

/// Whether a text begins as a statement about jobs. One that cannot be read begins as none.
pub(crate) fn is_begun_by(text: &str) -> bool {
    let Ok(tokens) = Tokens::of(text) else { return false };
    let of_job = |verb: &[&str]| JOB.iter().any(|job| tokens.are_next(&[verb, &[*job]].concat()));
    let verbs: [&[&str]; 7] = [
        &["CREATE"],
        &["CREATE", "OR", "REPLACE"],
        &["ALTER"],
        &["DROP"],
        &["EXECUTE"],
        &["BACKFILL"],
        &["SHOW", "CREATE"],
    ];
    let others: [&[&str]; 6] = [
        &["SHOW", "JOBS"],
        &["SHOW", "TASKS"],
        &["SHOW", "INTERVALS"],
        &["CANCEL", "RUN"],
        &["CANCEL", "BACKFILL"],
        &["ALTER", "DATASET"],
    ];
    verbs.into_iter().any(of_job) || others.iter().any(|words| tokens.are_next(words))
}

fn take_job(tokens: &mut Tokens<'_>) -> bool {
    JOB.iter().any(|word| tokens.take(&[*word]))
}

fn expect_job(tokens: &mut Tokens<'_>) -> Result<()> {
    if take_job(tokens) { Ok(()) } else { Err(tokens.expected("JOB")) }
}

fn statement(tokens: &mut Tokens<'_>) -> Result<JobStatement> {
    if tokens.take(&["CREATE"]) {
        let or_replace = tokens.take(&["OR", "REPLACE"]);
        expect_job(tokens)?;
        return Ok(JobStatement::Create(Box::new(clauses::create(tokens, or_replace)?)));
    }
    if tokens.take(&["ALTER", "DATASET"]) {
        return complete(tokens);
    }
    if tokens.take(&["ALTER"]) {
        expect_job(tokens)?;
        let if_exists = tokens.take(&["IF", "EXISTS"]);
        return alter(tokens, if_exists);
    }
    if tokens.take(&["DROP"]) {
        expect_job(tokens)?;
        let if_exists = tokens.take(&["IF", "EXISTS"]);
        return Ok(JobStatement::Drop { job: job_name(tokens)?, if_exists });
    }
    if tokens.take(&["EXECUTE"]) {
        expect_job(tokens)?;
        let job = job_name(tokens)?;
        if !tokens.take(&["FOR", "INTERVAL"]) {
            return Err(tokens.expected("FOR INTERVAL '2026-03-01', which says when the interval begins,"));
        }
        return Ok(JobStatement::Execute { job, start: tokens.text("where an interval begins")? });
    }
    if tokens.take(&["BACKFILL"]) {
        expect_job(tokens)?;
        return backfill(tokens);
    }
    if tokens.take(&["CANCEL"]) {
        return cancel(tokens);
    }
    show(tokens)
}

fn job_name(tokens: &mut Tokens<'_>) -> Result<At<JobName>> {
    let At { value, place } = tokens.name("the name of a job")?;
    match value.chars().count() {
        1..=200 => Ok(At { value: JobName(value), place }),
        _ => Err(Error::invalid("the name of a job has between 1 and 200 characters").at(place)),
    }
}

pub(super) fn name_of_new_job(tokens: &mut Tokens<'_>) -> Result<At<JobName>> {
    job_name(tokens)
}

fn alter(tokens: &mut Tokens<'_>, if_exists: bool) -> Result<JobStatement> {
    let job = job_name(tokens)?;
    let change = if tokens.take(&["SUSPEND"]) {
        Alteration::Suspend
    } else if tokens.take(&["RESUME"]) {
        Alteration::Resume
    } else if tokens.take(&["SET"]) {
        Alteration::Set(clauses::settings(tokens)?)
    } else if tokens.take(&["UNSET"]) {
        Alteration::Unset(clauses::keys(tokens)?)
    } else {
        return Err(tokens.expected("SUSPEND, RESUME, SET or UNSET"));
    };
    Ok(JobStatement::Alter { job, if_exists, change })
}

fn complete(tokens: &mut Tokens<'_>) -> Result<JobStatement> {
    let dataset = tokens.table("the name of a dataset")?;
    tokens.expect(&["COMPLETE", "FROM"])?;
    let from = tokens.text("a time")?;
    tokens.expect(&["TO"])?;
    let to = tokens.text("a time")?;
    let zone = match tokens.take(&["AT", "TIME", "ZONE"]) {
        true => Some(tokens.text("the name of a time zone")?),
        false => None,
    };
    Ok(JobStatement::Complete { dataset, from, to, zone })
}

fn backfill(tokens: &mut Tokens<'_>) -> Result<JobStatement> {
    let job = job_name(tokens)?;
    tokens.expect(&["FROM"])?;
    let from = tokens.text("a time")?;
    tokens.expect(&["TO"])?;
    let to = tokens.text("a time")?;
    let mut backfill = Backfill {
        job,
        from,
        to,
        reprocess: Reprocess::Missing,
        max_runs: MAX_RUNS,
        order: Order::Forward,
        dry_run: false,
    };
    while backfill_option(tokens, &mut backfill)? {}
    Ok(JobStatement::Backfill(backfill))
}

/// Reads one more option, if there is one: they stand in any order, as the clauses of a job do.
fn backfill_option(tokens: &mut Tokens<'_>, backfill: &mut Backfill) -> Result<bool> {
    if tokens.take(&["REPROCESS"]) {
        backfill.reprocess = reprocess(tokens)?;
    } else if tokens.take(&["MAX"]) {
        tokens.expect(&["RUNS"])?;
        backfill.max_runs = tokens.number("a number of runs")?;
    } else if tokens.take(&["REVERSE"]) {
        backfill.order = Order::Reverse;
    } else if tokens.take(&["DRY"]) {
        tokens.expect(&["RUN"])?;
        backfill.dry_run = true;
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn reprocess(tokens: &mut Tokens<'_>) -> Result<Reprocess> {
    let known = [
        ("MISSING", Reprocess::Missing),
        ("FAILED", Reprocess::Failed),
        ("STALE", Reprocess::Stale),
        ("ALL", Reprocess::All),
    ];
    let found = known.into_iter().find(|(word, _)| tokens.take(&[*word]));
    found.map(|(_, reprocess)| reprocess).ok_or_else(|| tokens.expected("MISSING, FAILED, STALE or ALL"))
}

fn cancel(tokens: &mut Tokens<'_>) -> Result<JobStatement> {
    if tokens.take(&["RUN"]) {
        return Ok(JobStatement::CancelRun { run: tokens.text("the name of a run")? });
    }
    tokens.expect(&["BACKFILL"])?;
    let id = tokens.number("the number of a backfill")?;
    tokens.expect(&["OF"])?;
    take_job(tokens);
    Ok(JobStatement::CancelBackfill { id, job: job_name(tokens)? })
}

fn show(tokens: &mut Tokens<'_>) -> Result<JobStatement> {
    tokens.expect(&["SHOW"])?;
    if tokens.take(&["JOBS"]) || tokens.take(&["TASKS"]) {
        return Ok(JobStatement::ShowJobs);
    }
    if tokens.take(&["CREATE"]) {
        expect_job(tokens)?;
        return Ok(JobStatement::ShowCreate { job: job_name(tokens)? });
    }
    tokens.expect(&["INTERVALS", "OF"])?;
    take_job(tokens);
    let job = job_name(tokens)?;
    let from = if tokens.take(&["FROM"]) { Some(tokens.text("a time")?) } else { None };
    let to = if tokens.take(&["TO"]) { Some(tokens.text("a time")?) } else { None };
    Ok(JobStatement::ShowIntervals { job, from, to })
}

/// A comma, or the end of a list.
pub(super) fn goes_on(tokens: &mut Tokens<'_>) -> Result<bool> {
    if tokens.take_sign(&Token::RParen) {
        return Ok(false);
    }
    match tokens.take_sign(&Token::Comma) {
        true => Ok(true),
        false => Err(tokens.expected("`,` or `)`")),
    }
}

#[cfg(test)]
#[expect(clippy::panic, clippy::unwrap_used, reason = "a test that meets the unexpected should say so and end")]
mod tests {
    use super::*;
    use crate::jobs::statement::{CreateJob, TriggerClause, Violation};

    /// The example of the reference, as far as it is built.
    const DAILY: &str = "CREATE JOB daily_spend INTO spend_daily
  SCHEDULE CRON '15 2 * * *' AT TIME ZONE 'America/New_York'
  INTERVAL '1 day' START '2026-01-01' CATCHUP FALSE   -- or: TRIGGER ON UPDATE OF clicks
  DEPENDS ON clicks COMPLETE
  EXPECT (spend >= 0) ON VIOLATION FAIL
  WITH (mode='replace_interval', partition='day', overlap='forbid', max_active_runs=2,
    retries=3, retry_backoff='30s', timeout='1h', deadline='03:00', lookback=1, allowed_lateness='7d',
    on_failure='https://pager')
AS SELECT date_trunc('day',ts)::date AS day, ad, sum(cost) AS spend FROM clicks
   WHERE ts >= $interval_start AND ts < $interval_end GROUP BY 1,2;";

    fn create(text: &str) -> CreateJob {
        match parse(text).unwrap() {
            Some(JobStatement::Create(create)) => *create,
            other => panic!("{other:?}"),
        }
    }

    /// Without places, which differ.
    fn plain(text: &str) -> String {
        let mut shown = format!("{:?}", create(text));
        while let Some(at) = shown.find("place: Some(") {
            let end = at + shown.get(at..).unwrap().find("})").unwrap() + 2;
            shown.replace_range(at..end, "-");
        }
        shown
    }

    #[test]
    fn create_job_is_read_clause_by_clause() {
        let daily = create(DAILY);
        assert_eq!(
            (daily.job.value.0.as_str(), daily.output.value.to_string().as_str()),
            ("daily_spend", "spend_daily")
        );
        assert!(matches!(&daily.trigger, Some(TriggerClause::Cron(cron)) if cron.value == "15 2 * * *"));
        assert_eq!(daily.catch_up, Some(false));
        let interval = |text: &str| create(&DAILY.replace("INTERVAL '1 day'", text)).interval.map(|at| at.value);
        assert_eq!(interval("INTERVAL '1' DAY").as_deref(), Some("1 day"));
        assert_eq!(interval("INTERVAL '7'").as_deref(), Some("7"), "what follows is a clause");
        assert_eq!(daily.depends_on.len(), 1);
        let [check] = daily.expect.as_slice() else { panic!("{:?}", daily.expect) };
        assert_eq!((check.predicate.value.as_str(), check.violation), ("spend >= 0", Violation::Fail));
        assert_eq!(daily.settings.len(), 11);
        let lateness = daily.settings.iter().find(|set| set.key.value == "allowed_lateness");
        assert_eq!(lateness.map(|set| set.value.value.as_str()), Some("7d"));
        assert!(daily.to_string().contains("allowed_lateness = '7d'"), "SHOW CREATE JOB shows it: {daily}");
        assert!(
            daily.query.value.starts_with("SELECT date_trunc('day',ts)") && daily.query.value.ends_with("GROUP BY 1,2")
        );
        assert_eq!(daily.query.place.map(|place| (place.line, place.column)), Some((9, 4)));
    }

    #[test]
    fn what_is_shown_can_be_typed_again() {
        let others = [
            "CREATE TASK \"Odd \"\"name\" INTO lake.\"Sums\" TRIGGER ON UPDATE OF a, b AT TIME ZONE 'UTC' INTERVAL '15 minutes' \
             START '2026-01-01' CATCHUP TRUE DEPENDS ON c COMPLETE, d COMPLETE CONSTRAINT \"is it\" EXPECT (x <> 'it''s)') \
             EXPECT (y IN (1, 2)) ON VIOLATION WARN EXPECT UNIQUE (x, \"Y\") ON VIOLATION FAIL AS WITH t AS (SELECT 1) SELECT * FROM t -- the end",
            "CREATE JOB j INTO s EXPECT (ä > 0 -- never ) less\n AND x <> '--' -- nor that\n) ON VIOLATION WARN \
             EXPECT UNIQUE (x -- one\n, y /* two */) AS SELECT 1",
            DAILY,
        ];
        for text in others {
            let shown = create(text).to_string();
            assert_eq!(plain(&shown), plain(text), "{shown}");
        }
    }

    #[test]
    fn other_statements_are_left_alone() {
        for text in [
            "SELECT 1",
            "CREATE TABLE job (x INT)",
            "CREATE VIEW task AS SELECT 1",
            "SHOW TABLES",
            "SHOW CREATE TABLE job",
            "DROP TABLE job",
            "ALTER TABLE job ADD COLUMN x INT",
            "EXPLAIN SELECT 1",
            "not even SQL '",
        ] {
            assert!(parse(text).unwrap().is_none(), "{text}");
        }
    }

    #[test]
    fn every_statement_is_read() {
        for text in [
            "EXECUTE JOB daily FOR INTERVAL '2026-03-01'",
            "BACKFILL JOB daily FROM '2026-01-01' TO '2026-03-01' REPROCESS FAILED MAX RUNS 4 REVERSE DRY RUN;",
            "backfill task daily from '2026-01-01' to '2026-03-01'",
            "ALTER JOB daily SUSPEND",
            "ALTER JOB daily RESUME",
            "ALTER JOB IF EXISTS daily RESUME",
            "CREATE JOB IF NOT EXISTS daily INTO sums AS SELECT 1",
            "ALTER JOB daily SET (retries = 5, overlap = forbid)",
            "ALTER JOB daily UNSET (retries, deadline)",
            "DROP JOB IF EXISTS daily",
            "CANCEL RUN 'job-daily-1-2-3-4'",
            "CANCEL BACKFILL 3 OF JOB daily",
            "SHOW JOBS",
            "SHOW TASKS;",
            "SHOW CREATE JOB daily",
            "SHOW INTERVALS OF daily FROM '2026-01-01' TO '2026-02-01'",
            "ALTER DATASET clicks COMPLETE FROM '2026-01-01' TO '2026-02-01' AT TIME ZONE 'Europe/Berlin'",
        ] {
            assert!(parse(text).unwrap().is_some(), "{text}");
        }
        for options in ["REPROCESS ALL MAX RUNS 4 REVERSE", "REVERSE MAX RUNS 4 REPROCESS ALL"] {
            let text = format!("BACKFILL JOB daily FROM '2026-01-01' TO '2026-03-01' {options}");
            let Some(JobStatement::Backfill(backfill)) = parse(&text).unwrap() else { panic!("no backfill") };
            assert_eq!((backfill.reprocess, backfill.max_runs, backfill.order), (Reprocess::All, 4, Order::Reverse));
            assert!(!backfill.dry_run);
        }
    }

    #[test]
    fn an_error_points_at_its_place() {
        let wrong = |text: &str| {
            let error = parse(text).unwrap_err();
            (error.message, error.place.map(|place| (place.line, place.column)))
        };
        let (message, place) = wrong("CREATE JOB daily\n  INTO sums\n  SCHEDUL CRON '* * * * *' AS SELECT 1");
        assert!(message.starts_with("SCHEDULE, another clause, or AS and a query is expected"), "{message}");
        assert_eq!(place, Some((3, 3)));
        for (text, expected, place) in [
            ("CREATE JOB daily", "INTO is expected here, and the end is there", (1, 17)),
            ("CREATE JOB d INTO s INTERVAL 1 day AS SELECT 1", "a length between quotes", (1, 30)),
            ("CREATE JOB d INTO s CATCHUP MAYBE AS SELECT 1", "TRUE or FALSE", (1, 29)),
            ("CREATE JOB d INTO s DEPENDS ON x AS SELECT 1", "COMPLETE", (1, 34)),
            ("CREATE JOB d INTO s START 'a' START 'b' AS SELECT 1", "START is given twice", (1, 37)),
            ("CREATE JOB d INTO s WITH (a = 1, a = 2) AS SELECT 1", "`a` is set twice", (1, 34)),
            ("CREATE JOB d INTO s WITH (a = (1)) AS SELECT 1", "a value", (1, 31)),
            ("CREATE JOB d INTO s EXPECT () AS SELECT 1", "what must hold", (1, 29)),
            ("CREATE JOB d INTO s EXPECT UNIQUE () AS SELECT 1", "names of columns", (1, 36)),
            ("CREATE JOB d INTO s AS", "a query", (1, 23)),
            (
                "BACKFILL JOB d FROM '2026-01-01' TO '2026-02-01' REPROCESS SOME",
                "MISSING, FAILED, STALE or ALL",
                (1, 60),
            ),
            ("BACKFILL JOB d FROM '2026-01-01' TO '2026-02-01' MAX RUNS many", "a number of runs", (1, 59)),
            ("EXECUTE TASK d", "FOR INTERVAL '2026-03-01'", (1, 15)),
            (
                "CREATE JOB d INTO s AFTER t AS SELECT 1",
                "SCHEDULE, TRIGGER, AT, INTERVAL, START, CATCHUP, DEPENDS",
                (1, 21),
            ),
            ("CREATE OR REPLACE JOB IF NOT EXISTS d INTO s AS SELECT 1", "exclude each other", (1, 23)),
            ("ALTER JOB d PAUSE", "SUSPEND, RESUME, SET or UNSET", (1, 13)),
            ("SHOW JOBS LIKE 'x'", "the end of the statement", (1, 11)),
        ] {
            let (message, found) = wrong(text);
            assert!(message.contains(expected), "{text}: {message}");
            assert_eq!(found, Some(place), "{text}");
        }
    }
}
