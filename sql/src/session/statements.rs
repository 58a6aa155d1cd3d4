//! Text to statements, by the parser's tokens and never by searching for `;`.

use std::borrow::Cow;
use std::collections::VecDeque;

use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParser, DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, dialect_from_str};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use tidemill_core::{Error, Place, Result};
use tidemill_engine::error::from_datafusion;

use super::{temporary, tokens};
use crate::datasets;

/// The dialect of Tidemill's SQL: DataFusion's default.
const DIALECT: &str = "generic";
/// Nested expressions and subqueries beyond this are refused, with a message instead of a crash.
const MAX_DEPTH: usize = 512;

pub(crate) fn dialect() -> Result<Box<dyn Dialect>> {
    dialect_from_str(DIALECT).ok_or_else(|| Error::internal(format!("there is no dialect {DIALECT}")))
}

/// Divides text into its statements, without the `;`. Comments and blank statements are dropped.
///
/// # Errors
/// The text cannot be tokenised: a string or comment does not end.
pub fn split(text: &str) -> Result<Vec<String>> {
    let tokens = tokens::with_places(text).map_err(|e| {
        let place = place(e.location.line, e.location.column);
        Error::invalid(format!("the SQL cannot be read: {e}")).at(place)
    })?;
    let mut statements = Vec::new();
    let mut current = String::new();
    let mut meaningful = false;
    for token in tokens {
        match &token.token {
            Token::SemiColon => {
                take_statement(&mut statements, &mut current, &mut meaningful);
                continue;
            }
            Token::Whitespace(_) | Token::EOF => {}
            _ => meaningful = true,
        }
        current.push_str(&token.token.to_string());
    }
    take_statement(&mut statements, &mut current, &mut meaningful);
    Ok(statements)
}

fn take_statement(statements: &mut Vec<String>, current: &mut String, meaningful: &mut bool) {
    if *meaningful {
        statements.push(current.trim().to_owned());
    }
    current.clear();
    *meaningful = false;
}

/// Whether the text looks as if it asks only about the cluster or the catalogue.
pub(super) fn is_express(text: &str) -> bool {
    let mut words = words(text);
    let asks = ["show", "describe", "desc", "explain", "drop", "ingest"];
    if crate::jobs::is_begun_by(text) {
        return true;
    }
    let first = words.next().unwrap_or_default();
    let rest: Vec<String> = words.collect();
    if first == "explain" && rest.iter().take(2).any(|word| word == "analyze") {
        return false;
    }
    asks.contains(&first.as_str())
        || rest.iter().any(|word| word == super::system::SCHEMA || word == "information_schema")
}

/// Whether the text begins as if it changed anything: what is not known to ask only.
pub fn may_change(text: &str) -> bool {
    let asks = ["select", "with", "values", "from", "table", "show", "describe", "desc", "explain", "set", "reset"];
    words(text).next().is_some_and(|first| !asks.contains(&first.as_str()))
}

/// Whether that is the text's first word, in lower case.
pub(super) fn begins_with(text: &str, word: &str) -> bool {
    words(text).next().is_some_and(|first| first == word)
}

/// The text with its placeholders numbered: `?` and `?` become `$1` and `$2`, by the parser's tokens.
///
/// # Errors
/// It cannot be tokenised, or it has both kinds of placeholders.
pub fn numbered(text: &str) -> Result<String> {
    let tokens = tokens::tokens(text).map_err(|e| Error::invalid(format!("the SQL cannot be read: {e}")))?;
    let is_bare = |token: &Token| matches!(token, Token::Placeholder(sign) if sign == "?");
    let is_other = |token: &Token| matches!(token, Token::Placeholder(sign) if sign != "?");
    if !tokens.iter().any(is_bare) {
        return Ok(text.to_owned());
    }
    if let Some(other) = tokens.iter().find(|token| is_other(token)) {
        return Err(Error::invalid(format!("`?` and `{other}` are mixed: use one kind of placeholder")));
    }
    let mut position = 0;
    let numbered = tokens.iter().map(|token| match is_bare(token) {
        true => {
            position += 1;
            format!("${position}")
        }
        false => token.to_string(),
    });
    Ok(numbered.collect())
}

/// Its words in lower case, without strings, numbers and signs; none if it cannot be read.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> + use<> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().unwrap_or_default();
    tokens.into_iter().filter_map(|token| match token {
        Token::Word(word) => Some(word.value.to_lowercase()),
        _ => None,
    })
}

/// Parses exactly one statement.
///
/// # Errors
/// The text is no statement, or several.
pub fn parse_one(text: &str) -> Result<Statement> {
    let mut statements = parse(text)?;
    match (statements.pop_front(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (None, _) => Err(Error::invalid("the statement is empty")),
        (Some(_), false) => Err(Error::invalid("one statement was expected, not several")),
    }
}

fn parse(text: &str) -> Result<VecDeque<Statement>> {
    let dialect = dialect()?;
    let text = temporary::in_datafusions_order(text);
    let text = datafusions_formats(&text);
    let text = datasets::named(&text);
    let parser =
        DFParserBuilder::new(text.as_ref()).with_dialect(dialect.as_ref()).with_recursion_limit(MAX_DEPTH).build();
    let mut parser: DFParser<'_> = parser.map_err(|e| wrong(&e))?;
    parser.parse_statements().map_err(|e| wrong(&e))
}

/// `EXPLAIN (FORMAT JSON)` in the parser's words, which knows JSON as PGJSON only.
fn datafusions_formats(text: &str) -> Cow<'_, str> {
    if !text.as_bytes().windows(4).any(|word| word.eq_ignore_ascii_case(b"json")) {
        return Cow::Borrowed(text);
    }
    let Ok(mut tokens) = tokens::tokens(text) else {
        return Cow::Borrowed(text);
    };
    let is_word = |token: &Token, word: &str| matches!(token, Token::Word(w) if w.value.eq_ignore_ascii_case(word));
    let mut meaningful = tokens.iter_mut().filter(|token| !matches!(token, Token::Whitespace(_))).peekable();
    if !meaningful.peek().is_some_and(|first| is_word(first, "explain")) {
        return Cow::Borrowed(text);
    }
    // Behind its options comes the statement.
    let statements = ["select", "with", "values", "from", "table", "copy", "create", "insert", "show", "describe"];
    let is_option = |token: &Token| *token != Token::RParen && !statements.iter().any(|word| is_word(token, word));
    let options = meaningful.take_while(|token| is_option(token));
    let mut before = false;
    for token in options {
        if before && is_word(token, "json") {
            *token = Token::make_word("PGJSON", None);
        }
        before = is_word(token, "format");
    }
    Cow::Owned(tokens::written(&tokens))
}

fn wrong(error: &DataFusionError) -> Error {
    let message = error.strip_backtrace();
    let message = message.trim_start_matches("SQL error: ").trim_start_matches("ParserError(\"");
    let message = message.trim_end_matches("\")");
    let place = from_datafusion(error).place.or_else(|| parsers_place(message));
    Error::invalid(format!("the SQL is wrong: {message}")).at(place)
}

/// The place that ends a message of the parser, which has it nowhere else.
fn parsers_place(message: &str) -> Option<Place> {
    let (_, place_of_error) = message.rsplit_once(" at Line: ")?;
    let (line, column) = place_of_error.split_once(", Column: ")?;
    place(line.parse().ok()?, column.trim_end_matches('.').parse().ok()?)
}

/// Both from 1.
pub(crate) fn place(line: u64, column: u64) -> Option<Place> {
    let (line, column) = (u32::try_from(line).ok()?, u32::try_from(column).ok()?);
    (line > 0 && column > 0).then_some(Place { line, column })
}

#[cfg(test)]
mod tests {
    use super::{numbered, split};

    #[test]
    fn statements_are_divided_where_no_string_goes_on() {
        let text = r"SELECT E'x\' AS a; 42 AS b --' AS c; -- end
            SELECT ';', 'größe' ;; /* ; */";
        let expected = [r"SELECT E'x\' AS a; 42 AS b --' AS c", "-- end\n            SELECT ';', 'größe'"];
        assert_eq!(split(text).map_err(|e| e.message), Ok(expected.map(str::to_owned).to_vec()));
    }

    #[test]
    fn placeholders_are_numbered_and_nothing_else_is_touched() {
        let numbered = |text: &str| numbered(text).map_err(|e| e.message);
        assert_eq!(
            numbered("SELECT ?, '?' || \"a?\" -- ?\nFROM t WHERE x = ? AND s = 'it''s'"),
            Ok("SELECT $1, '?' || \"a?\" -- ?\nFROM t WHERE x = $2 AND s = 'it''s'".to_owned())
        );
        assert_eq!(numbered("SELECT $2, $1"), Ok("SELECT $2, $1".to_owned()));
        assert!(numbered("SELECT ?, $1").is_err_and(|message| message.contains("mixed")));
    }
}
