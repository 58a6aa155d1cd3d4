//! Statements as they may be recorded and shown: values of secret-looking options are hidden.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// Words that make the next string a secret.
const SECRET_WORDS: &[&str] = &["secret", "password", "passwd", "token", "access_key", "credential", "private_key"];

/// Whether what has this name is likely to be a secret.
pub(crate) fn sounds_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Hides the string after a name that sounds secret: `'aws.secret_access_key' '…'`, `password = '…'`.
pub fn redact(statement: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, statement).with_unescape(false).tokenize() else {
        // What cannot be read cannot be judged.
        return "(a statement that cannot be read)".to_owned();
    };
    let mut hide_next = false;
    let shown = tokens.iter().map(|token| {
        let text = match token {
            Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => text.to_lowercase(),
            Token::Word(word) => word.value.to_lowercase(),
            Token::Whitespace(_) | Token::Eq | Token::Colon | Token::RArrow => return token.to_string(),
            other => {
                hide_next = false;
                return other.to_string();
            }
        };
        if hide_next && matches!(token, Token::SingleQuotedString(_) | Token::DoubleQuotedString(_)) {
            hide_next = false;
            return "'***'".to_owned();
        }
        hide_next = sounds_secret(&text);
        token.to_string()
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn option_values_with_secret_names_are_hidden() {
        let shown = redact(
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b/t' OPTIONS ('aws.secret_access_key' 'abc', 'format.delimiter' ';')",
        );
        assert!(!shown.contains("abc"), "{shown}");
        assert!(shown.contains("'format.delimiter' ';'"), "{shown}");
    }

    #[test]
    fn ordinary_statements_stay_as_they_are() {
        let sql = "SELECT token FROM t WHERE name = 'a''b' AND n > 1 -- note";
        assert_eq!(redact(sql), sql);
    }
}
