//! What an `INSERT` replaces, which DataFusion's parser does not know.
//!
//! ```text
//! INSERT OVERWRITE t PARTITION (a = 'x') SELECT …                  →   INSERT INTO t SELECT …, and the values
//! INSERT INTO t REPLACE WHERE a >= … AND a < … SELECT …            →   INSERT INTO t SELECT …, and the interval
//! ```

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Statement as Sql, Value};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemill_core::{Error, Result};

use super::statement::{DatasetStatement, MAX_DEPTH};
use crate::session::statements;
use crate::session::tokens::{tokens, written};

/// Which rows are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// Those with these values.
    Values(Vec<(String, Option<String>)>),
    /// Those whose column is from one value to before another.
    Interval { column: String, from: String, to: String },
}

/// An `INSERT` that says what it replaces; `None` for others.
pub(super) fn replace(text: &str) -> Result<Option<DatasetStatement>> {
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
    let Ok(tokens) = tokens(text) else { return Ok(None) };
    let is_word = |at: usize, word: &str| matches!(tokens.get(at), Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word));
    let next = |from: usize| (from..tokens.len()).find(|at| !matches!(tokens.get(*at), Some(Token::Whitespace(_))));
    let place = (0..tokens.len()).find_map(|at| {
        let second = next(at + 1)?;
        (is_word(at, "replace") && is_word(second, "where")).then_some((at, second + 1))
    });
    let Some((start, condition)) = place else { return Ok(None) };
    let (before, rest) = (tokens.get(..start).unwrap_or_default(), tokens.get(condition..).unwrap_or_default());
    let wrong = |e: ParserError| Error::invalid(format!("the SQL is wrong in REPLACE WHERE: {e}"));
    let parser = Parser::new(&GenericDialect {}).with_recursion_limit(MAX_DEPTH);
    // Of the text: what is written in strings is not what they mean.
    let mut parser = parser.try_with_sql(&written(rest)).map_err(wrong)?;
    let expr = parser.parse_expr().map_err(wrong)?;
    let query = rest.get(parser.index()..).unwrap_or_default();
    Ok(Some((format!("{}{}", written(before), written(query)), expr)))
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
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(Some(text.clone())),
        Value::Boolean(value) => Some(Some(value.to_string())),
        Value::Null => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::statement::parse;
    use super::*;

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
        let (insert, replaced) =
            of(r"INSERT INTO t REPLACE WHERE s >= 'it''s' AND s < E'j\t' SELECT 'it''s', E'x\'y'")?;
        assert_eq!(insert, r"INSERT INTO t SELECT 'it''s', E'x\'y'");
        assert_eq!(replaced, Replaced::Interval { column: "s".into(), from: "it's".into(), to: "j\t".into() });
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
}
