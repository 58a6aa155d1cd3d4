//! The settings file: what flags are when neither the command line nor the environment says.
//!
//! ```toml
//! connect = "http://127.0.0.1:7878"   # for every command that has the flag
//!
//! [executor]                          # for one command
//! slots = 4
//!
//! [set]                               # settings of sessions, as SET has them
//! "tidemill.durability" = "auto"
//!
//! [secrets.shop]                      # what opens stores and databases, see `secrets`
//! type = "postgres"
//! ```

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};
use tidemill_core::{Error, Result};
use toml::{Table, Value};

/// Names the file; empty for none.
const PATH: &str = "TIDEMILL_CONFIG";
/// The file below a user's configuration folder.
const DEFAULT: &str = "tidemill/config.toml";
/// The table with settings of sessions.
const SESSIONS: &str = "set";
/// The table of secrets, each a table of its own.
const SECRETS: &str = "secrets";

/// What the file says; nothing if there is none.
#[derive(Debug, Default)]
pub(super) struct SettingsFile {
    pub(super) path: PathBuf,
    table: Table,
}

/// A setting is a flag that can be given by a variable, too.
pub(super) fn is_setting(arg: &Arg) -> bool {
    arg.get_long().is_some() && arg.get_env().is_some()
}

impl SettingsFile {
    /// Reads the file that [`PATH`] names, or else the user's own, which need not exist.
    ///
    /// # Errors
    /// It cannot be read, or is no TOML.
    pub(super) fn read() -> Result<Self> {
        let (path, is_named) = match std::env::var_os(PATH) {
            Some(path) if path.is_empty() => return Ok(Self::default()),
            Some(path) => (PathBuf::from(path), true),
            None => match folder() {
                Some(folder) => (folder.join(DEFAULT), false),
                None => return Ok(Self::default()),
            },
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_named => return Ok(Self::default()),
            Err(error) => {
                return Err(Error::invalid(format!("the settings file {} cannot be read: {error}", path.display())));
            }
        };
        let table = text.parse::<Table>().map_err(|e| {
            let what = e.message().to_owned();
            Error::invalid(format!("the settings file {} is no TOML: {what}", path.display()))
        })?;
        Ok(Self { path, table })
    }

    /// The commands with the file's values as defaults.
    ///
    /// # Errors
    /// It names what is no setting.
    pub(super) fn apply(&self, mut command: Command) -> Result<Command> {
        self.check(&command)?;
        let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
        for name in names {
            command = command.mut_subcommand(&name, |sub| {
                sub.mut_args(|arg| match self.value(&name, &arg) {
                    Some(value) => arg.default_value(value).required(false),
                    None => arg,
                })
            });
        }
        Ok(command)
    }

    /// The error of a wrong value, with the name of the variable or the file that has it, where it was not typed.
    pub(super) fn blame(&self, mut error: clap::Error, command: &Command) -> clap::Error {
        let flag = match error.get(ContextKind::InvalidArg) {
            // With the name of its value.
            Some(ContextValue::String(shown)) => shown.split([' ', '=']).next().unwrap_or_default().to_owned(),
            _ => return error,
        };
        let Some(name) = flag.strip_prefix("--") else { return error };
        let names_it = |arg: &OsString| arg.to_str().is_some_and(|arg| arg.split('=').next() == Some(flag.as_str()));
        let is_of_value = matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation);
        if !is_of_value || std::env::args_os().any(|arg| names_it(&arg)) {
            return error;
        }
        let mut settings = command.get_subcommands().flat_map(Command::get_arguments);
        let variable = settings.find_map(|arg| {
            let variable = arg.get_env().filter(|_| is_setting(arg) && arg.get_long() == Some(name))?;
            std::env::var_os(variable).map(|_| variable.to_string_lossy().into_owned())
        });
        let of_file = || format!("{name} in {}", self.path.display());
        error.insert(ContextKind::InvalidArg, ContextValue::String(variable.unwrap_or_else(of_file)));
        error
    }

    /// What it says of a command's flag.
    pub(super) fn value(&self, command: &str, arg: &Arg) -> Option<String> {
        let flag = arg.get_long().filter(|_| is_setting(arg))?;
        let own = self.table.get(command).and_then(Value::as_table).and_then(|table| table.get(flag));
        own.or_else(|| self.table.get(flag)).and_then(|value| text_for(arg, value))
    }

    /// Settings of sessions.
    pub(super) fn sessions(&self) -> Vec<(String, String)> {
        let table = self.table.get(SESSIONS).and_then(Value::as_table);
        table.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect()
    }

    /// Secrets by name, as they stand there.
    pub(super) fn secrets(&self) -> Option<&Table> {
        self.table.get(SECRETS).and_then(Value::as_table)
    }

    fn check(&self, command: &Command) -> Result<()> {
        let fits = |sub: &Command, key: &str, value: &Value| {
            let mut named = sub.get_arguments().filter(|arg| is_setting(arg) && arg.get_long() == Some(key));
            named.any(|arg| text_for(arg, value).is_some())
        };
        for (key, value) in &self.table {
            let unknown = match value.as_table() {
                Some(_) if key == SESSIONS || key == SECRETS => None,
                Some(table) => match command.find_subcommand(key) {
                    Some(sub) => table.iter().find(|(k, v)| !fits(sub, k, v)).map(|(k, _)| k),
                    None => Some(key),
                },
                None => {
                    let is_known = command.get_subcommands().any(|sub| fits(sub, key, value));
                    (!is_known).then_some(key)
                }
            };
            if let Some(unknown) = unknown {
                let path = self.path.display();
                return Err(Error::invalid(format!("{path}: `{unknown}` is no setting: `tidemill config` lists them")));
            }
        }
        Ok(())
    }
}

/// A value as a flag takes it.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(value) => Some(value.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

/// The same of a certain flag, which may take several.
fn text_for(arg: &Arg, value: &Value) -> Option<String> {
    match (value, arg.get_value_delimiter()) {
        (Value::Array(values), Some(delimiter)) => {
            let texts: Option<Vec<String>> = values.iter().map(text).collect();
            texts.map(|texts| texts.join(&delimiter.to_string()))
        }
        _ => text(value),
    }
}

fn folder() -> Option<PathBuf> {
    let set = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    set.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))
}
