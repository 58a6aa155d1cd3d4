//! `tidemill user add`: somebody more in the users' file.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use tidemill_core::{Error, Result, Role};
use tidemill_engine::secrets::Secret;

use super::{Done, write_out};
use crate::security::{NewUser, Shown, role};

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Add a user to the users' file and print the token that they show from then on
    Add(AddArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill user add ann --role write --users /etc/tidemill/users.toml > ann.token
  tidemill user add bob --role read --users /etc/tidemill/users.toml --password     asks for it, or reads a line

The file keeps hashes only: a token that is lost is replaced. Running servers see changes within a second.")]
pub(super) struct AddArgs {
    /// Their name: letters, digits, `-`, `_`, `.` and `@`
    name: String,
    /// What they may do: read (queries), write (also COPY, INGEST, CREATE, DROP) or admin (also others' runs)
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Role,
    /// The users' file; it is made if there is none
    #[arg(long, env = "TIDEMILL_USERS", value_name = "FILE")]
    users: PathBuf,
    /// They show a password instead of a token; it is asked for, or read from the standard input
    #[arg(long)]
    password: bool,
}

pub(super) fn run(command: &UserCommand) -> Result<Done> {
    let UserCommand::Add(args) = command;
    let shown = if args.password { Shown::Password(password()?) } else { Shown::Token };
    let user = NewUser { name: args.name.clone(), role: args.role, shown };
    match user.add_to(&args.users)? {
        // The only time that anybody sees it.
        Some(token) => write_out(format!("{}\n", token.expose()).as_bytes()),
        None => Ok(Done::Well),
    }
}

fn password() -> Result<Secret> {
    let unreadable = |e| Error::invalid(format!("the password cannot be read: {e}"));
    if std::io::stdin().is_terminal() {
        let terminal = console::Term::stderr();
        terminal.write_str("Password: ").map_err(unreadable)?;
        return terminal.read_secure_line().map(Secret::new).map_err(unreadable);
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(unreadable)?;
    Ok(Secret::new(line.trim_end_matches(['\n', '\r'])))
}
