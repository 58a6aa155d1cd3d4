//! What a stage and a run cost, in lines for people.

use std::collections::BTreeSet;

use tidemill_core::record::{Output, Run, Stage, Task, TaskState};
use tidemill_engine::planner::Counted;
use tidemill_engine::wire::Durability;

use crate::output::size;

/// What becomes of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storing {
    Always,
    Auto,
    Off,
    /// There is no store.
    Nowhere,
}

impl Storing {
    /// Of a run with this [`Durability`].
    pub(super) fn of(counted: &Counted<'_>, durability: i32) -> Self {
        match (counted.has_store, Durability::try_from(durability)) {
            (false, _) => Self::Nowhere,
            (true, Ok(Durability::Off)) => Self::Off,
            (true, Ok(Durability::Auto)) => Self::Auto,
            (true, Ok(Durability::Always) | Err(_)) => Self::Always,
        }
    }
}

/// What all tasks of a stage cost together.
pub(super) fn stage(run: &Run, stage: &Stage, storing: Storing) -> Vec<String> {
    let mut lines = vec![flow(stage), time(stage), durability(run, stage, storing)];
    lines.extend(Repeats::of(stage).told());
    lines.extend(choices(stage).filter(|_| storing == Storing::Auto));
    lines
}

/// What each of its tasks cost.
pub(super) fn tasks(stage: &Stage, storing: Storing) -> impl Iterator<Item = String> {
    stage.tasks.iter().enumerate().map(move |(index, task)| one_task(index, task, storing))
}

pub(super) fn outputs(stage: &Stage) -> impl Iterator<Item = &Output> {
    stage.tasks.iter().filter_map(|task| task.output.as_ref())
}

/// What went in and out.
fn flow(stage: &Stage) -> String {
    let sum = |of: fn(&Output) -> u64| outputs(stage).map(of).sum::<u64>();
    let (rows_in, rows_out) = (sum(|o| o.metrics.rows_in), sum(|o| o.footer.rows));
    let (bytes_out, spilled) = (size(sum(|o| o.footer.bytes)), size(sum(|o| o.metrics.spilled_bytes)));
    format!("• {} in · {} out · {bytes_out} out · {spilled} spilled", many(rows_in, "row"), many(rows_out, "row"))
}

/// Attempts of a stage's tasks that came to nothing, and outputs that were made in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeats {
    pub(super) failed: u64,
    pub(super) executors: u64,
    pub(super) inputs: u64,
    pub(super) outputs: u64,
}

impl Repeats {
    pub(super) fn of(stage: &Stage) -> Self {
        let sum = |of: fn(&Task) -> u32| stage.tasks.iter().map(|task| u64::from(of(task))).sum();
        Self {
            failed: sum(|task| task.failures),
            executors: sum(|task| task.executor_losses),
            inputs: sum(|task| task.input_losses),
            outputs: sum(|task| task.repeats),
        }
    }

    const fn all(self) -> u64 {
        self.failed + self.executors + self.inputs + self.outputs
    }

    fn told(self) -> Option<String> {
        let causes = [
            (self.failed, "failed"),
            (self.executors, "lost with their executor"),
            (self.inputs, "lost an input"),
            (self.outputs, "whose output was lost"),
        ];
        let told = causes.iter().filter(|(count, _)| *count > 0).map(|(count, cause)| format!("{count} {cause}"));
        let told: Vec<String> = told.collect();
        (self.all() > 0).then(|| format!("• repeated attempts · {}", told.join(" · ")))
    }
}

/// How long its tasks took, and how often one of them had to begin again.
fn time(stage: &Stage) -> String {
    let mut took: Vec<u64> = stage.tasks.iter().filter_map(millis).collect();
    took.sort_unstable();
    let at = |index: usize| seconds(took.get(index).copied().unwrap_or_default());
    let (least, median, most) = (at(0), at(took.len() / 2), at(took.len().saturating_sub(1)));
    let repeated = Repeats::of(stage).all();
    let sum = seconds(took.iter().sum());
    format!("• {sum} s in tasks (min {least}, median {median}, max {most}) · {repeated} repeated")
}

/// How long the winning attempt of a task took.
pub(super) fn millis(task: &Task) -> Option<u64> {
    let ended = task.finished_at.filter(|_| task.state == TaskState::Succeeded)?;
    Some(ended.since(task.started_at?))
}

/// Where its outputs are besides with their executors, at this moment: packs are written behind the tasks.
fn durability(run: &Run, stage: &Stage, storing: Storing) -> String {
    let all = outputs(stage).count() as u64;
    let mut parts = match storing {
        Storing::Nowhere => vec![format!("{} not stored: the server has no store", many(all, "output"))],
        Storing::Off => vec![format!("{} not stored: durability is off", many(all, "output"))],
        Storing::Always | Storing::Auto => {
            let stored = outputs(stage).filter(|o| o.durable.is_some()).count() as u64;
            let packs: BTreeSet<&str> =
                outputs(stage).filter_map(|o| Some(run.packs.get(o.durable?)?.name.as_str())).collect();
            let left_out = outputs(stage).filter(|o| is_left_out(o)).count() as u64;
            let within = if packs.is_empty() { String::new() } else { format!(", in {}", many(packs.len(), "pack")) };
            let mut parts = vec![format!("{stored} of {} in the store{within}", many(all, "output"))];
            let waiting = all.saturating_sub(stored + left_out);
            parts.extend((waiting > 0).then(|| format!("{waiting} not stored yet")));
            parts.extend((left_out > 0).then(|| format!("{left_out} left out by auto")));
            parts
        }
    };
    let lost = stage.tasks.len() as u64 - all;
    parts.extend((lost > 0).then(|| format!("{lost} lost and not needed")));
    format!("• {}", parts.join(" · "))
}

fn is_left_out(output: &Output) -> bool {
    output.durable.is_none() && output.metrics.left_out_bytes > 0
}

/// What `auto` held against each other, for what it left out and for what it stores.
fn choices(stage: &Stage) -> Option<String> {
    let (left_out, taken): (Vec<&Output>, Vec<&Output>) = outputs(stage).partition(|o| is_left_out(o));
    let sides = |outputs: &[&Output]| {
        let sum = |of: fn(&Output) -> u64| seconds(outputs.iter().map(|o| of(o)).sum::<u64>() / 1_000_000);
        (sum(|o| o.metrics.make_ns), sum(|o| o.metrics.store_ns))
    };
    let mut parts = Vec::new();
    if !left_out.is_empty() {
        let (make, store) = sides(&left_out);
        parts.push(format!("left out what took {make} s to make and takes {store} s to store"));
    }
    if !taken.is_empty() {
        let (make, store) = sides(&taken);
        parts.push(format!("stores what took {make} s to make and takes {store} s to store"));
    }
    (!parts.is_empty()).then(|| format!("• auto {}", parts.join(" · ")))
}

fn one_task(index: usize, task: &Task, storing: Storing) -> String {
    let Some(output) = &task.output else { return format!("•   task {index} · {}", task.state.name()) };
    let stored = match storing {
        _ if output.durable.is_some() => "in the store",
        Storing::Auto if is_left_out(output) => "left out by auto",
        Storing::Always | Storing::Auto => "not stored yet",
        Storing::Off | Storing::Nowhere => "not stored",
    };
    let (rows_in, rows_out) = (many(output.metrics.rows_in, "row"), many(output.footer.rows, "row"));
    let (bytes, took) = (size(output.footer.bytes), seconds(millis(task).unwrap_or_default()));
    format!(
        "•   task {index} · {took} s on {} · {rows_in} in · {rows_out} out · {bytes} out · {stored}",
        output.executor
    )
}

/// What the whole run cost.
pub(super) fn total(counted: &Counted<'_>, storing: Storing) -> String {
    let run = counted.run;
    let setting = match storing {
        Storing::Always => "durability always",
        Storing::Auto => "durability auto",
        Storing::Off => "durability off",
        Storing::Nowhere => "no store",
    };
    let mut parts = vec![
        many(counted.rows, "row"),
        format!("{} s", seconds(counted.now.since(run.submitted_at))),
        format!("{} task seconds", seconds(run.totals.task_millis)),
        setting.to_owned(),
        format!("{} stored in {}", size(run.packs.iter().map(|p| p.bytes).sum()), many(run.packs.len(), "pack")),
    ];
    let left_out = run.stages.iter().flat_map(outputs).filter(|o| is_left_out(o)).map(|o| o.metrics.left_out_bytes);
    parts.extend((storing == Storing::Auto).then(|| format!("{} left out", size(left_out.sum()))));
    let puts: u64 = run.packs.iter().map(|p| p.puts).sum();
    let (gets, lists) = (run.totals.metrics.get_requests, run.totals.metrics.list_requests);
    parts.push(format!("{puts} put, {gets} get, {lists} list requests"));
    format!("total · {}", parts.join(" · "))
}

/// So many of something.
pub(super) fn many(count: impl TryInto<u64>, what: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Milliseconds as seconds.
pub(super) fn seconds(millis: u64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}
