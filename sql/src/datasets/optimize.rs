//! `OPTIMIZE`: small files become large ones, so many in one run as its plan may hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::physical_plan::ExecutionPlan;
use tidemill_core::Result;
use tidemill_engine::dataset::{DatasetWrite, Within};
use tidemill_engine::planner::Plan;

use super::Publication;
use super::statement::planned;
use super::target::{Mode, Target, writer};
use super::version::ActiveFile;
use super::write::{count, dataset, staged};
use crate::session::Planning;

/// A file of less than this part of the size to which files grow is small.
const SMALL_PART: u64 = 2;
/// Tasks of one OPTIMIZE.
const MAX_TASKS: usize = 256;
/// Files of one OPTIMIZE, and bytes of their names: these are in its plan, which the log of the coordinator keeps.
const MAX_FILES: usize = 10_000;
const MAX_NAMES: usize = 1 << 20;

/// `OPTIMIZE`: small files of a partition become large ones, in a version whose rows are the same. What is too much for
/// one run is left to the next.
pub(super) async fn optimize(planning: &Planning<'_>, name: &TableReference) -> Result<Plan> {
    let table = dataset(planning, name, "OPTIMIZE").await?;
    let (version, profile) = (&table.version, &table.version.profile);
    profile.check_write(table.folder.location())?;
    let bins = bins(version.files.values(), version.partition_by(), profile.file_bytes());
    if bins.is_empty() {
        return count(0);
    }
    let files: BTreeSet<String> = bins.iter().flatten().map(|file| file.raw.clone()).collect();
    let Publication { application, version: number, info, checks } = Publication::of_run(&planning.request.run);
    let rows: Arc<dyn ExecutionPlan> = planned(table.scan_in(&planning.context.state(), &bins).await)?;
    let write = DatasetWrite {
        location: table.folder.location().to_owned(),
        schema: Arc::clone(&version.declared),
        partition_by: version.partition_by().to_vec(),
        within: Within::Everything,
        keeps: false,
        file_bytes: profile.file_bytes(),
        writer: writer(&planning.request.run),
    };
    let target = Target {
        location: write.location.clone(),
        writer: write.writer.clone(),
        base: Some(version.number),
        made: None,
        mode: Mode::Rewrite(files),
        application,
        version: number,
        info,
        operation: "OPTIMIZE".to_owned(),
        checkpoint_interval: profile.checkpoint_interval(),
        entry: None,
        checks,
    };
    staged(planning, rows, write, target, vec![table.input()]).await
}

/// How much one OPTIMIZE takes on.
#[derive(Debug, Default)]
struct Taken {
    files: usize,
    names: usize,
}

impl Taken {
    /// Whether there is room for one more.
    fn takes(&mut self, file: &ActiveFile) -> bool {
        self.files += 1;
        self.names += file.raw.len();
        self.files <= MAX_FILES && self.names <= MAX_NAMES
    }
}

/// Small files that belong together, for each task.
fn bins<'a>(
    files: impl Iterator<Item = &'a ActiveFile>,
    partition_by: &[String],
    file_bytes: u64,
) -> Vec<Vec<&'a ActiveFile>> {
    let mut partitions: BTreeMap<Vec<Option<&str>>, Vec<&ActiveFile>> = BTreeMap::new();
    for file in files.filter(|file| file.size < file_bytes / SMALL_PART) {
        let key = partition_by.iter().map(|column| file.partition.get(column).and_then(|v| v.as_deref()));
        partitions.entry(key.collect()).or_default().push(file);
    }
    let mut bins: Vec<Vec<&ActiveFile>> = Vec::new();
    let mut taken = Taken::default();
    for small in partitions.into_values().filter(|small| small.len() > 1) {
        let (mut bin, mut bytes) = (Vec::new(), 0);
        for file in small.into_iter().take_while(|file| taken.takes(file)) {
            if bytes + file.size > file_bytes && bin.len() > 1 {
                bins.push(std::mem::take(&mut bin));
                bytes = 0;
            }
            bytes += file.size;
            bin.push(file);
        }
        // One alone would be written as it is.
        if bin.len() > 1 {
            bins.push(bin);
        }
    }
    let mut tasks: Vec<Vec<&ActiveFile>> = Vec::new();
    for (number, bin) in bins.into_iter().enumerate() {
        match tasks.get_mut(number % MAX_TASKS) {
            Some(task) => task.extend(bin),
            None => tasks.push(bin),
        }
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(count: usize, name: &str) -> Vec<ActiveFile> {
        let file = |number: usize| ActiveFile {
            raw: format!("{name}{number:06}"),
            size: 10,
            modified: 0,
            partition: [("k".to_owned(), Some((number % 2).to_string()))].into(),
            statistics: None,
            rows: None,
            has_vector: false,
        };
        (0..count).map(file).collect()
    }

    #[test]
    fn small_files_of_a_partition_come_together() {
        let files = files(10, "part-");
        let by = ["k".to_owned()];
        let names = |bins: Vec<Vec<&ActiveFile>>| -> Vec<Vec<String>> {
            bins.into_iter().map(|bin| bin.into_iter().map(|file| file.raw.clone()).collect()).collect()
        };
        let bins = names(bins(files.iter(), &by, 1_000));
        assert_eq!(bins.len(), 2);
        assert!(bins.iter().all(|bin| bin.len() == 5), "{bins:?}");
        // Of five, two and two come to the size of a file, and the last one would be written as it is.
        let bins = names(super::bins(files.iter(), &by, 25));
        assert_eq!(bins.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2, 2], "{bins:?}");
        assert!(super::bins(files.iter(), &by, 20).is_empty());
    }

    #[test]
    fn one_run_takes_on_no_more_than_its_plan_may_hold() {
        let count = |files: &[ActiveFile]| bins(files.iter(), &[], 1 << 30).iter().map(Vec::len).sum::<usize>();
        assert_eq!(count(&files(MAX_FILES + 5, "part-")), MAX_FILES);
        let long = "x".repeat(1_000);
        let taken = count(&files(2_000, &long));
        assert!(taken * (long.len() + 6) <= MAX_NAMES && taken > 1_000, "{taken}");
    }
}
