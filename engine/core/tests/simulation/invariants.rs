//! What must hold in every state.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use tidemill_core::graph::{Determinism, StageGraph};
use tidemill_core::record::{ExecutorState, Run, RunState, RunningAttempt, State, TaskState};
use tidemill_core::{Attempt, RunId, StageId, TaskId};

use crate::content::inputs_of;
use crate::world::Check;

/// Returns an error unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
pub(crate) use ensure;

/// Checks everything that one state can tell.
pub(crate) fn check(state: &State) -> Check {
    let mut working: BTreeMap<(&RunId, Attempt), TaskId> = BTreeMap::new();
    let mut held_by: BTreeMap<&RunId, u32> = BTreeMap::new();
    for (id, run) in &state.runs {
        ensure!(
            state.live.contains(id) != run.state.is_terminal(),
            "run {id} is {} and live is wrong",
            run.state.name()
        );
        if run.state == RunState::Running {
            check_run(run).map_err(|why| format!("run {id}: {why}"))?;
        }
        for (stage, progress) in (0u32..).map(StageId).zip(&run.stages) {
            let running = (0u32..).zip(&progress.tasks).filter(|(_, t)| t.state == TaskState::Running);
            let attempts = running.flat_map(|(index, t)| {
                let second = t.rival.as_ref().map(|rival| rival.attempt);
                t.attempt.into_iter().chain(second).map(move |attempt| ((id, attempt), TaskId { stage, index }))
            });
            working.extend(attempts);
            let alone = progress.tasks.iter().all(|t| t.state == TaskState::Running || t.rival.is_none());
            ensure!(alone, "a task of stage {stage} of run {id} is raced and does not run");
        }
    }
    for (id, executor) in &state.executors {
        let held: u32 = executor.running.values().map(|a| a.slots).sum();
        ensure!(held == executor.held_slots, "{id} counts {} held slots of {held}", executor.held_slots);
        // Starved runs share slots, two tasks on each; and each run may hold the slots of one more. What earlier leaders
        // launched comes on top.
        let runs = u32::try_from(state.live.len()).unwrap();
        let given: u32 =
            executor.running.iter().filter(|(a, _)| Some(a.epoch) == state.epoch).map(|(_, r)| r.slots).sum();
        ensure!(given <= executor.slots * (3 + runs), "{id} has {} slots but {given} were given", executor.slots);
        for (attempt, RunningAttempt { run, task, slots }) in &executor.running {
            let known = working.remove(&(run, *attempt)) == Some(*task);
            ensure!(known, "{id} holds slots for {attempt} of task {task} of run {run}, which does not run");
            *held_by.entry(run).or_default() += slots;
        }
    }
    for (id, run) in &state.runs {
        let held = held_by.remove(id).unwrap_or(0);
        ensure!(held == run.held_slots, "run {id} counts {} held slots of {held}", run.held_slots);
    }
    let idle = state.executors.iter().filter(|(_, e)| e.state == ExecutorState::Alive && e.free_slots() > 0);
    let idle: BTreeSet<_> = idle.map(|(id, e)| (e.free_slots(), Reverse(id.clone()))).collect();
    ensure!(idle == state.idle, "idle executors are {idle:?} but listed are {:?}", state.idle);
    ensure!(working.is_empty(), "tasks run without a slot: {working:?}");
    crate::jobs::check_runs(state)
}

fn check_run(run: &Run) -> Check {
    let mut ready = BTreeSet::new();
    for (stage, progress) in (0u32..).map(StageId).zip(&run.stages) {
        let outputs = progress.tasks.iter().filter(|t| t.output.is_some()).count();
        ensure!(
            outputs == progress.complete as usize,
            "stage {stage} counts {} outputs of {outputs}",
            progress.complete
        );
        for (index, task) in (0u32..).zip(&progress.tasks) {
            let id = TaskId { stage, index };
            let succeeded = task.state == TaskState::Succeeded;
            ensure!(succeeded == task.output.is_some(), "task {id} is {} but its output differs", task.state.name());
            ensure!(task.state != TaskState::Cancelled, "task {id} is cancelled but its run is not");
            if task.state == TaskState::Ready {
                ready.insert((task.not_before, id));
                ensure!(is_needed(run, stage), "task {id} is ready but nobody needs it");
                for input in input_tasks(run, stage) {
                    let available = run.stages[input.stage.index()].tasks[input.index as usize].output.is_some();
                    ensure!(available, "task {id} is ready but its input {input} is not available");
                }
            }
        }
    }
    ensure!(ready == run.ready, "the ready tasks are {ready:?} but listed are {:?}", run.ready);
    Ok(())
}

/// The tasks that a stage's tasks read.
pub(crate) fn input_tasks(run: &Run, stage: StageId) -> Vec<TaskId> {
    inputs_of(run.graph.as_ref().unwrap(), stage)
}

/// Whether a stage is incomplete and a chain of incomplete stages leads from it to the root.
pub(crate) fn is_needed(run: &Run, stage: StageId) -> bool {
    let graph = run.graph.as_ref().unwrap();
    let incomplete = !run.stages[stage.index()].is_complete();
    incomplete && (stage == graph.root() || graph.consumers(stage).any(|consumer| is_needed(run, consumer.id)))
}

/// Whether a chain of exchanges leads from the stage to the root.
pub(crate) fn leads_to_root(graph: &StageGraph, stage: StageId) -> bool {
    stage == graph.root() || graph.consumers(stage).any(|consumer| leads_to_root(graph, consumer.id))
}

/// Whether a stage has read, perhaps through other stages, rows that are lost and cannot be made again.
pub(crate) fn follows_lost_rows(run: &Run, stage: StageId) -> bool {
    let graph = run.graph.as_ref().unwrap();
    graph.stages[stage.index()].inputs.iter().any(|input| {
        let producer = &graph.stages[input.stage.index()];
        let lost = !run.stages[input.stage.index()].is_complete();
        (producer.determinism == Determinism::RowIndeterminate && lost) || follows_lost_rows(run, input.stage)
    })
}
