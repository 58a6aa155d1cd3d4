//! Where each attempt's start and end is written down as it comes to pass, for those who recount what was repeated.
//!
//! One line each: `MILLIS started|succeeded|failed RUN TASK ATTEMPT`. Written only if `TIDEMILL_ATTEMPT_JOURNAL` names a
//! file.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use tidemill_core::{Error, Result};
use tidemill_engine::wire;

/// The variable that names the file.
const VARIABLE: &str = "TIDEMILL_ATTEMPT_JOURNAL";

/// The journal; without a file it keeps nothing.
#[derive(Debug, Default)]
pub(crate) struct AttemptJournal(Option<File>);

impl AttemptJournal {
    /// The journal that the environment names.
    pub(crate) fn open() -> Result<Self> {
        let Some(path) = std::env::var_os(VARIABLE) else { return Ok(Self::default()) };
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let unusable = |e| Error::invalid(format!("{VARIABLE} {}: {e}", path.display()));
        Ok(Self(Some(file.map_err(unusable)?)))
    }

    pub(crate) fn note(&mut self, what: &str, attempt: &wire::AttemptRef) {
        let Some(file) = &mut self.0 else { return };
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let (task, number) = (attempt.task.unwrap_or_default(), attempt.attempt.unwrap_or_default());
        let (run, stage, index) = (&attempt.run, task.stage, task.index);
        let line = format!("{at} {what} {run} {stage}.{index} {}-{}\n", number.epoch, number.counter);
        // One write per line, so that lines stay whole when the process is killed.
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::warn!(%error, "the attempt journal cannot be written");
        }
    }
}
