//! Draws a staged query for `EXPLAIN`.
//!
//! ```text
//! stage 1 · 1 task · result
//! │ SortPreservingMergeExec: [n@0 ASC]
//! │   ExchangeReaderExec: stage=0, gather
//! └─ reads stage 0 (sorted gather)
//! stage 0 · 8 tasks
//! ```

use datafusion::physical_plan::displayable;
use serde::{Deserialize, Serialize};
use tidemill_core::StageId;
use tidemill_core::graph::{Determinism, ExchangeKind, TaskShape};

use super::{PlannedStage, StagedQuery, gathers};
use crate::exchange::ExchangeWriterExec;

/// One stage, as lines of text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageDrawing {
    /// The stage.
    pub stage: StageId,
    /// Its number, its tasks, and what becomes of its rows.
    pub head: String,
    /// Its plan.
    pub plan: Vec<String>,
    /// What it reads.
    pub reads: Vec<String>,
}

impl StageDrawing {
    /// All lines, with some that others know behind the first.
    pub fn lines(self, known: Vec<String>) -> impl Iterator<Item = String> {
        [self.head].into_iter().chain(known).chain(self.plan).chain(self.reads)
    }
}

/// The stages from the root down, each with its plan and what it reads.
#[must_use]
pub fn draw(query: &StagedQuery) -> Vec<StageDrawing> {
    query.stages.iter().rev().filter_map(|stage| draw_stage(query, stage)).collect()
}

fn draw_stage(query: &StagedQuery, stage: &PlannedStage) -> Option<StageDrawing> {
    let writer = stage.plan.downcast_ref::<ExchangeWriterExec>()?;
    let tasks = match stage.shape {
        TaskShape::PerPartition(1) | TaskShape::Whole(1) => "1 task".to_owned(),
        TaskShape::PerPartition(n) => format!("{n} tasks"),
        TaskShape::Whole(n) => format!("1 task of {n} partitions"),
    };
    let output = match &writer.partitioning {
        Some(partitioning) => format!("{partitioning}"),
        None if stage.id.index() + 1 == query.stages.len() => "result".to_owned(),
        None => "1 partition".to_owned(),
    };
    let kind = match stage.determinism {
        Determinism::Exact => "",
        Determinism::ValueIndeterminate => " · last digits may differ when repeated",
        Determinism::RowIndeterminate => " · rows may differ when repeated",
    };
    let head = format!("stage {} · {tasks} · {output}{kind}", stage.id);
    let plan = displayable(writer.input.as_ref()).indent(false).to_string();
    let plan = plan.lines().map(|line| format!("│ {line}")).collect();
    let beyond: Vec<_> = gathers(query).into_iter().filter(|g| g.rule.is_none()).collect();
    let reads = stage.inputs.iter().enumerate().map(|(position, input)| {
        let branch = if position + 1 == stage.inputs.len() { "└─" } else { "├─" };
        let kind = match input.kind {
            ExchangeKind::Gather if beyond.iter().any(|g| g.stage == stage.id && g.reads == input.stage) => {
                "gather that no rule names"
            }
            ExchangeKind::Hash => "hash",
            ExchangeKind::Broadcast => "broadcast",
            ExchangeKind::Gather => "gather",
            ExchangeKind::SortedGather => "sorted gather",
            ExchangeKind::Scalar => "one value",
        };
        format!("{branch} reads stage {} ({kind})", input.stage)
    });
    Some(StageDrawing { stage: stage.id, head, plan, reads: reads.collect() })
}
