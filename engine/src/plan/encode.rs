//! Stages become bytes. Every one is decoded again and compared (`decoded`), so that what a task runs is what was
//! verified.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::internal_err;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use prost::Message;
use tidemill_core::graph::{Stage, StageGraph, TaskShape};
use tidemill_core::{BlobHash, Error};

use super::needs::Needs;
use super::{PlannedStage, StagedQuery, decoded, with_children};
use crate::blob::Blob;
use crate::codec::{EncodedPlan, EncodedScan, StageCodec, TaskScans, encode_schema, file_scan};
use crate::connector::ConnectorNodes;
use crate::dataset::DatasetNodes;
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

/// What a run says of its exchanges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExchangeSettings {
    /// Every frame goes through its encoding, in the same process too.
    pub force_encode: bool,
    /// What becomes of outputs.
    pub durability: wire::Durability,
    /// Tasks tell what each operator did.
    pub operator_metrics: bool,
}

/// The codec that knows all of Tidemill's nodes.
#[must_use]
pub fn stage_codec() -> StageCodec {
    StageCodec::new(vec![Box::new(ExchangeNodes), Box::new(ConnectorNodes), Box::new(DatasetNodes)])
}

/// Encodes a verified query. With `sink`, the root's tasks write their rows through it.
///
/// # Errors
/// A node has no encoding, or decodes as something else.
pub fn encode(
    query: &StagedQuery,
    sink: Option<&StageSink<'_>>,
    context: &TaskContext,
    exchange: ExchangeSettings,
) -> Result<EncodedGraph> {
    let codec = stage_codec();
    let config = config_entries(context.session_config().options());
    let ExchangeSettings { force_encode, durability, operator_metrics } = exchange;
    let (config, stores) = (config.into_iter().collect(), stores(query, sink)?);
    let spec = wire::SessionSpec { config, stores, force_encode, durability: durability.into(), operator_metrics };
    let session = Blob::new(spec.encode_to_vec());
    let mut graph = StageGraph { stages: Vec::new() };
    let hash = session.hash.clone();
    let mut blobs = vec![session];
    for stage in &query.stages {
        let encoded = codec.encode(&stage.plan, &query.scalars)?;
        decoded::check(&codec, stage, &encoded, query, context)?;
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
        super::sink::check_options(sink.exec)?;
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
    Ok(wire::StageSpec {
        plan: encoded.bytes.to_vec(),
        whole_partitions,
        partitions,
        sink,
        sink_single_file,
        scalars,
        exact: stage.exact.clone(),
    })
}

/// One blob per task that scans anything; nothing at all for stages without scans.
fn scan_blobs(stage: &PlannedStage, scans: &[EncodedScan]) -> Result<Vec<Option<Blob>>> {
    if scans.is_empty() {
        return Ok(Vec::new());
    }
    let needs = Needs::of(&stage.plan, matches!(stage.shape, TaskShape::Whole(_)));
    let blob = |task: u32| {
        let needs: Vec<_> = scans.iter().map(|scan| needs.partitions(&scan.node, task as usize)).collect();
        Ok(TaskScans::encode(scans, &needs)?.map(Blob::new))
    };
    (0..stage.shape.tasks()).map(blob).collect()
}
