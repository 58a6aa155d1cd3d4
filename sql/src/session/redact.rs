//! Statements as they may be recorded and shown: values of secret-looking options are hidden, and so are credentials inside
//! other texts.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// Words that make the next string a secret.
const SECRET_WORDS: &[&str] = &[
    "secret",
    "password",
    "passwd",
    "pwd",
    "token",
    "access_key",
    "account_key",
    "accountkey",
    "credential",
    "private_key",
    "connection_string",
    "signature",
    "sas_key",
];
/// The option whose value is a secret's name and no secret.
const NAME_OF_SECRET: &str = "secret";
/// Settings of jobs whose value is an address, or `secret:` and the name of one.
pub(crate) const HOOKS: [&str; 3] = ["on_failure", "on_success", "on_late"];
/// Letters and digits in a row that are taken for a key, if they are mixed.
const KEY_CHARS: usize = 16;
/// The same of small and capital letters only.
const LETTERS_OF_KEY: usize = 24;
/// Digits of a UUID, and of many other keys.
const HEX_OF_KEY: usize = 32;
/// What stands for what is hidden.
const HIDDEN: &str = "***";

/// Whether what has this name is likely to be a secret.
pub(crate) fn sounds_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Whether whoever knows an address needs nothing else: it has a query or a fragment, or a part of its path looks like a key.
pub(crate) fn opens_by_itself(address: &str) -> bool {
    let Some((_, rest)) = address.split_once("://") else { return false };
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    rest.contains(['?', '#']) || path.split('/').any(is_key)
}

/// Whether a part of a path looks drawn, and not chosen.
fn is_key(part: &str) -> bool {
    let digits = part.chars().filter(|c| *c != '-');
    let is_hex = digits.clone().count() >= HEX_OF_KEY && digits.clone().all(|c| c.is_ascii_hexdigit());
    let is_mixed = |run: &str| {
        let [digits, small, capital] = [char::is_ascii_digit, char::is_ascii_lowercase, char::is_ascii_uppercase]
            .map(|is_such: fn(&char) -> bool| run.chars().any(|c| is_such(&c)));
        (run.len() >= KEY_CHARS && digits && (small || capital)) || (run.len() >= LETTERS_OF_KEY && small && capital)
    };
    is_hex || part.split(|c: char| !c.is_ascii_alphanumeric()).any(is_mixed)
}

/// Hides the string after a name that sounds secret (`'aws.secret_access_key' '…'`, `password = '…'`) and what a string itself
/// says after one (`password=…`, `postgres://user:…@host`). Among options, a word or number behind such a name is a value, too.
/// Names of secrets, `OPTIONS (secret 'NAME')`, are shown. So are addresses of webhooks, unless they open by themselves.
pub fn redact(statement: &str) -> String {
    let shown = hidden(statement);
    let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    // Tokens are written with other line ends and blanks than they were read with.
    if bare(&shown) == bare(statement) { statement.to_owned() } else { shown }
}

fn hidden(statement: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, statement).with_unescape(false).tokenize() else {
        // What cannot be read cannot be judged.
        return "(a statement that cannot be read)".to_owned();
    };
    let mut hide_next = false;
    let mut names_next = false;
    let mut hook_next = false;
    let mut options = Options::Elsewhere;
    let shown = tokens.iter().map(|token| {
        let string = string(token);
        options = options.at(token);
        let text = match (string, token) {
            (Some(text), _) => text.to_lowercase(),
            (None, Token::Word(word)) => word.value.to_lowercase(),
            (None, Token::Number(digits, _)) => digits.clone(),
            (None, Token::Whitespace(_)) => return token.to_string(),
            (None, Token::Eq | Token::Colon | Token::RArrow) => {
                names_next = false;
                return token.to_string();
            }
            (None, other) => {
                (hide_next, names_next, hook_next) = (false, false, false);
                return other.to_string();
            }
        };
        let is_hook = std::mem::replace(&mut hook_next, HOOKS.contains(&text.as_str()));
        if is_hook && string.is_some_and(opens_by_itself) {
            (hide_next, names_next) = (false, false);
            return format!("'{HIDDEN}'");
        }
        let is_value = string.is_some() || options == Options::Within;
        if hide_next && is_value && !(names_next && is_name(&text)) {
            (hide_next, names_next) = (false, false);
            return format!("'{HIDDEN}'");
        }
        (hide_next, names_next) = (sounds_secret(&text), text == NAME_OF_SECRET);
        match string.or_else(|| quoted_name(token)).map(|text| (text, inside(text))) {
            Some((text, shown)) if shown != text => format!("'{shown}'"),
            _ => token.to_string(),
        }
    });
    shown.collect()
}

/// Where a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Options {
    Elsewhere,
    /// Behind the word `OPTIONS`.
    Before,
    /// Between their parentheses.
    Within,
}

impl Options {
    fn at(self, token: &Token) -> Self {
        match (self, token) {
            (_, Token::Whitespace(_)) => self,
            (Self::Before, Token::LParen) => Self::Within,
            (Self::Within, Token::RParen) => Self::Elsewhere,
            (Self::Within, _) => Self::Within,
            (_, Token::Word(word)) if word.value.eq_ignore_ascii_case("options") => Self::Before,
            (Self::Elsewhere | Self::Before, _) => Self::Elsewhere,
        }
    }
}

/// The text of a string, however it is written.
fn string(token: &Token) -> Option<&str> {
    match token {
        Token::SingleQuotedString(text)
        | Token::DoubleQuotedString(text)
        | Token::TripleSingleQuotedString(text)
        | Token::TripleDoubleQuotedString(text)
        | Token::EscapedStringLiteral(text)
        | Token::NationalStringLiteral(text)
        | Token::UnicodeStringLiteral(text)
        | Token::SingleQuotedByteStringLiteral(text)
        | Token::DoubleQuotedByteStringLiteral(text)
        | Token::SingleQuotedRawStringLiteral(text)
        | Token::DoubleQuotedRawStringLiteral(text) => Some(text),
        Token::DollarQuotedString(text) => Some(&text.value),
        _ => None,
    }
}

/// A name between quotes: for some databases that is a text.
fn quoted_name(token: &Token) -> Option<&str> {
    match token {
        Token::Word(word) if word.quote_style.is_some() => Some(&word.value),
        _ => None,
    }
}

/// Whether a text may be the name of a secret.
fn is_name(text: &str) -> bool {
    text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// A text without the credentials in it.
fn inside(text: &str) -> String {
    let shown = without_users(text);
    let (mut from, mut hidden) = (0, String::new());
    // Bytes of ASCII stay where they are.
    let lower = shown.to_ascii_lowercase();
    while let Some((begin, end)) = assigned(&lower, from) {
        hidden.push_str(shown.get(from..begin).unwrap_or_default());
        hidden.push_str(HIDDEN);
        from = end;
    }
    hidden.push_str(shown.get(from..).unwrap_or_default());
    hidden
}

/// A text whose URLs name nobody.
fn without_users(text: &str) -> String {
    let (mut shown, mut left) = (String::new(), text);
    while let Some((before, rest)) = left.split_once("://") {
        let end = rest.find(['/', '?', ' ']).unwrap_or(rest.len());
        let authority = rest.get(..end).unwrap_or_default();
        // A password may have a `/` in it, though it should not.
        let user = if authority.contains(':') && !authority.contains('@') { rest } else { authority };
        let at = user.rfind('@');
        shown.extend([before, "://", if at.is_some() { HIDDEN } else { "" }]);
        left = rest.get(at.unwrap_or(0)..).unwrap_or_default();
    }
    shown + left
}

/// Where the next value begins and ends that follows a secret's name and `=`.
fn assigned(text: &str, from: usize) -> Option<(usize, usize)> {
    let rest = text.get(from..)?;
    let found = SECRET_WORDS.iter().chain(&["sig"]).filter_map(|word| {
        let named = rest.find(&format!("{word}="))?;
        // `sig` is the end of many words.
        let alone = *word != "sig" || rest.get(..named)?.ends_with(['?', '&']);
        alone.then_some(named + word.len() + 1)
    });
    let begin = from + found.min()?;
    let length = text.get(begin..)?.find(['&', ';', ' ']).unwrap_or(text.len() - begin);
    Some((begin, begin + length))
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
    fn an_address_that_is_a_secret_is_hidden_where_jobs_name_it() {
        for address in [
            "https://host/hook?key=hunter2",
            "https://host/hook#hunter2",
            "https://hooks.slack.com/services/T00000000/B00000000/hunter2hunter2hunter2aaa",
            "https://discord.com/api/webhooks/123456789012345678/abcDEF_hunter2hunter2hunter2",
            "https://hc-ping.com/5fba94ed-9794-4965-ba6e-6ee3c0d22af9",
            "https://host/hunterTWOhunterTWOhunterTWO",
        ] {
            let sql = |key: &str| format!("CREATE JOB j INTO s WITH (retries = 3, {key} = '{address}') AS SELECT 1");
            for key in ["on_failure", "on_SUCCESS", "\"on_late\""] {
                let shown = redact(&sql(key));
                assert!(!shown.contains("hunter") && shown.contains(&format!("{key} = '***')")), "{shown}");
            }
            assert_eq!(redact(&sql("location")), sql("location"), "elsewhere it is a location");
        }
    }

    #[test]
    fn ordinary_statements_stay_as_they_are() {
        for sql in [
            "SELECT 1 AS a,\r\n\t'x'\u{a0}AS b -- the end\r\n",
            "ALTER JOB j SET (on_failure = 'https://10.0.0.1:8080/hooks/of-the-lake/2026-03-01-nightly', on_late = 'secret:pager_0123456789abc')",
            "SELECT token FROM t WHERE name = 'a''b' AND n > 1 -- note",
            "CREATE EXTERNAL TABLE t STORED AS POSTGRES LOCATION 'public.t' OPTIONS (secret 'pg_1', columns '[[\"password\",\"text\"]]')",
            "COPY t TO 's3://b/designs=1/x.csv'",
            "SELECT a.token, b.x FROM a JOIN b ON a.token = b.token AND b.password > 5",
            "CREATE EXTERNAL TABLE t STORED AS POSTGRES LOCATION 't' OPTIONS (secret pg_1)",
        ] {
            assert_eq!(redact(sql), sql);
        }
    }

    #[test]
    fn a_secret_is_hidden_where_its_name_belongs() {
        for sql in [
            "CREATE EXTERNAL TABLE t STORED AS POSTGRES LOCATION 't' OPTIONS (secret 'hunter2 is mine')",
            "SELECT * FROM t WHERE secret = 'hunter2'",
            "CREATE EXTERNAL TABLE t STORED AS POSTGRES LOCATION 'postgres://me:hunter2@host/db?x=1'",
            "CREATE EXTERNAL TABLE t STORED AS POSTGRES LOCATION 'host=h password=hunter2 user=me'",
            "CREATE EXTERNAL TABLE t STORED AS POSTGRES LOCATION 'host=h pwd=hunter2'",
            "COPY t TO 'az://c/x?se=1&sig=hunter2&sp=r'",
            "CREATE EXTERNAL TABLE t STORED AS POSTGRES LOCATION 't' OPTIONS (password E'hunter2')",
            "CREATE EXTERNAL TABLE t STORED AS POSTGRES LOCATION E'postgres://me:hunter2@host/db'",
            "CREATE EXTERNAL TABLE t STORED AS POSTGRES LOCATION 't' OPTIONS (password hunter2)",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 't' OPTIONS (format.has_header true, aws.secret_access_key \"hunter2\")",
            "SELECT * FROM t WHERE password = N'hunter2'",
            "SELECT * FROM t WHERE password = $$hunter2$$",
            "SELECT * FROM t WHERE x = \"postgres://me:hunter2@host/db\"",
            "SELECT 'see http://x/y and postgres://me:hunter2@host/db'",
            "SELECT 'AccountName=a;AccountKey=hunter2==;x=1', 'https://b/x?X-Amz-Signature=hunter2'",
        ] {
            let shown = redact(sql);
            assert!(!shown.contains("hunter2") && shown.contains("***"), "{shown}");
        }
        assert!(
            !redact("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 't' OPTIONS (password 123456)").contains("123456")
        );
    }
}
