//! Draws a staged query for `EXPLAIN`.
//!
//! ```text
//! stage 1 · 1 task · result
//! │ SortPreservingMergeExec: [n@0 ASC]
//! │   ExchangeReaderExec: stage=0, gather
//! └─ reads stage 0 (sorted gather)
//! stage 0 · 8 tasks
//! ```

use std::sync::Arc;

use datafusion::physical_plan::{ExecutionPlan, displayable};
use serde::{Deserialize, Serialize};
use tidemill_core::StageId;
use tidemill_core::graph::{Determinism, ExchangeKind, TaskShape};

use super::{PlannedStage, StagedQuery, gathers};
use crate::exchange::ExchangeWriterExec;

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageDrawing {
    /// The stage.
    pub stage: StageId,
    /// How its partitions are tasks.
    pub shape: TaskShape,
    /// How its rows are divided, or that they are the result.
    pub output: String,
    /// What a repeated task gives.
    pub determinism: Determinism,
    /// Its operators, parents first.
    pub operators: Vec<OperatorDrawing>,
    /// What it reads.
    pub reads: Vec<ReadDrawing>,
}

/// One operator of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorDrawing {
    /// Where it stands below the stage's writer: the position among its parent's inputs, and so on down.
    pub path: Vec<u32>,
    /// What it is.
    pub name: String,
    /// The same, with what it does.
    pub line: String,
}

/// One exchange that a stage reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadDrawing {
    /// The stage that wrote it.
    pub stage: StageId,
    /// How it is read.
    pub kind: String,
}

impl StageDrawing {
    /// Its number, its tasks, and what becomes of its rows.
    #[must_use]
    pub fn head(&self) -> String {
        let tasks = match self.shape {
            TaskShape::PerPartition(1) | TaskShape::Whole(1) => "1 task".to_owned(),
            TaskShape::PerPartition(n) => format!("{n} tasks"),
            TaskShape::Whole(n) => format!("1 task of {n} partitions"),
        };
        let kind = match self.determinism {
            Determinism::Exact => "",
            Determinism::ValueIndeterminate => " · last digits may differ when repeated",
            Determinism::RowIndeterminate => " · rows may differ when repeated",
        };
        format!("stage {} · {tasks} · {}{kind}", self.stage, self.output)
    }

    /// All lines; `known` is what others know of the stage, `of` what they know of an operator.
    pub fn lines(&self, known: Vec<String>, of: impl Fn(&OperatorDrawing) -> String) -> Vec<String> {
        let mut lines = vec![self.head()];
        lines.extend(known);
        let indent = |operator: &OperatorDrawing| "  ".repeat(operator.path.len());
        lines.extend(self.operators.iter().map(|o| format!("│ {}{}{}", indent(o), o.line, of(o))));
        lines.extend(self.reads.iter().enumerate().map(|(position, read)| {
            let branch = if position + 1 == self.reads.len() { "└─" } else { "├─" };
            format!("{branch} reads stage {} ({})", read.stage, read.kind)
        }));
        lines
    }
}

/// The stages from the root down, each with its plan and what it reads.
#[must_use]
pub fn draw(query: &StagedQuery) -> Vec<StageDrawing> {
    query.stages.iter().rev().filter_map(|stage| draw_stage(query, stage)).collect()
}

fn draw_stage(query: &StagedQuery, stage: &PlannedStage) -> Option<StageDrawing> {
    let writer = stage.plan.downcast_ref::<ExchangeWriterExec>()?;
    let output = match &writer.partitioning {
        Some(partitioning) => format!("{partitioning}"),
        None if stage.id.index() + 1 == query.stages.len() => "result".to_owned(),
        None => "1 partition".to_owned(),
    };
    let mut operators = Vec::new();
    draw_operators(&writer.input, Vec::new(), &mut operators);
    let beyond: Vec<_> = gathers(query).into_iter().filter(|g| g.rule.is_none()).collect();
    let reads = stage.inputs.iter().map(|input| {
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
        ReadDrawing { stage: input.stage, kind: kind.to_owned() }
    });
    let (shape, determinism) = (stage.shape, stage.determinism);
    Some(StageDrawing { stage: stage.id, shape, output, determinism, reads: reads.collect(), operators })
}

fn draw_operators(plan: &Arc<dyn ExecutionPlan>, path: Vec<u32>, drawn: &mut Vec<OperatorDrawing>) {
    let line = displayable(plan.as_ref()).one_line().to_string().trim_end().to_owned();
    drawn.push(OperatorDrawing { path: path.clone(), name: plan.name().to_owned(), line });
    for (position, child) in (0u32..).zip(plan.children()) {
        let mut path = path.clone();
        path.push(position);
        draw_operators(child, path, drawn);
    }
}
