//! A client's plan as the coordinator reads it: first what it asks for, then, when its tables are known, the plan.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::file_format::format_as_file_type;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::dml::CopyTo;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion_proto::logical_plan::AsLogicalPlan;
use datafusion_proto::protobuf::LogicalPlanNode;
use prost::Message;
use tidemill_core::{Error, Result};

use super::nodes::{self, PlanCodec};
use super::{formats, tables};
use crate::error::from_datafusion;
use crate::runtime::SYSTEM_SCHEMA;
use crate::wire::{self, FunctionKind, client_plan::Action, plan_table::Table};

/// What a plan looks like before it is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanLooks {
    /// Whether the coordinator seems to answer it alone.
    pub is_express: bool,
    /// Whether it may change anything outside.
    pub may_change: bool,
    /// Whether it holds what is to be written nowhere.
    pub has_secret: bool,
}

fn is_of_system(name: &str) -> bool {
    name.split_once('.').is_some_and(|(schema, _)| schema == SYSTEM_SCHEMA)
}

/// A client's plan that was received.
#[derive(Debug)]
pub struct ReceivedPlan(wire::ClientPlan);

/// A table that a received plan reads.
#[derive(Debug)]
pub enum ReceivedTable {
    /// A table of the catalogue, by its schema and name.
    Named(String),
    /// What a table function gives.
    Called {
        /// The function.
        function: String,
        /// Its arguments.
        arguments: Vec<Expr>,
    },
    /// One that came with the plan.
    Sent(Arc<dyn TableProvider>),
}

impl ReceivedPlan {
    /// Reads the outer message.
    ///
    /// # Errors
    /// The bytes are damaged.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let plan = wire::ClientPlan::decode(bytes);
        plan.map(Self).map_err(|e| Error::invalid(format!("the plan cannot be read: {e}")))
    }

    /// What it looks like. A wrong guess of [`PlanLooks::is_express`] costs only a place in the queue.
    #[must_use]
    pub fn looks(&self) -> PlanLooks {
        let of_cluster =
            |table: &wire::PlanTable| matches!(&table.table, Some(Table::Named(name)) if is_of_system(name));
        let asks_about_cluster = !self.0.tables.is_empty() && self.0.tables.iter().all(of_cluster);
        let is_express = match &self.0.action {
            Some(Action::Columns(_)) => true,
            Some(Action::Explain(explain)) => !explain.analyze,
            Some(Action::Copy(_)) | None => asks_about_cluster,
        };
        let may_change = matches!(self.0.action, Some(Action::Copy(_)));
        PlanLooks { is_express, may_change, has_secret: self.0.has_secret }
    }

    /// The looks of bytes, as far as they can be read: what cannot be judged is kept nowhere.
    #[must_use]
    pub fn looks_of(bytes: &[u8]) -> PlanLooks {
        let unreadable = PlanLooks { is_express: false, may_change: true, has_secret: true };
        Self::read(bytes).map_or(unreadable, |plan| plan.looks())
    }

    /// The table whose columns are asked for, if nothing else is.
    #[must_use]
    pub fn columns_of(&self) -> Option<&str> {
        match (&self.0.action, &self.0.tables[..]) {
            (Some(Action::Columns(_)), [wire::PlanTable { table: Some(Table::Named(name)) }]) => Some(name),
            _ => None,
        }
    }

    /// Checks that every function it calls is known here.
    ///
    /// # Errors
    /// One is not; the error names it.
    pub fn check_functions(&self, state: &SessionState) -> Result<()> {
        let is_known = |function: &&wire::PlanFunction| match function.kind() {
            FunctionKind::Scalar => state.scalar_functions().contains_key(&function.name),
            FunctionKind::Aggregate => state.aggregate_functions().contains_key(&function.name),
            FunctionKind::Window => state.window_functions().contains_key(&function.name),
        };
        match self.0.functions.iter().find(|function| !is_known(function)) {
            Some(unknown) => Err(Error::invalid(format!(
                "the cluster does not know the function `{}`: start its coordinators and executors from a binary that has \
                 it, see tidemill::Functions",
                unknown.name
            ))),
            None => Ok(()),
        }
    }

    /// The tables it reads, in the order of their positions.
    ///
    /// # Errors
    /// One cannot be decoded.
    pub fn tables(&self, task: &TaskContext) -> Result<Vec<ReceivedTable>> {
        let tables = self.0.tables.iter().map(|table| tables::decode(table, task));
        tables.collect::<DataFusionResult<_>>().map_err(|e| from_datafusion(&e))
    }

    /// The plan over its tables.
    ///
    /// # Errors
    /// The bytes are damaged, or a table has other columns than the client saw.
    pub fn into_plan(self, tables: Vec<Arc<dyn TableProvider>>, task: &TaskContext) -> Result<LogicalPlan> {
        self.plan(tables, task).map_err(|e| from_datafusion(&e))
    }

    fn plan(self, tables: Vec<Arc<dyn TableProvider>>, task: &TaskContext) -> DataFusionResult<LogicalPlan> {
        let node =
            LogicalPlanNode::decode(self.0.query.as_slice()).map_err(|e| DataFusionError::External(Box::new(e)))?;
        let query = nodes::restore(node.try_into_logical_plan(task, &PlanCodec { tables })?)?;
        match self.0.action {
            None | Some(Action::Columns(_)) => Ok(query),
            Some(Action::Explain(explain)) => {
                LogicalPlanBuilder::from(query).explain(explain.verbose, explain.analyze)?.build()
            }
            Some(Action::Copy(copy)) => {
                let file_type = format_as_file_type(formats::decode(&copy.format, copy.format_options.as_deref())?);
                let options = copy.options.into_iter().collect();
                Ok(LogicalPlan::Copy(CopyTo::new(Arc::new(query), copy.url, copy.partition_by, file_type, options)))
            }
        }
    }
}
