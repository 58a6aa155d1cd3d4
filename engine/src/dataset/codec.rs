//! Bytes of sinks that write into datasets.

use std::sync::Arc;

use datafusion::common::{ScalarValue, internal_err};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::protobuf;
use prost::Message;

use super::{DatasetSink, DatasetWrite, PartitionValues, Within};
use crate::codec::{DecodeContext, EncodeContext, NodeFamily, decode_schema, encode_schema};
use crate::wire::{self, plan_node::Node};

/// Sinks of datasets.
#[derive(Debug)]
pub struct DatasetNodes;

impl NodeFamily for DatasetNodes {
    fn encode(&self, plan: &Arc<dyn ExecutionPlan>, _: &EncodeContext<'_>) -> Result<Option<Node>> {
        let Some(exec) = plan.downcast_ref::<DataSinkExec>() else { return Ok(None) };
        let Some(sink) = exec.sink().downcast_ref::<DatasetSink>() else { return Ok(None) };
        let DatasetWrite { location, schema, partition_by, within, keeps, file_bytes, writer } = sink.write();
        let (mut partitions, mut interval) = (Vec::new(), None);
        match within {
            Within::Everything => {}
            Within::Partitions(allowed) => partitions = allowed.iter().map(values).collect(),
            Within::Interval { column, from, to } => {
                let (from, to) = (encode_scalar(from)?, encode_scalar(to)?);
                interval = Some(wire::DatasetInterval { column: column.clone(), from, to });
            }
        }
        Ok(Some(Node::DatasetSink(wire::DatasetSinkNode {
            location: location.clone(),
            schema: encode_schema(schema)?,
            partition_by: partition_by.clone(),
            file_bytes: *file_bytes,
            writer: writer.clone(),
            partitions,
            interval,
            keeps: *keeps,
        })))
    }

    fn decode(
        &self,
        node: &Node,
        children: &[Arc<dyn ExecutionPlan>],
        _: &DecodeContext<'_>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Node::DatasetSink(node) = node else { return Ok(None) };
        let [input] = children else { return internal_err!("a dataset's sink has {} inputs", children.len()) };
        let within = match (&node.interval, node.partitions.is_empty()) {
            (Some(interval), _) => Within::Interval {
                column: interval.column.clone(),
                from: decode_scalar(&interval.from)?,
                to: decode_scalar(&interval.to)?,
            },
            (None, true) => Within::Everything,
            (None, false) => Within::Partitions(node.partitions.iter().map(of_values).collect()),
        };
        let write = DatasetWrite {
            location: node.location.clone(),
            schema: Arc::new(decode_schema(&node.schema)?),
            partition_by: node.partition_by.clone(),
            within,
            keeps: node.keeps,
            file_bytes: node.file_bytes,
            writer: node.writer.clone(),
        };
        Ok(Some(Arc::new(DataSinkExec::new(Arc::clone(input), Arc::new(DatasetSink::new(write)), None))))
    }
}

fn values(of: &PartitionValues) -> wire::DatasetPartition {
    let value = |(column, value): (&String, &Option<String>)| wire::DatasetPartitionValue {
        column: column.clone(),
        value: value.clone(),
    };
    wire::DatasetPartition { values: of.iter().map(value).collect() }
}

fn of_values(partition: &wire::DatasetPartition) -> PartitionValues {
    partition.values.iter().map(|value| (value.column.clone(), value.value.clone())).collect()
}

/// A value in bytes.
///
/// # Errors
/// Its type has no encoding.
pub fn encode_scalar(value: &ScalarValue) -> Result<Vec<u8>> {
    let proto = protobuf::ScalarValue::try_from(value).map_err(|e| DataFusionError::External(Box::new(e)))?;
    Ok(proto.encode_to_vec())
}

/// The inverse of [`encode_scalar`].
///
/// # Errors
/// The bytes are damaged.
pub fn decode_scalar(bytes: &[u8]) -> Result<ScalarValue> {
    let proto = protobuf::ScalarValue::decode(bytes).map_err(|e| DataFusionError::External(Box::new(e)))?;
    ScalarValue::try_from(&proto).map_err(|e| DataFusionError::External(Box::new(e)))
}
