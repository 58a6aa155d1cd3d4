//! What a task reads: manifests of its inputs, and values of scalar subqueries.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use tidemill_core::{BlobHash, Error, StageId, TaskId};
use tidemill_engine::codec::{TaskScans, TaskValues, decode_schema};
use tidemill_engine::error::TaskError;
use tidemill_engine::exchange::{BlockRequest, IoMetrics, Manifest};
use tidemill_engine::wire;

use super::AttemptSpec;
use crate::process::ExecutorShared;

/// Manifests by stage.
pub(super) type Manifests = BTreeMap<StageId, Manifest>;

/// Who holds what the task reads.
pub(super) async fn manifests(shared: &ExecutorShared, spec: &AttemptSpec) -> Result<Manifests, TaskError> {
    let mut manifests = Manifests::new();
    for input in &spec.launch.inputs {
        let bytes = shared.blobs.get(&BlobHash(input.manifest.clone())).await?;
        manifests.insert(StageId(input.stage), Manifest::decode(&bytes)?);
    }
    Ok(manifests)
}

/// What is put into the plan: values of scalar subqueries, and the task's files.
pub(super) async fn values(
    shared: &ExecutorShared,
    spec: &AttemptSpec,
    stage: &wire::StageSpec,
    manifests: &Manifests,
    metrics: &Arc<IoMetrics>,
) -> Result<TaskValues, TaskError> {
    let mut values = TaskValues::default();
    for scalar in &stage.scalars {
        let stage = StageId(scalar.stage);
        let manifest = manifests.get(&stage);
        let manifest = manifest.ok_or_else(|| Error::internal(format!("no manifest of scalar stage {stage}")))?;
        let value = read_scalar(shared, spec, manifest, &scalar.schema, metrics).await?;
        values.scalars.insert(stage, value);
    }
    if !spec.launch.scans.is_empty() {
        let bytes = shared.blobs.get(&BlobHash(spec.launch.scans.clone())).await?;
        values.scans = TaskScans::decode(&bytes)?;
    }
    Ok(values)
}

/// The value of a scalar subquery: none of no row, an error of several.
async fn read_scalar(
    shared: &ExecutorShared,
    spec: &AttemptSpec,
    manifest: &Manifest,
    schema: &[u8],
    metrics: &Arc<IoMetrics>,
) -> Result<ScalarValue, TaskError> {
    let schema = Arc::new(decode_schema(schema)?);
    let [output] = manifest.outputs.as_slice() else {
        return Err(Error::internal("rule 4: a scalar subquery has several tasks").into());
    };
    let block = BlockRequest {
        task: TaskId { stage: manifest.stage, index: 0 },
        attempt: output.attempt,
        partition: 0,
        holder: output.holder.clone(),
        footer: output.footer,
        pack: output.pack.clone(),
    };
    let read = shared.source.read(&spec.run, vec![block], Arc::clone(&schema), Arc::clone(metrics));
    let (mut batches, mut rows) = (Vec::new(), 0);
    futures::pin_mut!(read);
    while let Some(batch) = read.try_next().await? {
        rows += batch.num_rows();
        batches.push(batch);
        if rows > 1 {
            break; // Never more than one batch of a wrong answer.
        }
    }
    if rows > 1 {
        let message = "a subquery used as one value returned several rows: aggregate it, or add LIMIT 1";
        return Err(Error::invalid(message).into());
    }
    match batches.iter().find(|b| b.num_rows() == 1) {
        Some(batch) => Ok(ScalarValue::try_from_array(batch.column(0), 0)?),
        None => Ok(ScalarValue::try_from(schema.field(0).data_type())?),
    }
}
