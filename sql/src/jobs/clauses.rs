//! The clauses of `CREATE JOB`, in any order, each once; `AS` and the query come last.

use datafusion::sql::sqlparser::tokenizer::Token;
use tidemill_core::{Error, Result};

use super::parser::{goes_on, name_of_new_job};
use super::statement::{At, CreateJob, Expectation, Setting, TriggerClause, Violation};
use super::tokens::Tokens;
use crate::session::nearest;

/// The words that clauses begin with.
const CLAUSES: [&str; 11] =
    ["SCHEDULE", "TRIGGER", "AT", "INTERVAL", "START", "CATCHUP", "DEPENDS", "CONSTRAINT", "EXPECT", "WITH", "AS"];

/// What follows `CREATE JOB`.
pub(super) fn create(tokens: &mut Tokens<'_>, or_replace: bool) -> Result<CreateJob> {
    let place = tokens.place();
    let if_missing = tokens.take(&["IF", "NOT", "EXISTS"]);
    if or_replace && if_missing {
        return Err(Error::invalid("OR REPLACE and IF NOT EXISTS exclude each other: leave one out").at(place));
    }
    let job = name_of_new_job(tokens)?;
    tokens.expect(&["INTO"])?;
    let output = tokens.table("the name of a dataset")?;
    let mut create = CreateJob { or_replace, if_missing, ..CreateJob::new(job, output) };
    while !tokens.take(&["AS"]) {
        clause(tokens, &mut create)?;
    }
    create.query = tokens.rest("a query")?;
    Ok(create)
}

/// Keeps the value of a clause, which must be the first of its kind.
fn once<T>(slot: &mut Option<T>, clause: &str, tokens: &mut Tokens<'_>, read: Read<'_, T>) -> Result<()> {
    if slot.is_some() {
        return Err(Error::invalid(format!("{clause} is given twice")).at(tokens.place()));
    }
    *slot = Some(read(tokens)?);
    Ok(())
}

type Read<'a, T> = &'a dyn Fn(&mut Tokens<'_>) -> Result<T>;

fn clause(tokens: &mut Tokens<'_>, create: &mut CreateJob) -> Result<()> {
    if tokens.take(&["SCHEDULE"]) {
        return once(&mut create.trigger, "SCHEDULE or TRIGGER", tokens, &|tokens| {
            tokens.expect(&["CRON"])?;
            Ok(TriggerClause::Cron(tokens.text("a cron expression")?))
        });
    }
    if tokens.take(&["TRIGGER"]) {
        return once(&mut create.trigger, "SCHEDULE or TRIGGER", tokens, &|tokens| {
            tokens.expect(&["ON", "UPDATE", "OF"])?;
            Ok(TriggerClause::Update(tokens.tables("the name of a dataset")?))
        });
    }
    if tokens.take(&["AT"]) {
        tokens.expect(&["TIME", "ZONE"])?;
        return once(&mut create.zone, "AT TIME ZONE", tokens, &|tokens| tokens.text("the name of a time zone"));
    }
    if tokens.take(&["INTERVAL"]) {
        return once(&mut create.interval, "INTERVAL", tokens, &length);
    }
    if tokens.take(&["START"]) {
        return once(&mut create.start, "START", tokens, &|tokens| tokens.text("a time"));
    }
    if tokens.take(&["CATCHUP"]) {
        return once(&mut create.catch_up, "CATCHUP", tokens, &truth);
    }
    if tokens.take(&["DEPENDS"]) {
        return depends_on(tokens, create);
    }
    if tokens.are_next(&["CONSTRAINT"]) || tokens.are_next(&["EXPECT"]) {
        create.expect.push(expectation(tokens)?);
        return Ok(());
    }
    if tokens.take(&["WITH"]) {
        if !create.settings.is_empty() {
            return Err(Error::invalid("WITH is given twice").at(tokens.place()));
        }
        create.settings = settings(tokens)?;
        return Ok(());
    }
    Err(unknown(tokens))
}

fn unknown(tokens: &Tokens<'_>) -> Error {
    let alike = tokens.next_word().and_then(|word| nearest(&word, CLAUSES.into_iter()));
    match alike {
        Some(clause) => tokens.expected(&format!("{clause}, another clause, or AS and a query")),
        None => tokens.expected(&format!("one of {}", CLAUSES.join(", "))),
    }
}

/// `'1 day'`, or `'1' DAY` as SQL has it.
fn length(tokens: &mut Tokens<'_>) -> Result<At<String>> {
    let At { value, place } = tokens.text("a length")?;
    let is_number = !value.trim().is_empty() && value.trim().chars().all(|c| c.is_ascii_digit());
    match tokens.next_word().filter(|word| is_number && !CLAUSES.contains(&word.as_str())) {
        Some(unit) => {
            tokens.take(&[unit.as_str()]);
            Ok(At { value: format!("{} {}", value.trim(), unit.to_lowercase()), place })
        }
        None => Ok(At { value, place }),
    }
}

fn truth(tokens: &mut Tokens<'_>) -> Result<bool> {
    if tokens.take(&["TRUE"]) {
        return Ok(true);
    }
    if tokens.take(&["FALSE"]) { Ok(false) } else { Err(tokens.expected("TRUE or FALSE")) }
}

/// `ON a, b COMPLETE`, or `ON a COMPLETE, b COMPLETE`.
fn depends_on(tokens: &mut Tokens<'_>, create: &mut CreateJob) -> Result<()> {
    tokens.expect(&["ON"])?;
    loop {
        create.depends_on.push(tokens.table("the name of a dataset")?);
        let is_complete = tokens.take(&["COMPLETE"]);
        // The reference divides clauses by commas here and there: one may follow instead of a table.
        if !tokens.take_sign(&Token::Comma) || (is_complete && is_clause_next(tokens)) {
            return if is_complete { Ok(()) } else { Err(tokens.expected("COMPLETE")) };
        }
    }
}

/// Whether a clause comes next, and not a table that is called as one begins.
fn is_clause_next(tokens: &Tokens<'_>) -> bool {
    CLAUSES.iter().any(|clause| tokens.are_next(&[*clause]) && !tokens.are_next(&[*clause, "COMPLETE"]))
}

fn expectation(tokens: &mut Tokens<'_>) -> Result<Expectation> {
    let name = match tokens.take(&["CONSTRAINT"]) {
        true => Some(tokens.name("the name of a check")?.value),
        false => None,
    };
    tokens.expect(&["EXPECT"])?;
    let is_unique = tokens.take(&["UNIQUE"]);
    let mut predicate = tokens.parenthesised(if is_unique { "names of columns" } else { "what must hold" })?;
    if is_unique {
        predicate.value = format!("UNIQUE ({})", predicate.value);
    }
    let mut violation = Violation::Fail;
    if tokens.take(&["ON"]) {
        tokens.expect(&["VIOLATION"])?;
        violation = if tokens.take(&["FAIL"]) {
            Violation::Fail
        } else if tokens.take(&["WARN"]) {
            Violation::Warn
        } else {
            return Err(tokens.expected("FAIL or WARN"));
        };
    }
    // The example of the reference divides clauses by commas here and there.
    tokens.take_sign(&Token::Comma);
    Ok(Expectation { name, predicate, violation })
}

/// `(key, …)`.
pub(super) fn keys(tokens: &mut Tokens<'_>) -> Result<Vec<At<String>>> {
    tokens.expect_sign(&Token::LParen)?;
    let mut keys = Vec::new();
    loop {
        keys.push(tokens.name("the name of a setting")?);
        if !goes_on(tokens)? {
            return Ok(keys);
        }
    }
}

/// `(key = value, …)`.
pub(super) fn settings(tokens: &mut Tokens<'_>) -> Result<Vec<Setting>> {
    tokens.expect_sign(&Token::LParen)?;
    let mut settings: Vec<Setting> = Vec::new();
    loop {
        let key = tokens.name("the name of a setting")?;
        if settings.iter().any(|set| set.key.value == key.value) {
            return Err(Error::invalid(format!("`{}` is set twice", key.value)).at(key.place));
        }
        tokens.expect_sign(&Token::Eq)?;
        settings.push(Setting { key, value: tokens.value()? });
        if !goes_on(tokens)? {
            return Ok(settings);
        }
    }
}

#[cfg(test)]
#[expect(clippy::panic, reason = "a test that meets the unexpected should say so and end")]
mod tests {
    use super::super::parser::parse;
    use super::super::statement::JobStatement;
    use super::*;

    #[test]
    fn a_comma_between_clauses_is_no_further_table() -> Result<()> {
        for (clauses, tables, checks, settings) in [
            ("DEPENDS ON a COMPLETE, EXPECT (x > 0) ON VIOLATION FAIL, WITH (retries = 1)", 1, 1, 1),
            ("DEPENDS ON a COMPLETE, WITH (retries = 1)", 1, 0, 1),
            ("DEPENDS ON a COMPLETE, b, start COMPLETE, expect COMPLETE CONSTRAINT c EXPECT UNIQUE (x)", 4, 1, 0),
        ] {
            let statement = format!("CREATE JOB j INTO s {clauses} AS SELECT 1");
            let Some(JobStatement::Create(create)) = parse(&statement)? else { panic!("{statement}") };
            let found = (create.depends_on.len(), create.expect.len(), create.settings.len());
            assert_eq!(found, (tables, checks, settings), "{statement}");
        }
        let nothing = parse("CREATE JOB j INTO s DEPENDS ON a, WITH (retries = 1) AS SELECT 1");
        assert!(nothing.is_err_and(|error| error.message.contains("COMPLETE")));
        Ok(())
    }
}
