//! The plan node that is a run: submitted when it is executed, cancelled when its stream is dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::Bytes;
use datafusion::common::internal_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{StreamExt, TryStreamExt};
use tidemill_core::Error;
use tidemill_engine::error::to_datafusion;

use super::cluster::Cluster;

/// What is submitted.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// The plan in one line.
    pub(super) sql: String,
    /// The plan in bytes.
    pub(super) plan: Bytes,
    /// The session's settings.
    pub(super) settings: BTreeMap<String, String>,
}

/// What the answer is.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// The rows.
    Rows,
    /// The stages, which come after the logical plan.
    Explained {
        /// The logical plan.
        logical: String,
    },
    /// The stages with what they cost.
    Measured,
}

/// A run of the cluster.
#[derive(Debug)]
pub(super) struct RunExec {
    cluster: Arc<Cluster>,
    request: Request,
    form: Form,
    properties: Arc<PlanProperties>,
}

impl RunExec {
    pub(super) fn new(cluster: Arc<Cluster>, request: Request, schema: SchemaRef, form: Form) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { cluster, request, form, properties: Arc::new(properties) }
    }
}

impl DisplayAs for RunExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunExec: {}", self.request.sql)
    }
}

impl ExecutionPlan for RunExec {
    fn name(&self) -> &'static str {
        "RunExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a run has one partition, not {partition}");
        }
        let (cluster, request, form) = (Arc::clone(&self.cluster), self.request.clone(), self.form.clone());
        let (schema, expected) = (self.schema(), self.schema());
        let opened = async move {
            let Request { sql, plan, settings } = request;
            let result = cluster.submit(sql, plan, settings).await.map_err(to_datafusion)?;
            let batches = result.into_stream().map_err(to_datafusion);
            // The cluster that is inside this process lives as long as its last stream.
            let batches = batches.inspect(move |_| {
                let _ = &cluster;
            });
            Ok::<_, datafusion::error::DataFusionError>(match form {
                Form::Rows => batches.map(move |batch| with_schema(batch?, &expected)).boxed(),
                Form::Explained { logical } => {
                    let lines = batches.try_collect::<Vec<_>>().await?;
                    let plans = [("logical_plan", logical), ("stages", text(&lines)?)];
                    futures::stream::iter([explained(&plans, &expected)]).boxed()
                }
                Form::Measured => {
                    let lines = batches.try_collect::<Vec<_>>().await?;
                    futures::stream::iter([explained(&[("Plan with Metrics", text(&lines)?)], &expected)]).boxed()
                }
            })
        };
        let batches = futures::stream::once(opened).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

/// Gives a batch the columns that were planned: the cluster's may differ in nullability.
fn with_schema(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let types = |schema: &SchemaRef| schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
    if types(batch.schema_ref()) != types(schema) {
        return Err(to_datafusion(Error::internal(format!(
            "the cluster answered with columns of types {:?}, where {:?} were planned",
            types(batch.schema_ref()),
            types(schema)
        ))));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

/// The lines of the first column, as one text.
fn text(batches: &[RecordBatch]) -> Result<String> {
    let mut lines = Vec::new();
    for batch in batches {
        let Some(column) = batch.columns().first().and_then(|column| column.as_string_opt::<i32>()) else {
            return internal_err!("the cluster draws plans in another form");
        };
        lines.extend(column.iter().flatten());
    }
    Ok(lines.join("\n"))
}

/// Plans by their kinds, as DataFusion shows them.
fn explained(plans: &[(&str, String)], schema: &SchemaRef) -> Result<RecordBatch> {
    let kinds: StringArray = plans.iter().map(|(kind, _)| Some(*kind)).collect();
    let texts: StringArray = plans.iter().map(|(_, text)| Some(text.as_str())).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(kinds), Arc::new(texts)];
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
