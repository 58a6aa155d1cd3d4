//! The one file that a task writes at a time.
//!
//! Its memory is the task's own: where that is short, a row group ends earlier.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::parquet::arrow::AsyncArrowWriter;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::file::properties::WriterProperties;
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;

use super::stats::Statistics;
use super::{NEW, PartitionValues, WrittenFile};

/// Bytes of a row group while it is in memory.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// Bytes that go to the store at once, and how many such parts at a time.
const PART_BYTES: usize = 8 << 20;
const PARTS_AT_ONCE: usize = 2;

/// A file that is being written.
pub(super) struct OpenFile {
    path: String,
    partition: PartitionValues,
    /// What its rows say of themselves.
    pub(super) mark: i8,
    writer: AsyncArrowWriter<BufWriter>,
    memory: MemoryReservation,
    pub(super) statistics: Statistics,
}

/// What a file is made of.
pub(super) struct NewFile<'a> {
    /// Below the table's folder.
    pub(super) path: String,
    /// In its store.
    pub(super) location: Path,
    pub(super) partition: PartitionValues,
    /// Whether its rows are new.
    pub(super) mark: i8,
    /// The columns that are in it.
    pub(super) schema: &'a SchemaRef,
    /// A column that has statistics wherever it is.
    pub(super) also: Option<&'a str>,
}

impl OpenFile {
    pub(super) fn create(file: NewFile<'_>, store: Arc<dyn ObjectStore>, pool: &Arc<dyn MemoryPool>) -> Result<Self> {
        let NewFile { path, location, partition, mark, schema, also } = file;
        let sink = BufWriter::with_capacity(store, location, PART_BYTES).with_max_concurrency(PARTS_AT_ONCE);
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("tidemill ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = AsyncArrowWriter::try_new(sink, Arc::clone(schema), Some(properties))?;
        let memory = MemoryConsumer::new("dataset file").register(pool);
        Ok(Self { path, partition, mark, writer, memory, statistics: Statistics::new(schema, also) })
    }

    /// Whether rows of this partition, and of this mark, belong here.
    pub(super) fn is_of(&self, partition: &PartitionValues, mark: i8) -> bool {
        self.mark == mark && self.partition == *partition
    }

    /// About how many bytes the file has.
    pub(super) fn size(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.statistics.add(batch)?;
        self.writer.write(batch).await?;
        let is_short = self.memory.try_resize(self.writer.memory_size()).is_err();
        if is_short || self.writer.in_progress_size() >= ROW_GROUP_BYTES {
            self.writer.flush().await?;
            self.memory.try_resize(self.writer.memory_size())?;
        }
        Ok(())
    }

    /// Completes the file.
    pub(super) async fn close(mut self) -> Result<WrittenFile> {
        self.writer.finish().await?;
        let modified = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Ok(WrittenFile {
            size: self.writer.bytes_written() as u64,
            rows: self.statistics.rows(),
            modified: i64::try_from(modified).unwrap_or(i64::MAX),
            statistics: self.statistics.json()?,
            kept: self.mark != NEW,
            path: self.path,
            partition: self.partition,
        })
    }

    /// Lets go of it: what was sent already is not kept.
    pub(super) async fn abort(self) {
        // It is swept with what other attempts left.
        let _ = self.writer.into_inner().abort().await;
    }
}
