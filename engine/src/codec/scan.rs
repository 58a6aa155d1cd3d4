//! File scans: the plan travels without its files, so that its size does not grow with them, and with what the stock
//! encoding loses.
//!
//! ```text
//! stage plan: scan 0 [[a, b], [c]]     bytes: scan 0, 2 partitions     task 1: scan 0 [[], [c]]
//! ```
//!
//! A task's other file groups are empty, never absent: partition numbers, union offsets and declared partitionings
//! stay true, and no task reads another's files.

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use datafusion::common::{internal_datafusion_err, internal_err};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{CsvSource, FileGroup, FileScanConfig, FileScanConfigBuilder, FileSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::{self, PhysicalPlanNode};
use prost::Message;

use super::converter::{StageConverter, extension};
use super::text;
use crate::wire;

/// A scan whose files were taken out of an encoded plan.
#[derive(Debug)]
pub struct EncodedScan {
    /// The scan's node in the plan that was encoded.
    pub node: Arc<dyn ExecutionPlan>,
    /// Its files, by partition of the scan.
    pub groups: Vec<FileGroup>,
}

/// The files of one task, by scan.
#[derive(Debug, Clone, Default)]
pub struct TaskScans(BTreeMap<u32, ScannedFiles>);

/// The files of one scan.
#[derive(Debug, Clone, Default)]
struct ScannedFiles {
    /// The URL of their store.
    store: String,
    /// By partition.
    groups: BTreeMap<u32, FileGroup>,
}

impl TaskScans {
    /// The files of the partitions that a task `needs` of each scan, as a blob's content; `None` if there are none.
    ///
    /// # Errors
    /// A file has no encoding.
    pub fn encode(scans: &[EncodedScan], needs: &[Vec<Range<usize>>]) -> Result<Option<Vec<u8>>> {
        let mut spec = wire::ScanSpec::default();
        for ((scan, encoded), needs) in (0u32..).zip(scans).zip(needs) {
            let store = file_scan(&encoded.node).map(|scan| scan.object_store_url.to_string()).unwrap_or_default();
            let mut files = wire::ScanFiles { scan, partitions: Vec::new(), store };
            for (partition, group) in (0u32..).zip(&encoded.groups) {
                if needs.iter().any(|range| range.contains(&(partition as usize))) && !group.is_empty() {
                    let file_group = protobuf::FileGroup::try_from(group)?.encode_to_vec();
                    let tag = |file: &PartitionedFile| file.object_meta.e_tag.clone().unwrap_or_default();
                    let e_tags = group.files().iter().map(tag).collect();
                    files.partitions.push(wire::PartitionFiles { partition, file_group, e_tags });
                }
            }
            if !files.partitions.is_empty() {
                spec.scans.push(files);
            }
        }
        Ok((!spec.scans.is_empty()).then(|| spec.encode_to_vec()))
    }

    /// The inverse of [`Self::encode`].
    ///
    /// # Errors
    /// The bytes are damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let external = |e: prost::DecodeError| DataFusionError::External(Box::new(e));
        let mut scans: BTreeMap<u32, ScannedFiles> = BTreeMap::new();
        for scan in wire::ScanSpec::decode(bytes).map_err(external)?.scans {
            let scanned = scans.entry(scan.scan).or_default();
            scanned.store = scan.store;
            for files in scan.partitions {
                let group = protobuf::FileGroup::decode(files.file_group.as_slice()).map_err(external)?;
                let group = with_tags(FileGroup::try_from(&group)?, &files.e_tags);
                scanned.groups.insert(files.partition, group);
            }
        }
        Ok(Self(scans))
    }

    /// All files, each with its store's URL.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &PartitionedFile)> {
        self.0.values().flat_map(|scan| {
            let files = scan.groups.values().flat_map(FileGroup::files);
            files.map(move |file| (scan.store.as_str(), file))
        })
    }

    fn groups(&self, scan: u32, partitions: u32) -> Vec<FileGroup> {
        let files = self.0.get(&scan);
        (0..partitions).map(|p| files.and_then(|f| f.groups.get(&p)).cloned().unwrap_or_default()).collect()
    }
}

fn with_tags(group: FileGroup, tags: &[String]) -> FileGroup {
    let files = group.into_inner().into_iter().zip(tags).map(|(mut file, tag)| {
        file.object_meta.e_tag = Some(tag.clone()).filter(|tag| !tag.is_empty());
        file
    });
    FileGroup::new(files.collect())
}

fn without_statistics(group: &FileGroup) -> FileGroup {
    let files = group.files().iter().cloned().map(|mut file| {
        file.statistics = None;
        file
    });
    FileGroup::new(files.collect())
}

/// Encodes a file scan without its files; `None` for other nodes.
pub(super) fn encode(
    plan: &Arc<dyn ExecutionPlan>,
    codec: &dyn PhysicalExtensionCodec,
    converter: &StageConverter<'_>,
) -> Result<Option<PhysicalPlanNode>> {
    let Some(config) = file_scan(plan) else { return Ok(None) };
    let partitions = config.file_groups.len();
    // Column statistics of files are for planning, which is over; but several files in one group keep a declared
    // order only as far as their statistics prove it.
    let groups = match config.output_ordering.is_empty() {
        true => config.file_groups.iter().map(without_statistics).collect(),
        false => config.file_groups.clone(),
    };
    let scan = converter.take_files(EncodedScan { node: Arc::clone(plan), groups });
    let emptied =
        FileScanConfigBuilder::from(config.clone()).with_file_groups(vec![FileGroup::default(); partitions]).build();
    let emptied: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(emptied);
    let csv = config.file_source().downcast_ref::<CsvSource>();
    let node = wire::FileScanNode {
        scan: u32::try_from(scan).map_err(|_| internal_datafusion_err!("too many scans"))?,
        plan: converter.stock(&emptied, codec)?.encode_to_vec(),
        compression: config.file_compression_type.get_variant().to_string(),
        csv_terminator: csv.and_then(CsvSource::terminator).map(u32::from),
        partitions: u32::try_from(partitions).map_err(|_| internal_datafusion_err!("too many partitions"))?,
    };
    Ok(Some(extension(wire::plan_node::Node::FileScan(node), Vec::new())))
}

/// Decodes a file scan with the files of one task.
pub(super) fn decode(
    node: &wire::FileScanNode,
    scans: &TaskScans,
    task: &TaskContext,
    codec: &dyn PhysicalExtensionCodec,
    converter: &dyn PhysicalProtoConverterExtension,
) -> Result<Arc<dyn ExecutionPlan>> {
    let inner = PhysicalPlanNode::decode(node.plan.as_slice()).map_err(|e| DataFusionError::External(Box::new(e)))?;
    let plan = converter.proto_to_execution_plan(&inner, &PhysicalPlanDecodeContext::new(task, codec))?;
    let Some(config) = file_scan(&plan) else { return internal_err!("a file scan decoded as {}", plan.name()) };
    let compression = match node.compression.as_str() {
        "" => FileCompressionType::UNCOMPRESSED,
        name => FileCompressionType::from_str(name)?,
    };
    let source: Arc<dyn FileSource> = match config.file_source().downcast_ref::<CsvSource>() {
        Some(csv) => Arc::new(csv.with_terminator(node.csv_terminator.and_then(|t| u8::try_from(t).ok()))),
        None => Arc::clone(config.file_source()),
    };
    let config = FileScanConfigBuilder::from(config.clone())
        .with_source(text::naming(&source))
        .with_file_groups(scans.groups(node.scan, node.partitions))
        .with_file_compression_type(compression)
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

/// The configuration of a file scan; `None` for other nodes.
pub(crate) fn file_scan(plan: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()
}
