//! Scans of text files: an error about what stands in a file names the file, and the line where it can be found.
//!
//! Arrow's reader of JSON tells neither. The line is looked for once the scan has failed, by reading the file again.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    CsvSource, FileOpenFuture, FileOpener, FileScanConfig, FileSource, JsonSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tidemill_core::Error;

use crate::error::{from_datafusion, to_datafusion};

/// How long a line is looked for: without it, the error says the file alone.
const LOOKED_FOR: Duration = Duration::from_secs(10);
/// Rows that are known to be good are decoded so many at once.
const AT_ONCE: usize = 1024;

/// The same source, whose errors say where; other formats as they are.
pub(super) fn naming(source: &Arc<dyn FileSource>) -> Arc<dyn FileSource> {
    match source.is::<CsvSource>() || source.is::<JsonSource>() {
        true => Arc::new(NamingSource(Arc::clone(source))),
        false => Arc::clone(source),
    }
}

struct NamingSource(Arc<dyn FileSource>);

impl NamingSource {
    /// What is read of a file of JSON.
    fn json_columns(&self) -> Result<Option<SchemaRef>> {
        if !self.0.is::<JsonSource>() {
            return Ok(None);
        }
        let all = self.0.table_schema().file_schema();
        let in_files = |column: &usize| *column < all.fields().len();
        let read: Vec<usize> = match self.0.projection() {
            Some(projection) => projection.column_indices().into_iter().filter(in_files).collect(),
            None => (0..all.fields().len()).collect(),
        };
        Ok(Some(Arc::new(all.project(&read)?)))
    }
}

impl FileSource for NamingSource {
    fn create_file_opener(
        &self,
        object_store: Arc<dyn ObjectStore>,
        base_config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        Ok(Arc::new(NamingOpener {
            opener: self.0.create_file_opener(Arc::clone(&object_store), base_config, partition)?,
            store: object_store,
            store_url: base_config.object_store_url.as_str().to_owned(),
            compression: base_config.file_compression_type,
            json_columns: self.json_columns()?,
        }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.0.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(Self(self.0.with_batch_size(batch_size)))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.0.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.0.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.0.metrics()
    }

    fn file_type(&self) -> &str {
        self.0.file_type()
    }

    fn fmt_extra(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_extra(kind, f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.0.supports_repartitioning()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.0.apply_expressions(f)
    }
}

struct NamingOpener {
    opener: Arc<dyn FileOpener>,
    store: Arc<dyn ObjectStore>,
    store_url: String,
    compression: FileCompressionType,
    json_columns: Option<SchemaRef>,
}

impl FileOpener for NamingOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let location = file.object_meta.location.clone();
        let opened = Opened {
            shown: shown(&self.store_url, &location),
            begin: file.range.as_ref().and_then(|range| u64::try_from(range.start).ok()).unwrap_or_default(),
            location,
            store: Arc::clone(&self.store),
            compression: self.compression,
            json_columns: self.json_columns.clone(),
        };
        let opening = self.opener.open(file)?;
        Ok(Box::pin(async move {
            let batches = match opening.await {
                Ok(batches) => batches,
                Err(error) => return Err(opened.named(error, 0).await),
            };
            let named = futures::stream::unfold((batches, opened, 0), |(mut batches, opened, rows)| async move {
                match batches.next().await? {
                    Ok(batch) => {
                        let rows = rows + batch.num_rows();
                        Some((Ok(batch), (batches, opened, rows)))
                    }
                    Err(error) => {
                        let error = opened.named(error, rows).await;
                        Some((Err(error), (batches, opened, rows)))
                    }
                }
            });
            Ok(named.boxed())
        }))
    }
}

/// As users write it.
fn shown(store: &str, location: &Path) -> String {
    match store.strip_prefix("file://") {
        Some(root) => format!("{root}{location}"),
        None => format!("{store}{location}"),
    }
}

/// A file, or the part of it that begins at a byte.
struct Opened {
    shown: String,
    location: Path,
    begin: u64,
    store: Arc<dyn ObjectStore>,
    compression: FileCompressionType,
    json_columns: Option<SchemaRef>,
}

impl Opened {
    /// An error after so many rows, with the place where that is what is wrong.
    async fn named(&self, error: DataFusionError, rows: usize) -> DataFusionError {
        if !is_of_content(&error) {
            return error;
        }
        let what = from_datafusion(&error).message;
        let line = match &self.json_columns {
            Some(columns) => self.line(columns, rows).await,
            None => None,
        };
        let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
        // Lines are told as the reader counts them.
        let part = match self.json_columns.is_none() && self.begin > 0 {
            true => format!(" (counted from byte {})", self.begin),
            false => String::new(),
        };
        let message = format!("{}{line}: {what}{part}; mend the file, or declare its columns otherwise", self.shown);
        to_datafusion(Error::invalid(message))
    }

    /// The first line that is not as its columns say, after so many rows that are; `None` where it is not found in time.
    async fn line(&self, columns: &SchemaRef, good: usize) -> Option<u64> {
        tokio::time::timeout(LOOKED_FOR, self.search(columns, good)).await.ok()?.ok()?
    }

    async fn search(&self, columns: &SchemaRef, good: usize) -> Result<Option<u64>> {
        let until = Instant::now() + LOOKED_FOR;
        let bytes = self.store.get(&self.location).await?.into_stream().map_err(DataFusionError::from);
        let mut bytes = self.compression.convert_stream(bytes.boxed())?;
        let mut search = Search::new(columns, self.begin, good)?;
        while let Some(chunk) = bytes.next().await {
            if let Some(line) = search.look(&chunk?) {
                return Ok(Some(line));
            }
            // Reading may never have to wait.
            if Instant::now() > until {
                return Ok(None);
            }
        }
        Ok(search.at_end())
    }
}

/// Whether the error is about what stands in the file.
fn is_of_content(error: &DataFusionError) -> bool {
    match error {
        DataFusionError::ArrowError(error, _) => {
            matches!(**error, ArrowError::JsonError(_) | ArrowError::CsvError(_) | ArrowError::ParseError(_))
        }
        DataFusionError::Context(_, inner) => is_of_content(inner),
        DataFusionError::Shared(inner) => is_of_content(inner),
        _ => false,
    }
}

/// Looks for the first bad line of JSON in bytes that come in pieces.
struct Search {
    decoder: Decoder,
    /// Lines that begin before this byte are somebody else's.
    begin: u64,
    /// Rows that were read without an error.
    good: usize,
    rows: usize,
    /// Where the current line begins, its length so far, and its number.
    line_at: u64,
    length: u64,
    line: u64,
    /// The line on which the current row begins.
    row_at: u64,
}

impl Search {
    fn new(columns: &SchemaRef, begin: u64, good: usize) -> Result<Self> {
        let decoder = ReaderBuilder::new(Arc::clone(columns)).with_batch_size(2 * AT_ONCE).build_decoder()?;
        Ok(Self { decoder, begin, good, rows: 0, line_at: 0, length: 0, line: 1, row_at: 1 })
    }

    /// The bad line, once it was seen.
    fn look(&mut self, bytes: &[u8]) -> Option<u64> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line_at >= self.begin {
                if !self.decoder.has_partial_record() {
                    self.row_at = self.line;
                }
                if self.decode(piece).is_err() {
                    return Some(self.row_at);
                }
            }
            self.length += piece.len() as u64;
            if piece.ends_with(b"\n") {
                self.line_at += self.length;
                self.length = 0;
                self.line += 1;
            }
        }
        None
    }

    fn decode(&mut self, mut piece: &[u8]) -> std::result::Result<(), ArrowError> {
        while !piece.is_empty() {
            let read = self.decoder.decode(piece)?;
            let decoded = self.decoder.len();
            let is_new = self.rows + decoded > self.good;
            if !self.decoder.has_partial_record() && (is_new || decoded >= AT_ONCE) {
                self.decoder.flush()?;
                self.rows += decoded;
            }
            piece = piece.get(read..).unwrap_or_default();
        }
        Ok(())
    }

    /// The last row may have no end.
    fn at_end(mut self) -> Option<u64> {
        self.decoder.flush().is_err().then_some(self.row_at)
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "tests")]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    /// The bad line of a text, whatever the pieces are that it comes in.
    fn bad_line(text: &str, begin: u64, good: usize) -> Option<u64> {
        let columns: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let in_pieces = |size: usize| {
            let mut search = Search::new(&columns, begin, good).expect("a search");
            let found = text.as_bytes().chunks(size).find_map(|piece| search.look(piece));
            found.or_else(|| search.at_end())
        };
        let whole = in_pieces(text.len());
        for size in 1..8 {
            assert_eq!(in_pieces(size), whole, "{text:?} in pieces of {size}");
        }
        whole
    }

    #[test]
    fn the_first_bad_line_is_found() {
        assert_eq!(bad_line("{\"a\":1}\n\n{\"a\":\"x\"}\n{\"a\":3}\n", 0, 1), Some(3));
        assert_eq!(bad_line("{\"a\":1}\n{\"a\":2\n{\"a\":3}\n", 0, 0), Some(2));
        assert_eq!(bad_line("{\"a\":1}\n{\"a\":2", 0, 0), Some(2));
        assert_eq!(bad_line("{\"a\":1}\nnonsense\n", 0, 0), Some(2));
        // A row may have several lines, and columns that are not read may be anything.
        assert_eq!(bad_line("{\"a\":\n1}\n{\"b\":[]}\n{\"a\":{}}\n", 0, 2), Some(4));
        assert_eq!(bad_line("{\"a\":1}\n{\"a\":2}\n", 0, 0), None);
    }

    #[test]
    fn a_part_of_a_file_begins_with_its_first_whole_line() {
        let text = "{\"a\":{}}\n{\"a\":2}\n{\"a\":[]}\n";
        assert_eq!(bad_line(text, 0, 0), Some(1));
        assert_eq!(bad_line(text, 1, 1), Some(3));
        assert_eq!(bad_line(text, 9, 1), Some(3));
    }

    #[test]
    fn many_good_rows_are_passed() {
        let mut text = "{\"a\":1}\n".repeat(5_000);
        text.push_str("{\"a\":true}\n");
        let columns: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        for good in [0, 1_500, 5_000] {
            let mut search = Search::new(&columns, 0, good).expect("a search");
            assert_eq!(search.look(text.as_bytes()), Some(5_001), "{good}");
        }
    }

    #[test]
    fn files_are_shown_as_users_write_them() {
        assert_eq!(shown("file:///", &Path::from("tmp/a.json")), "/tmp/a.json");
        assert_eq!(shown("s3://lake/", &Path::from("in/a.json")), "s3://lake/in/a.json");
    }
}
