//! What a run executes: stages and the exchanges between them, as plain values.
//!
//! Invariant: no plan nodes, no schemas. A stage's plan is a blob's hash; the scheduler needs only shapes.

mod validate;

use serde::{Deserialize, Serialize};

use crate::{BlobHash, StageId};

/// The stages of one run, inputs before consumers; the last one is the root, whose output is the run's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageGraph {
    /// Stages by [`StageId`].
    pub stages: Vec<Stage>,
}

/// A piece of a plan that needs no exchange inside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its position in the graph.
    pub id: StageId,
    /// The encoded plan, the same for all its tasks.
    pub plan: BlobHash,
    /// How its partitions are divided into tasks.
    pub shape: TaskShape,
    /// Partitions of each task's output: consumers' partitions of a hash exchange, otherwise 1.
    pub output_partitions: u32,
    /// Per task, the files it scans, as a blob; empty where the stage scans none.
    pub scans: Vec<Option<BlobHash>>,
    /// The exchanges it reads.
    pub inputs: Vec<Input>,
    /// Whether a repeated attempt gives the same rows.
    pub determinism: Determinism,
}

/// How a stage's partitions are divided into tasks: one each, or all in one. Never another subset, because joins
/// share state and filters among the partitions of one plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskShape {
    /// One task for each of this many partitions.
    PerPartition(u32),
    /// One task that executes this many partitions in one process.
    Whole(u32),
}

impl TaskShape {
    /// How many tasks the stage has.
    #[must_use]
    pub const fn tasks(self) -> u32 {
        match self {
            Self::PerPartition(n) => n,
            Self::Whole(_) => 1,
        }
    }
}

/// An exchange read by a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Input {
    /// The producer.
    pub stage: StageId,
    /// How its output reaches the consumer's tasks.
    pub kind: ExchangeKind,
}

/// How a producer's output reaches the consumer's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ExchangeKind {
    /// Task p reads partition p of every producer task.
    Hash,
    /// Every task reads everything.
    Broadcast,
    /// One task reads everything.
    Gather,
    /// One task reads everything, one sorted stream per producer task, and merges.
    SortedGather,
    /// Every task reads one value.
    Scalar,
}

/// Whether a repeated attempt gives the same rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Determinism {
    /// The same rows.
    Exact,
    /// The same rows, but for the last digits of floating-point sums, which decide nothing in this stage.
    ValueIndeterminate,
    /// Perhaps other rows (`random()`): when an output is lost after somebody read it, all consumers start again.
    RowIndeterminate,
}

impl StageGraph {
    /// The stage whose output is the run's result.
    #[must_use]
    pub fn root(&self) -> StageId {
        StageId(u32::try_from(self.stages.len().saturating_sub(1)).unwrap_or(u32::MAX))
    }

    /// Tasks over all stages.
    #[must_use]
    pub fn tasks(&self) -> u64 {
        self.stages.iter().map(|s| u64::from(s.shape.tasks())).sum()
    }

    /// The stages that read `stage`.
    pub fn consumers(&self, stage: StageId) -> impl Iterator<Item = &Stage> {
        self.stages.iter().filter(move |s| s.inputs.iter().any(|i| i.stage == stage))
    }
}
