//! A table for people. Widths follow the first rows; what is longer later is printed all the same.

use std::io::Write;

use arrow::array::AsArray;
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use tidemill_core::Error;

use super::PrintError;
use crate::client::QueryResult;
use crate::session::LINES;

/// Rows that one drawn table holds: a longer result is drawn in pieces, so that memory stays bounded.
const ROWS_PER_PIECE: usize = 100_000;

/// Draws a result and tells its rows.
pub(super) async fn print(result: &mut QueryResult, out: &mut impl Write) -> Result<u64, PrintError> {
    let (mut rows, mut held, mut batches) = (0, 0, Vec::new());
    while let Some(batch) = result.next().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        held += batch.num_rows();
        batches.push(batch);
        if held >= ROWS_PER_PIECE {
            draw(&batches, out)?;
            batches.clear();
            held = 0;
        }
    }
    if result.schema.fields().is_empty() {
        return Ok(rows);
    }
    if rows == 0 {
        batches.push(RecordBatch::new_empty(result.schema.clone()));
    }
    if !batches.is_empty() {
        draw(&batches, out)?;
    }
    Ok(rows)
}

fn draw(batches: &[RecordBatch], out: &mut impl Write) -> Result<(), PrintError> {
    if let Some(first) = batches.first()
        && let [field] = &first.schema().fields()[..]
        && field.metadata().contains_key(LINES)
    {
        return draw_lines(batches, out);
    }
    let table =
        pretty_format_batches(batches).map_err(|e| Error::invalid(format!("the result cannot be drawn: {e}")))?;
    Ok(writeln!(out, "{table}")?)
}

/// One text, line by line.
fn draw_lines(batches: &[RecordBatch], out: &mut impl Write) -> Result<(), PrintError> {
    for batch in batches {
        for line in batch.column(0).as_string::<i32>().iter().flatten() {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}
