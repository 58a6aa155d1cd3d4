//! Plan bytes. DataFusion's own encoding for its nodes, ours for the rest: one file per node family, registered in one
//! table.
//!
//! Invariant: what decodes is what was encoded. What the stock encoding loses travels beside it (`scan`).

mod converter;
pub mod logical;
mod recursion;
mod scalar;
mod scan;
mod text;
mod window;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::Schema;
use bytes::Bytes;
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr_common::physical_expr::proto_decode::PhysicalExprDecodeCtx;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf;
use prost::Message;
use tidemill_core::{Error, StageId};

use crate::error::to_datafusion;
use crate::expect;
use crate::wire;
use converter::StageConverter;
pub use scalar::ScalarSource;
pub(crate) use scan::file_scan;
pub use scan::{EncodedScan, TaskScans};
pub(crate) use window::{signature, window_exprs};

/// A family of plan nodes of ours. `encode` answers `None` for nodes of other families.
pub trait NodeFamily: Debug + Send + Sync {
    /// The node's own fields; children are encoded by the caller.
    ///
    /// # Errors
    /// An expression of the node cannot be encoded.
    fn encode(&self, plan: &Arc<dyn ExecutionPlan>, ctx: &EncodeContext<'_>) -> Result<Option<wire::plan_node::Node>>;

    /// The node from its fields and decoded children; `None` if the fields are of another family.
    ///
    /// # Errors
    /// The bytes are damaged or of another build.
    fn decode(
        &self,
        node: &wire::plan_node::Node,
        children: &[Arc<dyn ExecutionPlan>],
        ctx: &DecodeContext<'_>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>>;
}

/// What a family needs to encode expressions inside its nodes.
#[derive(Debug)]
pub struct EncodeContext<'a> {
    /// Our codec.
    pub codec: &'a dyn PhysicalExtensionCodec,
    pub(crate) converter: ConverterRef<'a>,
}

/// What a family needs to decode expressions inside its nodes.
pub struct DecodeContext<'a> {
    /// The functions and settings of the task.
    pub task: &'a TaskContext,
    /// Our codec.
    pub codec: &'a dyn PhysicalExtensionCodec,
    pub(crate) converter: ConverterRef<'a>,
}

/// The active converter; a wrapper because the trait lacks `Debug`.
#[derive(Clone, Copy)]
pub(crate) struct ConverterRef<'a>(pub(crate) &'a dyn PhysicalProtoConverterExtension);

impl Debug for ConverterRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("converter")
    }
}

impl EncodeContext<'_> {
    /// Encodes an expression.
    ///
    /// # Errors
    /// It has no encoding.
    pub fn expr(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<protobuf::PhysicalExprNode> {
        self.converter.0.physical_expr_to_proto(expr, self.codec)
    }
}

impl DecodeContext<'_> {
    /// Decodes an expression over `schema`.
    ///
    /// # Errors
    /// It is damaged or names an unknown function.
    pub fn expr(&self, proto: &protobuf::PhysicalExprNode, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
        self.converter.0.proto_to_physical_expr(proto, schema, &PhysicalPlanDecodeContext::new(self.task, self.codec))
    }
}

/// Encodes and decodes stage plans.
#[derive(Debug, Clone, Default)]
pub struct StageCodec {
    families: Arc<Vec<Box<dyn NodeFamily>>>,
}

/// A stage plan in bytes, and what was taken out of it.
#[derive(Debug)]
pub struct EncodedPlan {
    /// The plan without files.
    pub bytes: Bytes,
    /// File groups by scan, as its partitions' groups.
    pub scans: Vec<EncodedScan>,
    /// Stages whose single value the plan's expressions use.
    pub scalars: Vec<StageId>,
}

/// What a task puts back into a decoded plan.
#[derive(Debug, Clone, Default)]
pub struct TaskValues {
    /// Values of scalar subqueries by stage.
    pub scalars: BTreeMap<StageId, ScalarValue>,
    /// The files that the task scans.
    pub scans: TaskScans,
}

impl StageCodec {
    /// A codec that knows `families` beside DataFusion's own nodes.
    #[must_use]
    pub fn new(families: Vec<Box<dyn NodeFamily>>) -> Self {
        Self { families: Arc::new(families) }
    }

    /// Encodes a stage's plan. `scalars` tells which stage computes which scalar subquery.
    ///
    /// # Errors
    /// A node or expression has no encoding.
    pub fn encode(&self, plan: &Arc<dyn ExecutionPlan>, scalars: &[ScalarSource]) -> Result<EncodedPlan> {
        let converter = StageConverter::for_encoding(scalars);
        let codec = TaskCodec { families: Arc::clone(&self.families), values: TaskValues::default() };
        let node = converter.execution_plan_to_proto(plan, &codec)?;
        let (scans, scalars) = converter.into_parts();
        Ok(EncodedPlan { bytes: node.encode_to_vec().into(), scans, scalars })
    }

    /// Decodes a stage's plan for one task.
    ///
    /// # Errors
    /// The bytes are damaged, of another build, or lack a value.
    pub fn decode(&self, bytes: &[u8], values: TaskValues, task: &TaskContext) -> Result<Arc<dyn ExecutionPlan>> {
        let node = protobuf::PhysicalPlanNode::decode(bytes).map_err(|e| DataFusionError::External(Box::new(e)))?;
        let codec = TaskCodec { families: Arc::clone(&self.families), values };
        let converter = StageConverter::for_decoding();
        converter.proto_to_execution_plan(&node, &PhysicalPlanDecodeContext::new(task, &codec))
    }
}

/// The extension codec of one encoding or decoding.
#[derive(Debug)]
struct TaskCodec {
    families: Arc<Vec<Box<dyn NodeFamily>>>,
    values: TaskValues,
}

impl TaskCodec {
    /// A node of a registered family, without its children; `None` for others.
    fn family_node(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Option<wire::plan_node::Node>> {
        let ctx = EncodeContext { codec: self, converter: ConverterRef(converter) };
        for family in self.families.iter() {
            if let Some(encoded) = family.encode(plan, &ctx)? {
                return Ok(Some(encoded));
            }
        }
        Ok(None)
    }
}

/// Functions are looked up by name; what is asked of the codec is unknown in this process.
fn unknown(function: &str) -> DataFusionError {
    to_datafusion(Error::invalid(format!(
        "an executor does not know the function `{function}`: start all executors from the coordinator's binary, see \
         tidemill::Functions"
    )))
}

impl PhysicalExtensionCodec for TaskCodec {
    fn try_decode_udf(&self, name: &str, _: &[u8]) -> Result<Arc<ScalarUDF>> {
        expect::named(name).ok_or_else(|| unknown(name))
    }

    fn try_decode_udaf(&self, name: &str, _: &[u8]) -> Result<Arc<AggregateUDF>> {
        Err(unknown(name))
    }

    fn try_decode_udwf(&self, name: &str, _: &[u8]) -> Result<Arc<WindowUDF>> {
        Err(unknown(name))
    }

    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        task: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let node = wire::PlanNode::decode(buf).map_err(|e| DataFusionError::External(Box::new(e)))?;
        let Some(node) = node.node else { return internal_err!("an extension node is empty") };
        if let wire::plan_node::Node::FileScan(scan) = &node {
            return scan::decode(scan, &self.values.scans, task, self, converter);
        }
        if let wire::plan_node::Node::Window(window) = &node {
            return window::decode(window, task, self, converter);
        }
        if let Some(plan) = recursion::decode(&node, inputs)? {
            return Ok(plan);
        }
        let ctx = DecodeContext { task, codec: self, converter: ConverterRef(converter) };
        for family in self.families.iter() {
            if let Some(plan) = family.decode(&node, inputs, &ctx)? {
                return Ok(plan);
            }
        }
        internal_err!("no family decodes the extension node {node:?}")
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        if let Some(encoded) = self.family_node(&node, converter)? {
            let encoded = wire::PlanNode { node: Some(encoded) };
            return encoded.encode(buf).map_err(|e| DataFusionError::External(Box::new(e)));
        }
        internal_err!("{} has no encoding", node.name())
    }

    fn try_decode_expr(
        &self,
        buf: &[u8],
        _inputs: &[Arc<dyn PhysicalExpr>],
        _ctx: &PhysicalExprDecodeCtx<'_>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        scalar::decode(buf, &self.values.scalars)
    }
}

/// A schema in bytes.
///
/// # Errors
/// A type has no encoding.
pub fn encode_schema(schema: &Schema) -> Result<Vec<u8>> {
    let proto = protobuf::Schema::try_from(schema).map_err(|e| DataFusionError::External(Box::new(e)))?;
    Ok(proto.encode_to_vec())
}

/// The inverse of [`encode_schema`].
///
/// # Errors
/// The bytes are damaged.
pub fn decode_schema(bytes: &[u8]) -> Result<Schema> {
    let proto = protobuf::Schema::decode(bytes).map_err(|e| DataFusionError::External(Box::new(e)))?;
    Schema::try_from(&proto).map_err(|e| DataFusionError::External(Box::new(e)))
}

/// A lock that outlives a panic elsewhere: the data is replaced whole, never left half-changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
