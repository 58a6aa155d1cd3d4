//! Results as text.

mod table;

use std::io::Write;
use std::str::FromStr;

use arrow::csv::WriterBuilder as CsvWriterBuilder;
use arrow::json::{ArrayWriter, LineDelimitedWriter};
use arrow::record_batch::RecordBatch;
use tidemill_core::{Error, Result};

use crate::client::QueryResult;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    JsonLines,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "table" => Ok(Self::Table),
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            "jsonl" => Ok(Self::JsonLines),
            other => Err(Error::invalid(format!("`{other}` is no format: use table, csv, json or jsonl"))),
        }
    }
}

/// Why a result was not printed whole.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// The run failed.
    #[error(transparent)]
    Run(#[from] Error),
    /// Nobody reads the output any more, or it cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

/// Prints a result as it comes and tells its rows. A statement without a result prints nothing.
///
/// # Errors
/// The run failed, or `out` cannot be written.
pub async fn print(mut result: QueryResult, format: Format, out: &mut impl Write) -> Result<u64, PrintError> {
    let has_columns = !result.schema.fields().is_empty();
    let rows = match format {
        Format::Table => table::print(&mut result, out).await?,
        Format::Csv => {
            let mut writer = CsvWriterBuilder::new().with_header(true).build(&mut *out);
            if has_columns {
                writer.write(&RecordBatch::new_empty(result.schema.clone())).map_err(unwritable)?;
            }
            each(&mut result, |batch| writer.write(batch).map_err(unwritable)).await?
        }
        Format::Json if !has_columns => each(&mut result, |_| Ok(())).await?,
        Format::Json => {
            let mut writer = ArrayWriter::new(&mut *out);
            let rows = each(&mut result, |batch| writer.write(batch).map_err(unwritable)).await?;
            writer.finish().map_err(unwritable)?;
            drop(writer);
            writeln!(out)?;
            rows
        }
        Format::JsonLines => {
            let mut writer = LineDelimitedWriter::new(&mut *out);
            let rows = each(&mut result, |batch| writer.write(batch).map_err(unwritable)).await?;
            writer.finish().map_err(unwritable)?;
            rows
        }
    };
    out.flush()?;
    Ok(rows)
}

async fn each(
    result: &mut QueryResult,
    mut write: impl FnMut(&RecordBatch) -> Result<(), PrintError>,
) -> Result<u64, PrintError> {
    let mut rows = 0;
    while let Some(batch) = result.next().await {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        write(&batch)?;
    }
    Ok(rows)
}

fn unwritable(error: arrow::error::ArrowError) -> PrintError {
    match error {
        arrow::error::ArrowError::IoError(_, io) => PrintError::Output(io),
        other => Error::invalid(format!("the result cannot be printed in this format: {other}")).into(),
    }
}

/// Bytes with a unit.
#[must_use]
pub fn size(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let unit = units.get(unit).copied().unwrap_or_default();
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}
