//! `system.tasks`: one row per task, with its latest attempt.

use tidemill_core::record::{Run, State, Task, TaskState};
use tidemill_core::schedule::waiting_for;
use tidemill_core::{Millis, RunId, StageId, TaskId};

use super::Columns;

type Row<'a> = (&'a RunId, &'a Run, TaskId, &'a Task);

fn all_tasks(state: &State) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for (id, run) in &state.runs {
        for (stage, progress) in (0u32..).map(StageId).zip(&run.stages) {
            rows.extend((0u32..).zip(&progress.tasks).map(|(index, task)| (id, run, TaskId { stage, index }, task)));
        }
    }
    rows
}

/// The object of the store that holds the task's output.
fn pack(run: &Run, task: &Task) -> Option<String> {
    let durable = task.output.as_ref()?.durable?;
    run.packs.get(durable).map(|pack| pack.name.clone())
}

pub(super) fn rows(state: &State, now: Millis) -> Columns {
    let tasks = all_tasks(state);
    let all = || tasks.iter();
    let metric =
        |task: &Task, of: fn(&tidemill_core::record::TaskMetrics) -> u64| task.output.as_ref().map(|o| of(&o.metrics));
    let seconds = |task: &Task| {
        let end = match task.state {
            TaskState::Running => now,
            _ => task.finished_at?,
        };
        Some(end.since(task.started_at?) as f64 / 1e3)
    };
    Columns::default()
        .text("run_id", all().map(|(id, ..)| Some(id.0.clone())))
        .number("stage_id", all().map(|(_, _, id, _)| Some(id.stage.0)))
        .number("task_id", all().map(|(_, _, id, _)| Some(id.index)))
        .text("attempt", all().map(|(_, _, _, t)| t.attempt.map(|a| a.to_string())))
        .text("executor_id", all().map(|(_, _, _, t)| t.executor.as_ref().map(|e| e.0.clone())))
        .text("state", all().map(|(_, _, _, t)| Some(t.state.name())))
        .text("waiting_for", all().map(|(_, run, id, _)| waiting_for(state, run, *id, now)))
        .count("rows_in", all().map(|(_, _, _, t)| metric(t, |m| m.rows_in)))
        .count("rows_out", all().map(|(_, _, _, t)| metric(t, |m| m.rows_out)))
        .count("bytes_out", all().map(|(_, _, _, t)| metric(t, |m| m.bytes_out)))
        .count("left_out_bytes", all().map(|(_, _, _, t)| metric(t, |m| m.left_out_bytes)))
        .number("repeats", all().map(|(_, _, _, t)| Some(t.repeats)))
        .flag("adopted", all().map(|(_, _, _, t)| Some(t.adopted)))
        .text("pack", all().map(|(_, run, _, t)| pack(run, t)))
        .time("started_at", all().map(|(_, _, _, t)| t.started_at))
        .time("finished_at", all().map(|(_, _, _, t)| t.finished_at))
        .seconds("task_seconds", all().map(|(_, _, _, t)| seconds(t)))
        .text("error", all().map(|(_, _, _, t)| t.error.as_ref().map(|e| e.message.clone())))
}
