//! The commands that begin with `\`, as in `psql`.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use clap::ValueEnum;
use tidemill_core::{Error, Result};

use super::super::screen::{Screen, Target};
use super::complete::{starting, table_names};
use super::names::Tables;
use super::say;
use crate::output::Format;

/// Shown by `\?`.
const HELP: &str = "  \\d            tables and views
  \\d NAME       columns of a table or view
  \\dt [PATTERN] tables, all or those like tpch_*
  \\dv [PATTERN] views
  \\df [PATTERN] functions
  \\f [FORMAT]   how results are printed: box, table, markdown, csv, tsv, json, jsonl, arrow
  \\o [FILE]     results go to a file, in the format of its ending unless \\f follows; without one, here again
  \\rows [N|all] how many rows of a result are shown
  \\timing       whether times are shown
  \\?            these
  \\q            leaves, as Ctrl-D and exit do

  A statement ends with ; and may have many lines. Tab completes. A line that begins with a space is not kept in the history.
  SET changes a setting, SHOW ALL lists them; system.runs, system.stages and system.tasks tell what runs and what it waits for.";

/// The tables that people make, and the system's.
const ALL: &str = "SELECT table_schema AS schema, table_name AS name, lower(table_type) AS kind \
                   FROM information_schema.tables WHERE table_schema <> 'information_schema'";

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Leave,
    Timing,
    Format(Option<Format>),
    Output(Option<PathBuf>),
    Rows(Option<Shown>),
    /// What a statement tells.
    Ask(String),
}

/// How many rows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Some(usize),
    All,
}

/// What follows a command.
pub(super) enum Next {
    /// Nothing.
    Prompt,
    /// A statement to run.
    Run(String),
}

/// Whether the text leaves the shell, as in other shells.
pub(super) fn is_leaving(text: &str) -> bool {
    ["exit", "quit"].contains(&text.trim().trim_end_matches(';').to_lowercase().as_str())
}

/// The command that a text is; none if it is SQL.
pub(super) fn parse(text: &str) -> Option<Result<Command>> {
    if is_leaving(text) {
        return Some(Ok(Command::Leave));
    }
    let command = text.trim().strip_prefix('\\')?.trim_end_matches(';').trim_end();
    let (name, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    Some(known(name, Some(argument.trim()).filter(|argument| !argument.is_empty())))
}

fn known(name: &str, argument: Option<&str>) -> Result<Command> {
    match (name, argument) {
        ("?" | "h" | "help", _) => Ok(Command::Help),
        ("q" | "quit", _) => Ok(Command::Leave),
        ("timing", None) => Ok(Command::Timing),
        ("f", None) => Ok(Command::Format(None)),
        ("f", Some(format)) => Format::from_str(format, true)
            .map(|format| Command::Format(Some(format)))
            .map_err(|_| Error::invalid(format!("`{format}` is no format: use {}", formats().join(", ")))),
        ("o", file) => Ok(Command::Output(file.map(PathBuf::from))),
        ("rows", None) => Ok(Command::Rows(None)),
        ("rows", Some("all")) => Ok(Command::Rows(Some(Shown::All))),
        ("rows", Some(rows)) => match rows.parse() {
            Ok(rows) if rows > 0 => Ok(Command::Rows(Some(Shown::Some(rows)))),
            _ => Err(Error::invalid(format!("`{rows}` is no number of rows: write \\rows 40 or \\rows all"))),
        },
        ("d", Some(pattern)) if pattern.contains(['*', '?']) && !pattern.contains('"') => Ok(tables("", Some(pattern))),
        ("d", Some(table)) => Ok(Command::Ask(format!("DESCRIBE {table}"))),
        ("d", None) => Ok(tables("", None)),
        ("dt", pattern) => Ok(tables(" AND table_type <> 'VIEW'", pattern)),
        ("dv", pattern) => Ok(tables(" AND table_type = 'VIEW'", pattern)),
        ("df", pattern) => Ok(functions(pattern)),
        _ => Err(Error::invalid(format!("there is no command \\{name}: \\? lists them"))),
    }
}

/// The tables and views for which a condition holds, all of them or those that a pattern names.
fn tables(condition: &str, pattern: Option<&str>) -> Command {
    let named = pattern.map(|pattern| {
        let name = if pattern.contains('.') { "concat(table_schema, '.', table_name)" } else { "table_name" };
        format!(" AND {name} ILIKE '{}'", like(pattern))
    });
    Command::Ask(format!("{ALL}{condition}{} ORDER BY 1, 2", named.unwrap_or_default()))
}

/// The functions, all of them or those that a pattern names.
fn functions(pattern: Option<&str>) -> Command {
    let named = pattern.map(|pattern| {
        // DataFusion writes it into a query of its own as it is.
        format!(" LIKE '{}'", like(&pattern.to_lowercase()).replace('\'', "''"))
    });
    Command::Ask(format!("SHOW FUNCTIONS{}", named.unwrap_or_default()))
}

/// A pattern of `psql` within a string of SQL: `*` is anything, `?` one character.
fn like(pattern: &str) -> String {
    let mut like = String::new();
    for sign in pattern.chars() {
        match sign {
            '*' => like.push('%'),
            '?' => like.push('_'),
            '%' | '_' | '\\' => like.extend(['\\', sign]),
            '\'' => like.push_str("''"),
            other => like.push(other),
        }
    }
    like
}

fn formats() -> Vec<String> {
    let named = Format::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    named.map(|name| name.get_name().to_owned()).collect()
}

/// What the word of a command may become.
pub(super) fn complete(command: &str, word: &str, tables: &Tables) -> Vec<String> {
    let names = ["\\?", "\\d", "\\df", "\\dt", "\\dv", "\\f", "\\o", "\\q", "\\rows", "\\timing"];
    match command.split_once(char::is_whitespace) {
        None => starting(word, names),
        Some(("d", _)) => starting(word, table_names(tables)),
        Some(("f", _)) => starting(word, formats().iter().map(String::as_str)),
        Some(_) => Vec::new(),
    }
}

/// Does what a command says, apart from running a statement.
pub(super) fn obey(command: Command, screen: &mut Screen) -> Next {
    match command {
        Command::Ask(statement) => return Next::Run(statement),
        Command::Help => {
            // A closed stdout is no reason to leave.
            let _ = writeln!(std::io::stdout(), "{HELP}");
        }
        Command::Leave => {}
        Command::Timing => {
            screen.timing = !screen.timing;
            say(if screen.timing { "times are shown" } else { "times are not shown" });
        }
        Command::Format(format) => {
            if let Some(format) = format {
                screen.choose(format);
            }
            let name = screen.current_format().to_possible_value();
            say(&format!("results are printed as {}", name.as_ref().map_or("", |name| name.get_name())));
        }
        Command::Rows(rows) => {
            match rows {
                Some(Shown::Some(rows)) => screen.rows = Some(rows),
                Some(Shown::All) => screen.rows = None,
                None => {}
            }
            let shown = screen.rows.map_or_else(|| "all rows".to_owned(), |rows| format!("up to {rows} rows"));
            say(&format!("{shown} of a result are shown"));
        }
        Command::Output(file) => output(file, screen),
    }
    Next::Prompt
}

fn output(path: Option<PathBuf>, screen: &mut Screen) {
    match path {
        None => {
            screen.turn_to(Target::Stdout);
            say("results are shown here");
        }
        Some(path) => match File::create(&path) {
            Ok(file) => {
                say(&format!("results go to {}", path.display()));
                screen.turn_to(Target::File { path, file, format: None });
            }
            Err(error) => {
                let error = Error::invalid(format!("{} cannot be written: {error}", path.display()));
                super::report(&error, "");
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_choose_what_is_listed() {
        let asked = |text: &str| match parse(text) {
            Some(Ok(Command::Ask(statement))) => statement,
            other => format!("{other:?}"),
        };
        assert_eq!(asked("\\df"), "SHOW FUNCTIONS");
        assert_eq!(asked("\\df Date_*"), "SHOW FUNCTIONS LIKE 'date\\_%'");
        assert_eq!(asked("\\df a'b"), "SHOW FUNCTIONS LIKE 'a''''b'");
        assert!(
            asked("\\dt o?ders;").contains("<> 'VIEW' AND table_name ILIKE 'o_ders' ORDER"),
            "{}",
            asked("\\dt o?ders;")
        );
        assert!(asked("\\dv system.*").contains("concat(table_schema, '.', table_name) ILIKE 'system.%'"));
        assert!(asked("\\d n*").contains("'information_schema' AND table_name ILIKE 'n%'"), "{}", asked("\\d n*"));
        assert_eq!(asked("\\d nation"), "DESCRIBE nation");
        assert_eq!(asked("\\d \"n*\""), "DESCRIBE \"n*\"");
    }
}
