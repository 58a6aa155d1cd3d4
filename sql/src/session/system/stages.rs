//! `system.stages`: one row per stage of every run that was planned.

use tidemill_core::graph::{Determinism, Stage as Planned, TaskShape};
use tidemill_core::record::{Stage, State, TaskState};
use tidemill_core::{Millis, RunId};

use super::Columns;

pub(super) fn rows(state: &State, _: Millis) -> Columns {
    let planned = state.runs.iter().filter_map(|(id, run)| Some((id, run, run.graph.as_ref()?)));
    let stages: Vec<(&RunId, &Planned, &Stage)> =
        planned.flat_map(|(id, run, g)| g.stages.iter().zip(&run.stages).map(move |(p, s)| (id, p, s))).collect();
    let all = || stages.iter();
    let count = |stage: &Stage, state: TaskState| Some(stage.tasks.iter().filter(|t| t.state == state).count() as u64);
    let outputs = |stage: &Stage, of: fn(&tidemill_core::record::Output) -> u64| {
        Some(stage.tasks.iter().filter_map(|t| t.output.as_ref()).map(of).sum())
    };
    let inputs = |p: &Planned| {
        let named = p.inputs.iter().map(|i| format!("{} ({:?})", i.stage, i.kind).to_lowercase());
        Some(named.collect::<Vec<_>>().join(", "))
    };
    let whole =
        |p: &Planned| Some(if matches!(p.shape, TaskShape::Whole(_)) { "all partitions" } else { "one partition" });
    let repeatable = |p: &Planned| match p.determinism {
        Determinism::Exact => Some("exact"),
        Determinism::ValueIndeterminate => Some("value-indeterminate"),
        Determinism::RowIndeterminate => Some("row-indeterminate"),
    };
    Columns::default()
        .text("run_id", all().map(|(id, ..)| Some(id.0.clone())))
        .number("stage_id", all().map(|(_, p, _)| Some(p.id.0)))
        .text("inputs", all().map(|(_, p, _)| inputs(p)))
        .text("task_executes", all().map(|(_, p, _)| whole(p)))
        .text("determinism", all().map(|(_, p, _)| repeatable(p)))
        .count("tasks", all().map(|(_, _, s)| Some(s.tasks.len() as u64)))
        .count("tasks_running", all().map(|(_, _, s)| count(s, TaskState::Running)))
        .count("tasks_succeeded", all().map(|(_, _, s)| count(s, TaskState::Succeeded)))
        .number("output_partitions", all().map(|(_, p, _)| Some(p.output_partitions)))
        .count("rows_out", all().map(|(_, _, s)| outputs(s, |o| o.footer.rows)))
        .count("bytes_out", all().map(|(_, _, s)| outputs(s, |o| o.footer.bytes)))
}
