//! What the outputs of attempts contain, and whether a result is made of one consistent reading.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_core::graph::{Determinism, StageGraph};
use tidemill_core::{Attempt, RunId, StageId, TaskId};

use crate::rng::mix;
use crate::world::Check;

/// An output as a launch names it.
pub(crate) type Named = (TaskId, Attempt);

/// Stands for the rows of one output, and remembers where they came from.
#[derive(Debug, Clone)]
struct Content {
    rows: u64,
    inputs: Vec<Named>,
}

/// The contents of every output that was ever written.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    outputs: BTreeMap<Attempt, Content>,
    /// Runs of which no single result is the right one.
    by_chance: BTreeSet<RunId>,
}

impl Contents {
    /// Writes an output: a function of its inputs for exact stages, different in every attempt for others.
    ///
    /// Gives back what a row checksum would.
    pub(crate) fn write(
        &mut self,
        run: &RunId,
        task: TaskId,
        attempt: Attempt,
        how: Determinism,
        inputs: Vec<Named>,
    ) -> u64 {
        let read = inputs.iter().map(|(task, attempt)| (*task, self.outputs[attempt].rows)).collect();
        if how == Determinism::RowIndeterminate {
            self.by_chance.insert(run.clone());
        }
        let own = match how {
            Determinism::Exact | Determinism::ValueIndeterminate => 0,
            Determinism::RowIndeterminate => attempt.counter ^ (attempt.epoch.0 << 32),
        };
        let rows = rows_of(run, task, &read) ^ mix(own);
        self.outputs.insert(attempt, Content { rows, inputs });
        rows
    }

    /// Whether all readers on the way to the result read the same content of every task, and whether a result without
    /// chance in it is the only possible one.
    pub(crate) fn check_result(&self, run: &RunId, graph: &StageGraph, root: &BTreeMap<TaskId, Attempt>) -> Check {
        let mut versions: BTreeMap<TaskId, BTreeSet<u64>> = BTreeMap::new();
        let mut visited = BTreeSet::new();
        let mut open: Vec<Named> = root.iter().map(|(t, a)| (*t, *a)).collect();
        while let Some((task, attempt)) = open.pop() {
            if visited.insert(attempt) {
                let content = &self.outputs[&attempt];
                versions.entry(task).or_default().insert(content.rows);
                open.extend(&content.inputs);
            }
        }
        for (task, contents) in &versions {
            if contents.len() != 1 {
                return Err(format!("the result of run {run} mixes {} contents of task {task}", contents.len()));
            }
        }
        if self.by_chance.contains(run) {
            return Ok(());
        }
        let expected = expected_rows(run, graph);
        let wrong = root.iter().find(|(task, attempt)| self.outputs[attempt].rows != expected[task]);
        wrong.map_or(Ok(()), |(task, _)| Err(format!("the result of run {run} has wrong rows in task {task}")))
    }
}

fn rows_of(run: &RunId, task: TaskId, inputs: &BTreeMap<TaskId, u64>) -> u64 {
    let name = run.0.bytes().fold(0, |sum, byte| mix(sum ^ u64::from(byte)));
    let own = mix(name ^ (u64::from(task.stage.0) << 32) ^ u64::from(task.index));
    inputs.iter().fold(own, |sum, (task, rows)| mix(sum ^ rows ^ (u64::from(task.stage.0) << 16)))
}

/// The tasks of a stage.
pub(crate) fn tasks_of(graph: &StageGraph, stage: StageId) -> Vec<TaskId> {
    (0..graph.stages[stage.index()].shape.tasks()).map(|index| TaskId { stage, index }).collect()
}

/// The tasks that a stage's tasks read.
pub(crate) fn inputs_of(graph: &StageGraph, stage: StageId) -> Vec<TaskId> {
    graph.stages[stage.index()].inputs.iter().flat_map(|i| tasks_of(graph, i.stage)).collect()
}

/// The rows of every task in a graph without chance.
fn expected_rows(run: &RunId, graph: &StageGraph) -> BTreeMap<TaskId, u64> {
    let mut rows: BTreeMap<TaskId, u64> = BTreeMap::new();
    for stage in &graph.stages {
        let read = inputs_of(graph, stage.id).into_iter().map(|t| (t, rows[&t])).collect();
        for task in tasks_of(graph, stage.id) {
            rows.insert(task, rows_of(run, task, &read) ^ mix(0));
        }
    }
    rows
}
