//! What the word before the cursor may become.

use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;

use super::command;
use super::names::{Names, Tables};

/// Words behind which a table's name stands.
const BEFORE_TABLES: [&str; 9] = ["from", "join", "into", "table", "view", "update", "describe", "desc", "using"];
/// Candidates that are shown at the most: more help nobody.
const MOST: usize = 200;

/// Where the word begins, and what it may become.
pub(super) fn complete(line: &str, pos: usize, names: &Names) -> (usize, Vec<String>) {
    let before = line.get(..pos).unwrap_or(line);
    let start = before
        .rfind(|c: char| !is_of_word(c))
        .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let (context, word) = (before.get(..start).unwrap_or_default(), before.get(start..).unwrap_or_default());
    if let Some(command) = before.trim_start().strip_prefix('\\') {
        return (start, command::complete(command, word, &names.tables()));
    }
    let last = context.split_whitespace().next_back().unwrap_or_default().to_lowercase();
    let tables = names.tables();
    let mut words = match BEFORE_TABLES.contains(&last.as_str()) {
        true => starting(word, table_names(&tables)),
        false if word.contains('.') => columns_of(word, line, &tables),
        false => {
            let mut words = starting(word, columns_in(line, &tables));
            words.extend(starting(word, table_names(&tables)));
            words.extend(starting(word, names.functions().iter().map(String::as_str)));
            words.extend(keywords(word));
            words
        }
    };
    words.truncate(MOST);
    (start, words)
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '\\')
}

pub(super) fn starting<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let begins = |name: &&str| name.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let mut found: Vec<String> = names.into_iter().filter(begins).map(str::to_owned).collect();
    found.dedup();
    found
}

pub(super) fn table_names(tables: &Tables) -> impl Iterator<Item = &str> {
    tables.columns.iter().map(|(table, _)| table.as_str())
}

/// Columns of the tables that the statement names; of all where it names none yet.
fn columns_in<'a>(line: &str, tables: &'a Tables) -> Vec<&'a str> {
    let words: Vec<String> = line.split(|c| !is_of_word(c)).map(str::to_lowercase).collect();
    let named = |table: &str| words.iter().any(|word| word == table);
    let of_named = || tables.columns.iter().filter(|(table, _)| named(table)).map(|(_, column)| column.as_str());
    let mut columns: Vec<&str> = match of_named().next() {
        Some(_) => of_named().collect(),
        None => tables.columns.iter().map(|(_, column)| column.as_str()).collect(),
    };
    columns.sort_unstable();
    columns
}

/// `alias.col`: the alias may be that of any table which the statement names.
fn columns_of(word: &str, line: &str, tables: &Tables) -> Vec<String> {
    let Some((qualifier, column)) = word.rsplit_once('.') else { return Vec::new() };
    let in_schema =
        |table: &str| table.split_once('.').is_some_and(|(schema, _)| schema.eq_ignore_ascii_case(qualifier));
    if table_names(tables).any(in_schema) {
        return starting(word, table_names(tables));
    }
    let own = tables.columns.iter().filter(|(table, _)| table.eq_ignore_ascii_case(qualifier));
    let own: Vec<&str> = own.map(|(_, column)| column.as_str()).collect();
    let columns = if own.is_empty() { columns_in(line, tables) } else { own };
    starting(column, columns).into_iter().map(|column| format!("{qualifier}.{column}")).collect()
}

/// Keywords, in the case of what is typed.
fn keywords(word: &str) -> impl Iterator<Item = String> + use<> {
    let is_lower = word.chars().next().is_some_and(char::is_lowercase);
    let found = if word.is_empty() { Vec::new() } else { starting(word, ALL_KEYWORDS.iter().copied()) };
    found.into_iter().map(move |keyword| if is_lower { keyword.to_lowercase() } else { keyword })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        let columns = [("nation", "n_name"), ("nation", "n_key"), ("orders", "o_key"), ("system.runs", "run_id")];
        Tables { columns: columns.iter().map(|(t, c)| ((*t).to_owned(), (*c).to_owned())).collect() }
    }

    #[test]
    fn columns_are_those_of_the_tables_that_are_named() {
        assert_eq!(columns_in("SELECT n_ FROM nation", &tables()), ["n_key", "n_name"]);
        assert_eq!(columns_in("SELECT ", &tables()), ["n_key", "n_name", "o_key", "run_id"]);
        assert_eq!(columns_of("o.o", "SELECT o.o FROM orders o", &tables()), ["o.o_key"]);
        assert_eq!(columns_of("system.r", "SELECT * FROM system.r", &tables()), ["system.runs"]);
    }

    #[test]
    fn keywords_follow_the_case_of_what_is_typed() {
        assert!(keywords("sel").any(|word| word == "select"));
        assert!(keywords("SEL").any(|word| word == "SELECT"));
        assert_eq!(keywords("").next(), None);
    }
}
