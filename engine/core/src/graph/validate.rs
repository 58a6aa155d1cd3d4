//! What every stage graph must satisfy before it is scheduled.

use super::{ExchangeKind, Stage, StageGraph, TaskShape};
use crate::{Error, Result};

/// Tasks × partitions of one exchange: its control data grows with this product.
const MAX_BLOCKS: u64 = 32_000_000;

impl StageGraph {
    /// Checks that ids are positions, inputs come before consumers and partition counts agree.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] naming the stage: the planner made a mistake; `ResourcesExhausted` for an
    /// exchange with too many blocks.
    pub fn validate(&self) -> Result<()> {
        if self.stages.is_empty() {
            return Err(Error::internal("a stage graph has no stage"));
        }
        for (position, stage) in self.stages.iter().enumerate() {
            if stage.id.index() != position {
                return Err(Error::internal(format!("stage {} stands at position {position}", stage.id)));
            }
            self.validate_stage(stage)?;
        }
        Ok(())
    }

    fn validate_stage(&self, stage: &Stage) -> Result<()> {
        let tasks = stage.shape.tasks();
        if tasks == 0 || stage.output_partitions == 0 {
            return Err(Error::internal(format!("stage {} has no task or no output partition", stage.id)));
        }
        if !stage.scans.is_empty() && stage.scans.len() != tasks as usize {
            return Err(Error::internal(format!(
                "stage {} has {tasks} tasks but scans for {}",
                stage.id,
                stage.scans.len()
            )));
        }
        let blocks = u64::from(tasks) * u64::from(stage.output_partitions);
        if blocks > MAX_BLOCKS {
            return Err(Error::resources_exhausted(format!(
                "stage {} would exchange {blocks} blocks, more than {MAX_BLOCKS}: set fewer partitions",
                stage.id
            )));
        }
        for input in &stage.inputs {
            let producer = self.stages.get(input.stage.index()).filter(|p| p.id < stage.id).ok_or_else(|| {
                Error::internal(format!(
                    "stage {} reads stage {}, which does not come before it",
                    stage.id, input.stage
                ))
            })?;
            validate_input(stage, input.kind, producer)?;
        }
        Ok(())
    }
}

fn validate_input(stage: &Stage, kind: ExchangeKind, producer: &Stage) -> Result<()> {
    let (TaskShape::PerPartition(partitions) | TaskShape::Whole(partitions)) = stage.shape;
    let agrees = match kind {
        // A union's partitions are the concatenation of its branches', so a branch may have fewer.
        ExchangeKind::Hash => producer.output_partitions <= partitions || stage.shape.tasks() == 1,
        ExchangeKind::Gather | ExchangeKind::SortedGather | ExchangeKind::Broadcast => producer.output_partitions == 1,
        ExchangeKind::Scalar => producer.output_partitions == 1 && producer.shape.tasks() == 1,
    };
    if agrees {
        return Ok(());
    }
    Err(Error::internal(format!(
        "stage {} with shape {:?} cannot read {} partitions of stage {} as {kind:?}",
        stage.id, stage.shape, producer.output_partitions, producer.id
    )))
}
