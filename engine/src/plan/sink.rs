//! Where a sink's task writes.

use datafusion::common::{internal_err, not_impl_err};
use datafusion::datasource::file_format::csv::CsvSink;
use datafusion::datasource::file_format::json::JsonSink;
use datafusion::datasource::file_format::parquet::ParquetSink;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::datasource::physical_plan::{FileOutputMode, FileSink, FileSinkConfig};
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::Result;
use std::sync::Arc;
use tidemill_core::{Attempt, RunId};

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
        return Ok(Arc::new(CsvSink::new(config, csv.writer_options().clone())));
    }
    if let Some(json) = sink.downcast_ref::<JsonSink>() {
        let config = redirected(json.config(), target)?;
        return Ok(Arc::new(JsonSink::new(config, json.writer_options().clone())));
    }
    not_impl_err!("this format cannot be written: use PARQUET, CSV or JSON")
}

/// The URL of the object store that a sink writes to.
pub(super) fn store_url(exec: &DataSinkExec) -> Result<String> {
    let sink = exec.sink();
    let config = sink.downcast_ref::<ParquetSink>().map(FileSink::config);
    let config = config.or_else(|| sink.downcast_ref::<CsvSink>().map(FileSink::config));
    let config = config.or_else(|| sink.downcast_ref::<JsonSink>().map(FileSink::config));
    match config {
        Some(config) => Ok(config.object_store_url.as_str().to_owned()),
        None => not_impl_err!("this format cannot be written: use PARQUET, CSV or JSON"),
    }
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
