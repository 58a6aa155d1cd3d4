//! `tidemill completions`: a script by which a shell completes this command's arguments.

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use tidemill_core::Result;

use super::{Cli, Done};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tidemill completions bash > ~/.local/share/bash-completion/completions/tidemill
  tidemill completions zsh > ~/.zfunc/_tidemill
  tidemill completions fish > ~/.config/fish/completions/tidemill.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<Done> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tidemill", &mut script);
    super::write_out(&script)
}
