//! A version of a dataset: its columns and files, complete and never changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, MapArray, RecordBatch, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoArrow;
use deltalake_core::kernel::{Snapshot, StructType};
use object_store::path::Path;
use serde::Deserialize;
use tidemill_core::{Error, Result};
use tidemill_engine::dataset::{PartitionValues, WrittenFile};

use super::entry::in_log;
use super::log::Log;
use super::profile::Profile;
use super::types::{declared, readable};

/// A file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ActiveFile {
    /// As the log has it, which is what names it there.
    pub(super) raw: String,
    pub(super) size: u64,
    pub(super) modified: i64,
    pub(super) partition: PartitionValues,
    /// In Delta Lake's JSON.
    pub(super) statistics: Option<String>,
    /// Its rows, if the log says.
    pub(super) rows: Option<u64>,
    /// Whether some of its rows are deleted beside it.
    pub(super) has_vector: bool,
}

/// A version that was read.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) number: u64,
    /// Its columns, as they are read.
    pub(super) schema: SchemaRef,
    /// The same as they are written.
    pub(super) declared: SchemaRef,
    pub(super) profile: Arc<Profile>,
    /// By their names in the log.
    pub(super) files: Arc<BTreeMap<String, ActiveFile>>,
    /// What tells its entry from another one of its number.
    mark: Option<String>,
    /// In memory, about.
    pub(super) bytes: usize,
}

impl Version {
    /// Reads a version, the newest where none is named; `None` if there is no table.
    pub(super) async fn read(log: &Log, number: Option<u64>) -> Result<Option<Self>> {
        let Some(snapshot) = log.snapshot(number).await? else { return Ok(None) };
        let profile = profile_of(&snapshot)?;
        profile.check_read(log.folder.location())?;
        let schema: Schema = snapshot.schema().as_ref().try_into_arrow().map_err(|e: ArrowError| {
            Error::invalid(format!("the columns of {} have types that are not read: {e}", log.folder.location()))
        })?;
        let mut files = BTreeMap::new();
        for batch in log.files(&snapshot).await? {
            collect(&batch, &mut files)?;
        }
        let number = snapshot.version();
        let mark = log.mark(number).await?;
        let bytes = files.values().map(ActiveFile::bytes).sum();
        let (declared, schema) = (Arc::new(declared(&schema)), Arc::new(readable(&schema)));
        let (profile, files) = (Arc::new(profile), Arc::new(files));
        let version = Self { number, schema, declared, profile, files, mark, bytes };
        version.check_files(log.folder.location())?;
        Ok(Some(version))
    }

    /// The newest version, from this one and what was committed since; `None` where that does not lead to it.
    pub(super) async fn newer(&self, log: &Log) -> Result<Option<Self>> {
        if !self.is_there(log).await? {
            return Ok(None);
        }
        let mut newest = self.clone();
        while let Some(entry) = log.entry(newest.number + 1).await? {
            let Some(actions) = actions(&entry)? else { return Ok(None) };
            let files = Arc::make_mut(&mut newest.files);
            // The lines of an entry have no order: a file that gets a deletion vector is removed and added.
            let (removes, others): (Vec<_>, Vec<_>) = actions.into_iter().partition(|action| action.remove.is_some());
            for action in removes.into_iter().chain(others) {
                match action {
                    Action { remove: Some(remove), .. } => {
                        newest.bytes -= files.remove(&remove.path).map_or(0, |file| file.bytes());
                    }
                    Action { add: Some(add), .. } => {
                        let file = ActiveFile::from(add);
                        newest.bytes += file.bytes();
                        newest.bytes -= files.insert(file.raw.clone(), file).map_or(0, |file| file.bytes());
                    }
                    // Other columns or properties: these are read as a whole.
                    Action { metadata: Some(_), .. } | Action { protocol: Some(_), .. } => return Ok(None),
                    _ => {}
                }
            }
            newest.number += 1;
        }
        if newest.number > self.number {
            newest.mark = log.mark(newest.number).await?;
            newest.check_files(log.folder.location())?;
        }
        Ok(Some(newest))
    }

    /// Whether its entry is still there: a folder may have been emptied, and another table made there.
    pub(super) async fn is_there(&self, log: &Log) -> Result<bool> {
        Ok(self.mark.is_some() && log.mark(self.number).await? == self.mark)
    }

    /// The same columns over other files, which no version has yet.
    pub(super) fn of_written(self, files: Vec<WrittenFile>) -> Self {
        let files = files.into_iter().map(|file| {
            let raw = in_log(&file.path);
            let active = ActiveFile {
                raw: raw.clone(),
                size: file.size,
                modified: file.modified,
                partition: file.partition,
                rows: Some(file.rows),
                statistics: Some(file.statistics),
                has_vector: false,
            };
            (raw, active)
        });
        Self { files: Arc::new(files.collect()), mark: None, ..self }
    }

    /// The same columns over some of its files, by their names in the log.
    pub(super) fn of_files(&self, names: &BTreeSet<String>) -> Self {
        let named = names.iter().filter_map(|name| self.files.get_key_value(name));
        let files = named.map(|(name, file)| (name.clone(), file.clone())).collect();
        Self { files: Arc::new(files), mark: None, ..self.clone() }
    }

    fn check_files(&self, location: &str) -> Result<()> {
        match self.files.values().find(|file| file.has_vector) {
            Some(file) => Err(Error::invalid(format!(
                "the Delta table {location} needs `deletionVectors`, which is not read here: rows of {} are deleted beside it; \
                 let its writer purge them (REORG TABLE … APPLY (PURGE))",
                file.raw
            ))),
            None => Ok(()),
        }
    }

    pub(super) fn partition_by(&self) -> &[String] {
        &self.profile.partition_by
    }
}

impl ActiveFile {
    /// In memory, about: what is allocated for it, too.
    fn bytes(&self) -> usize {
        const ALLOCATED: usize = 32;
        let partition = self.partition.iter().map(|(column, value)| {
            column.len() + value.as_ref().map_or(0, String::len) + 2 * (size_of::<String>() + ALLOCATED)
        });
        let statistics = self.statistics.as_ref().map_or(0, |told| told.len() + ALLOCATED);
        // It is its own key in the version.
        2 * (self.raw.len() + size_of::<String>() + ALLOCATED)
            + size_of::<Self>()
            + statistics
            + partition.sum::<usize>()
    }

    /// Its place below the table's folder.
    pub(super) fn path(&self) -> Result<Path> {
        let decoded = percent_decoded(&self.raw)?;
        if decoded.contains("://") || decoded.starts_with('/') || is_url(&self.raw) {
            return Err(Error::invalid(format!(
                "the Delta table has a file outside of its own folder, {decoded}: tables that share files are not read here"
            )));
        }
        Path::parse(&decoded).map_err(|e| Error::invalid(format!("the Delta table names a file {decoded}: {e}")))
    }

    /// What the log says of its columns.
    pub(super) fn statistics(&self) -> FileStatistics {
        FileStatistics::of(self.statistics.as_deref())
    }
}

/// Whether it is a URL with a path of its own, `file:/x` as well.
fn is_url(path: &str) -> bool {
    let of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    path.split_once(":/").is_some_and(|(scheme, _)| !scheme.is_empty() && scheme.chars().all(of_scheme))
}

/// What the log says of a file's columns.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct FileStatistics {
    pub(super) num_records: Option<u64>,
    pub(super) min_values: BTreeMap<String, serde_json::Value>,
    pub(super) max_values: BTreeMap<String, serde_json::Value>,
    pub(super) null_count: BTreeMap<String, serde_json::Value>,
}

impl FileStatistics {
    /// From Delta Lake's JSON; what cannot be read says nothing.
    pub(super) fn of(json: Option<&str>) -> Self {
        json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }
}

/// Without reading all the rest: every scan asks.
fn rows_of(statistics: &str) -> Option<u64> {
    let (_, rest) = statistics.split_once("\"numRecords\":")?;
    let digits = rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn percent_decoded(text: &str) -> Result<String> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map(|text| text.into_owned()).map_err(|_| Error::invalid(format!("the file name {text} is no text")))
}

fn profile_of(snapshot: &Snapshot) -> Result<Profile> {
    let internal = |e: serde_json::Error| Error::internal(format!("a table's metadata: {e}"));
    let protocol = serde_json::to_value(snapshot.protocol()).map_err(internal)?;
    Profile::new(protocol, serde_json::to_value(snapshot.metadata()).map_err(internal)?)
}

/// The columns in Delta Lake's own words.
pub(super) fn columns_json(schema: &Schema) -> Result<String> {
    use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
    let wrong =
        |e: &dyn std::fmt::Display| Error::invalid(format!("the columns cannot be those of a Delta table: {e}"));
    let columns: StructType = schema.try_into_kernel().map_err(|e: ArrowError| wrong(&e))?;
    serde_json::to_string(&columns).map_err(|e| wrong(&e))
}

/// Files of a batch of the crate's, which has a row for each.
fn collect(batch: &RecordBatch, files: &mut BTreeMap<String, ActiveFile>) -> Result<()> {
    let damaged = |what: &str| Error::internal(format!("the log's files have no column `{what}`"));
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| damaged(name));
    let text = |name: &str| -> Result<_> { cast(column(name)?, &DataType::Utf8).map_err(|_| damaged(name)) };
    let number = |name: &str| -> Result<_> { cast(column(name)?, &DataType::Int64).map_err(|_| damaged(name)) };
    let (paths, sizes, times) = (text("path")?, number("size")?, number("modificationTime")?);
    let statistics = batch.column_by_name("stats").and_then(|column| cast(column, &DataType::Utf8).ok());
    let vectors = batch.column_by_name("deletionVector").and_then(|column| column.as_struct_opt());
    let constants = column("fileConstantValues")?.as_struct_opt().ok_or_else(|| damaged("fileConstantValues"))?;
    let partitions = constants.column_by_name("partitionValues").and_then(|column| column.as_map_opt());
    for row in 0..batch.num_rows() {
        let raw = paths.as_string::<i32>().value(row).to_owned();
        let size = u64::try_from(sizes.as_primitive::<Int64Type>().value(row)).unwrap_or_default();
        let told = statistics.as_ref().map(|s| s.as_string::<i32>()).filter(|s| s.is_valid(row));
        let file = ActiveFile {
            raw: raw.clone(),
            size,
            modified: times.as_primitive::<Int64Type>().value(row),
            partition: partitions.map(|map| values(map, row)).transpose()?.unwrap_or_default(),
            rows: told.and_then(|s| rows_of(s.value(row))),
            statistics: told.map(|s| s.value(row).to_owned()),
            has_vector: vectors.is_some_and(|vectors| has_vector(vectors, row)),
        };
        files.insert(raw, file);
    }
    Ok(())
}

fn values(map: &MapArray, row: usize) -> Result<PartitionValues> {
    if map.is_null(row) {
        return Ok(PartitionValues::new());
    }
    let entries = map.value(row);
    let text = |index: usize| {
        let column = entries.columns().get(index).map(|column| cast(column, &DataType::Utf8));
        column
            .and_then(std::result::Result::ok)
            .ok_or_else(|| Error::internal("partition values of the log are no texts"))
    };
    let (keys, values) = (text(0)?, text(1)?);
    let (keys, values) = (keys.as_string::<i32>(), values.as_string::<i32>());
    Ok(keys.iter().flatten().map(str::to_owned).zip(values.iter().map(|v| v.map(str::to_owned))).collect())
}

fn has_vector(vectors: &StructArray, row: usize) -> bool {
    let kind = vectors.column_by_name("storageType");
    vectors.is_valid(row) && kind.is_some_and(|kind| kind.is_valid(row))
}

/// A line of an entry.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Action {
    pub(super) add: Option<Add>,
    pub(super) remove: Option<Remove>,
    pub(super) txn: Option<Transaction>,
    #[serde(rename = "metaData")]
    pub(super) metadata: Option<serde_json::Value>,
    pub(super) protocol: Option<serde_json::Value>,
    #[serde(rename = "commitInfo")]
    pub(super) info: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Add {
    pub(super) path: String,
    #[serde(default)]
    pub(super) partition_values: PartitionValues,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    modification_time: i64,
    #[serde(default)]
    pub(super) stats: Option<String>,
    #[serde(default)]
    deletion_vector: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Remove {
    pub(super) path: String,
    #[serde(default)]
    pub(super) partition_values: Option<PartitionValues>,
    #[serde(default)]
    pub(super) stats: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Transaction {
    pub(super) app_id: String,
    pub(super) version: i64,
}

impl From<Add> for ActiveFile {
    fn from(add: Add) -> Self {
        Self {
            raw: add.path,
            size: add.size,
            modified: add.modification_time,
            partition: add.partition_values,
            rows: add.stats.as_deref().and_then(rows_of),
            statistics: add.stats,
            has_vector: add.deletion_vector.is_some_and(|vector| !vector.is_null()),
        }
    }
}

impl From<Remove> for ActiveFile {
    fn from(remove: Remove) -> Self {
        Self {
            raw: remove.path,
            size: 0,
            modified: 0,
            partition: remove.partition_values.unwrap_or_default(),
            rows: None,
            statistics: remove.stats,
            has_vector: false,
        }
    }
}

/// The lines of an entry; `None` where one cannot be read.
pub(super) fn actions(entry: &[u8]) -> Result<Option<Vec<Action>>> {
    let lines = serde_json::Deserializer::from_slice(entry).into_iter::<Action>();
    Ok(lines.collect::<std::result::Result<Vec<_>, _>>().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_outside_of_the_tables_folder_is_told_from_one_with_a_colon() {
        for outside in ["file:/tmp/x", "s3://lake/x", "s3a:/x"] {
            assert!(is_url(outside), "{outside}");
        }
        for inside in ["a:b.parquet", "at=2026-01-01 00:00:00/x", "k=a:/x", "x/y:/z", ":/x"] {
            assert!(!is_url(inside), "{inside}");
        }
    }
}
