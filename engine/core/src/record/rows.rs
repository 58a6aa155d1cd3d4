//! What became of the rows of tasks, by which a run is held to account before it is published.

use serde::{Deserialize, Serialize};

use super::state::{Output, Run};
use crate::StageId;

/// What became of the rows of one task. A sum is none where an operator does not tell what is needed for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RowCounts {
    /// Rows that filters took and did not give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filtered: Option<u64>,
    /// Rows that aggregates took, where they are not yet aggregated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregated: Option<u64>,
    /// Groups that aggregates gave, where they are complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<u64>,
    /// Rows that joins gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<u64>,
    /// Rows that its readers of exchanges gave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<RowsRead>,
    /// The first place in its plan where rows went missing, or came from nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differs: Option<RowsDiffer>,
}

/// What a task read of another stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsRead {
    /// The stage.
    pub from: StageId,
    /// Rows.
    pub rows: u64,
    /// Whether the plan is one that reads its part of the stage to the end.
    pub whole: bool,
}

/// Two figures of a task's plan that should be the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsDiffer {
    /// Who took the rows.
    pub operator: String,
    /// What its input counted.
    pub given: u64,
    /// What it counted.
    pub taken: u64,
}

impl Run {
    /// Rows that the scans of its tasks gave, each task counted once; none while an output is not there, or was lost after its
    /// readers had it.
    #[must_use]
    pub fn rows_read(&self) -> Option<u64> {
        self.sum(|output| Some(output.metrics.rows_scanned))
    }

    /// Rows that its filters took and did not give; this and the others none as [`Self::rows_read`] is, and where a task does not
    /// tell.
    #[must_use]
    pub fn rows_filtered(&self) -> Option<u64> {
        self.sum(|output| output.rows.as_ref()?.filtered)
    }

    /// Rows that its aggregates took.
    #[must_use]
    pub fn rows_aggregated(&self) -> Option<u64> {
        self.sum(|output| output.rows.as_ref()?.aggregated)
    }

    /// Groups that its aggregates gave.
    #[must_use]
    pub fn groups(&self) -> Option<u64> {
        self.sum(|output| output.rows.as_ref()?.groups)
    }

    /// Rows that its joins gave.
    #[must_use]
    pub fn rows_joined(&self) -> Option<u64> {
        self.sum(|output| output.rows.as_ref()?.joined)
    }

    fn sum(&self, of: impl Fn(&Output) -> Option<u64>) -> Option<u64> {
        let mut tasks = self.stages.iter().flat_map(|s| &s.tasks).peekable();
        tasks.peek()?;
        tasks.map(|task| task.output.as_ref().and_then(&of)).sum()
    }
}
