//! The one file that a task writes at a time.
//!
//! Its memory is the task's own: where that is short, a row group ends earlier.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::parquet::arrow::{ArrowSchemaConverter, AsyncArrowWriter};
use datafusion::parquet::basic::{Compression, LogicalType, Type};
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
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
        let writer = AsyncArrowWriter::try_new(sink, Arc::clone(schema), Some(properties(schema)?))?;
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

/// How files are written. Floats have no bounds, wherever they are: Parquet's leave out what is not a number, which is greater than all
/// others for queries, and whoever reads would pass over such rows.
fn properties(schema: &SchemaRef) -> Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        // In this form, or other readers say that they do not trust what files say of texts.
        .set_created_by(concat!("tidemill version ", env!("CARGO_PKG_VERSION")).to_owned());
    for column in ArrowSchemaConverter::new().convert(schema)?.columns() {
        let is_float = matches!(column.physical_type(), Type::FLOAT | Type::DOUBLE)
            || matches!(column.logical_type_ref(), Some(LogicalType::Float16));
        if is_float {
            properties = properties.set_column_statistics_enabled(column.path().clone(), EnabledStatistics::None);
        }
    }
    Ok(properties.build())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float32Array, Float64Array, Int64Array, ListArray, StructArray};
    use arrow::datatypes::{DataType, Field, Float64Type};
    use datafusion::parquet::arrow::ArrowWriter;

    use super::*;

    #[test]
    fn floats_have_no_bounds_in_files_wherever_they_are() -> Result<()> {
        let part = |name: &str, kind| Arc::new(Field::new(name, kind, true));
        let parts: Vec<(Arc<Field>, ArrayRef)> = vec![
            (part("x", DataType::Float32), Arc::new(Float32Array::from(vec![1.0, f32::NAN]))),
            (part("y", DataType::Int64), Arc::new(Int64Array::from(vec![1, 2]))),
        ];
        let lists = [Some(vec![Some(1.0)]), Some(vec![Some(f64::NAN)])];
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("i", Arc::new(Int64Array::from(vec![1, 2]))),
            ("f", Arc::new(Float64Array::from(vec![1.0, f64::NAN]))),
            ("s", Arc::new(StructArray::from(parts))),
            ("l", Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(lists))),
        ];
        let batch = RecordBatch::try_from_iter(columns)?;
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties(&batch.schema())?))?;
        writer.write(&batch)?;
        let written = writer.close()?;
        let columns = written.row_group(0).columns().iter();
        let told: Vec<(&str, bool, bool)> = columns
            .map(|column| {
                let path = column.column_path().parts().first().map(String::as_str).unwrap_or_default();
                (path, column.statistics().is_some(), column.column_index_offset().is_some())
            })
            .collect();
        let (has, none) = ((true, true), (false, false));
        let expected = [("i", has), ("f", none), ("s", none), ("s", has), ("l", none)];
        assert_eq!(told, expected.map(|(path, (all, page))| (path, all, page)));
        Ok(())
    }
}
