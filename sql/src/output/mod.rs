//! Results as text and files: one format per kind of reader.

mod cells;
mod flat;
mod grid;
mod look;
mod size;
mod table;

use std::io::Write;

use arrow::csv::WriterBuilder as CsvWriterBuilder;
use arrow::ipc::writer::StreamWriter;
use arrow::json::WriterBuilder as JsonWriterBuilder;
use arrow::json::writer::{JsonArray, LineDelimited};
use arrow::record_batch::RecordBatch;
use clap::ValueEnum;
use tidemill_core::Error;

use crate::client::QueryResult;
pub use look::{Colors, Look};
pub use size::{count, size};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// A table of ASCII characters, with all rows and columns
    #[default]
    Table,
    /// A table of lines, with types, that fits the terminal
    Box,
    /// A Markdown table
    Markdown,
    /// Comma-separated values with a header
    Csv,
    /// Tab-separated values with a header
    Tsv,
    /// One JSON array of objects
    Json,
    /// One JSON object a line
    Jsonl,
    /// An Arrow IPC stream
    Arrow,
}

impl Format {
    /// Whether people read it, rather than programs.
    #[must_use]
    pub const fn is_for_people(self) -> bool {
        match self {
            Self::Table | Self::Box | Self::Markdown => true,
            Self::Csv | Self::Tsv | Self::Json | Self::Jsonl | Self::Arrow => false,
        }
    }

    /// The format that a file's name asks for, if it ends in one.
    #[must_use]
    pub fn of_file(name: &str) -> Option<Self> {
        let (_, ending) = name.rsplit_once('.')?;
        match ending.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "json" => Some(Self::Json),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "arrow" | "arrows" => Some(Self::Arrow),
            "md" => Some(Self::Markdown),
            _ => None,
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

/// How much was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Printed {
    /// The result's rows.
    pub rows: u64,
    /// Those of them that were shown.
    pub shown: u64,
}

/// Prints a result as it comes. A statement without a result prints nothing.
///
/// # Errors
/// The run failed, or `out` cannot be written.
pub async fn print(
    mut result: QueryResult,
    format: Format,
    look: &Look,
    out: &mut impl Write,
) -> Result<Printed, PrintError> {
    let has_columns = !result.schema.fields().is_empty();
    let rows = match format {
        Format::Table | Format::Box | Format::Markdown => {
            let printed = table::print(&mut result, format, look, out).await?;
            out.flush()?;
            return Ok(printed);
        }
        Format::Csv => separated(&mut result, b',', out).await?,
        Format::Tsv => separated(&mut result, b'\t', out).await?,
        Format::Json if !has_columns => each(&mut result, |_| Ok(())).await?,
        Format::Json => {
            let mut writer = json().build::<_, JsonArray>(&mut *out);
            let mut write = |batch: &RecordBatch| {
                let batch = flat::with_text_keys(batch).map_err(unwritable)?;
                writer.write(&batch).map_err(unwritable)
            };
            let rows = each(&mut result, &mut write).await?;
            writer.finish().map_err(unwritable)?;
            drop(writer);
            writeln!(out)?;
            rows
        }
        Format::Jsonl => {
            let mut writer = json().build::<_, LineDelimited>(&mut *out);
            let mut write = |batch: &RecordBatch| {
                let batch = flat::with_text_keys(batch).map_err(unwritable)?;
                writer.write(&batch).map_err(unwritable)
            };
            let rows = each(&mut result, &mut write).await?;
            writer.finish().map_err(unwritable)?;
            rows
        }
        Format::Arrow if !has_columns => each(&mut result, |_| Ok(())).await?,
        Format::Arrow => {
            let mut writer = StreamWriter::try_new(&mut *out, &result.schema).map_err(unwritable)?;
            let rows = each(&mut result, |batch| writer.write(batch).map_err(unwritable)).await?;
            writer.finish().map_err(unwritable)?;
            rows
        }
    };
    out.flush()?;
    Ok(Printed { rows, shown: rows })
}

/// Objects that all have the same keys.
fn json() -> JsonWriterBuilder {
    JsonWriterBuilder::new().with_explicit_nulls(true)
}

async fn separated(result: &mut QueryResult, by: u8, out: &mut impl Write) -> Result<u64, PrintError> {
    let mut writer = CsvWriterBuilder::new().with_header(true).with_delimiter(by).build(out);
    let mut write = |batch: &RecordBatch| {
        let batch = flat::flat(batch).map_err(unwritable)?;
        writer.write(&batch).map_err(unwritable)
    };
    // The header comes with the first row: one that fails before prints nothing.
    let rows = each(result, |batch| if batch.num_rows() > 0 { write(batch) } else { Ok(()) }).await?;
    if rows == 0 && !result.schema.fields().is_empty() {
        write(&RecordBatch::new_empty(result.schema.clone()))?;
    }
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

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, ListArray, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn printed(format: Format, rows: usize) -> String {
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
        let texts = StringArray::from(vec!["x", "y"]);
        let columns = [("a", Arc::new(lists) as ArrayRef), ("b", Arc::new(texts) as ArrayRef)];
        let batch = RecordBatch::try_from_iter(columns).expect("a batch").slice(0, rows);
        let (mut out, look) = (Vec::new(), Look::default());
        futures::executor::block_on(print(QueryResult::of(batch), format, &look, &mut out)).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn json_says_where_there_is_no_value() {
        let rows = ["{\"a\":[1,null],\"b\":\"x\"}", "{\"a\":null,\"b\":\"y\"}"];
        assert_eq!(printed(Format::Json, 2), format!("[{}]\n", rows.join(",")));
        assert_eq!(printed(Format::Jsonl, 2), format!("{}\n", rows.join("\n")));
    }

    #[test]
    fn what_has_parts_is_json_text_between_separators() {
        assert_eq!(printed(Format::Csv, 2), "a,b\n\"[1,null]\",x\n,y\n");
        assert_eq!(printed(Format::Tsv, 2), "a\tb\n[1,null]\tx\n\ty\n");
        assert_eq!(printed(Format::Csv, 0), "a,b\n");
    }
}
