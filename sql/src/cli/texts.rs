//! The statements of `-c` and `-f`, in the order in which they were written.

use std::io::Read;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use tidemill_core::{Error, Result};

const COMMAND: &str = "command";
const FILE: &str = "file";

/// Where statements come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Text {
    /// The command line itself.
    Command(String),
    /// A file.
    File(PathBuf),
}

/// Everything given by `-c` and `-f`.
#[derive(Debug, Default)]
pub(super) struct Texts(Vec<Text>);

impl Texts {
    /// Whether none were given.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The texts that were given.
    pub(super) fn read(self) -> Result<Vec<String>> {
        let read = |text| match text {
            Text::Command(text) => Ok(text),
            Text::File(path) => std::fs::read_to_string(&path).map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => {
                    Error::not_found(format!("{} does not exist: check -f", path.display()))
                }
                _ => Error::invalid(format!("{} cannot be read: {e}", path.display())),
            }),
        };
        self.0.into_iter().map(read).collect()
    }
}

/// The text to run where none was given.
pub(super) fn standard_input() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|e| Error::invalid(format!("standard input cannot be read: {e}")))?;
    Ok(text)
}

impl Args for Texts {
    fn augment_args(command: Command) -> Command {
        let help = "Statements, separated by `;`";
        let text = Arg::new(COMMAND).short('c').value_name("SQL").help(help).action(ArgAction::Append);
        // SQL may begin with a comment.
        let text = text.allow_hyphen_values(true);
        let help = "A file of statements; -c and -f run in the order given";
        let file = Arg::new(FILE).short('f').value_name("FILE").help(help).action(ArgAction::Append);
        command.arg(text).arg(file.value_parser(clap::value_parser!(PathBuf)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Texts {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let indices = |id| matches.indices_of(id).into_iter().flatten();
        let commands = matches.get_many::<String>(COMMAND).into_iter().flatten().cloned().map(Text::Command);
        let files = matches.get_many::<PathBuf>(FILE).into_iter().flatten().cloned().map(Text::File);
        let mut texts: Vec<(usize, Text)> = indices(COMMAND).zip(commands).chain(indices(FILE).zip(files)).collect();
        texts.sort_by_key(|(index, _)| *index);
        Ok(Self(texts.into_iter().map(|(_, text)| text).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
