//! Plans of statements that write: the query's rows in the table's columns, sorted by partition, into files; and what becomes of these.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::{Column, ScalarValue, TableReference};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use tidemill_core::record::InputVersion;
use tidemill_core::{Error, Result};
use tidemill_engine::dataset::{DatasetSink, DatasetWrite, PartitionValues, Within, value_of, value_text};
use tidemill_engine::error::from_datafusion;
use tidemill_engine::plan::{StageSink, encode, stage};
use tidemill_engine::planner::{Plan, StagedPlan};

use super::exact::{bound, partition_value, shown};
use super::inputs::input_versions;
use super::kept;
use super::log::Log;
use super::pins::by_name;
use super::statement::planned;
use super::table::DatasetTable;
use super::target::{Mode, Scalar, Target, TypedPartition, writer};
use super::{Publication, WriteMode};
use crate::session::{Planning, check_table, dataset_finish, physical};

/// Rows into a table that is there.
pub(super) async fn write_to(
    planning: &Planning<'_>,
    table: &DatasetTable,
    query: LogicalPlan,
    mode: WriteMode,
    publication: Option<Publication>,
) -> Result<Plan> {
    let location = table.folder.location();
    let (version, profile) = (&table.version, &table.version.profile);
    profile.check_write(location)?;
    let (mut mode, within) = placed(mode, &version.schema, version.partition_by())?;
    if mode.replaces() {
        profile.check_removal(location)?;
        mode.cross(version)?;
        // What cannot be replaced is refused before anything is computed.
        mode.replaced(version)?;
    }
    let Publication { application, version: number, info, checks } = match publication {
        Some(publication) => {
            let done = Log::new(table.folder.clone()).application(version.number, &publication.application).await?;
            if done.is_some_and(|done| done >= publication.version) {
                // This version has it, or one before.
                return Ok(Plan::Published { version: version.number });
            }
            publication
        }
        None => Publication::of_run(&planning.request.run),
    };
    let plan = in_columns(query, &version.schema)?;
    let inputs = input_versions(&plan)?;
    let kept = kept::rows(planning, table, mode.crossing(), &within).await?;
    let keeps = kept.is_some();
    let rows = match kept {
        Some(kept) => kept::beside(planning, plan, kept, version.partition_by()).await?,
        None => sorted(physical(planning, &plan).await?, version.partition_by())?,
    };
    let write = DatasetWrite {
        location: location.to_owned(),
        schema: Arc::clone(&version.declared),
        partition_by: version.partition_by().to_vec(),
        within,
        keeps,
        file_bytes: profile.file_bytes(),
        writer: writer(&planning.request.run),
    };
    let target = Target {
        location: location.to_owned(),
        writer: write.writer.clone(),
        base: Some(version.number),
        made: None,
        operation: "WRITE".to_owned(),
        mode,
        application,
        version: number,
        info: with_inputs(info, &inputs)?,
        checkpoint_interval: profile.checkpoint_interval(),
        entry: None,
        checks,
    };
    staged(planning, rows, write, target, inputs).await
}

/// The stages of a plan whose rows go into files.
pub(super) async fn staged(
    planning: &Planning<'_>,
    rows: Arc<dyn ExecutionPlan>,
    write: DatasetWrite,
    target: Target,
    inputs: Vec<InputVersion>,
) -> Result<Plan> {
    let exec = DataSinkExec::new(Arc::clone(&rows), Arc::new(DatasetSink::new(write)), None);
    let query = planned(stage(rows, &planning.context).await)?;
    let sink = StageSink { exec: &exec, single_file: false };
    let encoded = planned(encode(&query, Some(&sink), &planning.context.task_ctx(), planning.settings.exchange))?;
    let (graph, blobs, session) = (encoded.graph, encoded.blobs, encoded.session);
    let finish = dataset_finish(target)?;
    let (schema, effects, keep) = (exec.schema(), true, true);
    Ok(Plan::Stages(StagedPlan { graph, blobs, session, schema, finish, effects, keep, inputs }))
}

/// What a commit says of itself, with the versions of the tables that its rows come from.
pub(super) fn with_inputs(
    mut info: BTreeMap<String, String>,
    inputs: &[InputVersion],
) -> Result<BTreeMap<String, String>> {
    let inputs = by_name(inputs.iter().map(|input| (input.location.as_str(), input.version)));
    let inputs = serde_json::to_string(&inputs).map_err(|e| Error::internal(format!("versions of inputs: {e}")))?;
    info.entry("inputs".to_owned()).or_insert(inputs);
    Ok(info)
}

/// The query's rows with the table's columns, by name and in the table's types.
pub(super) fn in_columns(query: LogicalPlan, schema: &SchemaRef) -> Result<LogicalPlan> {
    let given = Arc::clone(query.schema());
    let names: Vec<String> = given.fields().iter().map(|field| field.name().clone()).collect();
    if let Some(unknown) = names.iter().find(|name| schema.field_with_name(name).is_err()) {
        let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        return Err(Error::invalid(format!(
            "the query has a column `{unknown}`, which the table has not: it has {}",
            known.join(", ")
        )));
    }
    let column = |name: &String| -> Result<Expr> {
        let field = planned(schema.field_with_name(name).map_err(Into::into))?;
        let mut found = names.iter().enumerate().filter(|(_, given)| *given == name).map(|(index, _)| index);
        let expr = match (found.next(), found.next()) {
            (Some(index), None) => Expr::Column(Column::from(given.qualified_field(index))),
            (Some(_), Some(_)) => return Err(Error::invalid(format!("the query has two columns `{name}`: name one"))),
            (None, _) if field.is_nullable() => Expr::Literal(ScalarValue::Null, None),
            (None, _) => {
                return Err(Error::invalid(format!(
                    "the query has no column `{name}`, which is NOT NULL in the table"
                )));
            }
        };
        Ok(planned(expr.cast_to(field.data_type(), given.as_ref()))?.alias(name))
    };
    let columns = schema.fields().iter().map(|field| column(field.name())).collect::<Result<Vec<_>>>()?;
    planned(LogicalPlanBuilder::from(query).project(columns).and_then(LogicalPlanBuilder::build))
}

/// Rows of a partition beside each other, so that a task writes one file at a time.
pub(super) fn sorted(rows: Arc<dyn ExecutionPlan>, partition_by: &[String]) -> Result<Arc<dyn ExecutionPlan>> {
    let key = |name: &String| -> datafusion::error::Result<_> {
        Ok(PhysicalSortExpr::new(col(name, &rows.schema())?, SortOptions::default()))
    };
    let keys = planned(partition_by.iter().map(key).collect::<datafusion::error::Result<Vec<_>>>())?;
    let Some(ordering) = LexOrdering::new(keys) else { return Ok(rows) };
    // Where there is one partition only, they are.
    if planned(rows.equivalence_properties().ordering_satisfy(ordering.clone()))? {
        return Ok(rows);
    }
    Ok(Arc::new(SortExec::new(ordering, rows).with_preserve_partitioning(true)))
}

/// What is replaced, for the commit and for those who write.
fn placed(mode: WriteMode, schema: &SchemaRef, partition_by: &[String]) -> Result<(Mode, Within)> {
    Ok(match mode {
        WriteMode::Append => (Mode::Append, Within::Everything),
        WriteMode::Overwrite => (Mode::Overwrite, Within::Everything),
        WriteMode::ReplacePartitions(partitions) => {
            let normal = |of: PartitionValues| normalised(of, schema, partition_by);
            let partitions = partitions.into_iter().map(normal).collect::<Result<Vec<_>>>()?;
            if partitions.is_empty() {
                return Err(Error::invalid("no partition was named that is to be replaced: name one"));
            }
            let typed = partitions.iter().map(|of| typed(of, schema)).collect::<Result<_>>()?;
            (Mode::Partitions(typed), Within::Partitions(partitions))
        }
        WriteMode::AppendInterval { column, from, to } => {
            let (from, to) = bounds(&column, &from, &to, schema)?;
            (Mode::Append, Within::Interval { column, from, to })
        }
        WriteMode::ReplaceInterval { column, from, to } => {
            let (from, to) = bounds(&column, &from, &to, schema)?;
            let (least, beyond) = (Scalar::new(&from)?, Scalar::new(&to)?);
            let crossing = BTreeSet::new();
            let mode = Mode::Interval { column: column.clone(), from: least, to: beyond, crossing };
            (mode, Within::Interval { column, from, to })
        }
    })
}

/// The ends of an interval in the type of its column.
fn bounds(
    column: &str,
    from: &ScalarValue,
    to: &ScalarValue,
    schema: &SchemaRef,
) -> Result<(ScalarValue, ScalarValue)> {
    let (from, to) = (bound(column, from, schema)?, bound(column, to, schema)?);
    match from.partial_cmp(&to).is_some_and(std::cmp::Ordering::is_lt) {
        true => Ok((from, to)),
        false => Err(Error::invalid(format!(
            "the interval from {} to before {} is empty: write the earlier one first",
            shown(&from),
            shown(&to)
        ))),
    }
}

/// A partition's values in the types of their columns: texts differ between engines.
fn typed(of: &PartitionValues, schema: &SchemaRef) -> Result<TypedPartition> {
    let value = |(column, text): (&String, &Option<String>)| {
        let kind = planned(schema.field_with_name(column).map_err(Into::into))?.data_type();
        let value = planned(value_of(column, text.as_deref(), kind))?;
        Ok((column.clone(), Scalar::new(&value)?))
    };
    of.iter().map(value).collect()
}

/// A partition's values as the log has them.
fn normalised(of: PartitionValues, schema: &SchemaRef, partition_by: &[String]) -> Result<PartitionValues> {
    if of.is_empty() {
        return Err(Error::invalid(
            "a partition that is to be replaced has no values: name its columns, or use INSERT OVERWRITE",
        ));
    }
    let value = |(column, text): (String, Option<String>)| {
        if !partition_by.contains(&column) {
            let instead = match partition_by {
                [] => "an interval, `column >= value AND column < value`".to_owned(),
                by => format!("one of {}, or an interval", by.join(", ")),
            };
            return Err(Error::invalid(format!(
                "`{column}` does not divide the table, so that its rows with one value cannot be replaced alone: use {instead}"
            )));
        }
        let kind = planned(schema.field_with_name(&column).map_err(Into::into))?.data_type();
        let text = match text {
            Some(text) => planned(value_text(&column, &partition_value(&column, &text, kind)?))?,
            None => None,
        };
        Ok((column, text))
    };
    of.into_iter().map(value).collect()
}

/// The answer of a statement that had nothing to write.
pub(super) fn count(rows: u64) -> Result<Plan> {
    let columns: [(&str, ArrayRef); 1] = [("count", Arc::new(UInt64Array::from(vec![rows])))];
    let batch = RecordBatch::try_from_iter(columns).map_err(|e| from_datafusion(&e.into()))?;
    let schema: Arc<Schema> = batch.schema();
    Ok(Plan::Rows(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter([Ok(batch)])))))
}

/// Which table a statement names, if it is a dataset.
pub(super) async fn dataset(planning: &Planning<'_>, name: &TableReference, what: &str) -> Result<DatasetTable> {
    check_table(planning, name)?;
    let table = planned(planning.context.table_provider(name.clone()).await)?;
    let Some(dataset) = table.downcast_ref::<DatasetTable>() else {
        return Err(Error::invalid(format!(
            "`{name}` is no dataset, and {what} needs one: make it with CREATE EXTERNAL TABLE … STORED AS DELTA"
        )));
    };
    Ok(dataset.clone())
}
