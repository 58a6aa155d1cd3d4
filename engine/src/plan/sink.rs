//! Where a sink's task writes.

use arrow::csv::WriterBuilder;
use datafusion::common::file_options::csv_writer::CsvWriterOptions;
use datafusion::common::{internal_err, not_impl_err};
use datafusion::datasource::file_format::csv::CsvSink;
use datafusion::datasource::file_format::json::JsonSink;
use datafusion::datasource::file_format::parquet::ParquetSink;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::datasource::physical_plan::{FileOutputMode, FileSink, FileSinkConfig};
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::Result;
use std::path::PathBuf;
use std::sync::Arc;
use tidemill_core::{Attempt, RunId};

use crate::dataset::DatasetSink;
use crate::files::on_disk;

/// The file that one attempt writes: rule 14.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkTarget {
    /// A file beside the one that the statement names, which becomes that one when the statement is committed.
    Hidden(String),
    /// A file in the directory that the statement names, with a name that no other attempt uses.
    Part(String),
}

impl SinkTarget {
    /// The name of an attempt's file in a directory.
    #[must_use]
    pub fn part(run: &RunId, task: u32, attempt: Attempt, extension: &str) -> Self {
        Self::Part(format!("part-{task:05}-{run}-{attempt}.{extension}"))
    }

    /// The name of an attempt's file before it becomes `file`. Readers of the folder skip names that begin with a dot.
    #[must_use]
    pub fn hidden(file: &str, run: &RunId, attempt: Attempt) -> Self {
        Self::Hidden(format!(".{file}.{run}-{attempt}"))
    }
}

/// The sink of `exec` with its output redirected to `target`.
///
/// # Errors
/// The sink writes no files, or a partitioned directory.
pub fn redirect(exec: &DataSinkExec, target: impl FnOnce(&FileSinkConfig) -> SinkTarget) -> Result<Arc<dyn DataSink>> {
    let sink = exec.sink();
    if let Some(parquet) = sink.downcast_ref::<ParquetSink>() {
        let config = redirected(parquet.config(), target)?;
        return Ok(Arc::new(ParquetSink::new(config, parquet.parquet_options().clone())));
    }
    if let Some(csv) = sink.downcast_ref::<CsvSink>() {
        let config = redirected(csv.config(), target)?;
        return Ok(Arc::new(CsvSink::new(config, with_given_formats(csv.writer_options()))));
    }
    if let Some(json) = sink.downcast_ref::<JsonSink>() {
        let config = redirected(json.config(), target)?;
        return Ok(Arc::new(JsonSink::new(config, json.writer_options().clone())));
    }
    not_impl_err!("this format cannot be written: use PARQUET, CSV or JSON")
}

/// Formats that were not given arrive as empty ones, with which dates and times would be written as nothing.
fn with_given_formats(options: &CsvWriterOptions) -> CsvWriterOptions {
    let arrived = &options.writer_options;
    let mut given = WriterBuilder::new()
        .with_header(arrived.header())
        .with_delimiter(arrived.delimiter())
        .with_quote(arrived.quote())
        .with_escape(arrived.escape())
        .with_double_quote(arrived.double_quote())
        .with_quote_style(arrived.quote_style())
        .with_null(arrived.null().to_owned())
        .with_ignore_leading_whitespace(arrived.ignore_leading_whitespace())
        .with_ignore_trailing_whitespace(arrived.ignore_trailing_whitespace());
    let format = |format: Option<&str>| format.filter(|format| !format.is_empty()).map(str::to_owned);
    if let Some(date) = format(arrived.date_format()) {
        given = given.with_date_format(date);
    }
    if let Some(datetime) = format(arrived.datetime_format()) {
        given = given.with_datetime_format(datetime);
    }
    if let Some(timestamp) = format(arrived.timestamp_format()) {
        given = given.with_timestamp_format(timestamp);
    }
    if let Some(time) = format(arrived.time_format()) {
        given = given.with_time_format(time);
    }
    CsvWriterOptions { writer_options: given, ..options.clone() }
}

/// Refuses options that would not arrive at the executors.
pub(super) fn check_options(exec: &DataSinkExec) -> Result<()> {
    let (csv, json) = (exec.sink().downcast_ref::<CsvSink>(), exec.sink().downcast_ref::<JsonSink>());
    let level = csv.and_then(|csv| csv.writer_options().compression_level);
    if level.or_else(|| json.and_then(|json| json.writer_options().compression_level)).is_some() {
        return not_impl_err!("compression_level is not carried to the executors: leave it out");
    }
    if csv.is_some_and(|csv| csv.writer_options().writer_options.timestamp_tz_format().is_some()) {
        return not_impl_err!("timestamp_tz_format is not carried to the executors: write the column as text");
    }
    Ok(())
}

/// The URL of the object store that a sink writes to.
pub(super) fn store_url(exec: &DataSinkExec) -> Result<String> {
    let sink = exec.sink();
    if let Some(dataset) = sink.downcast_ref::<DatasetSink>() {
        return Ok(dataset.write().folder()?.object_store().as_str().to_owned());
    }
    match config_of(sink) {
        Some(config) => Ok(config.object_store_url.as_str().to_owned()),
        None => not_impl_err!("this format cannot be written: use PARQUET, CSV or JSON"),
    }
}

/// The file that a sink was redirected to, where it is on a disk of this machine.
#[must_use]
pub fn file_of(sink: &dyn DataSink) -> Option<PathBuf> {
    on_disk(config_of(sink)?.table_paths.first()?.get_url())
}

/// How the files of a sink end, without the dot: `csv.gz` where they are compressed.
#[must_use]
pub fn extension_of(sink: &dyn DataSink) -> Option<String> {
    config_of(sink).map(|config| config.file_extension.clone())
}

fn config_of(sink: &dyn DataSink) -> Option<&FileSinkConfig> {
    let config = sink.downcast_ref::<ParquetSink>().map(FileSink::config);
    let config = config.or_else(|| sink.downcast_ref::<CsvSink>().map(FileSink::config));
    config.or_else(|| sink.downcast_ref::<JsonSink>().map(FileSink::config))
}

fn redirected(config: &FileSinkConfig, target: impl FnOnce(&FileSinkConfig) -> SinkTarget) -> Result<FileSinkConfig> {
    if !config.table_partition_cols.is_empty() {
        return not_impl_err!("PARTITIONED BY is not written yet: write one directory per value");
    }
    let Some(base) = config.table_paths.first() else { return internal_err!("a sink has no path") };
    let mut redirected = config.clone();
    let path = base.as_str().trim_end_matches('/');
    let (directory, name) = match target(config) {
        SinkTarget::Part(name) => (path, name),
        SinkTarget::Hidden(name) => (path.rsplit_once('/').map_or("", |(directory, _)| directory), name),
    };
    redirected.table_paths = vec![ListingTableUrl::parse(format!("{directory}/{name}"))?];
    redirected.file_output_mode = FileOutputMode::SingleFile;
    Ok(redirected)
}
