//! `SQLite`: files, read row by row on a thread of their own.
//!
//! Not through `datafusion-table-providers`, whose connections put the file into another journal mode, make it where it is
//! missing, take types from the first row and hold all rows in memory. Its queries are written by that crate all the same.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tidemill_core::{Error, Result};
use tidemill_engine::connector::{ConnectorScan, RemoteRows, RemoteTable};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::columns::{self, RemoteColumn};
use super::deadline::{DESCRIBE, ROWS, within};
use super::no_table;

/// How long a writer of the file may keep it from being read.
const BUSY: Duration = Duration::from_secs(20);
/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;
/// Bytes of texts after which a batch is full.
const BATCH_BYTES: usize = 8 << 20;
/// Instructions of its machine after which `SQLite` asks whether to go on.
const STEPS: i32 = 100_000;
/// Batches read ahead.
const AHEAD: usize = 2;

pub(super) async fn describe(table: &RemoteTable) -> Result<Vec<RemoteColumn>> {
    let of = table.clone();
    let described = tokio::task::spawn_blocking(move || columns_of(&open(&of)?, &of));
    within(DESCRIBE, "the columns", table, ended(described)).await
}

pub(super) async fn read(scan: &ConnectorScan) -> Result<RemoteRows> {
    let table = scan.table.clone();
    let (to, from) = mpsc::channel(AHEAD);
    let scan = scan.clone();
    let reading = tokio::task::spawn_blocking(move || send_rows(&scan, &to));
    let next = move |state: Option<(mpsc::Receiver<RecordBatch>, JoinHandle<Result<()>>)>| {
        let table = table.clone();
        async move {
            let (mut from, reading) = state?;
            match within(ROWS, "rows", &table, async { Ok(from.recv().await) }).await {
                Ok(Some(batch)) => Some((Ok(batch), Some((from, reading)))),
                // The rows are all of them only if whoever read them says so.
                Ok(None) => ended(reading).await.err().map(|error| (Err(error), None)),
                Err(late) => Some((Err(late), None)),
            }
        }
    };
    Ok(futures::stream::unfold(Some((from, reading)), next).boxed())
}

async fn ended<T>(work: JoinHandle<Result<T>>) -> Result<T> {
    match work.await {
        Ok(done) => done,
        Err(panic) => Err(Error::internal(format!("reading SQLite panicked: {panic}"))),
    }
}

/// Opens a file that must be there, and is never written.
fn open(table: &RemoteTable) -> Result<Connection> {
    let path = Path::new(&table.database);
    if !path.is_file() {
        return Err(Error::not_found(format!("there is no file {}: check the LOCATION", path.display())));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|e| failed(table, &e))?;
    connection.busy_timeout(BUSY).map_err(|e| failed(table, &e))?;
    Ok(connection)
}

fn columns_of(connection: &Connection, table: &RemoteTable) -> Result<Vec<RemoteColumn>> {
    let mut statement =
        connection.prepare("SELECT name, type FROM pragma_table_info(?1)").map_err(|e| failed(table, &e))?;
    let rows = statement.query_map([&table.table], |row| {
        let source: String = row.get(1)?;
        Ok(RemoteColumn(row.get(0)?, source.to_lowercase()))
    });
    let columns: rusqlite::Result<Vec<RemoteColumn>> = rows.map_err(|e| failed(table, &e))?.collect();
    let columns = columns.map_err(|e| failed(table, &e))?;
    if columns.is_empty() { Err(no_table(table)) } else { Ok(columns) }
}

/// Sends all rows of a scan, until nobody takes them: also where none come for long.
fn send_rows(scan: &ConnectorScan, to: &mpsc::Sender<RecordBatch>) -> Result<()> {
    let table = &scan.table;
    let connection = open(table)?;
    let taker = to.clone();
    connection.progress_handler(STEPS, Some(move || taker.is_closed()));
    columns::check(scan, &columns_of(&connection, table)?)?;
    let mut statement = connection.prepare(&scan.sql).map_err(|e| failed(table, &e))?;
    let mut rows = statement.query([]).map_err(|e| failed(table, &e))?;
    let mut batch = Batch::new(&scan.wire, table)?;
    while let Some(row) = rows.next().map_err(|e| failed(table, &e))? {
        batch.push(row)?;
        if batch.is_full() {
            let full = std::mem::replace(&mut batch, Batch::new(&scan.wire, table)?);
            if to.blocking_send(full.finish()?).is_err() {
                return Ok(());
            }
        }
    }
    if batch.rows > 0 {
        // Nobody may want it any more.
        let _ = to.blocking_send(batch.finish()?);
    }
    Ok(())
}

/// A batch being filled.
struct Batch<'a> {
    schema: &'a SchemaRef,
    table: &'a RemoteTable,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

enum Column {
    Integer(Int64Builder),
    Real(Float64Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Boolean(BooleanBuilder),
}

impl<'a> Batch<'a> {
    fn new(schema: &'a SchemaRef, table: &'a RemoteTable) -> Result<Self> {
        let column = |data_type: &DataType| match data_type {
            DataType::Int64 => Ok(Column::Integer(Int64Builder::new())),
            DataType::Float64 => Ok(Column::Real(Float64Builder::new())),
            DataType::Utf8 => Ok(Column::Text(StringBuilder::new())),
            DataType::Binary => Ok(Column::Bytes(BinaryBuilder::new())),
            DataType::Boolean => Ok(Column::Boolean(BooleanBuilder::new())),
            other => Err(Error::internal(format!("SQLite has no values of type {other}"))),
        };
        let columns = schema.fields().iter().map(|field| column(field.data_type())).collect::<Result<_>>()?;
        Ok(Self { schema, table, columns, rows: 0, bytes: 0 })
    }

    const fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    fn push(&mut self, row: &rusqlite::Row<'_>) -> Result<()> {
        for (position, column) in self.columns.iter_mut().enumerate() {
            let value = row.get_ref(position).map_err(|e| failed(self.table, &e))?;
            let Some(bytes) = column.append(value) else {
                let name = self.schema.field(position).name();
                return Err(Error::invalid(format!(
                    "the column `{name}` of {} holds {}, which its declared type does not mean: leave it out with a view there",
                    self.table,
                    shown(value)
                )));
            };
            self.bytes += bytes;
        }
        self.rows += 1;
        Ok(())
    }

    fn finish(self) -> Result<RecordBatch> {
        let columns = self.columns.into_iter().map(Column::finish).collect();
        RecordBatch::try_new(Arc::clone(self.schema), columns)
            .map_err(|e| Error::internal(format!("rows of {} make no batch: {e}", self.table)))
    }
}

impl Column {
    /// Appends a value and answers how many bytes it adds beyond its place; `None` if it is no value of the column. `SQLite`
    /// lets any column hold anything.
    fn append(&mut self, value: ValueRef<'_>) -> Option<usize> {
        match (self, value) {
            (Self::Integer(to), ValueRef::Null) => to.append_null(),
            (Self::Integer(to), ValueRef::Integer(number)) => to.append_value(number),
            (Self::Integer(to), ValueRef::Real(number)) => to.append_value(whole(number)?),
            (Self::Real(to), ValueRef::Null) => to.append_null(),
            (Self::Real(to), ValueRef::Real(number)) => to.append_value(number),
            (Self::Real(to), ValueRef::Integer(number)) => to.append_value(exact(number)?),
            (Self::Boolean(to), ValueRef::Null) => to.append_null(),
            (Self::Boolean(to), ValueRef::Integer(number @ (0 | 1))) => to.append_value(number == 1),
            (Self::Text(to), ValueRef::Null) => to.append_null(),
            (Self::Text(to), ValueRef::Text(text)) => {
                to.append_value(std::str::from_utf8(text).ok()?);
                return Some(text.len());
            }
            (Self::Bytes(to), ValueRef::Null) => to.append_null(),
            (Self::Bytes(to), ValueRef::Blob(bytes) | ValueRef::Text(bytes)) => {
                to.append_value(bytes);
                return Some(bytes.len());
            }
            _ => return None,
        }
        Some(0)
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Integer(mut column) => Arc::new(column.finish()),
            Self::Real(mut column) => Arc::new(column.finish()),
            Self::Text(mut column) => Arc::new(column.finish()),
            Self::Bytes(mut column) => Arc::new(column.finish()),
            Self::Boolean(mut column) => Arc::new(column.finish()),
        }
    }
}

/// The number, if it has no fraction and fits.
fn whole(number: f64) -> Option<i64> {
    let whole = number as i64;
    (whole as f64 == number && whole != i64::MAX).then_some(whole)
}

/// The number, if nothing of it is lost.
fn exact(number: i64) -> Option<f64> {
    let real = number as f64;
    (real as i64 == number && number != i64::MAX).then_some(real)
}

/// A value's kind, and not the value: it may be anybody's.
const fn shown(value: ValueRef<'_>) -> &'static str {
    match value {
        ValueRef::Null => "a null",
        ValueRef::Integer(_) => "a whole number",
        ValueRef::Real(_) => "a number with a fraction",
        ValueRef::Text(_) => "a text",
        ValueRef::Blob(_) => "bytes",
    }
}

fn failed(table: &RemoteTable, error: &rusqlite::Error) -> Error {
    let said = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::unavailable(format!("{table} is locked by a writer for more than {} s: {said}", BUSY.as_secs()))
        }
        Some(ErrorCode::NotADatabase) => {
            Error::invalid(format!("{} is no file of SQLite: check the LOCATION", table.database))
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            Error::denied(format!("{} cannot be opened: {said}; check its permissions", table.database))
        }
        _ => Error::invalid(format!("{table} cannot be read: {said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_change_their_kind_only_without_loss() {
        assert_eq!((whole(2.0), whole(2.5), whole(1e300), whole(f64::NAN)), (Some(2), None, None, None));
        assert_eq!(whole(9_223_372_036_854_775_808.0), None);
        assert_eq!((exact(3), exact((1 << 53) + 1), exact(i64::MAX)), (Some(3.0), None, None));
    }
}
