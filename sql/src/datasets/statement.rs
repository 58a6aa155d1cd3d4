//! Statements about datasets that DataFusion's parser does not know.
//!
//! ```text
//! CREATE TABLE t STORED AS DELTA [PARTITIONED BY (a)] LOCATION '…' AS SELECT …
//! INSERT OVERWRITE t PARTITION (a = 'x') SELECT …      INSERT INTO t REPLACE WHERE a >= … AND a < … SELECT …
//! DESCRIBE HISTORY t [LIMIT n]      RESTORE TABLE t TO VERSION AS OF n | TIMESTAMP AS OF '…'
//! OPTIMIZE t                        VACUUM t [RETAIN n HOURS] [DRY RUN]
//! ```

use datafusion::common::TableReference;
use datafusion::sql::parser::Statement;
use datafusion::sql::planner::object_name_to_table_reference;
use datafusion::sql::sqlparser::ast::{Query, Statement as Sql};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemill_core::{Error, Result};
use tidemill_engine::error::from_datafusion;

use super::as_of::{AsOf, named};
use super::replaced::{Replaced, replace};
use crate::session::statements;

/// Nested expressions and subqueries beyond this are refused.
pub(super) const MAX_DEPTH: usize = 512;

/// A statement about datasets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DatasetStatement {
    /// A table of a query's rows.
    CreateAs(Box<CreateAs>),
    /// Rows in the place of others.
    Replace { insert: Box<Statement>, replaced: Replaced },
    /// The versions of a table.
    History { table: TableReference, limit: Option<usize> },
    /// A version like an older one.
    Restore { table: TableReference, at: AsOf },
    /// Small files become large ones.
    Optimize { table: TableReference },
    /// Files that no version needs are deleted.
    Vacuum { table: TableReference, hours: Option<u64>, dry_run: bool },
}

/// `CREATE TABLE … STORED AS DELTA … AS`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CreateAs {
    pub(super) name: TableReference,
    pub(super) or_replace: bool,
    pub(super) if_not_exists: bool,
    pub(super) partition_by: Vec<String>,
    pub(super) location: String,
    pub(super) query: Box<Query>,
}

/// The statement, if it is one of these.
pub(crate) fn parse(text: &str) -> Result<Option<DatasetStatement>> {
    let words: Vec<String> = statements::words(text).take(16).collect();
    let word = |position: usize| words.get(position).map_or("", String::as_str);
    let wrong = |usage: &str| Error::invalid(format!("the SQL is wrong: write {usage}"));
    let text = named(text);
    match (word(0), word(1)) {
        ("create", _) if is_create_as(&words) => create_as(&text).map(Some),
        ("insert", _) => replace(&text),
        ("describe" | "desc", "history") if words.len() > 2 => {
            history(&text).map(Some).ok_or_else(|| wrong("DESCRIBE HISTORY table, with LIMIT n perhaps"))
        }
        ("restore", _) => restore(&text)
            .map(Some)
            .ok_or_else(|| wrong("RESTORE TABLE table TO VERSION AS OF n, or TO TIMESTAMP AS OF '…'")),
        ("optimize", _) => optimize(&text).map(Some).ok_or_else(|| wrong("OPTIMIZE table")),
        ("vacuum", _) => {
            vacuum(&text).map(Some).ok_or_else(|| wrong("VACUUM table, with RETAIN n HOURS and DRY RUN perhaps"))
        }
        _ => Ok(None),
    }
}

/// `CREATE [OR REPLACE] TABLE …` with `STORED AS DELTA`.
fn is_create_as(words: &[String]) -> bool {
    let skipped = if words.get(1).is_some_and(|word| word == "or") { 3 } else { 1 };
    let is_table = words.get(skipped).is_some_and(|word| word == "table");
    let delta = ["stored", "as", "delta"];
    is_table && words.windows(3).any(|three| three.iter().map(String::as_str).eq(delta))
}

fn parser(text: &str) -> Option<Parser<'static>> {
    static DIALECT: GenericDialect = GenericDialect {};
    Parser::new(&DIALECT).with_recursion_limit(MAX_DEPTH).try_with_sql(text).ok()
}

/// Whether these words come next; they are taken then.
fn take(parser: &mut Parser<'_>, words: &[&str]) -> bool {
    let is_next = |(nth, word): (usize, &&str)| matches!(parser.peek_nth_token(nth).token, Token::Word(next) if next.value.eq_ignore_ascii_case(word));
    let fits = words.iter().enumerate().all(is_next);
    if fits {
        words.iter().for_each(|_| parser.advance_token());
    }
    fits
}

fn table(parser: &mut Parser<'_>) -> Option<TableReference> {
    object_name_to_table_reference(parser.parse_object_name(false).ok()?, true).ok()
}

fn is_at_end(parser: &Parser<'_>) -> bool {
    parser.peek_token().token == Token::EOF
}

fn history(text: &str) -> Option<DatasetStatement> {
    let mut parser = parser(text)?;
    let begins = take(&mut parser, &["describe", "history"]) || take(&mut parser, &["desc", "history"]);
    let table = table(&mut parser).filter(|_| begins)?;
    let limit = match take(&mut parser, &["limit"]) {
        true => Some(usize::try_from(parser.parse_literal_uint().ok()?).ok()?),
        false => None,
    };
    is_at_end(&parser).then_some(DatasetStatement::History { table, limit })
}

fn restore(text: &str) -> Option<DatasetStatement> {
    let mut parser = parser(text)?;
    if !take(&mut parser, &["restore", "table"]) && !take(&mut parser, &["restore"]) {
        return None;
    }
    let table = table(&mut parser)?;
    let at = if take(&mut parser, &["to", "version", "as", "of"]) {
        AsOf::Version(parser.parse_literal_uint().ok()?)
    } else if take(&mut parser, &["to", "timestamp", "as", "of"]) {
        AsOf::Time(parser.parse_literal_string().ok()?)
    } else {
        return None;
    };
    is_at_end(&parser).then_some(DatasetStatement::Restore { table, at })
}

fn optimize(text: &str) -> Option<DatasetStatement> {
    let mut parser = parser(text)?;
    let begins = take(&mut parser, &["optimize", "table"]) || take(&mut parser, &["optimize"]);
    let table = table(&mut parser).filter(|_| begins)?;
    is_at_end(&parser).then_some(DatasetStatement::Optimize { table })
}

fn vacuum(text: &str) -> Option<DatasetStatement> {
    let mut parser = parser(text)?;
    let begins = take(&mut parser, &["vacuum", "table"]) || take(&mut parser, &["vacuum"]);
    let table = table(&mut parser).filter(|_| begins)?;
    let mut hours = None;
    if take(&mut parser, &["retain"]) {
        hours = Some(parser.parse_literal_uint().ok()?);
        if !take(&mut parser, &["hours"]) && !take(&mut parser, &["hour"]) {
            return None;
        }
    }
    let dry_run = take(&mut parser, &["dry", "run"]);
    is_at_end(&parser).then_some(DatasetStatement::Vacuum { table, hours, dry_run })
}

fn create_as(text: &str) -> Result<DatasetStatement> {
    let usage = || {
        Error::invalid(
            "the SQL is wrong: write CREATE TABLE name STORED AS DELTA PARTITIONED BY (column) LOCATION '…' AS SELECT …, or CREATE \
             EXTERNAL TABLE name (columns) STORED AS DELTA LOCATION '…' for a table without rows",
        )
    };
    let mut parser = parser(text).ok_or_else(usage)?;
    let or_replace = take(&mut parser, &["create", "or", "replace", "table"]);
    if !or_replace && !take(&mut parser, &["create", "table"]) {
        return Err(usage());
    }
    let if_not_exists = take(&mut parser, &["if", "not", "exists"]);
    let name = table(&mut parser).ok_or_else(usage)?;
    let (mut is_delta, mut location, mut partition_by) = (false, None, Vec::new());
    loop {
        if take(&mut parser, &["stored", "as", "delta"]) {
            is_delta = true;
        } else if take(&mut parser, &["location"]) {
            location = Some(parser.parse_literal_string().map_err(|_| usage())?);
        } else if take(&mut parser, &["partitioned", "by"]) {
            let names = parser.parse_parenthesized(|parser| parser.parse_comma_separated(Parser::parse_identifier));
            let names = names.map_err(|_| usage())?;
            partition_by = names
                .into_iter()
                .map(|name| if name.quote_style.is_some() { name.value } else { name.value.to_lowercase() })
                .collect();
        } else {
            break;
        }
    }
    let (Some(location), true, true) = (location, is_delta, parser.parse_keyword(Keyword::AS)) else {
        return Err(usage());
    };
    let query = parser.parse_query().map_err(|e| Error::invalid(format!("the SQL is wrong: {e}")))?;
    if !is_at_end(&parser) {
        return Err(usage());
    }
    let create = CreateAs { name, or_replace, if_not_exists, partition_by, location, query };
    Ok(DatasetStatement::CreateAs(Box::new(create)))
}

impl CreateAs {
    /// Its query as a statement.
    pub(super) fn query(&self) -> Statement {
        Statement::Statement(Box::new(Sql::Query(self.query.clone())))
    }
}

/// The table as it is named in the catalogue's definitions.
pub(super) fn definition(name: &TableReference, location: &str) -> Result<String> {
    let quoted = format!("'{}'", location.replace('\'', "''"));
    let text = format!("CREATE EXTERNAL TABLE {} STORED AS DELTA LOCATION {quoted}", name.to_quoted_string());
    // What is kept must be read again.
    statements::parse_one(&text)?;
    Ok(text)
}

/// Wraps DataFusion's answer.
pub(super) fn planned<T>(result: datafusion::error::Result<T>) -> Result<T> {
    result.map_err(|e| from_datafusion(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_from_others() -> Result<()> {
        let t = || TableReference::bare("t");
        assert_eq!(
            parse("DESCRIBE HISTORY t LIMIT 3")?,
            Some(DatasetStatement::History { table: t(), limit: Some(3) })
        );
        assert_eq!(parse("describe history")?, None);
        assert_eq!(
            parse("RESTORE TABLE T TO VERSION AS OF 12")?,
            Some(DatasetStatement::Restore { table: t(), at: AsOf::Version(12) })
        );
        assert_eq!(
            parse("vacuum s.t retain 0 hours dry run")?,
            Some(DatasetStatement::Vacuum { table: TableReference::partial("s", "t"), hours: Some(0), dry_run: true })
        );
        assert_eq!(parse("OPTIMIZE t")?, Some(DatasetStatement::Optimize { table: t() }));
        for other in [
            "SELECT 1",
            "INSERT INTO t VALUES (1)",
            "INSERT INTO t SELECT x FROM partition",
            "CREATE TABLE t AS SELECT 1",
        ] {
            assert_eq!(parse(other)?, None, "{other}");
        }
        for wrong in ["VACUUM", "RESTORE t", "OPTIMIZE t WHERE x", "INSERT OVERWRITE t PARTITION (a > 1) SELECT 1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        Ok(())
    }

    #[test]
    fn a_table_is_made_of_a_query() -> Result<()> {
        let text = "CREATE TABLE IF NOT EXISTS s.t STORED AS DELTA PARTITIONED BY (Day, \"K\") LOCATION '/x' AS SELECT 1 AS day";
        let Some(DatasetStatement::CreateAs(create)) = parse(text)? else { return Err(Error::invalid(text)) };
        assert_eq!((create.if_not_exists, create.or_replace, create.location.as_str()), (true, false, "/x"));
        assert_eq!(create.partition_by, ["day", "K"]);
        assert_eq!(create.query.to_string(), "SELECT 1 AS day");
        assert!(parse("CREATE TABLE t STORED AS DELTA AS SELECT 1").is_err());
        Ok(())
    }
}
