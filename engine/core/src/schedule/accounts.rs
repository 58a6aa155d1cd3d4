//! Rows that must agree before what a run wrote is published: inside of its stages, and from stage to stage.
//!
//! Invariant: asked is only where every winner tells what it read, and where its plan reads all that it is given. A run that may
//! stop early is not asked.

use crate::graph::{ExchangeKind, Input};
use crate::record::{Output, Run, Task};
use crate::{Error, StageId};

/// Why a run must not be published: somewhere its winners' rows are not those that they were given.
pub(super) fn disagreement(run: &Run) -> Option<Error> {
    let stages = &run.graph.as_ref()?.stages;
    let found = stages.iter().find_map(|stage| {
        let between = || stage.inputs.iter().find_map(|input| between(run, stage.id, *input));
        within(run, stage.id).or_else(between)
    })?;
    Some(Error::internal(format!("{found}, so nothing is published: please report this as a bug")))
}

/// Where an operator took other rows than its input gave.
fn within(run: &Run, stage: StageId) -> Option<String> {
    let mut tasks = run.stages.get(stage.index())?.tasks.iter();
    let differs = tasks.find_map(|task| task.output.as_ref()?.rows.as_ref()?.differs.as_ref())?;
    let (operator, given, taken) = (&differs.operator, differs.given, differs.taken);
    Some(format!("in stage {stage}, {operator} took {taken} rows and was given {given}"))
}

/// A stage's winning outputs; `None` while one is not there, and where one may have taken the place of another that was read: of
/// aggregates that are not complete, a repetition may give more rows, with the same groups in the end.
fn outputs(run: &Run, stage: StageId) -> Option<Vec<&Output>> {
    run.stages.get(stage.index())?.tasks.iter().map(only_output).collect()
}

fn only_output(task: &Task) -> Option<&Output> {
    let output = task.output.as_ref()?;
    let is_compared = task.checksum.is_some() && output.footer.checksum.is_some();
    // Of an earlier leader's attempt it is not known what it read.
    let is_only = !task.adopted && (task.repeats == 0 || is_compared);
    is_only.then_some(output)
}

/// Where a stage's tasks read other rows of a producer than its winners gave.
fn between(run: &Run, stage: StageId, input: Input) -> Option<String> {
    let (producers, readers) = (outputs(run, input.stage)?, outputs(run, stage)?);
    let given = producers.iter().map(|output| output.footer.rows).sum::<u64>();
    let parts = parts(&readers, input.stage)?;
    let read: u64 = match input.kind {
        ExchangeKind::Hash => parts.iter().sum(),
        ExchangeKind::Gather | ExchangeKind::SortedGather if readers.len() == 1 => parts.iter().sum(),
        ExchangeKind::Broadcast => parts.into_iter().find(|part| *part != given).unwrap_or(given),
        ExchangeKind::Gather | ExchangeKind::SortedGather | ExchangeKind::Scalar => return None,
    };
    let of = if input.kind == ExchangeKind::Broadcast { "a task" } else { "its tasks" };
    let producer = input.stage;
    (read != given).then(|| format!("stage {stage} read {read} rows of stage {producer} in {of}, which gave {given}"))
}

/// What each task read of a producer that has a part of it; `None` where somebody does not tell, or need not have read all.
fn parts(readers: &[&Output], producer: StageId) -> Option<Vec<u64>> {
    let mut parts = Vec::new();
    for output in readers {
        let mut reads = output.rows.as_ref()?.reads.iter().filter(|read| read.from == producer);
        match (reads.next(), reads.next()) {
            // A branch of a union is in some tasks only.
            (None, _) => {}
            (Some(read), None) if read.whole => parts.push(read.rows),
            _ => return None,
        }
    }
    (!parts.is_empty()).then_some(parts)
}
