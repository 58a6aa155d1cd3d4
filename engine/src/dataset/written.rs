//! What a task wrote, as an object below the table that whoever commits reads.

use serde::{Deserialize, Serialize};
use tidemill_core::{Attempt, Error, Result, RunId};

use super::PartitionValues;

/// The folder of lists below a table's own. Its name begins with `_`: readers of the table skip it.
pub const MANIFESTS: &str = "_tidemill";

/// A complete file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    /// Its path below the table's folder.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Its rows.
    pub rows: u64,
    /// When it was complete, in milliseconds since 1970.
    pub modified: i64,
    /// The partition that it belongs to.
    pub partition: PartitionValues,
    /// What the log says of its columns, in Delta Lake's JSON.
    pub statistics: String,
}

/// All files of one attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// In the order in which they were complete.
    pub files: Vec<WrittenFile>,
}

impl Written {
    /// In bytes.
    ///
    /// # Errors
    /// It has no JSON: our own fault.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::internal(format!("a list of written files: {e}")))
    }

    /// The inverse of [`Self::encode`].
    ///
    /// # Errors
    /// The bytes are damaged.
    pub fn decode(bytes: &[u8], name: &str) -> Result<Self> {
        serde_json::from_slice(bytes)
            .map_err(|e| Error::internal(format!("the list of written files {name} is damaged: {e}")))
    }
}

/// The name of an attempt's list below the table's folder.
#[must_use]
pub fn manifest_name(run: &RunId, task: u32, attempt: Attempt) -> String {
    format!("{}/{task:05}-{attempt}.json", run_folder(run))
}

/// The folder of a run's lists below the table's.
#[must_use]
pub fn run_folder(run: &RunId) -> String {
    format!("{MANIFESTS}/{run}")
}

/// The name of a file of an attempt, without its folder.
pub(super) fn file_name(run: &RunId, task: u32, attempt: Attempt, number: usize) -> String {
    format!("part-{task:05}-{run}-{attempt}-{number}.parquet")
}

/// Whether a file's name is of an attempt of this run.
#[must_use]
pub fn names_run(name: &str, run: &RunId) -> bool {
    name.starts_with("part-") && name.contains(&format!("-{run}-"))
}
