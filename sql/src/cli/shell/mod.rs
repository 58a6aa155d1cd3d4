//! The shell of `tidemill sql`: statements and `\` commands, one after the other, until Ctrl-D.
//!
//! Invariant: nothing but `\q`, `exit`, Ctrl-D and the end of the terminal leaves it: wrong statements, lost coordinators and
//! Ctrl-C end a run, not the shell.

mod command;
mod complete;
mod editor;
mod highlight;
mod names;

use std::io::Write;

use console::style;
use tidemill_core::{Error, Result};

use self::command::{Command, Next};
use self::editor::{LineEditor, Typed};
use super::Done;
use super::errors::report;
use super::screen::Screen;
use crate::client::Client;
use crate::session::statements;

/// Talks with a person who sees what runs `place`.
pub(super) async fn run(mut client: Client, mut screen: Screen, place: &str) -> Result<Done> {
    let mut editor = LineEditor::new(client.observer())?;
    say(&format!("Tidemill {} · {place}", env!("CARGO_PKG_VERSION")));
    say("Statements end with ;  ·  \\? lists commands  ·  Ctrl-C cancels a run  ·  Ctrl-D leaves");
    loop {
        // The editor waits for keys on this thread; runs go on, on others.
        let typed = tokio::task::block_in_place(|| editor.read());
        match typed? {
            Typed::End => break,
            Typed::Nothing => {}
            Typed::Text(text) => match command::parse(&text) {
                Some(Ok(Command::Leave)) => break,
                Some(Ok(command)) => {
                    if let Next::Run(statement) = command::obey(command, &mut screen) {
                        execute(&mut client, &screen, &statement).await;
                    }
                }
                Some(Err(error)) => report(&error, ""),
                None => statements_of(&mut client, &screen, &text, &editor).await,
            },
        }
    }
    client.close().await;
    Ok(Done::Well)
}

async fn statements_of(client: &mut Client, screen: &Screen, text: &str, editor: &LineEditor) {
    match statements::split(text) {
        Ok(statements) => {
            for statement in statements {
                let going_on = execute(client, screen, &statement).await;
                if statements::may_change(&statement) {
                    editor.forget_names(client.observer());
                }
                if going_on == GoingOn::No {
                    return;
                }
            }
        }
        Err(error) => report(&error, text),
    }
}

/// Whether the statements behind one make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GoingOn {
    Yes,
    No,
}

async fn execute(client: &mut Client, screen: &Screen, statement: &str) -> GoingOn {
    let ended = tokio::select! {
        ended = screen.execute(client, statement) => ended,
        // Leaving drops the result, which cancels its run.
        _ = tokio::signal::ctrl_c() => {
            report(&Error::cancelled("cancelled by Ctrl-C"), "");
            return GoingOn::No;
        }
    };
    let Err(error) = ended else { return GoingOn::Yes };
    if let Some(error) = screen.failure(error) {
        report(&error, statement);
    }
    GoingOn::No
}

/// Says something beside results.
fn say(text: &str) {
    // A closed stderr is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{}", style(text).for_stderr().dim());
}
