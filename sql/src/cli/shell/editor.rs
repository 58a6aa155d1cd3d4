//! The line editor: rustyline, told what SQL is.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use console::style;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use tidemill_core::{Error, Result};

use super::complete;
use super::highlight::{highlight, is_complete};
use super::names::Names;
use crate::client::Observer;
use crate::session::redact;

/// Entries that the history keeps.
const HISTORY: usize = 10_000;
/// Names the history's file; empty for none.
const HISTORY_PATH: &str = "TIDEMILL_HISTORY";
/// The file below a user's folder for such things.
const DEFAULT_HISTORY: &str = "tidemill/history";
const PROMPT: &str = "tidemill> ";

/// What a person typed.
pub(super) enum Typed {
    /// Statements or a command.
    Text(String),
    /// A line that was given up, or is blank.
    Nothing,
    /// Ctrl-D.
    End,
}

pub(super) struct LineEditor {
    editor: Editor<Sql, FileHistory>,
    names: Arc<Names>,
    history: Option<PathBuf>,
}

impl LineEditor {
    pub(super) fn new(observer: Observer) -> Result<Self> {
        let config = Config::builder()
            .max_history_size(HISTORY)
            .and_then(|builder| builder.history_ignore_dups(true))
            .map_err(|e| unusable(&e))?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .completion_show_all_if_ambiguous(true)
            .build();
        let mut editor = Editor::with_config(config).map_err(|e| unusable(&e))?;
        let names = Arc::new(Names::new(observer));
        editor.set_helper(Some(Sql { names: Arc::clone(&names) }));
        let history = history_path();
        if let Some(path) = &history {
            // There is none yet, or it is another program's: the next one is this shell's own.
            let _ = editor.load_history(path);
        }
        Ok(Self { editor, names, history })
    }

    /// Waits for a person to type a statement or a command.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn read(&mut self) -> Result<Typed> {
        let prompt = (PROMPT.to_owned(), style(PROMPT).cyan().bold().to_string());
        match self.editor.readline(&prompt) {
            Ok(text) if text.trim().is_empty() => Ok(Typed::Nothing),
            Ok(text) => {
                self.remember(&text);
                Ok(Typed::Text(text))
            }
            Err(ReadlineError::Interrupted) => Ok(Typed::Nothing),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(error) => Err(unusable(&error)),
        }
    }

    /// The catalogue has changed, perhaps.
    pub(super) fn forget_names(&self, observer: Observer) {
        self.names.forget(observer);
    }

    fn remember(&mut self, text: &str) {
        let entry = text.trim_end();
        // Secrets are not kept.
        if redact(entry) != entry {
            return;
        }
        let is_new = self.editor.add_history_entry(entry).unwrap_or(false);
        if let Some(path) = self.history.as_ref().filter(|_| is_new) {
            // A history that cannot be kept is no reason to stop.
            let _ = path.parent().map(std::fs::create_dir_all);
            let _ = self.editor.append_history(path);
        }
    }
}

fn unusable(error: &ReadlineError) -> Error {
    Error::unavailable(format!("the terminal cannot be used: {error}"))
}

fn history_path() -> Option<PathBuf> {
    match std::env::var_os(HISTORY_PATH) {
        Some(path) if path.is_empty() => None,
        Some(path) => Some(PathBuf::from(path)),
        None => {
            let set = std::env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
            let folder = set.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")));
            folder.map(|folder| folder.join(DEFAULT_HISTORY))
        }
    }
}

/// What rustyline asks about the text.
struct Sql {
    names: Arc<Names>,
}

impl Helper for Sql {}

impl Completer for Sql {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, words) = complete::complete(line, pos, &self.names);
        let pair = |word: String| Pair { display: word.clone(), replacement: word };
        Ok((start, words.into_iter().map(pair).collect()))
    }
}

impl Hinter for Sql {
    type Hint = String;
}

impl Highlighter for Sql {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if console::colors_enabled() { highlight(line) } else { Cow::Borrowed(line) }
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        kind != CmdKind::MoveCursor
    }
}

impl Validator for Sql {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        match is_complete(context.input()) {
            true => Ok(ValidationResult::Valid(None)),
            false => Ok(ValidationResult::Incomplete),
        }
    }
}
