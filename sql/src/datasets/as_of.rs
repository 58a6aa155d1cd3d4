//! `t VERSION AS OF 3` and `t TIMESTAMP AS OF '…'`: which the parser's dialect does not know. They become names.
//!
//! ```text
//! FROM s.t VERSION AS OF 3      →   FROM s."t VERSION AS OF 3" AS "t"
//! FROM t VERSION AS OF 3 AS x   →   FROM "t VERSION AS OF 3" AS x
//! ```

use std::borrow::Cow;

use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::keywords::{Keyword, RESERVED_FOR_TABLE_ALIAS};
use datafusion::sql::sqlparser::tokenizer::{Token, Word};
use tidemill_core::{Error, Result};

use crate::session::tokens::{tokens, written};

const VERSION: &str = " VERSION AS OF ";
const TIMESTAMP: &str = " TIMESTAMP AS OF ";

/// Which version of a table is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AsOf {
    /// The newest when the statement is planned.
    Newest,
    /// That one.
    Version(u64),
    /// The newest at that time.
    Time(String),
}

impl AsOf {
    /// A name of a table, and which version is meant.
    pub(crate) fn of_name(name: &str) -> Result<(&str, Self)> {
        if let Some((table, number)) = name.rsplit_once(VERSION) {
            let number =
                number.parse().map_err(|_| Error::invalid(format!("`{number}` is no version: write a number")))?;
            return Ok((table, Self::Version(number)));
        }
        match name.rsplit_once(TIMESTAMP) {
            Some((table, time)) => Ok((table, Self::Time(time.to_owned()))),
            None => Ok((name, Self::Newest)),
        }
    }
}

/// The table's own name.
pub(crate) fn table_name(name: &str) -> &str {
    AsOf::of_name(name).map_or(name, |(table, _)| table)
}

/// The name of a version of a table.
pub(super) fn version_name(table: &str, number: u64) -> String {
    format!("{table}{VERSION}{number}")
}

/// A time in milliseconds since 1970; without a zone it is UTC.
pub(super) fn millis(time: &str) -> Result<i64> {
    use arrow::datatypes::{DataType, TimeUnit};
    let kind = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    match ScalarValue::try_from_string(time.to_owned(), &kind) {
        Ok(ScalarValue::TimestampMillisecond(Some(millis), _)) => Ok(millis),
        _ => Err(Error::invalid(format!("`{time}` is no time: write TIMESTAMP AS OF '2026-01-31T12:00:00Z'"))),
    }
}

/// The text with names in the place of versions.
pub(crate) fn named(text: &str) -> Cow<'_, str> {
    if !text.as_bytes().windows(2).any(|word| word.eq_ignore_ascii_case(b"of")) {
        return Cow::Borrowed(text);
    }
    let Ok(tokens) = tokens(text) else {
        return Cow::Borrowed(text);
    };
    let mut out: Vec<Token> = Vec::with_capacity(tokens.len());
    let (mut position, mut changed) = (0, false);
    while position < tokens.len() {
        match clause(&tokens, position, &out) {
            Some(found) => {
                changed = true;
                apply(&mut out, &tokens, found);
                position = found.end;
            }
            None => {
                out.extend(tokens.get(position).cloned());
                position += 1;
            }
        }
    }
    if !changed {
        return Cow::Borrowed(text);
    }
    Cow::Owned(written(&out))
}

/// A clause that begins at a token.
#[derive(Debug, Clone, Copy)]
struct Clause {
    kind: &'static str,
    /// Where its number or time stands.
    value: usize,
    /// The first token behind it.
    end: usize,
}

fn clause(tokens: &[Token], start: usize, before: &[Token]) -> Option<Clause> {
    let first = tokens.get(start)?;
    let kind = [("version", VERSION), ("timestamp", TIMESTAMP)].into_iter().find(|(word, _)| is_word(first, word))?.1;
    // A name stands before it.
    let last = before.iter().rev().find(|token| !matches!(token, Token::Whitespace(_)))?;
    // RESTORE TABLE t TO VERSION AS OF n has none.
    if is_word(last, "to") || !matches!(last, Token::Word(word) if word.quote_style.is_some() || !is_reserved(word)) {
        return None;
    }
    let next = |from: usize| (from..tokens.len()).find(|at| !matches!(tokens.get(*at), Some(Token::Whitespace(_))));
    let (second, third) = (next(start + 1)?, next(next(start + 1)? + 1)?);
    if !is_word(tokens.get(second)?, "as") || !is_word(tokens.get(third)?, "of") {
        return None;
    }
    let value = next(third + 1)?;
    let fits = match tokens.get(value)? {
        Token::Number(_, false) => kind == VERSION,
        Token::SingleQuotedString(_) => kind == TIMESTAMP,
        _ => false,
    };
    fits.then_some(Clause { kind, value, end: value + 1 })
}

fn apply(out: &mut Vec<Token>, tokens: &[Token], clause: Clause) {
    let Some(place) = out.iter().rposition(|token| !matches!(token, Token::Whitespace(_))) else { return };
    out.truncate(place + 1);
    let Some(Token::Word(word)) = out.pop() else { return };
    // What stands without quotes is of lower case.
    let table = if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() };
    let value = match tokens.get(clause.value) {
        Some(Token::Number(number, _)) => number.clone(),
        Some(Token::SingleQuotedString(time)) => time.clone(),
        _ => return,
    };
    out.push(quoted(format!("{table}{}{value}", clause.kind)));
    let rest = tokens.get(clause.end..).unwrap_or_default();
    let has_alias = match rest.iter().find(|token| !matches!(token, Token::Whitespace(_))) {
        Some(Token::Word(next)) => next.keyword == Keyword::AS || next.quote_style.is_some() || !is_reserved(next),
        _ => false,
    };
    if !has_alias {
        let space = || Token::Whitespace(datafusion::sql::sqlparser::tokenizer::Whitespace::Space);
        out.extend([space(), Token::make_keyword("AS"), space(), quoted(table)]);
    }
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

fn is_reserved(word: &Word) -> bool {
    RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword)
}

fn quoted(name: String) -> Token {
    Token::make_word(&name, Some('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_become_names_and_nothing_else_does() {
        for (text, expected) in [
            ("SELECT * FROM t VERSION AS OF 3", "SELECT * FROM \"t VERSION AS OF 3\" AS \"t\""),
            ("SELECT * FROM s.T version as of 3 WHERE x", "SELECT * FROM s.\"t VERSION AS OF 3\" AS \"t\" WHERE x"),
            ("SELECT * FROM t VERSION AS OF 3 AS x", "SELECT * FROM \"t VERSION AS OF 3\" AS x"),
            ("SELECT * FROM t VERSION AS OF 3 x", "SELECT * FROM \"t VERSION AS OF 3\" x"),
            (
                "SELECT * FROM \"T\" TIMESTAMP AS OF '2026-01-01' JOIN u ON true",
                "SELECT * FROM \"T TIMESTAMP AS OF 2026-01-01\" AS \"T\" JOIN u ON true",
            ),
        ] {
            assert_eq!(named(text), expected);
        }
        for plain in [
            "SELECT version AS of FROM t",
            "RESTORE TABLE t TO VERSION AS OF 3",
            "SELECT 'a VERSION AS OF 3'",
            "SELECT timestamp '2026-01-01' AS of",
            "SELECT * FROM t VERSION AS OF x",
        ] {
            assert_eq!(named(plain), plain);
        }
        assert_eq!(AsOf::of_name("t VERSION AS OF 3").ok(), Some(("t", AsOf::Version(3))));
        assert_eq!(millis("1970-01-01T00:00:01Z").ok(), Some(1_000));
        assert_eq!(millis("1970-01-01 01:00:01+01:00").ok(), Some(1_000));
        assert!(millis("yesterday").is_err());
    }
}
