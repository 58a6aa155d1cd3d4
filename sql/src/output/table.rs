//! Tables for people: all rows in pieces, or the first and the last ones.
//!
//! Invariant: what is held at once is bounded, however many rows a result has.

use std::collections::VecDeque;
use std::io::Write;

use arrow::array::AsArray;
use arrow::record_batch::RecordBatch;

use super::cells::{Cell, cells};
use super::grid::Grid;
use super::{Format, Look, PrintError, Printed};
use crate::client::QueryResult;
use crate::session::LINES;

/// Rows that one drawn table holds: a longer result is drawn in pieces.
const ROWS_PER_PIECE: usize = 100_000;

/// Draws a result.
pub(super) async fn print(
    result: &mut QueryResult,
    format: Format,
    look: &Look,
    out: &mut impl Write,
) -> Result<Printed, PrintError> {
    let is_text = match &result.schema.fields()[..] {
        [field] => field.metadata().contains_key(LINES),
        _ => false,
    };
    match look.rows {
        _ if is_text => lines(result, out).await,
        Some(limit) => ends(result, format, look, limit, out).await,
        None => pieces(result, format, look, out).await,
    }
}

/// One text, line by line.
async fn lines(result: &mut QueryResult, out: &mut impl Write) -> Result<Printed, PrintError> {
    let mut rows = 0;
    while let Some(batch) = result.next().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        for line in batch.column(0).as_string::<i32>().iter().flatten() {
            writeln!(out, "{line}")?;
        }
    }
    Ok(Printed { rows, shown: rows })
}

/// All rows.
async fn pieces(
    result: &mut QueryResult,
    format: Format,
    look: &Look,
    out: &mut impl Write,
) -> Result<Printed, PrintError> {
    let schema = result.schema.clone();
    let (mut rows, mut held) = (0, Vec::new());
    while let Some(batch) = result.next().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        held.extend(cells(&batch)?);
        if held.len() >= ROWS_PER_PIECE {
            Grid { schema: &schema, rows: &held, gap: None }.draw(format, look, out)?;
            held.clear();
        }
    }
    let is_begun = rows > 0 && held.is_empty();
    if !schema.fields().is_empty() && !is_begun {
        Grid { schema: &schema, rows: &held, gap: None }.draw(format, look, out)?;
    }
    Ok(Printed { rows, shown: rows })
}

/// The first and the last rows, `limit` in all.
async fn ends(
    result: &mut QueryResult,
    format: Format,
    look: &Look,
    limit: usize,
    out: &mut impl Write,
) -> Result<Printed, PrintError> {
    let schema = result.schema.clone();
    let first_ones = limit.div_ceil(2);
    let (mut rows, mut first, mut last): (u64, Vec<Vec<Cell>>, VecDeque<Vec<Cell>>) = (0, vec![], VecDeque::new());
    while let Some(batch) = result.next().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        let wanted = first_ones.saturating_sub(first.len()).min(batch.num_rows());
        first.extend(cells(&batch.slice(0, wanted))?);
        last.extend(cells(&end_of(&batch.slice(wanted, batch.num_rows() - wanted), limit - first_ones))?);
        while last.len() > limit - first_ones {
            last.pop_front();
        }
    }
    if schema.fields().is_empty() {
        return Ok(Printed { rows, shown: rows });
    }
    let gap = (rows > (first.len() + last.len()) as u64).then_some(first.len());
    first.extend(last);
    Grid { schema: &schema, rows: &first, gap }.draw(format, look, out)?;
    Ok(Printed { rows, shown: first.len() as u64 })
}

fn end_of(batch: &RecordBatch, rows: usize) -> RecordBatch {
    let rows = rows.min(batch.num_rows());
    batch.slice(batch.num_rows() - rows, rows)
}
