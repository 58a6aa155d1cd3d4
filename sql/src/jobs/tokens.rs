//! A statement's tokens, read one after the other; errors point at the one that was not expected.

use datafusion::common::TableReference;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};
use tidemill_core::{Error, Place, Result};

use super::statement::At;
use crate::session::{dialect, place_of};

/// Tokens of a text.
pub(super) struct Tokens<'a> {
    text: &'a str,
    tokens: Vec<TokenWithSpan>,
    at: usize,
}

impl<'a> Tokens<'a> {
    /// The tokens of a statement, without whitespace and comments.
    pub(super) fn of(text: &'a str) -> Result<Self> {
        let dialect = dialect()?;
        let tokens = Tokenizer::new(dialect.as_ref(), text).tokenize_with_location().map_err(|e| {
            Error::invalid(format!("the SQL cannot be read: {e}")).at(place_of(e.location.line, e.location.column))
        })?;
        let is_read = |token: &TokenWithSpan| !matches!(token.token, Token::Whitespace(_) | Token::EOF);
        Ok(Self { text, tokens: tokens.into_iter().filter(is_read).collect(), at: 0 })
    }

    fn token(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|token| &token.token)
    }

    fn word(&self, ahead: usize) -> Option<&Word> {
        match self.tokens.get(self.at + ahead).map(|token| &token.token) {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    /// Where the next token begins, or the last one ends.
    pub(super) fn place(&self) -> Option<Place> {
        let next = self.tokens.get(self.at).map(|token| token.span.start);
        let at = next.or_else(|| self.tokens.last().map(|last| last.span.end))?;
        place_of(at.line, at.column)
    }

    /// The next token as it is shown in messages.
    fn found(&self) -> String {
        self.token().map_or_else(|| "the end".to_owned(), |token| format!("`{token}`"))
    }

    /// What is wrong with the next token.
    pub(super) fn expected(&self, what: &str) -> Error {
        Error::invalid(format!("{what} is expected here, and {} is there", self.found())).at(self.place())
    }

    /// Whether these words come next.
    pub(super) fn are_next(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(ahead, expected)| {
            self.word(ahead).is_some_and(|word| word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected))
        })
    }

    /// Takes these words, if they come next.
    pub(super) fn take(&mut self, words: &[&str]) -> bool {
        let are_next = self.are_next(words);
        self.at += if are_next { words.len() } else { 0 };
        are_next
    }

    /// Takes these words, which must come next.
    pub(super) fn expect(&mut self, words: &[&str]) -> Result<()> {
        for word in words {
            if !self.take(&[*word]) {
                return Err(self.expected(word));
            }
        }
        Ok(())
    }

    /// Takes a sign, if it comes next.
    pub(super) fn take_sign(&mut self, sign: &Token) -> bool {
        let is_next = self.token() == Some(sign);
        self.at += usize::from(is_next);
        is_next
    }

    /// Takes a sign, which must come next.
    pub(super) fn expect_sign(&mut self, sign: &Token) -> Result<()> {
        if self.take_sign(sign) { Ok(()) } else { Err(self.expected(&format!("`{sign}`"))) }
    }

    /// The next word in capitals.
    pub(super) fn next_word(&self) -> Option<String> {
        self.word(0).filter(|word| word.quote_style.is_none()).map(|word| word.value.to_uppercase())
    }

    /// A name, folded as SQL folds names.
    pub(super) fn name(&mut self, what: &str) -> Result<At<String>> {
        let place = self.place();
        let name = self.word(0).map(|word| match word.quote_style {
            Some(_) => word.value.clone(),
            None => word.value.to_lowercase(),
        });
        let Some(value) = name else { return Err(self.expected(what)) };
        self.at += 1;
        Ok(At { value, place })
    }

    /// The name of a table.
    pub(super) fn table(&mut self, what: &str) -> Result<At<TableReference>> {
        let mut parts = vec![self.name(what)?];
        while self.take_sign(&Token::Period) {
            parts.push(self.name(what)?);
        }
        let place = parts.first().and_then(|part| part.place);
        let parts: Vec<String> = parts.into_iter().map(|part| part.value).collect();
        let value = match parts.as_slice() {
            [table] => TableReference::bare(table.as_str()),
            [schema, table] => TableReference::partial(schema.as_str(), table.as_str()),
            [catalog, schema, table] => TableReference::full(catalog.as_str(), schema.as_str(), table.as_str()),
            _ => return Err(Error::invalid("the name of a table has at most three parts").at(place)),
        };
        Ok(At { value, place })
    }

    /// Names of tables, divided by commas.
    pub(super) fn tables(&mut self, what: &str) -> Result<Vec<At<TableReference>>> {
        let mut tables = vec![self.table(what)?];
        while self.take_sign(&Token::Comma) {
            tables.push(self.table(what)?);
        }
        Ok(tables)
    }

    /// A text between quotes.
    pub(super) fn text(&mut self, what: &str) -> Result<At<String>> {
        let place = self.place();
        let Some(Token::SingleQuotedString(text)) = self.token() else {
            return Err(self.expected(&format!("{what} between quotes")));
        };
        let value = text.clone();
        self.at += 1;
        Ok(At { value, place })
    }

    /// A whole number.
    pub(super) fn number<N: std::str::FromStr>(&mut self, what: &str) -> Result<N> {
        let number = match self.token() {
            Some(Token::Number(digits, false)) => digits.parse().ok(),
            _ => None,
        };
        let Some(number) = number else { return Err(self.expected(what)) };
        self.at += 1;
        Ok(number)
    }

    /// The value of a setting: a text, a number, or a word.
    pub(super) fn value(&mut self) -> Result<At<String>> {
        let place = self.place();
        let value = match self.token() {
            Some(Token::SingleQuotedString(text)) => text.clone(),
            Some(Token::Number(digits, _)) => digits.clone(),
            Some(Token::Word(word)) if word.quote_style.is_some() => word.value.clone(),
            Some(Token::Word(word)) => word.value.to_lowercase(),
            _ => return Err(self.expected("a value")),
        };
        self.at += 1;
        Ok(At { value, place })
    }

    /// The text between parentheses, as it was typed, without a comment at its end: that would go on behind the `)` where it is
    /// written again.
    pub(super) fn parenthesised(&mut self, what: &str) -> Result<At<String>> {
        self.expect_sign(&Token::LParen)?;
        let (place, from) = (self.place(), self.tokens.get(self.at).map(|token| token.span.start));
        let mut depth = 0_usize;
        loop {
            match self.token() {
                Some(Token::LParen) => depth += 1,
                Some(Token::RParen) if depth == 0 => break,
                Some(Token::RParen) => depth -= 1,
                Some(_) => {}
                None => return Err(self.expected("`)`")),
            }
            self.at += 1;
        }
        let last = self.at.checked_sub(1).and_then(|last| self.tokens.get(last));
        let to = last.map(|token| token.span.end);
        let value = from.zip(to).map(|(from, to)| self.between(from, Some(to)).trim().to_owned()).unwrap_or_default();
        if value.is_empty() {
            return Err(self.expected(what));
        }
        self.at += 1;
        Ok(At { value, place })
    }

    /// All that follows, as it was typed.
    pub(super) fn rest(&mut self, what: &str) -> Result<At<String>> {
        let place = self.place();
        let Some(from) = self.tokens.get(self.at).map(|token| token.span.start) else {
            return Err(self.expected(what));
        };
        self.at = self.tokens.len();
        Ok(At { value: self.between(from, None).trim_end().trim_end_matches(';').trim_end().to_owned(), place })
    }

    /// Nothing may follow.
    pub(super) fn end(&mut self) -> Result<()> {
        while self.take_sign(&Token::SemiColon) {}
        if self.token().is_none() { Ok(()) } else { Err(self.expected("the end of the statement")) }
    }

    fn between(&self, from: Location, to: Option<Location>) -> &'a str {
        let end = to.map_or(self.text.len(), |to| offset(self.text, to));
        self.text.get(offset(self.text, from)..end).unwrap_or_default()
    }
}

/// Where in bytes a line and a character of it begin, both counted from 1.
pub(super) fn offset(text: &str, at: Location) -> usize {
    let (mut line, mut column) = (1, 1);
    for (offset, character) in text.char_indices() {
        if (line, column) == (at.line, at.column) {
            return offset;
        }
        match character {
            '\n' => (line, column) = (line + 1, 1),
            _ => column += 1,
        }
    }
    text.len()
}
