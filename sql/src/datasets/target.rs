//! What a run does to a dataset, in a form that outlives the coordinator that planned it.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::ScalarValue;
use datafusion::execution::runtime_env::RuntimeEnv;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidemill_core::record::CatalogueEntry;
use tidemill_core::{Error, Result, RunId};
use tidemill_engine::dataset::{PartitionValues, decode_scalar, encode_scalar, value_of};
use tidemill_engine::error::from_datafusion;
use tidemill_engine::functions::Functions;
use tidemill_engine::planner::Commit;

use super::checks::{Bounds, Checks};
use super::commit::DatasetCommit;
use super::folder::Folder;
use super::pins::Datasets;
use super::pruning::{Bound, bound_of, nulls_of};
use super::version::{ActiveFile, FileStatistics, Version};

/// What a run commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(super) location: String,
    /// Whose files they are, see [`writer`].
    pub(super) writer: String,
    /// The version that it was planned on; none if it makes the table.
    pub(super) base: Option<u64>,
    /// What it makes the table with.
    pub(super) made: Option<Made>,
    pub(super) mode: Mode,
    /// By which it is known whether it was done.
    pub(super) application: String,
    pub(super) version: i64,
    /// What the commit says of itself.
    pub(super) info: BTreeMap<String, String>,
    pub(super) operation: String,
    pub(super) checkpoint_interval: u64,
    /// The table that stands in the catalogue then.
    pub(super) entry: Option<Named>,
    /// What must hold of the rows first.
    #[serde(default)]
    pub(super) checks: Checks,
}

/// A table's first words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) protocol: Value,
    pub(super) metadata: Value,
}

/// A table of the catalogue that is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) definition: String,
    /// The entry that it was planned to replace.
    pub(super) expected: Option<CatalogueEntry>,
}

/// Which files go when new ones come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Mode {
    /// None.
    Append,
    /// All.
    Overwrite,
    /// Those of these partitions.
    Partitions(Vec<TypedPartition>),
    /// Those whose rows are all from `from` to before `to`.
    Interval {
        column: String,
        from: Scalar,
        to: Scalar,
        /// And these, by their names in the log: their rows outside come in other files.
        #[serde(default)]
        crossing: BTreeSet<String>,
    },
    /// These, by their names in the log: their rows come in other files.
    Rewrite(BTreeSet<String>),
}

/// Values of partition columns, in their columns' types.
pub(super) type TypedPartition = BTreeMap<String, Scalar>;

/// The name under which a plan of a run writes: run ids are given again, by clients and by other clusters.
pub(super) fn writer(run: &RunId) -> String {
    format!("{run}-{}", ulid::Ulid::new())
}

/// A value of a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scalar(Vec<u8>);

impl Scalar {
    pub(super) fn new(value: &ScalarValue) -> Result<Self> {
        encode_scalar(value).map(Self).map_err(|e| from_datafusion(&e))
    }

    pub(super) fn value(&self) -> Result<ScalarValue> {
        decode_scalar(&self.0).map_err(|e| from_datafusion(&e))
    }
}

impl Target {
    /// What commits it.
    pub(crate) fn commit(
        &self,
        run: &RunId,
        runtime: &RuntimeEnv,
        functions: &Functions,
        datasets: &Datasets,
    ) -> Result<Box<dyn Commit>> {
        let folder = Folder::open(&self.location, runtime)?;
        let bounds = Bounds::of(runtime, functions);
        let planned = self.base.and_then(|base| datasets.remembered(folder.location(), base));
        Ok(Box::new(DatasetCommit { target: self.clone(), run: run.clone(), folder, bounds, planned }))
    }
}

impl Mode {
    /// As the log calls it.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Append => "Append",
            Self::Overwrite | Self::Partitions(_) | Self::Interval { .. } => "Overwrite",
            Self::Rewrite(_) => "Rewrite",
        }
    }

    pub(super) const fn replaces(&self) -> bool {
        !matches!(self, Self::Append)
    }

    /// Takes note of a version's files that lie partly in the interval, or nobody knows where: what they have outside is to come
    /// in other files.
    pub(super) fn cross(&mut self, version: &Version) -> Result<()> {
        let Self::Interval { column, from, to, crossing } = self else { return Ok(()) };
        let interval = (from.value()?, to.value()?);
        let column: &str = column;
        let is_across = |file: &&ActiveFile| {
            place_of(Some(&file.partition), file.statistics.as_deref(), column, &interval) == Place::Across
        };
        *crossing = version.files.values().filter(is_across).map(|file| file.raw.clone()).collect();
        Ok(())
    }

    /// Those that were noted, if there are any.
    pub(super) fn crossing(&self) -> Option<&BTreeSet<String>> {
        match self {
            Self::Interval { crossing, .. } => Some(crossing).filter(|files| !files.is_empty()),
            Self::Append | Self::Overwrite | Self::Partitions(_) | Self::Rewrite(_) => None,
        }
    }

    /// The files of a version that go.
    pub(super) fn replaced<'a>(&self, version: &'a Version) -> Result<Vec<&'a ActiveFile>> {
        let mut replaced = Vec::new();
        for file in version.files.values() {
            let goes = match self {
                Self::Append => false,
                Self::Overwrite => true,
                Self::Partitions(partitions) => {
                    let mut goes = false;
                    for of in partitions {
                        goes |= is_of(&file.partition, of)?;
                    }
                    goes
                }
                Self::Rewrite(files) => files.contains(&file.raw),
                Self::Interval { crossing, .. } if crossing.contains(&file.raw) => true,
                Self::Interval { column, from, to, .. } => {
                    let interval = (from.value()?, to.value()?);
                    match place_of(Some(&file.partition), file.statistics.as_deref(), column, &interval) {
                        Place::Inside => true,
                        Place::Outside => false,
                        Place::Across => return Err(across(file)),
                    }
                }
            };
            if goes {
                replaced.push(file);
            }
        }
        Ok(replaced)
    }
}

/// Statistics were read in another way when it was planned: what the file has outside was not written again.
fn across(file: &ActiveFile) -> Error {
    Error::conflict(format!(
        "the file {} may have rows outside of the interval that is to be replaced, and another build of tidemill planned that it has \
         none: nothing was changed, run the statement again",
        file.raw
    ))
}

/// Whether a partition is one of those that `of` means.
///
/// # Errors
/// Its values cannot be read.
pub(super) fn is_of(partition: &PartitionValues, of: &TypedPartition) -> Result<bool> {
    for (column, value) in of {
        let value = value.value()?;
        let text = partition.get(column).and_then(|text| text.as_deref());
        let theirs = value_of(column, text, &value.data_type()).map_err(|e| from_datafusion(&e))?;
        if theirs != value {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where a file's rows are, seen from an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Inside,
    Outside,
    /// Both, or who knows.
    Across,
}

/// Where the rows of a file of this partition and with these statistics are.
pub(super) fn place_of(
    partition: Option<&PartitionValues>,
    statistics: Option<&str>,
    column: &str,
    (from, to): &(ScalarValue, ScalarValue),
) -> Place {
    let Some(partition) = partition else { return Place::Across };
    let told = FileStatistics::of(statistics);
    let bound = |bound| bound_of(partition, &told, column, &from.data_type(), bound);
    let nulls = nulls_of(partition, &told, column);
    if nulls.is_some() && nulls == told.num_records {
        return Place::Outside;
    }
    let (Some(least), Some(greatest)) = (bound(Bound::Least), bound(Bound::Greatest)) else { return Place::Across };
    let is_before = |a: &ScalarValue, b: &ScalarValue| a.partial_cmp(b).is_some_and(std::cmp::Ordering::is_lt);
    if !is_before(&least, to) || is_before(&greatest, from) {
        return Place::Outside;
    }
    let is_inside = !is_before(&least, from) && is_before(&greatest, to) && nulls == Some(0);
    if is_inside { Place::Inside } else { Place::Across }
}
