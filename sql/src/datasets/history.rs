//! `DESCRIBE HISTORY`: what the log says of its entries, newest first.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use datafusion::common::TableReference;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::parser::Statement;
use futures::StreamExt;
use serde_json::{Map, Value};
use tidemill_core::{ErrorKind, Result};
use tidemill_engine::error::to_datafusion;
use tidemill_engine::planner::Plan;

use super::create::DELTA;
use super::folder::Folder;
use super::log::Log;
use super::version::actions;
use super::write::dataset;
use crate::session::{Planning, definition_of, statements};

/// Versions in one batch.
const BATCH: usize = 256;

/// The columns of the answer.
pub(super) fn columns() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        Field::new("version", DataType::Int64, false),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        text("operation"),
        text("run"),
        text("engine"),
        text("info"),
    ]))
}

pub(super) async fn history(planning: &Planning<'_>, name: &TableReference, limit: Option<usize>) -> Result<Plan> {
    let log = Log::new(folder(planning, name).await?);
    let mut versions: Vec<u64> = log.listed().await?.into_iter().map(|(version, _)| version).rev().collect();
    versions.truncate(limit.unwrap_or(usize::MAX));
    let chunks: Vec<Vec<u64>> = versions.chunks(BATCH).map(<[u64]>::to_vec).collect();
    let batches = futures::stream::iter(chunks).then(move |chunk| {
        let log = log.clone();
        async move {
            let mut rows = Vec::new();
            for (version, entry) in log.entries(chunk).await.map_err(to_datafusion)? {
                // One that was cleaned up meanwhile.
                let Some(entry) = entry else { continue };
                let lines = actions(&entry).map_err(to_datafusion)?.unwrap_or_default();
                rows.push((version, lines.into_iter().find_map(|line| line.info).unwrap_or_default()));
            }
            batch(rows)
        }
    });
    Ok(Plan::Rows(Box::pin(RecordBatchStreamAdapter::new(columns(), batches))))
}

/// Where the log is. It tells what happened also where that made a version which is not read here.
async fn folder(planning: &Planning<'_>, name: &TableReference) -> Result<Folder> {
    match dataset(planning, name, "DESCRIBE HISTORY").await {
        Ok(table) => Ok(table.folder),
        Err(error) if error.kind == ErrorKind::Invalid => declared(planning, name).ok_or(error),
        Err(error) => Err(error),
    }
}

/// The folder that a dataset's definition names.
fn declared(planning: &Planning<'_>, name: &TableReference) -> Option<Folder> {
    let statement = statements::parse_one(definition_of(planning, name)?).ok()?;
    let Statement::CreateExternalTable(table) = statement else { return None };
    let [location] = table.locations.as_slice() else { return None };
    let is_dataset = table.file_type.eq_ignore_ascii_case(DELTA);
    Folder::open(location, &planning.context.runtime_env()).ok().filter(|_| is_dataset)
}

fn batch(rows: Vec<(u64, Map<String, Value>)>) -> datafusion::error::Result<RecordBatch> {
    let (mut versions, mut times, mut texts) = (Vec::new(), Vec::new(), [const { Vec::<Option<String>>::new() }; 4]);
    for (version, mut info) in rows {
        versions.push(i64::try_from(version).unwrap_or(i64::MAX));
        times.push(info.remove("timestamp").and_then(|time| time.as_i64()));
        let mut text = |key: &str| info.remove(key).and_then(|value| value.as_str().map(str::to_owned));
        let known = ["operation", "run", "engineInfo"].map(&mut text);
        let rest = serde_json::to_string(&info).ok();
        for (column, value) in texts.iter_mut().zip(known.into_iter().chain([rest])) {
            column.push(value);
        }
    }
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(versions)),
        Arc::new(TimestampMillisecondArray::from(times).with_timezone("UTC")),
    ];
    arrays.extend(texts.map(|column| Arc::new(StringArray::from(column)) as ArrayRef));
    Ok(RecordBatch::try_new(columns(), arrays)?)
}
