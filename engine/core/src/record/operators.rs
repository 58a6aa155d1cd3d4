//! What the operators of a task's plan did, for `EXPLAIN ANALYZE`.

use serde::{Deserialize, Serialize};

/// What one operator did in one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorMetrics {
    /// Where it stands below the stage's writer: the position among its parent's inputs, and so on down.
    pub path: Vec<u32>,
    /// What it is: another one may stand there, where a task's plan is not the stage's.
    pub name: String,
    /// Rows that it gave.
    pub rows: u64,
    /// The time that it computed, in nanoseconds.
    pub compute_ns: u64,
    /// Bytes that it wrote to local disk.
    pub spilled_bytes: u64,
}
