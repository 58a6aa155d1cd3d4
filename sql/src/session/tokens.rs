//! The parser's tokens of a text, for those who write the text again with something else in it.
//!
//! Invariant: tokens that are written one after the other are the text, but for its line ends.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, TokenizerError};

/// Tokens, in which strings and quoted names stand as they do in the text, with whatever escapes something in them.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, TokenizerError> {
    Ok(with_places(text)?.into_iter().map(|token| token.token).collect())
}

/// The same, and where they stand.
pub(super) fn with_places(text: &str) -> Result<Vec<TokenWithSpan>, TokenizerError> {
    let mut tokens = Tokenizer::new(&GenericDialect {}, text).with_unescape(false).tokenize_with_location()?;
    for token in &mut tokens {
        // The tokenizer takes escapes out of these all the same, and writes them without.
        let (within, prefix) = match &mut token.token {
            Token::EscapedStringLiteral(within) => (within, "E'"),
            Token::UnicodeStringLiteral(within) => (within, "U&'"),
            _ => continue,
        };
        let written = byte_at(text, token.span.start).zip(byte_at(text, token.span.end));
        let written = written.and_then(|(start, end)| text.get(start + prefix.len()..end.checked_sub(1)?));
        if let Some(written) = written {
            written.clone_into(within);
        }
    }
    Ok(tokens)
}

/// Tokens as text.
pub(crate) fn written(tokens: &[Token]) -> String {
    tokens.iter().map(Token::to_string).collect()
}

/// The byte at which a line's character begins; both are counted from 1.
fn byte_at(text: &str, place: Location) -> Option<usize> {
    let line = usize::try_from(place.line.checked_sub(1)?).ok()?;
    let column = usize::try_from(place.column.checked_sub(1)?).ok()?;
    let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = text.get(before..)?;
    let within = rest.char_indices().map(|(at, _)| at).chain([rest.len()]).nth(column)?;
    Some(before + within)
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_written_as_they_were_read() {
        for text in [
            r"SELECT E'x\' AS a, 42 AS injected --' AS b",
            r"SELECT e'C:\\new', E'\'', E'a\\', E'it''s', E'größe\n', 1",
            "SELECT 'größe',\n  E'\\t', U&'d\\0061t', 'it''s', \"a\"\"b\", X'00', N'x', $$it's$$, $q$it's$q$ -- end\n, /* x */ 1e5",
            "SELECT 1",
            "",
        ] {
            let expected = text.replace("e'C", "E'C");
            assert_eq!(written(&tokens(text).expect("tokens")), expected);
        }
    }
}
