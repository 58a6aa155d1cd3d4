//! From a statement to what a terminal, a pipe or a file gets of its result.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use console::Term;
use tidemill_core::{Error, Result, RunId};

use super::progress::Watch;
use crate::client::{Client, QueryResult, new_run};
use crate::output::{Colors, Format, Look, PrintError, Printed, count, print};

/// Where results go.
#[derive(Debug)]
pub(super) enum Target {
    /// Standard output.
    Stdout,
    /// A file; its format where one was chosen since it is open.
    File { path: PathBuf, file: File, format: Option<Format> },
}

/// What is said beside results, on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remarks {
    /// Nothing.
    None,
    /// Rows and time, where somebody sees them; progress of long runs.
    Scripts,
    /// The same, and that a statement without a result is done.
    Conversation,
}

/// How results are shown.
#[derive(Debug)]
pub(super) struct Screen {
    /// The format that was chosen; none for what suits the target.
    format: Option<Format>,
    pub(super) remarks: Remarks,
    /// Whether remarks tell the time.
    pub(super) timing: bool,
    /// Rows that a terminal shows of one result.
    pub(super) rows: Option<usize>,
    target: Target,
    /// Whether the reader of standard output went away, as `head` does.
    closed: AtomicBool,
    /// Whether a result went to the target already.
    shown: AtomicBool,
}

impl Screen {
    pub(super) const fn new(format: Option<Format>, remarks: Remarks, rows: Option<usize>) -> Self {
        let (closed, shown) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { format, remarks, timing: true, rows, target: Target::Stdout, closed, shown }
    }

    fn is_terminal(&self) -> bool {
        matches!(self.target, Target::Stdout) && std::io::stdout().is_terminal()
    }

    /// The format that the next result has.
    pub(super) fn current_format(&self) -> Format {
        let of_file = match &self.target {
            Target::File { path, format, .. } => format.or_else(|| path.to_str().and_then(Format::of_file)),
            Target::Stdout => None,
        };
        let by_target = || if self.is_terminal() { Format::Box } else { Format::Table };
        of_file.or(self.format).unwrap_or_else(by_target)
    }

    /// Results have this format from now on, whatever the ending of the file that they go to.
    pub(super) const fn choose(&mut self, chosen: Format) {
        self.format = Some(chosen);
        if let Target::File { format, .. } = &mut self.target {
            *format = Some(chosen);
        }
    }

    /// Results go there from now on.
    pub(super) fn turn_to(&mut self, target: Target) {
        self.target = target;
        self.shown = AtomicBool::new(false);
    }

    fn look(&self) -> Look {
        if !self.is_terminal() {
            return Look::default();
        }
        let colors = if console::colors_enabled() { Colors::On } else { Colors::Off };
        let width = Some(usize::from(Term::stdout().size().1));
        Look { width, rows: self.rows, colors }
    }

    /// Runs a statement and shows its result.
    pub(super) async fn execute(&self, client: &mut Client, statement: &str) -> Result<(), PrintError> {
        let (start, run) = (Instant::now(), new_run());
        let watch = match self.remarks {
            Remarks::None => None,
            Remarks::Scripts | Remarks::Conversation => Watch::begin(client.observer(), run.clone()),
        };
        let result = client.execute_as(run, statement).await?;
        self.show(result, start, watch).await
    }

    /// Shows a result.
    pub(super) async fn show(
        &self,
        result: QueryResult,
        start: Instant,
        watch: Option<Watch>,
    ) -> Result<(), PrintError> {
        let run = result.run.clone();
        let has_rows = !result.schema.fields().is_empty();
        let (format, look) = (self.current_format(), self.look());
        let is_first = !has_rows || !self.shown.swap(true, Ordering::Relaxed);
        // Tables without a line between them are one.
        let gap = if format == Format::Markdown && !is_first { "\n" } else { "" };
        // What is shown of a run must not be in the way of its rows.
        let to_terminal = self.is_terminal();
        let before = || {
            if let Some(watch) = watch.as_ref().filter(|_| to_terminal) {
                watch.end();
            }
        };
        let printed = match &self.target {
            Target::Stdout => {
                let mut out = BufWriter::new(Stdout { closed: &self.closed, before });
                out.write_all(gap.as_bytes())?;
                print(result, format, &look, &mut out).await?
            }
            Target::File { file, .. } => {
                let mut out = BufWriter::new(file);
                out.write_all(gap.as_bytes())?;
                print(result, format, &look, &mut out).await?
            }
        };
        drop(watch);
        self.remark(has_rows.then_some(printed), format, start, run);
        Ok(())
    }

    fn remark(&self, printed: Option<Printed>, format: Format, start: Instant, run: Option<RunId>) {
        let is_seen = std::io::stderr().is_terminal() && (format.is_for_people() || !self.is_terminal());
        let what = match (self.remarks, printed) {
            (Remarks::None, _) | (Remarks::Scripts, None) => return,
            (Remarks::Scripts | Remarks::Conversation, _) if !is_seen => return,
            (Remarks::Conversation, None) => "done".to_owned(),
            (Remarks::Scripts | Remarks::Conversation, Some(printed)) => rows(printed),
        };
        let time = if self.timing { format!(" in {:.3} s", start.elapsed().as_secs_f64()) } else { String::new() };
        let run = run.map(|run| format!(", run {run}")).unwrap_or_default();
        // A closed stderr is no reason to fail.
        let _ = writeln!(std::io::stderr(), "{}", console::style(format!("{what}{time}{run}")).for_stderr().dim());
    }

    /// The error that an output ended with; none where its reader had enough.
    pub(super) fn failure(&self, error: PrintError) -> Option<Error> {
        match error {
            _ if self.closed.load(Ordering::Relaxed) => None,
            PrintError::Run(error) => Some(error),
            PrintError::Output(error) => Some(super::unwritable(&error)),
        }
    }
}

fn rows(printed: Printed) -> String {
    let plural = if printed.rows == 1 { "" } else { "s" };
    let all = count(printed.rows);
    match printed.shown == printed.rows {
        true => format!("{all} row{plural}"),
        false => format!("{all} row{plural} ({} shown)", count(printed.shown)),
    }
}

/// Standard output that remembers whether its reader went away: no error of ours, but writers of formats report it in
/// words of their own.
struct Stdout<'a, F: Fn()> {
    closed: &'a AtomicBool,
    /// Called before anything is written.
    before: F,
}

impl<F: Fn()> Write for Stdout<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        (self.before)();
        std::io::stdout().write(bytes).inspect_err(|e| self.note(e))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stdout().flush().inspect_err(|e| self.note(e))
    }
}

impl<F: Fn()> Stdout<'_, F> {
    fn note(&self, error: &std::io::Error) {
        self.closed.fetch_or(error.kind() == std::io::ErrorKind::BrokenPipe, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_format_of_its_ending_unless_another_is_chosen_afterwards() {
        let mut screen = Screen::new(Some(Format::Box), Remarks::None, None);
        let file = |name: &str| {
            let file = tempfile::tempfile().expect("a file");
            Target::File { path: PathBuf::from(name), file, format: None }
        };
        screen.turn_to(file("rows.csv"));
        assert_eq!(screen.current_format(), Format::Csv);
        screen.choose(Format::Json);
        assert_eq!(screen.current_format(), Format::Json);
        screen.turn_to(file("rows.txt"));
        assert_eq!(screen.current_format(), Format::Json, "no format's ending");
        screen.turn_to(file("rows.md"));
        assert_eq!(screen.current_format(), Format::Markdown);
        screen.turn_to(Target::Stdout);
        assert_eq!(screen.current_format(), Format::Json);
    }
}
