//! Draws a staged query for `EXPLAIN`.
//!
//! ```text
//! stage 1 · 1 task · result
//! │ SortPreservingMergeExec: [n@0 ASC]
//! │   ExchangeReaderExec: stage=0, gather
//! └─ reads stage 0 (sorted gather)
//! stage 0 · 8 tasks
//! ```

use std::fmt::Write as _;

use datafusion::physical_plan::displayable;
use tidemill_core::graph::{Determinism, ExchangeKind, TaskShape};

use super::{PlannedStage, StagedQuery, gathers};
use crate::exchange::ExchangeWriterExec;

/// The stages from the root down, each with its plan and what it reads.
#[must_use]
pub fn draw(query: &StagedQuery) -> String {
    let mut text = String::new();
    for stage in query.stages.iter().rev() {
        draw_stage(&mut text, query, stage);
    }
    text
}

fn draw_stage(text: &mut String, query: &StagedQuery, stage: &PlannedStage) {
    let Some(writer) = stage.plan.downcast_ref::<ExchangeWriterExec>() else { return };
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
    // Writing to a String cannot fail.
    let _ = writeln!(text, "stage {} · {tasks} · {output}{kind}", stage.id);
    for line in displayable(writer.input.as_ref()).indent(false).to_string().lines() {
        let _ = writeln!(text, "│ {line}");
    }
    let beyond: Vec<_> = gathers(query).into_iter().filter(|g| g.rule.is_none()).collect();
    for (position, input) in stage.inputs.iter().enumerate() {
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
        let _ = writeln!(text, "{branch} reads stage {} ({kind})", input.stage);
    }
}
