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
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Query, Statement as Sql, Value};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use tidemill_core::{Error, Result};
use tidemill_engine::error::from_datafusion;

use super::as_of::{AsOf, named};
use crate::session::statements;

/// Nested expressions and subqueries beyond this are refused.
const MAX_DEPTH: usize = 512;

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

/// Which rows are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// Those with these values.
    Values(Vec<(String, Option<String>)>),
    /// Those whose column is from one value to before another.
    Interval { column: String, from: String, to: String },
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

/// An `INSERT` that says what it replaces; `None` for others.
fn replace(text: &str) -> Result<Option<DatasetStatement>> {
    if let Some((rest, condition)) = without_condition(text)? {
        let insert = statements::parse_one(&rest)?;
        return Ok(Some(DatasetStatement::Replace { insert: Box::new(insert), replaced: replaced(&condition)? }));
    }
    if !statements::words(text).any(|word| word == "partition") {
        return Ok(None);
    }
    let mut insert = statements::parse_one(text)?;
    let Statement::Statement(sql) = &mut insert else { return Ok(None) };
    let Sql::Insert(inner) = sql.as_mut() else { return Ok(None) };
    let Some(partitions) = inner.partitioned.take() else { return Ok(None) };
    if !inner.overwrite {
        return Err(Error::invalid(
            "PARTITION says what INSERT OVERWRITE replaces: INSERT INTO adds rows wherever they belong",
        ));
    }
    (inner.overwrite, inner.into) = (false, true);
    let values: Option<Vec<_>> = partitions.iter().map(equality).collect();
    let values = values.filter(|values| is_each_once(values)).ok_or_else(|| {
        Error::invalid("write PARTITION (column = value), and with AND or a comma more of them, each column once")
    })?;
    Ok(Some(DatasetStatement::Replace { insert: Box::new(insert), replaced: Replaced::Values(values) }))
}

/// The statement without `REPLACE WHERE …`, and the condition.
fn without_condition(text: &str) -> Result<Option<(String, Expr)>> {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, text).with_unescape(false).tokenize() else { return Ok(None) };
    let is_word = |at: usize, word: &str| matches!(tokens.get(at), Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word));
    let next = |from: usize| (from..tokens.len()).find(|at| !matches!(tokens.get(*at), Some(Token::Whitespace(_))));
    let place = (0..tokens.len()).find_map(|at| {
        let second = next(at + 1)?;
        (is_word(at, "replace") && is_word(second, "where")).then_some((at, second + 1))
    });
    let Some((start, condition)) = place else { return Ok(None) };
    let (before, rest) = (tokens.get(..start).unwrap_or_default(), tokens.get(condition..).unwrap_or_default());
    let mut parser = Parser::new(&GenericDialect {}).with_recursion_limit(MAX_DEPTH).with_tokens(rest.to_vec());
    let expr = parser.parse_expr().map_err(|e| Error::invalid(format!("the SQL is wrong in REPLACE WHERE: {e}")))?;
    let query = rest.get(parser.index()..).unwrap_or_default();
    let text: String = before.iter().chain(query).map(Token::to_string).collect();
    Ok(Some((text, expr)))
}

/// Which rows a condition means: equalities, or one column's interval.
fn replaced(condition: &Expr) -> Result<Replaced> {
    let unclear = || {
        Error::invalid(
            "REPLACE WHERE takes an interval, column >= value AND column < value, or values, column = value AND …: write one of these",
        )
    };
    let mut parts = Vec::new();
    conjuncts(condition, &mut parts);
    if let Some(values) = parts.iter().map(|part| equality(part)).collect::<Option<Vec<_>>>() {
        // Nothing equals NULL, and no row has two values: others' rows would be replaced.
        let has_value = values.iter().zip(&parts).all(|((_, value), part)| match value {
            Some(_) => true,
            None => matches!(part, Expr::IsNull(_)),
        });
        return if has_value && is_each_once(&values) { Ok(Replaced::Values(values)) } else { Err(unclear()) };
    }
    let [first, second] = parts.as_slice() else { return Err(unclear()) };
    let bound = |part: &Expr, wanted: &BinaryOperator| match part {
        Expr::BinaryOp { left, op, right } if op == wanted => Some((column(left)?, literal(right)??)),
        _ => None,
    };
    let (least, beyond) = (BinaryOperator::GtEq, BinaryOperator::Lt);
    let found =
        bound(first, &least).zip(bound(second, &beyond)).or_else(|| bound(second, &least).zip(bound(first, &beyond)));
    match found {
        Some(((column, from), (other, to))) if column == other => Ok(Replaced::Interval { column, from, to }),
        _ => Err(unclear()),
    }
}

/// Whether no column has two values.
fn is_each_once(values: &[(String, Option<String>)]) -> bool {
    let columns: std::collections::BTreeSet<&String> = values.iter().map(|(column, _)| column).collect();
    columns.len() == values.len()
}

fn conjuncts<'a>(expr: &'a Expr, into: &mut Vec<&'a Expr>) {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(left, into);
            conjuncts(right, into);
        }
        Expr::Nested(inner) => conjuncts(inner, into),
        other => into.push(other),
    }
}

/// `column = value`, or `column IS NULL`.
fn equality(expr: &Expr) -> Option<(String, Option<String>)> {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => Some((column(left)?, literal(right)?)),
        Expr::IsNull(inner) => Some((column(inner)?, None)),
        _ => None,
    }
}

fn column(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) if name.quote_style.is_some() => Some(name.value.clone()),
        Expr::Identifier(name) => Some(name.value.to_lowercase()),
        _ => None,
    }
}

/// A literal's text; inside, `None` for NULL.
fn literal(expr: &Expr) -> Option<Option<String>> {
    let value = match expr {
        Expr::Value(value) => &value.value,
        Expr::TypedString(typed) => &typed.value.value,
        Expr::UnaryOp { op: datafusion::sql::sqlparser::ast::UnaryOperator::Minus, expr } => {
            return literal(expr)?.map(|text| Some(format!("-{text}")));
        }
        _ => return None,
    };
    match value {
        Value::Number(number, _) => Some(Some(number.clone())),
        Value::SingleQuotedString(text) => Some(Some(text.clone())),
        Value::Boolean(value) => Some(Some(value.to_string())),
        Value::Null => Some(None),
        _ => None,
    }
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
    fn what_is_replaced_is_taken_out_of_the_statement() -> Result<()> {
        let of = |text: &str| match parse(text)? {
            Some(DatasetStatement::Replace { insert, replaced }) => Ok((insert.to_string(), replaced)),
            other => Err(Error::invalid(format!("{other:?}"))),
        };
        let (insert, replaced) =
            of("INSERT INTO t REPLACE WHERE day >= '2026-01-01' AND day < DATE '2026-01-02' SELECT * FROM u")?;
        assert_eq!(insert, "INSERT INTO t SELECT * FROM u");
        let interval = Replaced::Interval { column: "day".into(), from: "2026-01-01".into(), to: "2026-01-02".into() };
        assert_eq!(replaced, interval);
        let (insert, replaced) = of("INSERT OVERWRITE t PARTITION (a = 'x', b = -1) SELECT * FROM u")?;
        assert_eq!(insert, "INSERT INTO t SELECT * FROM u");
        let values = vec![("a".to_owned(), Some("x".to_owned())), ("b".to_owned(), Some("-1".to_owned()))];
        assert_eq!(replaced, Replaced::Values(values));
        for unclear in [
            "INSERT INTO t REPLACE WHERE day > 1 SELECT 1",
            "INSERT INTO t REPLACE WHERE a = 1 AND a = 2 SELECT 1",
            "INSERT INTO t REPLACE WHERE a = NULL SELECT 1",
            "INSERT OVERWRITE t PARTITION (a = 1, a = 2) SELECT 1",
        ] {
            assert!(of(unclear).is_err(), "{unclear}");
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
