//! Random stage graphs.

use tidemill_core::graph::{Determinism, ExchangeKind, Input, Stage, StageGraph, TaskShape};
use tidemill_core::{BlobHash, StageId};

use crate::rng::Rng;

const KINDS: [ExchangeKind; 5] = [
    ExchangeKind::Hash,
    ExchangeKind::Broadcast,
    ExchangeKind::Gather,
    ExchangeKind::SortedGather,
    ExchangeKind::Scalar,
];

/// A valid graph of one to seven stages. Most have one root only; a few have stages that nobody reads.
pub(crate) fn random(rng: &mut Rng) -> StageGraph {
    let mut stages: Vec<Stage> = Vec::new();
    for id in 0..rng.count(1, 7) {
        let mut stage = bare(rng, id);
        for _ in 0..rng.between(0, 3) {
            if let Some(producer) = rng.pick(&stages) {
                add_input(rng, &mut stage, producer);
            }
        }
        stages.push(stage);
    }
    if !rng.chance(100) {
        join_loose_ends(&mut stages);
    }
    let graph = StageGraph { stages };
    graph.validate().unwrap();
    graph
}

/// One stage without inputs.
pub(crate) fn stage(id: u32, shape: TaskShape) -> Stage {
    Stage {
        id: StageId(id),
        plan: BlobHash(format!("plan-{id}")),
        shape,
        output_partitions: 1,
        scans: Vec::new(),
        inputs: Vec::new(),
        determinism: Determinism::Exact,
    }
}

/// Stages in a row, each reading the one before it.
pub(crate) fn chain(tasks: &[u32]) -> StageGraph {
    let stages = (0u32..).zip(tasks).map(|(id, tasks)| {
        let before = id.checked_sub(1).map(|b| Input { stage: StageId(b), kind: ExchangeKind::Hash });
        Stage { inputs: before.into_iter().collect(), ..stage(id, TaskShape::PerPartition(*tasks)) }
    });
    StageGraph { stages: stages.collect() }
}

fn bare(rng: &mut Rng, id: u32) -> Stage {
    let whole = rng.chance(300);
    let shape = if whole { TaskShape::Whole(rng.count(1, 4)) } else { TaskShape::PerPartition(rng.count(1, 6)) };
    Stage {
        output_partitions: if rng.chance(500) { 1 } else { rng.count(1, 4) },
        determinism: if rng.chance(300) { Determinism::RowIndeterminate } else { Determinism::Exact },
        ..stage(id, shape)
    }
}

fn add_input(rng: &mut Rng, stage: &mut Stage, producer: &Stage) {
    if stage.inputs.iter().any(|i| i.stage == producer.id) {
        return;
    }
    let (TaskShape::PerPartition(partitions) | TaskShape::Whole(partitions)) = stage.shape;
    let one_task = stage.shape.tasks() == 1;
    let fits = |kind: &ExchangeKind| match kind {
        ExchangeKind::Hash => producer.output_partitions <= partitions || one_task,
        ExchangeKind::Broadcast => producer.output_partitions == 1,
        ExchangeKind::Gather | ExchangeKind::SortedGather => producer.output_partitions == 1 && one_task,
        ExchangeKind::Scalar => producer.output_partitions == 1 && producer.shape.tasks() == 1,
    };
    let kinds: Vec<ExchangeKind> = KINDS.into_iter().filter(fits).collect();
    stage.inputs.extend(rng.pick(&kinds).map(|kind| Input { stage: producer.id, kind: *kind }));
}

/// Makes the root read every stage that nobody else does.
fn join_loose_ends(stages: &mut [Stage]) {
    let Some((root, others)) = stages.split_last_mut() else { return };
    for position in 0..others.len() {
        let id = StageId(u32::try_from(position).unwrap());
        let read = others.iter().chain([&*root]).any(|s| s.inputs.iter().any(|i| i.stage == id));
        if !read {
            // One partition fits any number of tasks.
            others[position].output_partitions = 1;
            root.inputs.push(Input { stage: id, kind: ExchangeKind::Hash });
        }
    }
}
