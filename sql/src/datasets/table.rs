//! A version of a dataset as DataFusion reads it: an ordinary scan of the files that may have rows.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{Statistics, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use object_store::ObjectMeta;
use tidemill_core::record::InputVersion;
use tidemill_core::{Error, Result};
use tidemill_engine::dataset::value_of;
use tidemill_engine::error::to_datafusion;

use super::folder::Folder;
use super::pruning;
use super::version::{ActiveFile, Version};

/// How many times as large rows are in memory as in files.
const INFLATED: usize = 3;

/// A table of one version.
#[derive(Clone)]
pub(crate) struct DatasetTable {
    /// What it is called, `schema.table`; its location, where it is not in the catalogue.
    pub(super) name: String,
    pub(super) folder: Folder,
    pub(super) version: Version,
}

impl fmt::Debug for DatasetTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.folder.location(), self.version.number)
    }
}

impl DatasetTable {
    /// The columns that divide it.
    pub(crate) fn partition_by(&self) -> &[String] {
        self.version.partition_by()
    }

    /// Where it lies.
    pub(crate) fn location(&self) -> &str {
        self.folder.location()
    }

    /// As those name it that read it.
    pub(super) fn input(&self) -> InputVersion {
        InputVersion { dataset: self.name.clone(), location: self.location().to_owned(), version: self.version.number }
    }

    /// The error where it is no table any more.
    pub(super) fn gone(&self) -> Error {
        Error::not_found(format!("there is no Delta table at {} any more", self.folder.location()))
    }

    /// Where a file is, with its partition's values.
    fn file(&self, file: &ActiveFile) -> Result<PartitionedFile> {
        let meta = ObjectMeta {
            location: self.folder.path(file.path()?.as_ref())?,
            // The log knows when a writer thought that it wrote: `pinned` compares sizes alone.
            last_modified: std::time::UNIX_EPOCH.into(),
            size: file.size,
            e_tag: None,
            version: None,
        };
        let value = |column: &String| {
            let field = self.version.schema.field_with_name(column)?;
            value_of(column, file.partition.get(column).and_then(|v| v.as_deref()), field.data_type())
        };
        let values: DataFusionResult<Vec<_>> = self.version.partition_by().iter().map(value).collect();
        let values = values.map_err(|e| tidemill_engine::error::from_datafusion(&e))?;
        Ok(PartitionedFile::new_from_meta(meta).with_partition_values(values))
    }

    /// A scan of some of the version's files.
    pub(super) async fn scan_of(
        &self,
        state: &dyn Session,
        files: Vec<&ActiveFile>,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema(), projection)?)));
        }
        let groups = self.groups(&files, state.config().target_partitions())?;
        self.scan_groups(state, groups, &files, projection, limit).await
    }

    /// A scan of these files, those of each list in a partition of their own.
    pub(super) async fn scan_in(
        &self,
        state: &dyn Session,
        lists: &[Vec<&ActiveFile>],
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let files: Vec<&ActiveFile> = lists.iter().flatten().copied().collect();
        let group = |list: &Vec<&ActiveFile>| {
            let files = list.iter().map(|file| self.file(file)).collect::<Result<Vec<_>>>();
            files.map(FileGroup::new).map_err(to_datafusion)
        };
        let groups = lists.iter().map(group).collect::<DataFusionResult<Vec<_>>>()?;
        self.scan_groups(state, groups, &files, None, None).await
    }

    async fn scan_groups(
        &self,
        state: &dyn Session,
        groups: Vec<FileGroup>,
        files: &[&ActiveFile],
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let (columns, order) = self.columns();
        let chosen = projection.cloned().unwrap_or_else(|| (0..order.len()).collect());
        let chosen = chosen.into_iter().filter_map(|index| order.get(index).copied()).collect();
        let statistics = statistics(files, columns.table_schema());
        let config = FileScanConfigBuilder::new(self.folder.root.clone(), Arc::new(ParquetSource::new(columns)))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(Some(chosen))?
            .with_limit(limit)
            .build();
        // As nanoseconds, which is how Spark stores them, times beyond 2262 would be other ones.
        let format = ParquetFormat::default()
            .with_options(state.default_table_options().parquet)
            .with_coerce_int96(Some("us".to_owned()));
        format.create_physical_plan(state, config).await
    }

    /// The columns as a scan has them, those of the partition last; and where each of the table's is among them.
    fn columns(&self) -> (TableSchema, Vec<usize>) {
        let is_key = |name: &String| self.version.partition_by().contains(name);
        let fields = self.version.schema.fields();
        let in_files: Vec<_> = fields.iter().filter(|field| !is_key(field.name())).cloned().collect();
        let by_name = |name: &String| fields.iter().find(|field| field.name() == name).cloned();
        let keys: Vec<_> = self.version.partition_by().iter().filter_map(by_name).collect();
        let names: Vec<String> = in_files.iter().chain(&keys).map(|field| field.name().clone()).collect();
        let place = |name: &String| names.iter().position(|other| other == name);
        let order = fields.iter().filter_map(|field| place(field.name())).collect();
        (TableSchema::builder(Arc::new(Schema::new(in_files))).with_table_partition_cols(keys).build(), order)
    }

    /// Files divided among partitions by their sizes.
    fn groups(&self, files: &[&ActiveFile], partitions: usize) -> DataFusionResult<Vec<FileGroup>> {
        let mut sorted = files.to_vec();
        sorted.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.raw.cmp(&b.raw)));
        let count = partitions.clamp(1, sorted.len().max(1));
        let mut groups: Vec<(u64, Vec<PartitionedFile>)> = vec![(0, Vec::new()); count];
        for file in sorted {
            let placed = self.file(file).map_err(to_datafusion)?;
            if let Some((bytes, group)) = groups.iter_mut().min_by_key(|(bytes, group)| (*bytes, group.len())) {
                *bytes += file.size;
                group.push(placed);
            }
        }
        Ok(groups.into_iter().map(|(_, files)| FileGroup::new(files)).collect())
    }
}

fn statistics(files: &[&ActiveFile], schema: &SchemaRef) -> Statistics {
    let mut statistics = Statistics::new_unknown(schema);
    let bytes: u64 = files.iter().map(|file| file.size).sum();
    statistics.total_byte_size =
        Precision::Inexact(usize::try_from(bytes).unwrap_or(usize::MAX).saturating_mul(INFLATED));
    let rows: Option<u64> = files.iter().map(|file| file.rows).sum();
    if let Some(rows) = rows {
        // Other writers may be wrong: what is counted is counted in the files.
        statistics.num_rows = Precision::Inexact(usize::try_from(rows).unwrap_or(usize::MAX));
    }
    statistics
}

#[async_trait]
impl TableProvider for DatasetTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.version.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let files = pruning::pruned(&self.version, state, filters)?;
        // Rows may be filtered out above.
        let limit = limit.filter(|_| filters.is_empty());
        self.scan_of(state, files, projection, limit).await
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        // Files are left out; rows are looked at all the same.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}
