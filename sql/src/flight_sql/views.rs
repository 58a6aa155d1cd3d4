//! Columns of views as columns that every client knows: drivers older than views cannot read them.
//!
//! The planner has most of it done by the tasks; this is for what it leaves, such as the columns of a `UNION`.

use std::sync::Arc;

use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use tidemill_core::{Error, Result};

/// The columns without views.
pub(super) fn expanded(schema: &SchemaRef) -> SchemaRef {
    let expanded = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8View => Arc::new(field.as_ref().clone().with_data_type(DataType::LargeUtf8)),
        DataType::BinaryView => Arc::new(field.as_ref().clone().with_data_type(DataType::LargeBinary)),
        _ => Arc::clone(field),
    };
    let fields: Vec<_> = schema.fields().iter().map(expanded).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The same rows in those columns.
pub(super) fn expand(batch: &RecordBatch, expanded: &SchemaRef) -> Result<RecordBatch> {
    let columns = expanded.fields().iter().zip(batch.columns()).map(|(field, column)| cast(column, field.data_type()));
    let columns: Result<Vec<_>, _> = columns.collect();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    columns
        .and_then(|columns| RecordBatch::try_new_with_options(Arc::clone(expanded), columns, &options))
        .map_err(|e| Error::internal(format!("a result cannot be expanded: {e}")))
}
