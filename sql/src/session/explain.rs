//! `EXPLAIN`: the stage tree.

use std::sync::Arc;

use arrow::array::StringArray;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Explain, LogicalPlan};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use tidemill_core::Result;
use tidemill_core::graph::Stage;
use tidemill_engine::error::from_datafusion;
use tidemill_engine::plan::{ExchangeSettings, draw, encode, stage};
use tidemill_engine::planner::Plan;

use super::analyze::{Form, json};
use super::{Planning, query};

pub(super) async fn explain(planning: &Planning<'_>, explain: &Explain) -> Result<Plan> {
    let explained = match explain.plan.as_ref() {
        LogicalPlan::Copy(copy) => copy.input.as_ref(),
        LogicalPlan::Dml(dml) => dml.input.as_ref(),
        plan => plan,
    };
    let physical = query::physical(planning, explained).await?;
    let staged = stage(physical, &planning.context).await.map_err(|e| from_datafusion(&e))?;
    // What cannot be run is refused here too.
    let encoded = encode(&staged, None, &planning.context.task_ctx(), ExchangeSettings::default())
        .map_err(|e| from_datafusion(&e))?;
    let drawings = draw(&staged);
    let mut lines = vec![];
    if Form::of(&explain.explain_format)? == Form::Json {
        return answer(rows(vec![json::tree(&drawings, None).to_string()])?);
    }
    if explain.verbose {
        lines.extend(explained.display_indent().to_string().lines().map(str::to_owned));
    }
    lines.extend(drawings.iter().flat_map(|stage| stage.lines(vec![], |_| String::new())));
    if explain.verbose {
        lines.extend(encoded.graph.stages.iter().map(hashes));
    }
    answer(rows(lines)?)
}

/// Rows that the coordinator has.
pub(crate) fn answer(batch: RecordBatch) -> Result<Plan> {
    let schema = batch.schema();
    Ok(Plan::Rows(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter([Ok(batch)])))))
}

/// A stage by the content of what its tasks are sent: equal wherever the same run is planned with the same inputs.
fn hashes(stage: &Stage) -> String {
    let scans = stage.scans.iter().map(|scan| scan.as_ref().map_or("-", |hash| hash.0.as_str()));
    format!("stage {} · plan {} · files {}", stage.id, stage.plan.0, scans.collect::<Vec<_>>().join(" "))
}

/// Marks a column whose values are lines of one text: a terminal shows them as they are.
pub const LINES: &str = "tidemill.lines";

/// The one column of what is drawn.
pub(super) fn column() -> SchemaRef {
    let field = Field::new("plan", DataType::Utf8, false).with_metadata([(LINES.to_owned(), String::new())].into());
    Arc::new(Schema::new(vec![field]))
}

/// Lines in that column.
pub(super) fn rows(lines: Vec<String>) -> Result<RecordBatch> {
    let lines = Arc::new(StringArray::from(lines));
    RecordBatch::try_new(column(), vec![lines]).map_err(|e| from_datafusion(&DataFusionError::from(e)))
}
