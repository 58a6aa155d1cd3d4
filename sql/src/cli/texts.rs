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
            Text::File(path) => match std::fs::read(&path) {
                Ok(bytes) => decoded(bytes, &path.display().to_string()),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    Err(Error::not_found(format!("{} does not exist: check -f", path.display())))
                }
                Err(e) => Err(Error::invalid(format!("{} cannot be read: {e}", path.display()))),
            },
        };
        self.0.into_iter().map(read).collect()
    }
}

/// The text to run where none was given.
pub(super) fn standard_input() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|e| Error::invalid(format!("standard input cannot be read: {e}")))?;
    decoded(bytes, "standard input")
}

/// UTF-8 as a text, without the mark that some editors begin it with.
fn decoded(bytes: Vec<u8>, from: &str) -> Result<String> {
    let is_utf_16 = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) || bytes.contains(&0);
    if is_utf_16 {
        return Err(Error::invalid(format!("{from} cannot be read: it is UTF-16 or no text; save it as UTF-8")));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let before = e.as_bytes().iter().take(e.utf8_error().valid_up_to());
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        Error::invalid(format!("{from} cannot be read: line {line} is not UTF-8; save it as UTF-8"))
    })?;
    match text.strip_prefix('\u{feff}') {
        Some(rest) => Ok(rest.to_owned()),
        None => Ok(text),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_utf_8_with_or_without_a_mark() {
        let read = |bytes: &[u8]| decoded(bytes.to_vec(), "q.sql").map_err(|e| e.message);
        assert_eq!(read("\u{feff}SELECT '\u{feff}'".as_bytes()), Ok("SELECT '\u{feff}'".to_owned()));
        assert_eq!(read("SELECT 'ü'".as_bytes()), Ok("SELECT 'ü'".to_owned()));
        let utf_16 = Err("q.sql cannot be read: it is UTF-16 or no text; save it as UTF-8".to_owned());
        for bytes in [&b"\xFF\xFE1\0"[..], b"\xFE\xFF\x001", b"1\0;\0"] {
            assert_eq!(read(bytes), utf_16);
        }
        let latin_1 = Err("q.sql cannot be read: line 2 is not UTF-8; save it as UTF-8".to_owned());
        assert_eq!(read(b"SELECT 1;\nSELECT '\xFC'"), latin_1);
    }
}
