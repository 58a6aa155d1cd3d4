//! Stages become bytes. Every one is decoded again here and compared, so that what a task runs is what was verified.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::common::internal_err;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::FileGroup;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use prost::Message;
use tidemill_core::graph::{ExchangeKind, Stage, StageGraph, TaskShape};
use tidemill_core::{BlobHash, Error};

use super::{PlannedStage, StagedQuery, with_children};
use crate::blob::Blob;
use crate::codec::{EncodedPlan, StageCodec, TaskScans, TaskValues, encode_schema, file_scan};
use crate::error::to_datafusion;
use crate::exchange::{ExchangeNodes, ExchangeWriterExec};
use crate::runtime::config_entries;
use crate::wire;

/// A stage graph and everything it names by hash.
#[derive(Debug)]
pub struct EncodedGraph {
    /// The stages.
    pub graph: StageGraph,
    /// Plans, scans and the session.
    pub blobs: Vec<Blob>,
    /// The session's blob.
    pub session: BlobHash,
}

/// Where the root's tasks write their rows.
#[derive(Debug)]
pub struct StageSink<'a> {
    /// The sink of the statement.
    pub exec: &'a DataSinkExec,
    /// Whether the statement names a file, and not a directory.
    pub single_file: bool,
}

/// The codec that knows all of Tidemill's nodes.
#[must_use]
pub fn stage_codec() -> StageCodec {
    StageCodec::new(vec![Box::new(ExchangeNodes)])
}

/// Encodes a verified query. With `sink`, the root's tasks write their rows through it.
///
/// # Errors
/// A node has no encoding, or decodes as something else.
pub fn encode(
    query: &StagedQuery,
    sink: Option<&StageSink<'_>>,
    context: &TaskContext,
    force_encode: bool,
) -> Result<EncodedGraph> {
    let codec = stage_codec();
    let config = config_entries(context.session_config().options());
    let spec = wire::SessionSpec { config: config.into_iter().collect(), stores: stores(query, sink)?, force_encode };
    let session = Blob::new(spec.encode_to_vec());
    let mut graph = StageGraph { stages: Vec::new() };
    let hash = session.hash.clone();
    let mut blobs = vec![session];
    for stage in &query.stages {
        let encoded = codec.encode(&stage.plan, &query.scalars)?;
        check_decoded(&codec, stage, &encoded, query, context)?;
        let sink = sink.filter(|_| stage.id.index() + 1 == query.stages.len());
        let spec = stage_spec(&codec, query, stage, &encoded, sink)?;
        let plan = Blob::new(spec.encode_to_vec());
        let scans = scan_blobs(stage, &encoded.scans)?;
        graph.stages.push(graph_stage(stage, &plan, &scans)?);
        blobs.push(plan);
        blobs.extend(scans.into_iter().flatten());
    }
    graph.validate().map_err(to_datafusion)?;
    Ok(EncodedGraph { graph, blobs, session: hash })
}

/// The object stores that a task must know before it can decode its plan.
fn stores(query: &StagedQuery, sink: Option<&StageSink<'_>>) -> Result<Vec<String>> {
    let mut stores = BTreeSet::new();
    for stage in &query.stages {
        stage.plan.apply(|node| {
            if let Some(scan) = file_scan(node) {
                stores.insert(scan.object_store_url.as_str().to_owned());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    if let Some(sink) = sink {
        stores.insert(super::sink::store_url(sink.exec)?);
    }
    stores.remove("file:///");
    Ok(stores.into_iter().collect())
}

fn graph_stage(stage: &PlannedStage, plan: &Blob, scans: &[Option<Blob>]) -> Result<Stage> {
    let Some(writer) = stage.plan.downcast_ref::<ExchangeWriterExec>() else {
        return internal_err!("stage {} has no writer", stage.id);
    };
    let output_partitions = u32::try_from(writer.output_partitions())
        .map_err(|_| to_datafusion(Error::resources_exhausted("an exchange has too many partitions")))?;
    Ok(Stage {
        id: stage.id,
        plan: plan.hash.clone(),
        shape: stage.shape,
        output_partitions,
        scans: scans.iter().map(|s| s.as_ref().map(|b| b.hash.clone())).collect(),
        inputs: stage.inputs.clone(),
        determinism: stage.determinism,
    })
}

fn stage_spec(
    codec: &StageCodec,
    query: &StagedQuery,
    stage: &PlannedStage,
    encoded: &EncodedPlan,
    sink: Option<&StageSink<'_>>,
) -> Result<wire::StageSpec> {
    let (whole_partitions, partitions) = match stage.shape {
        TaskShape::Whole(n) => (n, n),
        TaskShape::PerPartition(n) => (0, n),
    };
    let (sink, sink_single_file) = match sink {
        None => (Vec::new(), false),
        Some(sink) => {
            let exec = sink.exec;
            let nothing: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(exec.input().schema()));
            let original: Arc<dyn ExecutionPlan> = Arc::new(exec.clone());
            let emptied = with_children(&original, vec![nothing])?;
            (codec.encode(&emptied, &[])?.bytes.to_vec(), sink.single_file)
        }
    };
    let scalars = encoded.scalars.iter().map(|id| {
        let Some(producer) = query.stages.get(id.index()) else { return internal_err!("rule 4: no stage {id}") };
        Ok(wire::ScalarStage { stage: id.0, schema: encode_schema(&producer.plan.schema())? })
    });
    let scalars = scalars.collect::<Result<_>>()?;
    Ok(wire::StageSpec { plan: encoded.bytes.to_vec(), whole_partitions, partitions, sink, sink_single_file, scalars })
}

/// One blob per task that scans anything; nothing at all for stages without scans.
fn scan_blobs(stage: &PlannedStage, scans: &[Vec<FileGroup>]) -> Result<Vec<Option<Blob>>> {
    if scans.is_empty() {
        return Ok(Vec::new());
    }
    let partitions = |task: u32| match stage.shape {
        TaskShape::Whole(_) => 0..usize::MAX,
        TaskShape::PerPartition(_) => task as usize..task as usize + 1,
    };
    // A union's partitions are its branches' one after another, so a scan below one has fewer groups than the stage
    // has partitions: every task gets the groups its own partition of the scan can need.
    let direct = |groups: &Vec<FileGroup>| match stage.shape {
        TaskShape::Whole(_) => true,
        TaskShape::PerPartition(n) => groups.len() == n as usize,
    };
    let all_direct = scans.iter().all(direct);
    (0..stage.shape.tasks())
        .map(|task| {
            let wanted = if all_direct { partitions(task) } else { 0..usize::MAX };
            Ok(TaskScans::encode(scans, wanted)?.map(Blob::new))
        })
        .collect()
}

/// Decodes a stage and compares it with what was encoded: columns, partitions and orders of every node.
fn check_decoded(
    codec: &StageCodec,
    stage: &PlannedStage,
    encoded: &EncodedPlan,
    query: &StagedQuery,
    context: &TaskContext,
) -> Result<()> {
    let mut values = TaskValues::default();
    for input in stage.inputs.iter().filter(|i| i.kind == ExchangeKind::Scalar) {
        let Some(producer) = query.stages.get(input.stage.index()) else { continue };
        let schema = producer.plan.schema();
        let Some(field) = schema.fields().first() else { continue };
        values.scalars.insert(input.stage, ScalarValue::try_from(field.data_type())?);
    }
    let decoded = codec.decode(&encoded.bytes, values, context)?;
    compare(&stage.plan, &decoded)
        .map_err(|e| DataFusionError::Internal(format!("stage {}: {}", stage.id, e.message())))
}

fn compare(before: &Arc<dyn ExecutionPlan>, after: &Arc<dyn ExecutionPlan>) -> Result<()> {
    if before.name() != after.name() {
        return internal_err!("rule 15: {} decodes as {}", before.name(), after.name());
    }
    let types = |p: &Arc<dyn ExecutionPlan>| {
        p.schema().fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect::<Vec<_>>()
    };
    if types(before) != types(after) {
        return internal_err!("rule 15: {} decodes with other columns", before.name());
    }
    let partitions = |p: &Arc<dyn ExecutionPlan>| p.output_partitioning().partition_count();
    if partitions(before) != partitions(after) {
        return internal_err!("rule 15: {} decodes with other partitions", before.name());
    }
    if let Some(ordering) = before.output_ordering() {
        // Scans lose their order with their files; the merge above checks what it needs through its own sort.
        if !after.equivalence_properties().ordering_satisfy(ordering.iter().cloned())?
            && before.name() != "DataSourceExec"
        {
            return internal_err!("rule 18: {} loses its order [{ordering}] when decoded", before.name());
        }
    }
    let (before, after) = (before.children(), after.children());
    if before.len() != after.len() {
        return internal_err!("rule 15: a node decodes with other children");
    }
    before.into_iter().zip(after).try_for_each(|(b, a)| compare(b, a))
}
