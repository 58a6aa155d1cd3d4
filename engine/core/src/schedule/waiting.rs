//! What a task waits for, in words for `system.tasks`.

use crate::record::{ExecutorState, Run, State, TaskState};
use crate::{Millis, TaskId};

/// What the task waits for: `None` when it waits for nothing.
#[must_use]
pub fn waiting_for(state: &State, run: &Run, task: TaskId, now: Millis) -> Option<String> {
    let progress = run.stages.get(task.stage.index())?.tasks.get(task.index as usize)?;
    match progress.state {
        TaskState::Ready if progress.not_before > now => {
            Some(format!("retry in {} ms", progress.not_before.since(now)))
        }
        TaskState::Ready if state.executors.values().all(|e| e.state != ExecutorState::Alive) => {
            Some("an executor: none is connected".to_owned())
        }
        TaskState::Ready => Some("a free slot".to_owned()),
        TaskState::Waiting => {
            let stage = run.graph.as_ref()?.stages.get(task.stage.index())?;
            let missing = stage.inputs.iter().filter_map(|input| {
                let producer = run.stages.get(input.stage.index()).filter(|p| !p.is_complete())?;
                Some(format!("stage {} ({} of {} tasks done)", input.stage, producer.complete, producer.tasks.len()))
            });
            Some(missing.collect::<Vec<_>>().join(", ")).filter(|s| !s.is_empty())
        }
        TaskState::Running | TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled | TaskState::Lost => None,
    }
}
