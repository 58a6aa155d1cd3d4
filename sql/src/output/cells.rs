//! Values as text of one line each.
//!
//! Invariant: what a table's cell prints moves no cursor: control characters are shown, not sent.

use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill_core::{Error, Result};

/// What stands for no value.
const NULL: &str = "NULL";

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) is_null: bool,
}

/// The rows of a batch.
pub(super) fn cells(batch: &RecordBatch) -> Result<Vec<Vec<Cell>>> {
    let mut rows: Vec<Vec<Cell>> = vec![Vec::with_capacity(batch.num_columns()); batch.num_rows()];
    let options = FormatOptions::default().with_display_error(true);
    for column in batch.columns() {
        let values = ArrayFormatter::try_new(column.as_ref(), &options)
            .map_err(|e| Error::invalid(format!("the result cannot be drawn: {e}")))?;
        let nulls = column.logical_nulls();
        for (position, row) in rows.iter_mut().enumerate() {
            let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(position));
            let text = if is_null { NULL.to_owned() } else { visible(values.value(position).to_string()) };
            row.push(Cell { text, is_null });
        }
    }
    Ok(rows)
}

/// The text with control characters as escapes.
pub(super) fn visible(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().collect(),
        false => String::from(c),
    };
    text.chars().map(escape).collect()
}
