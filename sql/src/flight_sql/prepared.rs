//! Prepared statements: a text that was described once, and rows of values for its placeholders.
//!
//! Invariant: values are bound by whoever executes next; a query runs with one row of them, an update once for each.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::ActionCreatePreparedStatementResult;
use arrow_flight::{IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use tidemill_core::{Error, Result};
use tidemill_engine::error::from_datafusion;

use super::identity::Caller;
use super::results::Bound;
use super::upload::{Rows, Upload};
use super::{FlightSql, only_statement, views};
use crate::session::{memory_table, statements};

/// Bytes of a statement that is kept.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// Bytes of values that are kept with one.
const MAX_BOUND_BYTES: usize = 1 << 20;
/// Bytes of values that come with an update, which keeps none.
const MAX_UPDATE_BYTES: usize = 16 << 20;
/// Rows of values for one update: each is a run.
const MAX_UPDATE_ROWS: usize = 10_000;

/// A prepared statement.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    sql: String,
    rows: Vec<RecordBatch>,
}

impl FlightSql {
    /// Prepares a statement and says what it gives and takes.
    pub(super) async fn prepare(&self, caller: &Caller, text: &str) -> Result<ActionCreatePreparedStatementResult> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(Error::resources_exhausted(format!(
                "the statement has {} bytes, and {MAX_TEXT_BYTES} are kept of a prepared one: execute it without preparing it",
                text.len()
            )));
        }
        let sql = statements::numbered(&only_statement(text)?)?;
        let settings = self.0.sessions.settings(caller)?;
        let keeps_views = settings.keeps_views();
        let described = self.describe(caller, sql.clone(), Bytes::new(), settings).await?;
        let columns = if keeps_views { described.columns } else { views::expanded(&described.columns) };
        // Without columns a client takes it for an update.
        let dataset_schema = encoded(&columns)?;
        let parameter_schema = encoded(&described.parameters)?;
        let handle = ulid::Ulid::new().to_string();
        self.0.prepared.put(handle.clone(), Prepared { sql, rows: Vec::new() })?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.into_bytes().into(),
            dataset_schema,
            parameter_schema,
        })
    }

    /// Forgets a prepared statement.
    pub(super) fn unprepare(&self, handle: &[u8]) {
        // One that was given up is closed.
        self.0.prepared.take(&String::from_utf8_lossy(handle));
    }

    /// Binds rows of values, in the place of those before.
    pub(super) async fn bind(&self, handle: &[u8], upload: Upload) -> Result<()> {
        let rows = upload.rows(MAX_BOUND_BYTES, "the values of a prepared statement").await?;
        let rows = rows.map(|(_, batches)| batches).unwrap_or_default();
        self.with_prepared(handle, |prepared| prepared.rows = rows)
    }

    /// A prepared query with the one row of values that is bound.
    pub(super) fn bound(&self, handle: &[u8]) -> Result<Bound> {
        let Prepared { sql, rows } = self.with_prepared(handle, |prepared| prepared.clone())?;
        let mut rows = each(&rows);
        let parameters = rows.next().map_or_else(|| Ok(Bytes::new()), |row| values(&row))?;
        match rows.next() {
            None => Ok(Bound { sql, parameters }),
            Some(_) => Err(Error::invalid(
                "several rows of values are bound, and a query runs with one: execute it for each, or execute an update",
            )),
        }
    }

    /// Runs a prepared statement for each row of values that comes with the call, or is bound; how many rows they wrote, or
    /// -1 if one does not say.
    pub(super) async fn update_prepared(&self, caller: &Caller, handle: &[u8], upload: Upload) -> Result<i64> {
        let Prepared { sql, rows: bound } = self.with_prepared(handle, |prepared| prepared.clone())?;
        let sent = upload.rows(MAX_UPDATE_BYTES, "the values of an update").await?;
        let rows = match &sent {
            Some((_, batches)) => batches,
            None if bound.is_empty() => return self.update(caller, Bound { sql, parameters: Bytes::new() }).await,
            None => &bound,
        };
        let many: usize = rows.iter().map(RecordBatch::num_rows).sum();
        if many > MAX_UPDATE_ROWS {
            return Err(Error::resources_exhausted(format!(
                "{many} rows of values are bound, and each would be a run: send {MAX_UPDATE_ROWS} at once, or ingest a table"
            )));
        }
        let mut written = 0;
        for row in each(rows) {
            let bound = Bound { sql: sql.clone(), parameters: values(&row)? };
            match self.update(caller, bound).await? {
                -1 => written = -1,
                count if written >= 0 => written += count,
                _ => {}
            }
        }
        Ok(written)
    }

    /// The columns of a prepared query, with the values that are bound.
    pub(super) async fn columns_of_prepared(&self, caller: &Caller, handle: &[u8]) -> Result<SchemaRef> {
        let bound = self.bound(handle)?;
        self.columns_of_statement(caller, bound).await
    }

    /// The columns of a query that does not run.
    pub(super) async fn columns_of_statement(&self, caller: &Caller, bound: Bound) -> Result<SchemaRef> {
        let settings = self.0.sessions.settings(caller)?;
        let keeps_views = settings.keeps_views();
        let columns = self.describe(caller, bound.sql, bound.parameters, settings).await?.columns;
        Ok(if keeps_views { columns } else { views::expanded(&columns) })
    }

    fn with_prepared<R>(&self, handle: &[u8], look: impl FnOnce(&mut Prepared) -> R) -> Result<R> {
        let found = self.0.prepared.with(&String::from_utf8_lossy(handle), look);
        found.ok_or_else(|| Error::not_found("the prepared statement is not known here (any longer): prepare it again"))
    }
}

/// The rows one by one.
fn each(batches: &[RecordBatch]) -> impl Iterator<Item = RecordBatch> {
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| batch.slice(row, 1)))
}

/// A row as a statement carries it.
fn values(row: &RecordBatch) -> Result<Bytes> {
    let bytes = memory_table::encode(&row.schema(), std::slice::from_ref(row)).map_err(|e| from_datafusion(&e))?;
    Ok(bytes.into())
}

/// Columns as the protocol has them; nothing where there are none.
fn encoded(schema: &Arc<Schema>) -> Result<Bytes> {
    if schema.fields().is_empty() {
        return Ok(Bytes::new());
    }
    let encoded: Result<IpcMessage, _> =
        SchemaAsIpc::new(schema, &arrow::ipc::writer::IpcWriteOptions::default()).try_into();
    encoded.map(|message| message.0).map_err(|e| Error::internal(format!("columns cannot be encoded: {e}")))
}

/// Rows that become a table, as a statement carries them, and how many they are.
pub(super) fn table_rows((schema, batches): &Rows) -> Result<(Bytes, i64)> {
    let bytes = memory_table::encode(schema, batches).map_err(|e| from_datafusion(&e))?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    Ok((bytes.into(), i64::try_from(rows).unwrap_or(i64::MAX)))
}
