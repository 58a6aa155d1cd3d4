//! What a task wrote, as an object below the table that whoever commits reads.

use serde::{Deserialize, Serialize};
use tidemill_core::{Attempt, Error, Result};

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
    /// Whether its rows were there before: they are no rows of the statement.
    #[serde(default)]
    pub kept: bool,
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
pub fn manifest_name(writer: &str, task: u32, attempt: Attempt) -> String {
    format!("{}/{task:05}-{attempt}.json", manifest_folder(writer))
}

/// The folder of a writer's lists below the table's.
#[must_use]
pub fn manifest_folder(writer: &str) -> String {
    format!("{MANIFESTS}/{writer}")
}

/// The name of a file of an attempt, without its folder.
pub(super) fn file_name(writer: &str, task: u32, attempt: Attempt, number: usize) -> String {
    format!("part-{task:05}-{writer}-{attempt}-{number}.parquet")
}

/// Whether a file's name is of this writer.
#[must_use]
pub fn names_writer(name: &str, writer: &str) -> bool {
    // After the number of the task.
    let rest = name.strip_prefix("part-").and_then(|rest| rest.split_once('-')).map(|(_, rest)| rest);
    let rest = rest.and_then(|rest| rest.strip_prefix(writer)?.strip_prefix('-')?.strip_suffix(".parquet"));
    // An attempt has two numbers, and the file a third: a longer writer's name leaves more than these.
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = rest.into_iter().flat_map(|rest| rest.split('-')).collect();
    parts.len() == 3 && parts.iter().all(is_number)
}

#[cfg(test)]
mod tests {
    use tidemill_core::Epoch;

    use super::*;

    #[test]
    fn a_writer_knows_its_own_files_and_no_others() {
        let attempt = Attempt { epoch: Epoch(1), counter: 7 };
        let name = |writer: &str| file_name(writer, 3, attempt, 0);
        assert!(names_writer(&name("load-A1"), "load-A1"));
        for other in ["load", "load-A", "A1", "1", "load-A1-2", "3"] {
            assert!(!names_writer(&name("load-A1"), other), "{other}");
        }
        assert!(!names_writer(&name("load-A1-2"), "load-A12"));
    }
}
