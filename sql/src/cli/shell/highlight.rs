//! SQL as it is typed: its colours, and whether it has an end.

use std::borrow::Cow;
use std::fmt::Write;

use console::{Style, style};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace};

/// The text in colours; as it is where it cannot be divided.
pub(super) fn highlight(text: &str) -> Cow<'_, str> {
    let (tokens, _) = tokens(text);
    let mut colored = String::with_capacity(2 * text.len());
    let mut rest = text;
    for token in tokens {
        let written = token.token.to_string();
        // Colours must not change what is written.
        let Some(behind) = rest.strip_prefix(written.as_str()) else { return Cow::Borrowed(text) };
        rest = behind;
        let pushed = match color(&token.token) {
            Some(color) => write!(colored, "{}", color.force_styling(true).apply_to(written)),
            None => write!(colored, "{written}"),
        };
        if pushed.is_err() {
            return Cow::Borrowed(text);
        }
    }
    // A string or comment that has no end yet.
    match write!(colored, "{}", style(rest).green().force_styling(true)) {
        Ok(()) => Cow::Owned(colored),
        Err(_) => Cow::Borrowed(text),
    }
}

fn color(token: &Token) -> Option<Style> {
    match token {
        Token::Word(word) if word.quote_style.is_none() && word.keyword != Keyword::NoKeyword => {
            Some(Style::new().blue().bold())
        }
        Token::Number(..) => Some(Style::new().magenta()),
        Token::SingleQuotedString(_) | Token::DollarQuotedString(_) | Token::EscapedStringLiteral(_) => {
            Some(Style::new().green())
        }
        Token::Whitespace(Whitespace::SingleLineComment { .. } | Whitespace::MultiLineComment(_)) => {
            Some(Style::new().dim())
        }
        _ => None,
    }
}

/// Whether Enter ends the text: it is a command, or its last statement has its `;`.
pub(super) fn is_complete(text: &str) -> bool {
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed.starts_with('\\') || super::command::is_leaving(trimmed) {
        return true;
    }
    let (tokens, end) = tokens(text);
    let last = tokens.iter().rev().find(|token| !matches!(token.token, Token::Whitespace(_)));
    end == End::Reached && last.is_none_or(|token| token.token == Token::SemiColon)
}

/// How far the tokens go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Reached,
    /// A string or a comment is open.
    Missing,
}

fn tokens(text: &str) -> (Vec<TokenWithSpan>, End) {
    let mut tokens = Vec::new();
    let read =
        Tokenizer::new(&GenericDialect {}, text).with_unescape(false).tokenize_with_location_into_buf(&mut tokens);
    (tokens, if read.is_ok() { End::Reached } else { End::Missing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_ends_with_its_semicolon() {
        for whole in ["", "SELECT 1;", "SELECT ';' ; -- done", "\\dt", "exit", "SELECT 1;\n\n"] {
            assert!(is_complete(whole), "{whole}");
        }
        for part in ["SELECT 1", "SELECT ';", "SELECT 1 /* ;", "SELECT 1; SELECT 2"] {
            assert!(!is_complete(part), "{part}");
        }
    }

    #[test]
    fn colours_change_no_character() {
        for text in ["SELECT a, 'b''c' FROM \"T\" -- d", "SELECT 'open", "x := 1.5e3 ü", "\\d t"] {
            let colored = highlight(text);
            assert!(colored.contains('\u{1b}'), "{text}");
            assert_eq!(console::strip_ansi_codes(&colored), text);
        }
    }
}
