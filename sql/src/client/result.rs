//! A statement's result.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use tidemill_core::{Error, Result, RunId};

/// Columns, and batches as they come. Dropping it before its end cancels the run.
pub struct QueryResult {
    /// The run, where the statement became one.
    pub run: Option<RunId>,
    /// The columns; none where the statement has no result.
    pub schema: SchemaRef,
    batches: BoxStream<'static, Result<RecordBatch>>,
}

impl QueryResult {
    /// An error says how many rows came before it.
    pub(super) fn new(
        run: Option<RunId>,
        schema: SchemaRef,
        batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
    ) -> Self {
        let mut rows = 0;
        let batches = batches.map(move |batch| match batch {
            Err(error) if rows > 0 => {
                Err(Error { message: format!("{}, after {rows} rows were returned", error.message), ..error })
            }
            other => {
                rows += other.as_ref().map_or(0, RecordBatch::num_rows);
                other
            }
        });
        Self { run, schema, batches: batches.boxed() }
    }

    /// Rows that are there.
    #[must_use]
    pub fn of(batch: RecordBatch) -> Self {
        Self::new(None, batch.schema(), futures::stream::iter([Ok(batch)]))
    }

    pub(super) fn nothing() -> Self {
        Self::new(None, Arc::new(Schema::empty()), futures::stream::empty())
    }

    /// The next batch; `None` when all rows came.
    pub async fn next(&mut self) -> Option<Result<RecordBatch>> {
        self.batches.next().await
    }

    /// The batches as a stream.
    #[must_use]
    pub fn into_stream(self) -> BoxStream<'static, Result<RecordBatch>> {
        self.batches
    }

    /// All rows.
    ///
    /// # Errors
    /// The run failed.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        self.batches.try_collect().await
    }
}
