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
    let of_job = |verb: &[&str]| JOB.iter().any(|job| tokens.are_next(&[verb, &[job]].concat()));
    let verbs: [&[&str]; 7] = [
        &["CREATE"],
        &["CREATE", "OR", "REPLACE"],
        &["ALTER"],
        &["DROP"],
        &["EXECUTE"],
        &["BACKFILL"],
        &["SHOW", "CREATE"],
    ];
    let others: [&[&str]; 5] =
        [&["SHOW", "JOBS"], &["SHOW", "TASKS"], &["SHOW", "INTERVALS"], &["CANCEL", "RUN"], &["CANCEL", "BACKFILL"]];
    verbs.into_iter().any(of_job) || others.iter().any(|words| tokens.are_next(words))
}

fn take_job(tokens: &mut Tokens<'_>) -> bool {
    JOB.iter().any(|word| tokens.take(&[word]))
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
    if tokens.take(&["ALTER"]) {
        expect_job(tokens)?;
        return alter(tokens);
    }
    if tokens.take(&["DROP"]) {
        expect_job(tokens)?;
        let if_exists = tokens.take(&["IF", "EXISTS"]);
        return Ok(JobStatement::Drop { job: job_name(tokens)?, if_exists });
    }
    if tokens.take(&["EXECUTE"]) {
        expect_job(tokens)?;
        let job = job_name(tokens)?;
        tokens.expect(&["FOR", "INTERVAL"])?;
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

fn alter(tokens: &mut Tokens<'_>) -> Result<JobStatement> {
    let job = job_name(tokens)?;
    let change = if tokens.take(&["SUSPEND"]) {
        Alteration::Suspend
    } else if tokens.take(&["RESUME"]) {
        Alteration::Resume
    } else if tokens.take(&["SET"]) {
        Alteration::Set(clauses::settings(tokens)?)
    } else {
        return Err(tokens.expected("SUSPEND, RESUME or SET"));
    };
    Ok(JobStatement::Alter { job, change })
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
    if tokens.take(&["REPROCESS"]) {
        backfill.reprocess = reprocess(tokens)?;
    }
    if tokens.take(&["MAX"]) {
        tokens.expect(&["RUNS"])?;
        backfill.max_runs = tokens.number("a number of runs")?;
    }
    if tokens.take(&["REVERSE"]) {
        backfill.order = Order::Reverse;
    }
    if tokens.take(&["DRY"]) {
        tokens.expect(&["RUN"])?;
        backfill.dry_run = true;
    }
    Ok(JobStatement::Backfill(backfill))
}

fn reprocess(tokens: &mut Tokens<'_>) -> Result<Reprocess> {
    let known = [("MISSING", Reprocess::Missing), ("FAILED", Reprocess::Failed), ("ALL", Reprocess::All)];
    let found = known.into_iter().find(|(word, _)| tokens.take(&[word]));
    found.map(|(_, reprocess)| reprocess).ok_or_else(|| tokens.expected("MISSING, FAILED or ALL"))
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
