//! A statement's result.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use tidemill_core::{Result, RunId};

/// Columns, and batches as they come. Dropping it before its end cancels the run.
pub struct QueryResult {
    /// The run, where the statement became one.
    pub run: Option<RunId>,
    /// The columns; none where the statement has no result.
    pub schema: SchemaRef,
    batches: BoxStream<'static, Result<RecordBatch>>,
}

impl QueryResult {
    pub(super) fn new(
        run: Option<RunId>,
        schema: SchemaRef,
        batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    ) -> Self {
        Self { run, schema, batches: batches.boxed() }
    }

    pub(super) fn nothing() -> Self {
        Self::new(None, Arc::new(Schema::empty()), futures::stream::empty())
    }

    /// The next batch; `None` when all rows came.
    pub async fn next(&mut self) -> Option<Result<RecordBatch>> {
        self.batches.next().await
    }

    /// All rows.
    ///
    /// # Errors
    /// The run failed.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        self.batches.try_collect().await
    }
}
