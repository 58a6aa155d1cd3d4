//! Bytes of scans of other databases.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;

use super::{ConnectorScan, ConnectorScanExec, RemoteTable};
use crate::codec::{DecodeContext, EncodeContext, NodeFamily, decode_schema, encode_schema};
use crate::error::to_datafusion;
use crate::wire::{self, plan_node::Node};

/// Scans of other databases.
#[derive(Debug)]
pub struct ConnectorNodes;

impl NodeFamily for ConnectorNodes {
    fn encode(&self, plan: &Arc<dyn ExecutionPlan>, _: &EncodeContext<'_>) -> Result<Option<Node>> {
        let Some(exec) = plan.downcast_ref::<ConnectorScanExec>() else { return Ok(None) };
        let ConnectorScan { table, sql, schema, wire } = &exec.scan;
        Ok(Some(Node::ConnectorScan(wire::ConnectorScanNode {
            kind: table.kind.name().to_owned(),
            database: table.database.clone(),
            table: table.table.clone(),
            sql: sql.clone(),
            schema: encode_schema(schema)?,
            wire: encode_schema(wire)?,
        })))
    }

    fn decode(
        &self,
        node: &Node,
        _: &[Arc<dyn ExecutionPlan>],
        _: &DecodeContext<'_>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Node::ConnectorScan(node) = node else { return Ok(None) };
        let kind = node.kind.parse().map_err(to_datafusion)?;
        let table = RemoteTable { kind, database: node.database.clone(), table: node.table.clone() };
        let (schema, wire) = (Arc::new(decode_schema(&node.schema)?), Arc::new(decode_schema(&node.wire)?));
        Ok(Some(Arc::new(ConnectorScanExec::new(ConnectorScan { table, sql: node.sql.clone(), schema, wire }))))
    }
}
