//! `tidemill config`: every setting, its value, and where it came from.

use std::sync::Arc;

use arrow::array::StringArray;
use arrow::record_batch::RecordBatch;
use clap::{Arg, Args, Command, CommandFactory};
use tidemill_core::{Error, Result};
use tidemill_engine::coordinators::without_password;

use super::file::{SettingsFile, is_setting};
use super::screen::{Remarks, Screen};
use super::{Cli, Done, not_begun};
use crate::client::QueryResult;
use crate::output::Format;
use crate::session::ClientSettings;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill config
  tidemill config --format csv | grep batch_size

A flag wins over its variable (--slots over TIDEMILL_SLOTS), and that over the settings file, which is
~/.config/tidemill/config.toml or what TIDEMILL_CONFIG names:

  connect = \"http://127.0.0.1:7878\"    # for every command that has the flag
  [executor]                           # for one command
  slots = 4
  [set]                                # for sessions, as SET has them
  \"tidemill.durability\" = \"auto\"")]
pub(super) struct ConfigArgs {
    /// How they are printed [default: box on a terminal, else table]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
}

/// One setting.
struct Setting {
    /// The command whose flag it is, or `SET`.
    of: String,
    name: String,
    value: String,
    source: String,
}

pub(super) fn run(args: &ConfigArgs) -> Result<Done> {
    let file = SettingsFile::read()?;
    let command = Cli::command();
    let mut settings = Vec::new();
    for sub in command.get_subcommands() {
        settings.extend(sub.get_arguments().filter(|arg| is_setting(arg)).map(|arg| of_command(sub, arg, &file)));
    }
    match of_sessions(&file) {
        Ok(of_sessions) => settings.extend(of_sessions),
        Err(error) => return not_begun(error),
    }
    let column = |of: fn(&Setting) -> &str| Arc::new(settings.iter().map(|s| Some(of(s))).collect::<StringArray>());
    let batch = RecordBatch::try_from_iter([
        ("command", column(|s| &s.of) as _),
        ("setting", column(|s| &s.name) as _),
        ("value", column(|s| &s.value) as _),
        ("source", column(|s| &s.source) as _),
    ]);
    let batch = batch.map_err(|e| Error::internal(format!("settings are no table: {e}")))?;
    let screen = Screen::new(args.format, Remarks::None, None);
    let shown = screen.show(QueryResult::of(batch), std::time::Instant::now(), None);
    match futures::executor::block_on(shown) {
        Ok(()) => Ok(Done::Well),
        Err(error) => screen.failure(error).map_or(Ok(Done::Well), Err),
    }
}

fn of_command(command: &Command, arg: &Arg, file: &SettingsFile) -> Setting {
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let of_variable = std::env::var(&variable).ok().map(|value| (value, variable.clone()));
    let of_file = || Some((file.value(command.get_name(), arg)?, file.path.display().to_string()));
    let default = || {
        let values = arg.get_default_values().iter().map(|value| value.to_string_lossy());
        (values.collect::<Vec<_>>().join(","), "default".to_owned())
    };
    let (value, source) = of_variable.or_else(of_file).unwrap_or_else(default);
    // URLs are shown, without the password that they may have.
    let is_hidden = arg.is_hide_env_values_set() && arg.get_long() != Some("connect");
    let value = if is_hidden && !value.is_empty() { "(hidden)".to_owned() } else { without_password(&value) };
    Setting { of: command.get_name().to_owned(), name: arg.get_long().unwrap_or_default().to_owned(), value, source }
}

fn of_sessions(file: &SettingsFile) -> Result<impl Iterator<Item = Setting>> {
    let mut session = ClientSettings::default();
    for (key, value) in file.sessions() {
        let name = file.path.display();
        session.set(&key, &value).map_err(|e| Error { message: format!("{name}: {}", e.message), ..e })?;
    }
    let path = file.path.display().to_string();
    let set = session.entries().clone();
    Ok(session.all()?.into_iter().map(move |(name, value)| {
        let source = if set.contains_key(&name) { path.clone() } else { "default".to_owned() };
        Setting { of: "SET".to_owned(), name, value, source }
    }))
}
