//! `system.executors`: one row per executor, lost ones included for a while.

use tidemill_core::Millis;
use tidemill_core::record::{Executor, ExecutorState, State};

use super::Columns;

pub(super) fn rows(state: &State, _: Millis) -> Columns {
    let all = || state.executors.values();
    let name = |e: &Executor| match e.state {
        ExecutorState::Alive => "alive",
        ExecutorState::Suspected { .. } => "suspected",
        ExecutorState::Lost => "lost",
    };
    Columns::default()
        .text("executor_id", state.executors.keys().map(|id| Some(id.0.clone())))
        .text("endpoint", all().map(|e| Some(e.endpoint.clone())))
        .text("state", all().map(|e| Some(name(e))))
        .number("slots", all().map(|e| Some(e.slots)))
        .number("free_slots", all().map(|e| Some(e.free_slots())))
        .count("memory_bytes", all().map(|e| Some(e.memory)))
        .count("running_tasks", all().map(|e| Some(e.running.len() as u64)))
        .time("joined_at", all().map(|e| Some(e.joined_at)))
}
