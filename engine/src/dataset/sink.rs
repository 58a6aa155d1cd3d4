//! The sink of a task that writes into a dataset.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array};
use arrow::compute::{cast, partition};
use arrow::datatypes::{Field, FieldRef, Int8Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use async_trait::async_trait;
use datafusion::common::{ScalarValue, internal_err};
use datafusion::datasource::sink::DataSink;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tidemill_core::{Attempt, Error};

use super::file::{NewFile, OpenFile};
use super::values::folder_name;
use super::written::file_name;
use super::{DatasetWrite, NEW, PartitionValues, Within, Written, WrittenFile, manifest_name, value_of, value_text};
use crate::crash;
use crate::error::to_datafusion;

/// Bytes of a folder's name: disks have no longer ones.
const MAX_FOLDER: usize = 240;
/// Files of one task: more would be a mistake in what the table is divided by.
const MAX_FILES: usize = 20_000;

/// Writes rows, which come sorted by the partition columns, into files of a dataset.
#[derive(Debug, Clone)]
pub struct DatasetSink {
    write: DatasetWrite,
    /// Whose files they are; none while nobody writes.
    attempt: Option<(u32, Attempt)>,
}

impl DatasetSink {
    /// The sink of a plan.
    #[must_use]
    pub const fn new(write: DatasetWrite) -> Self {
        Self { write, attempt: None }
    }

    /// What is written.
    #[must_use]
    pub const fn write(&self) -> &DatasetWrite {
        &self.write
    }

    /// The sink of one attempt of one of the plan's tasks.
    #[must_use]
    pub fn of_attempt(&self, task: u32, attempt: Attempt) -> Self {
        Self { write: self.write.clone(), attempt: Some((task, attempt)) }
    }
}

impl DisplayAs for DatasetSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatasetSink({})", self.write.location)
    }
}

#[async_trait]
impl DataSink for DatasetSink {
    fn schema(&self) -> &SchemaRef {
        &self.write.schema
    }

    async fn write_all(&self, mut data: SendableRecordBatchStream, context: &Arc<TaskContext>) -> Result<u64> {
        let (writer, Some((task, attempt))) = (&self.write.writer, &self.attempt) else {
            return internal_err!("a dataset's sink has no attempt");
        };
        let folder = self.write.folder()?;
        let store = context.runtime_env().object_store(&folder)?;
        let name = |number| file_name(writer, *task, *attempt, number);
        let mut files = Files::new(&self.write, folder.prefix().clone(), Arc::clone(&store), context)?;
        let written = files.write_all(&mut data, &name).await;
        if let Err(error) = written {
            files.abort().await;
            return Err(error);
        }
        let (written, rows) = (Written { files: files.done }, files.rows);
        let list = below(folder.prefix(), &manifest_name(writer, *task, *attempt))?;
        crash::before("dataset.manifest");
        store.put(&list, written.encode().map_err(to_datafusion)?.into()).await?;
        crash::after("dataset.manifest");
        Ok(rows)
    }
}

/// A path below a table's folder.
fn below(folder: &Path, path: &str) -> Result<Path> {
    let whole = format!("{folder}/{path}");
    Path::parse(whole.trim_start_matches('/')).map_err(|e| DataFusionError::External(Box::new(e)))
}

/// The files of a task: at most one is open.
struct Files<'a> {
    write: &'a DatasetWrite,
    folder: Path,
    store: Arc<dyn ObjectStore>,
    context: &'a Arc<TaskContext>,
    /// Positions of the partition columns, in the order in which they divide.
    keys: Vec<usize>,
    /// Positions of the other columns, which are in the files.
    values: Vec<usize>,
    schema: SchemaRef,
    open: Option<OpenFile>,
    done: Vec<WrittenFile>,
    begun: usize,
    /// New ones alone.
    rows: u64,
}

impl<'a> Files<'a> {
    fn new(
        write: &'a DatasetWrite,
        folder: Path,
        store: Arc<dyn ObjectStore>,
        context: &'a Arc<TaskContext>,
    ) -> Result<Self> {
        let keys: Vec<usize> =
            write.partition_by.iter().map(|name| write.schema.index_of(name)).collect::<Result<_, _>>()?;
        let values: Vec<usize> = (0..write.schema.fields().len()).filter(|index| !keys.contains(index)).collect();
        // What Arrow knows beside names and types is of no interest to other readers.
        let schema = Arc::new(Schema::new(write.schema.project(&values)?.fields().clone()));
        let done = Vec::new();
        Ok(Self { write, folder, store, context, keys, values, schema, open: None, done, begun: 0, rows: 0 })
    }

    async fn write_all(
        &mut self,
        data: &mut SendableRecordBatchStream,
        name: &(impl Fn(usize) -> String + Sync),
    ) -> Result<()> {
        while let Some(batch) = data.try_next().await? {
            self.write(&batch, name).await?;
        }
        self.close().await
    }

    async fn write(&mut self, batch: &RecordBatch, name: &(impl Fn(usize) -> String + Sync)) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.check_nulls(batch)?;
        let marks = self.marks(batch)?;
        let mut keys: Vec<ArrayRef> = self.keys.iter().map(|index| Arc::clone(batch.column(*index))).collect();
        keys.extend(marks.map(|marks| Arc::new(marks.clone()) as ArrayRef));
        let ranges =
            if keys.is_empty() { std::iter::once(0..batch.num_rows()).collect() } else { partition(&keys)?.ranges() };
        let values = self.in_file(&batch.project(&self.values)?)?;
        for range in ranges {
            let of = self.partition(&keys, range.start)?;
            let mark = marks.map_or(NEW, |marks| marks.value(range.start));
            let rows = values.slice(range.start, range.len());
            if self.open.as_ref().is_some_and(|open| !open.is_of(&of, mark)) {
                self.close().await?;
            }
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.begin(of, mark, rows.schema_ref(), name)?,
            };
            let written = open.write(&rows).await;
            let is_full = open.size() >= self.write.file_bytes;
            self.open = Some(open);
            written?;
            if is_full {
                self.close().await?;
            }
            if mark == NEW {
                self.rows += range.len() as u64;
            }
        }
        Ok(())
    }

    /// The columns of files. Parts that the table declares NOT NULL are looked at, and may be missing in files, as other engines
    /// write them: where a whole structure is missing, a part that cannot be would be read as a zero.
    fn in_file(&self, values: &RecordBatch) -> Result<RecordBatch> {
        let column = |(field, column): (&FieldRef, &ArrayRef)| {
            if column.data_type() != field.data_type() {
                cast(column, field.data_type()).map_err(|error| {
                    to_datafusion(Error::invalid(format!(
                        "the column `{}` has a part that is NOT NULL, and some row has no value for it: {error}",
                        field.name()
                    )))
                })?;
            }
            Ok(Arc::new(Field::new(field.name(), column.data_type().clone(), field.is_nullable())))
        };
        let fields = self.schema.fields().iter().zip(values.columns()).map(column).collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), values.columns().to_vec())?)
    }

    /// Which rows are new, if others come, too.
    fn marks<'b>(&self, batch: &'b RecordBatch) -> Result<Option<&'b Int8Array>> {
        if !self.write.keeps {
            return Ok(None);
        }
        let marks = batch.columns().get(self.write.schema.fields().len());
        let marks = marks.and_then(|marks| marks.as_primitive_opt::<Int8Type>());
        match marks.filter(|marks| marks.null_count() == 0) {
            Some(marks) => Ok(Some(marks)),
            None => internal_err!("rows do not say whether they are new"),
        }
    }

    /// A table's columns may be declared to have values always.
    fn check_nulls(&self, batch: &RecordBatch) -> Result<()> {
        for (field, column) in self.write.schema.fields().iter().zip(batch.columns()) {
            if !field.is_nullable() && column.null_count() > 0 {
                return refused(format!("the column `{}` is NOT NULL, and some row has no value for it", field.name()));
            }
        }
        Ok(())
    }

    fn partition(&self, keys: &[ArrayRef], row: usize) -> Result<PartitionValues> {
        let columns = self.write.partition_by.iter().zip(keys);
        columns
            .map(|(name, key)| Ok((name.clone(), value_text(name, &ScalarValue::try_from_array(key, row)?)?)))
            .collect()
    }

    fn begin(
        &mut self,
        partition: PartitionValues,
        mark: i8,
        schema: &SchemaRef,
        name: &impl Fn(usize) -> String,
    ) -> Result<OpenFile> {
        if self.begun >= MAX_FILES {
            return Err(to_datafusion(Error::resources_exhausted(format!(
                "a task writes more than {MAX_FILES} files: divide the table by columns with fewer values"
            ))));
        }
        if mark == NEW {
            self.check_partition(&partition)?;
        }
        let mut path = String::new();
        for column in &self.write.partition_by {
            let folder = folder_name(column, partition.get(column).and_then(|value| value.as_deref()));
            if folder.len() > MAX_FOLDER {
                return Err(to_datafusion(Error::invalid(format!(
                    "a value of the partition column `{column}` takes {} bytes as a folder's name, and {MAX_FOLDER} is the most: divide \
                     the table by a shorter one",
                    folder.len()
                ))));
            }
            path.push_str(&folder);
            path.push('/');
        }
        path.push_str(&name(self.begun));
        self.begun += 1;
        let location = below(&self.folder, &path)?;
        let also = match &self.write.within {
            Within::Interval { column, .. } => Some(column.as_str()),
            Within::Everything | Within::Partitions(_) => None,
        };
        let file = NewFile { path, location, partition, mark, schema, also };
        OpenFile::create(file, Arc::clone(&self.store), self.context.memory_pool())
    }

    /// Rows outside of what is replaced would stay when it is replaced again.
    fn check_partition(&self, partition: &PartitionValues) -> Result<()> {
        match &self.write.within {
            Within::Partitions(allowed) => {
                let fits = |of: &PartitionValues| of.iter().all(|(column, value)| partition.get(column) == Some(value));
                match allowed.iter().any(fits) {
                    true => Ok(()),
                    false => refused(outside_of(partition, allowed)),
                }
            }
            Within::Interval { column, from, to } => match partition.get(column) {
                None => Ok(()),
                Some(text) => {
                    let value = value_of(column, text.as_deref(), &from.data_type())?;
                    check_interval(column, u64::from(value.is_null()), Some((&value, &value)), from, to)
                }
            },
            Within::Everything => Ok(()),
        }
    }

    /// Completes the open file.
    async fn close(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let checked = match &self.write.within {
            Within::Interval { column, from, to } => match open.statistics.of(column) {
                Some((_, bounds)) if open.mark != NEW => check_kept(column, bounds, from, to),
                Some((nulls, bounds)) => check_interval(column, nulls, bounds, from, to),
                None => Ok(()),
            },
            Within::Everything | Within::Partitions(_) => Ok(()),
        };
        if let Err(error) = checked {
            open.abort().await;
            return Err(error);
        }
        self.done.push(open.close().await?);
        Ok(())
    }

    async fn abort(&mut self) {
        if let Some(open) = self.open.take() {
            open.abort().await;
        }
    }
}

fn check_interval(
    column: &str,
    nulls: u64,
    bounds: Option<(&ScalarValue, &ScalarValue)>,
    from: &ScalarValue,
    to: &ScalarValue,
) -> Result<()> {
    let outside = |what: &str| {
        let (from, to) = (readable(from), readable(to));
        refused(format!(
            "some row has {what} in `{column}`, which is outside of the interval from {from} to before {to}"
        ))
    };
    if nulls > 0 {
        return outside("no value");
    }
    match bounds {
        Some((min, _)) if !min.partial_cmp(from).is_some_and(std::cmp::Ordering::is_ge) => outside(&readable(min)),
        Some((_, max)) if !max.partial_cmp(to).is_some_and(std::cmp::Ordering::is_lt) => outside(&readable(max)),
        _ => Ok(()),
    }
}

/// Rows of the interval are replaced: kept ones lie before it, or behind.
fn check_kept(
    column: &str,
    bounds: Option<(&ScalarValue, &ScalarValue)>,
    from: &ScalarValue,
    to: &ScalarValue,
) -> Result<()> {
    let Some((min, max)) = bounds else { return Ok(()) };
    let is_before = max.partial_cmp(from).is_some_and(std::cmp::Ordering::is_lt);
    let is_behind = min.partial_cmp(to).is_some_and(std::cmp::Ordering::is_ge);
    match is_before || is_behind {
        true => Ok(()),
        false => internal_err!(
            "rows from {} to {} in `{column}` would be kept, of which some are replaced",
            readable(min),
            readable(max)
        ),
    }
}

/// A value as people read it: a timestamp is no number.
fn readable(value: &ScalarValue) -> String {
    let text = value.to_array().ok().and_then(|value| array_value_to_string(&value, 0).ok());
    text.unwrap_or_else(|| value.to_string())
}

fn refused(what: String) -> Result<()> {
    Err(to_datafusion(Error::invalid(what)))
}

/// A row that belongs to none of the partitions that are replaced.
fn outside_of(partition: &PartitionValues, allowed: &[PartitionValues]) -> String {
    let (row, first) = (shown(partition), allowed.first().map(shown).unwrap_or_default());
    let replaced = match allowed.last().filter(|_| allowed.len() > 1) {
        Some(last) => format!("{} partitions are, from {first} to {}", allowed.len(), shown(last)),
        None => format!("{first} is"),
    };
    format!("some row belongs to {row}, which is not replaced: {replaced}")
}

fn shown(partition: &PartitionValues) -> String {
    let value = |(column, value): (&String, &Option<String>)| match value {
        Some(value) => format!("{column} = '{value}'"),
        None => format!("{column} IS NULL"),
    };
    partition.iter().map(value).collect::<Vec<_>>().join(" AND ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_another_partition_is_told_with_those_that_are_replaced() {
        let day = |day: &str| PartitionValues::from([("day".to_owned(), Some(day.to_owned()))]);
        let told = |allowed: &[PartitionValues]| outside_of(&day("2026-03-02"), allowed);
        assert_eq!(
            told(&[day("2026-03-01")]),
            "some row belongs to day = '2026-03-02', which is not replaced: day = '2026-03-01' is"
        );
        let two = told(&[day("2026-02-28"), day("2026-03-01")]);
        assert!(two.ends_with(": 2 partitions are, from day = '2026-02-28' to day = '2026-03-01'"), "{two}");
    }

    fn told(zone: Option<&str>) -> String {
        let at = |hours: i64| {
            let micros = 1_793_491_200_000_000 + hours * 3_600_000_000;
            ScalarValue::TimestampMicrosecond(Some(micros), zone.map(Into::into))
        };
        let bounds = (at(0), at(1));
        let checked = check_interval("h", 0, Some((&bounds.0, &bounds.1)), &at(0), &at(1));
        checked.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_row_outside_of_its_interval_is_told_with_its_time() {
        let zoned = told(Some("UTC"));
        let expected = "some row has 2026-11-01T01:00:00Z in `h`, which is outside of the interval from 2026-11-01T00:00:00Z to \
                        before 2026-11-01T01:00:00Z";
        assert!(zoned.contains(expected), "{zoned}");
        let plain = told(None);
        assert!(plain.contains("some row has 2026-11-01T01:00:00 in `h`"), "{plain}");
    }
}
