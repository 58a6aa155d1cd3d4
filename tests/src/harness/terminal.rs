//! A person at a terminal: the binary under test on a pseudo-terminal.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rexpect::process::WaitStatus;
use rexpect::reader::Options;
use rexpect::session::{PtySession, spawn_with_options};

use super::process::binary;

/// How long something may take to appear.
const PATIENCE: Duration = Duration::from_secs(120);

/// A terminal in which the binary runs; killed when dropped.
pub struct Terminal(PtySession);

impl Terminal {
    /// Starts a command; `home` holds its history.
    ///
    /// # Panics
    /// It does not start.
    pub fn start(home: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(args).current_dir(home).env("TERM", "xterm").env("NO_COLOR", "1");
        command.env("TIDEMILL_CONFIG", "").env("TIDEMILL_HISTORY", home.join("history"));
        let options = Options::new().strip_ansi_escape_codes(true);
        let patience = u64::try_from(PATIENCE.as_millis()).expect("some minutes");
        let mut session = spawn_with_options(command, options.timeout_ms(Some(patience))).expect("a terminal");
        session.process_mut().set_kill_timeout(Some(1000));
        Self(session)
    }

    /// Types a line and Enter.
    ///
    /// # Panics
    /// The terminal is gone.
    pub fn types(&mut self, line: &str) {
        self.presses(&format!("{line}\r"));
    }

    /// Presses keys.
    ///
    /// # Panics
    /// The terminal is gone.
    pub fn presses(&mut self, keys: &str) {
        self.0.send(keys).and_then(|_| self.0.flush()).expect("a terminal that listens");
    }

    /// Presses a key with Ctrl.
    ///
    /// # Panics
    /// The terminal is gone.
    pub fn presses_control(&mut self, key: char) {
        self.0.send_control(key).expect("a terminal that listens");
    }

    /// Waits until the text appears, and tells what came before it.
    ///
    /// # Panics
    /// It does not appear.
    pub fn sees(&mut self, text: &str) -> String {
        // The library takes each byte for a character.
        let bytes: String = text.bytes().map(char::from).collect();
        let before = self.0.exp_string(&bytes).unwrap_or_else(|e| panic!("{text:?} did not appear: {e}"));
        let before: Vec<u8> = before.chars().filter_map(|c| u8::try_from(c).ok()).collect();
        String::from_utf8_lossy(&before).into_owned()
    }

    /// Waits until the command ends, and tells its exit code.
    ///
    /// # Panics
    /// It goes on, or a signal ended it.
    pub fn ends(mut self) -> i32 {
        self.0.exp_eof().unwrap_or_else(|e| panic!("it did not end: {e}"));
        match self.0.process().wait() {
            Ok(WaitStatus::Exited(_, code)) => code,
            other => panic!("it ended with {other:?}"),
        }
    }
}
