//! What a stage's operators did, over all its tasks.

use std::collections::BTreeMap;

use tidemill_core::record::{Output, Stage};
use tidemill_engine::plan::OperatorDrawing;

use super::measured::{many, seconds};
use crate::output::size;

/// One operator, over the winning attempts of a stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) rows: u64,
    pub(super) compute_ns: u64,
    pub(super) spilled_bytes: u64,
}

/// A stage's operators by path and name: where a task's plan has another operator than the stage's, that one is not
/// measured there.
#[derive(Debug, Default)]
pub(super) struct Operators(BTreeMap<(Vec<u32>, String), Sum>);

impl Operators {
    pub(super) fn of(stage: &Stage) -> Self {
        let mut sums: BTreeMap<(Vec<u32>, String), Sum> = BTreeMap::new();
        let outputs = stage.tasks.iter().filter_map(|task| task.output.as_ref());
        for operator in outputs.flat_map(|output: &Output| &output.operators) {
            let sum = sums.entry((operator.path.clone(), operator.name.clone())).or_default();
            sum.rows += operator.rows;
            sum.compute_ns += operator.compute_ns;
            sum.spilled_bytes += operator.spilled_bytes;
        }
        Self(sums)
    }

    pub(super) fn get(&self, drawn: &OperatorDrawing) -> Option<Sum> {
        self.0.get(&(drawn.path.clone(), drawn.name.clone())).copied()
    }

    /// What is told behind an operator's line.
    pub(super) fn told(&self, drawn: &OperatorDrawing) -> String {
        let Some(sum) = self.get(drawn) else { return String::new() };
        let spilled = match sum.spilled_bytes {
            0 => String::new(),
            bytes => format!(" · {} spilled", size(bytes)),
        };
        format!(" · {} · {} s{spilled}", many(sum.rows, "row"), seconds(sum.compute_ns / 1_000_000))
    }
}
